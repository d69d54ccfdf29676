"""Ring blocks: what they say is what scapy says of the same bytes, and no bytes crash the parser."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from collector.packet.block import LinkType
from collector.packet.headers import parse
from collector.packet.live.epb import packet_blocks
from collector.packet.live.flows import LiveFlows
from collector.packet.live.settings import KeyRule
from collector.packet.live.tap_stamps import Found, stamp
from collector.packet.live.tpacket import BlockError, LiveBlock, block_records, read_block, read_records
from tests.collector.packet.live.blocks import Frame, ring_block

ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
PORTS = st.integers(1, 65_535)


@st.composite
def packets(draw: Any) -> Packet:
    payload = Raw(draw(st.binary(max_size=120)))
    transport = draw(
        st.sampled_from([UDP(sport=draw(PORTS), dport=draw(PORTS)), TCP(sport=draw(PORTS), dport=draw(PORTS)), ICMP()])
    )
    ttl, dscp = draw(st.integers(0, 255)), draw(st.integers(0, 63))
    network = draw(
        st.sampled_from(
            [
                IP(src="10.0.0.1", dst="10.0.0.2", ttl=ttl, tos=dscp << 2, id=1),
                IP(src="10.0.0.1", dst="10.0.0.2", ttl=ttl, tos=dscp << 2, flags="MF", id=1),
                IP(src="10.0.0.1", dst="10.0.0.2", ttl=ttl, tos=dscp << 2, frag=3, id=1),
                IPv6(src="fd00::1", dst="fd00::2", hlim=ttl, tc=dscp << 2),
            ]
        )
    )
    tags = draw(st.sampled_from([None, Dot1Q(vlan=7), Dot1AD(vlan=8) / Dot1Q(vlan=9)]))
    ether = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    return (ether / tags if tags is not None else ether) / network / transport / payload


@settings(max_examples=60)
@given(st.lists(packets(), min_size=1, max_size=12), st.booleans())
def test_the_columns_are_what_scapy_reads(given_packets: list[Packet], same_time: bool) -> None:
    raw = [bytes(p) for p in given_packets]
    frames = [
        Frame(data, 1_700_000_000_000_000_000 + (0 if same_time else n * 700_000_000)) for n, data in enumerate(raw)
    ]
    live = read_block(ring_block(frames), 0, 1 << 20, 3)
    assert live.block.ts_ns.tolist() == [f.ts_ns for f in frames]
    assert [live.block.packet(n) for n in range(len(raw))] == raw
    assert set(live.block.interface.tolist()) == {3}
    headers = parse(live.block)
    assert headers.row.tolist() == list(range(len(raw)))
    for n, data in enumerate(raw):
        seen = Ether(data)
        ip = seen[IP] if IP in seen else seen[IPv6]
        four = ip.version == 4
        assert headers.ttl[n] == (ip.ttl if four else ip.hlim)
        assert headers.dscp[n] == (ip.tos if four else ip.tc) >> 2
        assert headers.protocol[n] == (ip.proto if four else ip.nh)
        for layer in (UDP, TCP):
            if layer in seen and not (four and ip.frag):
                assert (headers.source_port[n], headers.target_port[n]) == (seen[layer].sport, seen[layer].dport)
                payload = bytes(seen[layer].payload)
                if not (four and ip.flags.MF):
                    assert headers.payload_len[n] == len(payload)
                    at = int(live.block.offset[n] + headers.payload[n])
                    assert live.block.data[at : at + len(payload)].tobytes() == payload


def everything(live: LiveBlock) -> None:
    headers = parse(live.block)
    LiveFlows(16).add(live, headers)
    stamp(Found(), "t", live, headers, (KeyRule(space="s", ports=(5_555,), offset=3, width=5),))
    packet_blocks(live, 0, np.arange(len(live)), 128)


@settings(max_examples=150)
@given(
    st.lists(st.binary(max_size=200), min_size=1, max_size=8),
    st.lists(st.tuples(st.integers(0, 4095), st.integers(0, 255)), max_size=20),
    st.sampled_from([LinkType.ETHERNET, LinkType.RAW]),
)
def test_arbitrary_frames_and_a_damaged_block_never_crash(
    frames: list[bytes], damage: list[tuple[int, int]], link: LinkType
) -> None:
    data = ring_block([Frame(f, wire=len(f) + 7, vlan=5 if len(f) % 3 == 0 else None) for f in frames], 4096)
    everything(read_block(data, 0, 4096, 0, link))
    for at, value in damage:
        data[at] = value
    try:
        live = read_block(data, 0, 4096, 0, link)
    except BlockError:
        return
    assert (live.block.offset >= 0).all()
    assert (live.block.offset + live.block.caplen <= 4096).all()
    everything(live)


@given(st.binary(max_size=300))
def test_any_bytes_behind_a_sound_ethernet_header(tail: bytes) -> None:
    kinds = (b"\x08\x00\x45\x00", b"\x86\xdd\x60\x00", b"\x81\x00\x00\x07\x08\x00")
    everything(read_block(ring_block([Frame(bytes(12) + kind + tail) for kind in kinds], 4096), 0, 4096, 0))


LYING = {
    "ip longer than the frame": lambda p: p.__setattr__("len", 9000),
    "ip shorter than its header": lambda p: p.__setattr__("len", 3),
    "header of 60 bytes that are not there": lambda p: p.__setattr__("ihl", 15),
    "header of 4 bytes": lambda p: p.__setattr__("ihl", 1),
}


@pytest.mark.parametrize("lie", LYING)
def test_lengths_that_lie_are_reasons_not_reads(lie: str) -> None:
    ip = IP(src="1.1.1.1", dst="2.2.2.2") / UDP(sport=1, dport=5_555, len=60_000) / bytes(20)
    LYING[lie](ip)
    live = read_block(ring_block([Frame(bytes(ETHER / ip))]), 0, 1 << 20, 0)
    assert parse(live.block).reason.any()
    everything(live)


def test_a_packet_that_looks_like_records_is_walked() -> None:
    second = (1_700_000_000).to_bytes(4, "little")
    frames = [Frame(bytes(6) + (bytes(4) + second) * 20), Frame(bytes(60)), Frame(bytes(6) + (bytes(4) + second) * 9)]
    live = read_block(ring_block(frames), 0, 1 << 20, 0)
    assert [live.block.packet(n) for n in range(3)] == [f.data for f in frames]


def test_an_untrue_count_is_an_error() -> None:
    data = ring_block([Frame(bytes(60)), Frame(bytes(70))])
    data[12] = 9
    with pytest.raises(BlockError, match="packet"):
        read_block(data, 0, 1 << 20, 0)


def test_a_tag_the_kernel_took_off_and_who_sent_and_whose_time() -> None:
    frames = [Frame(bytes(60), vlan=0x2007, outgoing=True), Frame(bytes(60), hardware=True)]
    live = read_block(ring_block(frames), 0, 1 << 20, 0)
    assert live.vlan.tolist() == [0x2007, -1]
    assert live.outgoing.tolist() == [True, False]
    assert live.hardware.tolist() == [False, True]


def test_joined_blocks_are_their_packets_one_after_another() -> None:
    one = ring_block([Frame(b"a" * 60), Frame(b"b" * 70)], 4096)
    two = ring_block([Frame(b"c" * 80)], 4096)
    data = np.concatenate([one[:4096], two])
    live = read_records(data, [block_records(data, at, 4096) for at in (0, 4096)], 0)
    assert [live.block.packet(n)[:1] for n in range(3)] == [b"a", b"b", b"c"]


def test_arp_is_no_ip() -> None:
    live = read_block(ring_block([Frame(bytes(ETHER / ARP()))]), 0, 1 << 20, 0)
    assert not len(parse(live.block).row)


def test_ipv6_fragments_have_no_ports() -> None:
    packet = ETHER / IPv6(src="fd00::1", dst="fd00::2") / IPv6ExtHdrFragment(offset=9, nh=17, id=1) / bytes(40)
    headers = parse(read_block(ring_block([Frame(bytes(packet))]), 0, 1 << 20, 0).block)
    assert headers.fragment.tolist() == [True]
    assert headers.source_port.tolist() == [0]
