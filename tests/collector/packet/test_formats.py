"""Every container format, byte order and resolution gives the packets that were put in."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.l2 import Ether
from scapy.utils import PcapNgReader, PcapReader

from collector.packet.block import NO_TIME
from collector.packet.capture import Capture
from tests.collector.packet import writing
from tests.collector.packet.tshark import fields, ns
from tests.collector.packet.writing import START, Packet

PACKETS: list[Packet] = [(START + i * 1_234_567_000, bytes(range(i % 256)) * 3 + b"x" * 20) for i in range(300)]


def read(file: Path) -> tuple[Capture, list[Packet]]:
    capture = Capture(file)
    got = [(int(b.ts_ns[i]), b.packet(i)) for b in capture.blocks() for i in range(len(b))]
    return capture, got


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("nano", [True, False])
@pytest.mark.parametrize("packed", [True, False])
def test_pcap(tmp_path: Path, order: str, nano: bool, packed: bool) -> None:
    raw = writing.pcap(PACKETS, order, nano)
    file = tmp_path / "a.pcap"
    file.write_bytes(gzip.compress(raw) if packed else raw)
    capture, got = read(file)
    assert (capture.kind, capture.gzip, capture.damage) == ("pcap", packed, None)
    assert got == PACKETS
    with PcapReader(str(file)) as reader:
        assert [bytes(p) for p in reader] == [data for _, data in got]


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng(tmp_path: Path, order: str) -> None:
    file = tmp_path / "a.pcapng"
    file.write_bytes(writing.pcapng(PACKETS, order))
    capture, got = read(file)
    assert (capture.kind, capture.damage) == ("pcapng", None)
    assert got == PACKETS
    with PcapNgReader(str(file)) as reader:
        assert [bytes(p) for p in reader] == [data for _, data in got]


def test_pcapng_interfaces_have_their_own_clock_and_link(tmp_path: Path) -> None:
    frame = bytes(Ether() / b"data")
    ticks = {6: START // 1_000, 9: START, 3: START // 1_000_000, 10: START * 10, 0x80 | 20: (START << 20) // 10**9}
    raw = writing.section() + b"".join(
        writing.interface(link=1 if i % 2 else 101, resolution=r, offset_s=i) for i, r in enumerate(ticks)
    )
    raw += b"".join(writing.enhanced(i, t, frame) for i, t in enumerate(ticks.values()))
    raw += writing.block(5, struct.pack("<III", 0, 0, 0) + writing.option(5, struct.pack("<Q", 7)))
    raw += writing.block(0x0BAD, b"something else")
    # A second section, in the other byte order, starts its interfaces anew.
    raw += writing.section(">") + writing.interface(resolution=9, order=">") + writing.enhanced(0, START, frame, ">")
    file = tmp_path / "a.pcapng"
    file.write_bytes(raw)
    capture = Capture(file)
    rows = [(int(b.ts_ns[i]), int(b.link[i]), int(b.interface[i])) for b in capture.blocks() for i in range(len(b))]
    assert capture.damage is None
    assert capture.dropped == 7
    assert [r[1:] for r in rows] == [(101, 0), (1, 1), (101, 2), (1, 3), (101, 4), (1, 0)]
    assert [r[0] for r in rows] == [
        ns(x[0]) for x in fields(file, "frame.time_epoch") if x[0]
    ]  # it lists unknown blocks too


def test_simple_and_obsolete_packet_blocks(tmp_path: Path) -> None:
    raw = writing.section() + writing.interface(snap=10, resolution=9)
    raw += writing.block(3, struct.pack("<I", 30) + b"0123456789")
    raw += writing.block(2, struct.pack("<HHIIII", 0, 5, START >> 32, START & 0xFFFFFFFF, 3, 9) + b"abc")
    file = tmp_path / "a.pcapng"
    file.write_bytes(raw)
    (block,) = list(Capture(file).blocks())
    assert [block.packet(0), block.packet(1)] == [b"0123456789", b"abc"]
    assert block.ts_ns.tolist() == [NO_TIME, START]
    assert block.origlen.tolist() == [30, 9]


@pytest.mark.parametrize("extensions", [0, 1, 3])
@pytest.mark.parametrize("inside", [False, True])
def test_erf_alone_and_inside_pcap(tmp_path: Path, extensions: int, inside: bool) -> None:
    frames = [(START + i * 1_000_003, bytes(Ether(type=0x9000) / bytes(46 + i))) for i in range(40)]
    records = [writing.erf([frame], extensions) for frame in frames]
    file = tmp_path / "a"
    file.write_bytes(writing.pcap([(5, r) for r in records], link=197) if inside else b"".join(records))
    capture = Capture(file)
    (block,) = list(capture.blocks())
    assert (capture.kind, capture.damage) == ("pcap" if inside else "erf", None)
    assert [block.packet(i) for i in range(len(block))] == [data for _, data in frames]
    assert block.hw_ns is not None
    assert block.hw_ns.tolist() == block.ts_ns.tolist() == [ts for ts, _ in frames]
    assert block.link.tolist() == [1] * len(frames)
    if not inside:  # tshark takes the time of the pcap record, we the card's
        assert [ns(row[0]) for row in fields(file, "frame.time_epoch")] == [ts for ts, _ in frames]


def test_a_large_file_of_mixed_sizes_is_walked_like_a_small_one(tmp_path: Path) -> None:
    # Sizes jump, payloads look like record headers, and the file is longer than one chunk.
    fake = struct.pack("<IIII", 1_700_000_000, 5, 60, 60)
    packets = [(START + i * 1_000, (fake * 200)[: (i * 7919) % 3000]) for i in range(14_000)]
    file = tmp_path / "a.pcap"
    file.write_bytes(writing.pcap(packets))
    assert file.stat().st_size > 17 << 20
    capture, got = read(file)
    assert capture.damage is None
    assert got == packets


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**32 * 10**9 - 1), st.binary(max_size=90)), max_size=60), st.data())
def test_any_packets_come_back(
    tmp_path_factory: pytest.TempPathFactory, packets: list[Packet], data: st.DataObject
) -> None:
    file = tmp_path_factory.mktemp("any") / "a"
    order = data.draw(st.sampled_from("<>"))
    file.write_bytes(writing.pcap(packets, order) if data.draw(st.booleans()) else writing.pcapng(packets, order))
    capture, got = read(file)
    assert capture.damage is None
    assert got == packets
