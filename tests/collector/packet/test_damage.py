"""Captures that end anywhere or hold anything: what was good is kept, the byte is named, nothing breaks."""

from __future__ import annotations

import gzip
import resource
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.l2 import Dot1Q, Ether

from collector.packet.block import LARGEST_RECORD
from collector.packet.capture import Capture
from collector.packet.headers import parse
from collector.packet.importer import analyse
from tests.collector.packet import writing
from tests.collector.packet.writing import START, Packet

FRAMES = [
    Ether() / IP() / TCP() / b"abc",
    Ether() / Dot1Q() / IPv6() / IPv6ExtHdrDestOpt() / IPv6ExtHdrFragment() / UDP() / b"defg",
    Ether() / IP(options=b"\1\1\1\0") / UDP() / b"hi",
]
PACKETS: list[Packet] = [
    (START + i * 1_000_003, bytes(f).replace(b"\0\0\0\0\0\0\0", b"\0" * 7)) for i, f in enumerate(FRAMES * 3)
]
WHOLE = {
    "pcap": writing.pcap(PACKETS),
    "pcap-big-us": writing.pcap(PACKETS, ">", nano=False),
    "pcapng": writing.pcapng(PACKETS),
    "pcapng-big": writing.pcapng(PACKETS, ">"),
    "erf": writing.erf(PACKETS, 1),
    "gzip": gzip.compress(writing.pcap(PACKETS), mtime=0),
}


def read(file: Path) -> tuple[Capture, list[bytes]]:
    capture = Capture(file)
    return capture, [b.packet(i) for b in capture.blocks() for i in range(len(b))]


@pytest.mark.parametrize("name", [n for n in WHOLE if n != "gzip"])
def test_cut_at_every_byte(tmp_path: Path, name: str) -> None:
    raw = WHOLE[name]
    file = tmp_path / "cut"
    data = [d for _, d in PACKETS]
    ends = []  # byte behind each packet's record
    for count in range(len(PACKETS) + 1):
        part = {"pcap": writing.pcap, "pcapng": writing.pcapng, "erf": lambda p, _="<": writing.erf(p, 1)}[
            name.split("-")[0]
        ]
        order = ">" if "big" in name else "<"
        ends.append(len(part(PACKETS[:count], order)))
    # A cut between two blocks is a whole file; in a pcapng that is also behind the section header.
    clean = set(ends) | ({28} if name.startswith("pcapng") else set())
    for cut in range(len(raw)):
        file.write_bytes(raw[:cut])
        capture, got = read(file)
        assert got == data[: max(0, sum(e <= cut for e in ends[1:]))], cut
        if cut in clean and cut:
            assert capture.damage is None, cut
        else:
            assert capture.damage is not None, cut
            assert capture.damage.offset <= cut
            assert str(capture.damage).startswith(f"at byte {capture.damage.offset}: ")
        if cut > ends[0] and cut not in clean:  # the record that is cut is the one that is named
            assert capture.damage is not None
            assert capture.damage.offset == max(e for e in ends if e <= cut)


def test_a_gzip_file_cut_at_every_byte_keeps_whole_packets(tmp_path: Path) -> None:
    raw = WHOLE["gzip"]
    file = tmp_path / "cut.gz"
    data = [d for _, d in PACKETS]
    most = 0
    for cut in range(len(raw)):
        file.write_bytes(raw[:cut])
        capture, got = read(file)
        assert capture.damage is not None
        assert got == data[: len(got)]
        most = max(most, len(got))
    assert most == len(data)  # all was there before the check sum


def test_several_gzip_members_and_padding(tmp_path: Path) -> None:
    raw = WHOLE["pcap"]
    file = tmp_path / "a.gz"
    file.write_bytes(gzip.compress(raw[:100]) + gzip.compress(raw[100:]) + bytes(512))
    capture, got = read(file)
    assert capture.damage is None
    assert got == [d for _, d in PACKETS]


def test_a_gzip_file_that_expands_a_thousandfold_stays_in_bounded_memory(tmp_path: Path) -> None:
    packet = bytes(Ether() / IP() / UDP() / bytes(60_000))
    raw = writing.pcap([(START, packet)] * 100)
    body = raw[24:]
    file = tmp_path / "bomb.gz"
    with gzip.open(file, "wb", compresslevel=9) as out:
        out.write(raw[:24])
        for _ in range(50):
            out.write(body)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report = analyse([file])
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert report.packets == 5000
    assert report.bytes == 5000 * len(packet)
    assert file.stat().st_size * 100 < report.bytes
    assert grown < 150 << 20 < report.bytes


@pytest.mark.parametrize(
    ("raw", "kind", "packets", "offset", "says"),
    [
        (b"", "", 0, 0, "the file is empty"),
        (b"not a capture at all", "", 0, 0, "neither pcap, pcapng nor ERF: it starts with 6e 6f 74 20"),
        (
            writing.pcap(PACKETS[:1]) + struct.pack("<IIII", 1, 2, LARGEST_RECORD + 1, 60) + bytes(60),
            "pcap",
            1,
            len(writing.pcap(PACKETS[:1])),
            "a packet claims 262145 captured bytes",
        ),
        (
            writing.pcapng(PACKETS[:2]) + writing.enhanced(3, START, b"x"),
            "pcapng",
            2,
            len(writing.pcapng(PACKETS[:2])),
            "a packet names interface 3, but 1 are described",
        ),
        (
            writing.pcapng(PACKETS[:2]) + struct.pack("<IIIIIIII", 6, 32, 0, 0, 0, 9, 9, 32),
            "pcapng",
            2,
            len(writing.pcapng(PACKETS[:2])),
            "a packet claims 9 captured bytes, more than its block holds",
        ),
        (
            writing.pcapng(PACKETS[:2]) + struct.pack("<III", 6, 0, 0),
            "pcapng",
            2,
            len(writing.pcapng(PACKETS[:2])),
            "a block states 0 bytes",
        ),
        (
            writing.pcapng(PACKETS[:2]) + writing.enhanced(0, START, b"abcd")[:-4] + bytes(4),
            "pcapng",
            2,
            len(writing.pcapng(PACKETS[:2])),
            "a block's two lengths differ",
        ),
        (
            writing.pcapng(PACKETS[:2]) + b"\x0a\x0d\x0d\x0a" + bytes(24),
            "pcapng",
            2,
            len(writing.pcapng(PACKETS[:2])),
            "a section header with the byte-order magic 00000000",
        ),
        (
            writing.erf(PACKETS[:3]) + bytes(16),
            "erf",
            3,
            len(writing.erf(PACKETS[:3])),
            "a record of 0 bytes: an ERF record has at least 16",
        ),
    ],
)
def test_damage_names_the_byte_and_keeps_the_good(
    tmp_path: Path, raw: bytes, kind: str, packets: int, offset: int, says: str
) -> None:
    file = tmp_path / "a"
    file.write_bytes(raw)
    report = analyse([file])
    (entry,) = report.files
    assert (entry.kind, report.packets, entry.damage_offset) == (kind, packets, offset)
    assert says in entry.damage
    assert report.damaged


def test_a_snap_length_that_lies_costs_no_packet(tmp_path: Path) -> None:
    file = tmp_path / "a.pcap"
    file.write_bytes(writing.pcap(PACKETS, snaplen=10))
    assert read(file)[1] == [d for _, d in PACKETS]


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(sorted(WHOLE)),
    st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from([0, 1, 6, 0x7F, 0x80, 0xFF, None])), max_size=12),
    st.randoms(use_true_random=False),
)
def test_mutations_break_nothing(tmp_path_factory: pytest.TempPathFactory, name: str, changes, rnd) -> None:  # type: ignore[no-untyped-def]
    raw = bytearray(WHOLE[name])
    for at, value in changes:
        kind = rnd.randrange(4)
        at %= max(1, len(raw))
        if kind == 0:
            raw[at : at + 1] = bytes([rnd.randrange(256) if value is None else value])
        elif kind == 1:
            raw[at : at + 4] = rnd.choice([b"\xff\xff\xff\xff", bytes(4), b"\0\0\0\1", b"\x10\0\0\0", rnd.randbytes(4)])
        elif kind == 2:
            del raw[at : at + rnd.randrange(40)]
        else:
            raw[at:at] = raw[: rnd.randrange(200)]
    file = tmp_path_factory.mktemp("fuzz") / "a"
    file.write_bytes(bytes(raw))
    report = analyse([file])
    assert report.packets == report.files[0].packets
    assert report.packets <= len(raw) * (40 if name == "gzip" else 1) // 12
    assert report.tcp_packets == report.conversations["packets"].sum()
    report.to_dict()


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(FRAMES),
            st.lists(st.tuples(st.integers(0, 90), st.integers(0, 255)), max_size=4),
            st.integers(0, 120),
        ),
        min_size=1,
        max_size=25,
    ),
    st.sampled_from([0, 1, 12, 101, 108, 113, 197, 228, 229, 276, 9999]),
)
def test_hostile_packets_stay_inside_their_record(tmp_path_factory: pytest.TempPathFactory, packets, link: int) -> None:  # type: ignore[no-untyped-def]
    raws = []
    for frame, changes, size in packets:
        raw = bytearray(bytes(frame))
        for at, value in changes:
            raw[at % len(raw)] = value
        raws.append(bytes(raw[:size]))
    folder = tmp_path_factory.mktemp("hostile")
    figures = []
    # What lies behind a record must not matter: with other bytes there the answer is the same.
    for number, filler in enumerate((b"\0", b"\xff")):
        file = folder / f"{number}.pcap"
        spaced = [p for i, r in enumerate(raws) for p in ((START + i, r), (START + i, filler * 60))]
        file.write_bytes(writing.pcap(spaced, link=link))
        seen = []
        for block in Capture(file).blocks():
            headers = parse(block)
            ours = headers.row % 2 == 0
            assert (headers.payload[headers.payload >= 0] <= block.caplen[headers.row[headers.payload >= 0]] + 60).all()
            seen.append([headers.reason[::2].tolist(), headers.flow[ours].tolist(), headers.payload_len[ours].tolist()])
        figures.append(seen)
    assert figures[0] == figures[1]
