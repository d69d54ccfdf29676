"""Headers agree with scapy on what it builds, and with arithmetic on what lies."""

from __future__ import annotations

from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP, CookedLinux, Dot1AD, Dot1Q, Ether, Loopback
from scapy.packet import Packet, Raw

from collector.packet.capture import Capture
from collector.packet.headers import Headers, parse
from collector.packet.link import Reason
from tests.collector.packet import writing
from tests.collector.packet.tshark import fields
from tests.collector.packet.writing import START


def parsed(tmp_path: Path, *frames: bytes, link: int = 1) -> Headers:
    file = tmp_path / "a.pcap"
    file.write_bytes(writing.pcap([(START + i, f) for i, f in enumerate(frames)], link=link))
    (block,) = list(Capture(file).blocks())
    return parse(block)


DATA = Raw(b"payload")
V4 = IP(src="10.1.2.3", dst="10.3.2.1", ttl=61, tos=0xB8)
V6 = IPv6(src="2001:db8::1", dst="2001:db8::2", hlim=61, tc=0xB8)
SEGMENT = TCP(sport=4000, dport=443, seq=2**32 - 2, ack=77, flags="PA", window=321) / DATA
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")

LINKS: list[tuple[int, Packet]] = [
    (1, ETHER / V4 / SEGMENT),
    (1, ETHER / V6 / SEGMENT),
    (1, ETHER / Dot1Q(vlan=5) / V4 / SEGMENT),
    (1, ETHER / Dot1AD(vlan=5) / Dot1Q(vlan=6) / V6 / SEGMENT),
    (1, ETHER / Dot1Q() / Dot1Q() / Dot1Q() / Dot1Q() / V4 / SEGMENT),
    (101, V4 / SEGMENT),
    (101, V6 / SEGMENT),
    (228, V4 / SEGMENT),
    (229, V6 / SEGMENT),
    (113, CookedLinux(proto=0x800) / V4 / SEGMENT),
    (0, Loopback(type=2) / V4 / SEGMENT),
    (276, Raw(b"\x86\xdd" + bytes(18)) / V6 / SEGMENT),
    (108, Raw(b"\0\0\0\x1e") / V6 / SEGMENT),
    (1, ETHER / IP(src="10.1.2.3", dst="10.3.2.1", ttl=61, tos=0xB8, options=b"\x01\x01\x01\x00") / SEGMENT),
    (1, ETHER / V6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrRouting() / IPv6ExtHdrDestOpt() / SEGMENT),
    (1, ETHER / V6 / IPv6ExtHdrFragment(m=0, offset=0, nh=6) / SEGMENT),
]


@pytest.mark.parametrize(("link", "packet"), LINKS, ids=[f"{n}-{p.summary()[:60]}" for n, p in LINKS])
@pytest.mark.parametrize("padding", [0, 13])
def test_every_way_to_the_same_segment(tmp_path: Path, link: int, packet: Packet, padding: int) -> None:
    raw = bytes(packet) + bytes(padding)
    headers = parsed(tmp_path, raw, link=link)
    assert headers.reason.tolist() == [0]
    assert headers.protocol.tolist() == [6]
    assert (headers.source_port.tolist(), headers.target_port.tolist()) == ([4000], [443])
    assert (headers.ttl.tolist(), headers.dscp.tolist()) == ([61], [46])
    tcp = headers.tcp
    assert [x.tolist() for x in (tcp.seq, tcp.ack, tcp.length, tcp.flags, tcp.window)] == [
        [2**32 - 2],
        [77],
        [7],
        [0x18],
        [321],
    ]
    start = int(headers.payload[0])
    assert raw[start : start + int(headers.payload_len[0])] == b"payload"
    assert int(headers.ip_end[0]) == len(raw) - padding


def test_columns_agree_with_tshark_on_a_mixed_capture(tmp_path: Path) -> None:
    packets = [p for n, p in LINKS if n == 1]
    packets += [ETHER / V4 / UDP(sport=i, dport=53) / Raw(bytes(i)) for i in range(1, 40)]
    packets += [ETHER / V6 / UDP(sport=i, dport=53) / Raw(bytes(i)) for i in range(1, 40)]
    packets += [ETHER / V4 / ICMP(), ETHER / ARP()]
    frames = [bytes(p) for p in packets]
    headers = parsed(tmp_path, *frames)
    rows = fields(
        tmp_path / "a.pcap", "udp.srcport", "udp.length", "tcp.srcport", "tcp.len", "ip.ttl", "ipv6.hlim", "udp.stream"
    )
    for column, at in enumerate(headers.row.tolist()):
        want = rows[at]
        assert int(headers.source_port[column]) == int(want[0] or want[2] or 0)
        if want[0] or want[2]:
            assert int(headers.payload_len[column]) == (int(want[1]) - 8 if want[0] else int(want[3]))
        assert int(headers.ttl[column]) == int(want[4] or want[5])
    assert len(rows) - len(headers.row) == 1  # ARP
    assert headers.reason.tolist() == [0] * len(rows)


def test_a_flow_has_one_name_both_ways(tmp_path: Path) -> None:
    frames = []
    for ip in (V4, V6):
        back = ip.copy()
        back.src, back.dst = ip.dst, ip.src
        frames += [ETHER / ip / TCP(sport=1, dport=2), ETHER / back / TCP(sport=2, dport=1)]
        frames += [ETHER / ip / TCP(sport=2, dport=1), ETHER / ip / UDP(sport=1, dport=2)]
    headers = parsed(tmp_path, *map(bytes, frames))
    names = headers.flow.tolist()
    assert names[0] == names[1]
    assert names[4] == names[5]
    assert len(set(names)) == 6
    assert headers.swapped[0] != headers.swapped[1]
    assert headers.swapped[4] != headers.swapped[5]


def test_fragments_are_told_apart(tmp_path: Path) -> None:
    whole = IP(src="1.1.1.1", dst="2.2.2.2", id=9) / UDP(sport=7, dport=8) / Raw(bytes(3000))
    later6 = ETHER / V6 / IPv6ExtHdrFragment(m=1, offset=100, nh=17) / Raw(bytes(64))
    tcp_first = ETHER / IP(flags="MF") / TCP() / Raw(bytes(100))
    frames = [bytes(ETHER / f) for f in fragment(whole, 1000)] + [bytes(later6), bytes(tcp_first)]
    headers = parsed(tmp_path, *frames)
    assert headers.fragment.tolist() == [True] * len(frames)
    assert headers.first.tolist() == [True, *[False] * (len(frames) - 2), True]
    assert headers.source_port.tolist()[:2] == [7, 0]
    assert len(headers.tcp.index) == 0  # how long the segment is cannot be known


def lie(at: int, value: bytes, frame: Packet | None = None) -> bytes:
    raw = bytearray(bytes(frame if frame is not None else ETHER / V4 / SEGMENT))
    raw[at : at + len(value)] = value
    return bytes(raw)


LIES = [
    (lie(14, b"\x65"), Reason.IP_VERSION, False),
    (lie(14, b"\x44"), Reason.IP_HEADER_LENGTH, False),
    (lie(14, b"\x4f"), Reason.IP_TOTAL_LENGTH, False),
    (lie(16, b"\x00\x13"), Reason.IP_TOTAL_LENGTH, False),
    (lie(16, b"\xff\xff"), Reason.IP_TOTAL_LENGTH, True),
    (lie(16, b"\x00\x1e"), Reason.SHORT, False),
    (lie(46, b"\x10"), Reason.TCP_HEADER_LENGTH, False),
    (lie(46, b"\xf0"), Reason.TCP_HEADER_LENGTH, False),
    (lie(14, b"\x40", ETHER / V6 / SEGMENT), Reason.IP_VERSION, False),
    (lie(18, b"\xff\xff", ETHER / V6 / SEGMENT), Reason.IPV6_PAYLOAD_LENGTH, True),
    (lie(55, b"\xff", ETHER / V6 / IPv6ExtHdrHopByHop() / SEGMENT), Reason.IPV6_EXTENSIONS, False),
    (lie(38, b"\x00\x03", ETHER / V4 / UDP() / DATA), Reason.UDP_LENGTH, False),
    (lie(38, b"\x7f\xff", ETHER / V4 / UDP() / DATA), Reason.UDP_LENGTH, False),
    (bytes(ETHER / Dot1Q() / Dot1Q() / Dot1Q() / Dot1Q() / Dot1Q() / V4 / SEGMENT), Reason.VLAN_DEPTH, False),
    (bytes(ETHER / V4 / SEGMENT)[:30], Reason.SHORT, False),
    (bytes(ETHER)[:9], Reason.SHORT, False),
    (
        bytes(
            ETHER
            / V6
            / IPv6ExtHdrDestOpt()
            / IPv6ExtHdrDestOpt()
            / (IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt())
            / (
                IPv6ExtHdrDestOpt()
                / IPv6ExtHdrDestOpt()
                / IPv6ExtHdrDestOpt()
                / IPv6ExtHdrDestOpt()
                / IPv6ExtHdrDestOpt()
            )
            / IPv6ExtHdrDestOpt()
            / IPv6ExtHdrDestOpt()
            / IPv6ExtHdrDestOpt()
            / IPv6ExtHdrDestOpt()
            / SEGMENT
        ),
        Reason.IPV6_EXTENSIONS,
        False,
    ),
]


@pytest.mark.parametrize(("raw", "reason", "analysed"), LIES, ids=[f"{i}-{r.name}" for i, (_, r, _) in enumerate(LIES)])
def test_lies_are_counted_by_reason(tmp_path: Path, raw: bytes, reason: Reason, analysed: bool) -> None:
    good = bytes(ETHER / V4 / SEGMENT)
    headers = parsed(tmp_path, good, raw, good)
    assert headers.reason.tolist() == [0, reason, 0]
    assert len(headers.tcp.index) == 2 + analysed


def test_a_snap_length_is_not_the_packets_fault(tmp_path: Path) -> None:
    raw = bytes(ETHER / V4 / SEGMENT)
    file = tmp_path / "a.pcap"
    whole = writing.pcap([(START, raw[:40])])
    file.write_bytes(whole[:36] + len(raw).to_bytes(4, "little") + whole[40:])
    (block,) = list(Capture(file).blocks())
    assert parse(block).reason.tolist() == [Reason.CUT]


def test_segments_before_the_nic_cuts_them_have_no_ip_length(tmp_path: Path) -> None:
    for frame, at in ((ETHER / V4 / SEGMENT, 16), (ETHER / V6 / SEGMENT, 18)):
        headers = parsed(tmp_path, lie(at, b"\0\0", frame))
        assert headers.reason.tolist() == [0]
        assert headers.tcp.length.tolist() == [7]
