"""Hardware time trailers decode to what Wireshark's dissectors read."""

# ruff: noqa: S311  # seeded test data
from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from collector.packet.block import NO_TIME
from collector.packet.capture import Capture
from collector.packet.headers import parse
from collector.packet.importer import analyse
from collector.packet.trailers import Trailer, detect, hardware_times
from tests.collector.packet import writing
from tests.collector.packet.tshark import fields, ns
from tests.collector.packet.writing import START


def metamako(ts: int, extension: bool = False) -> bytes:
    seconds, nanos = divmod(ts, 1_000_000_000)
    more = b"\x12\x34\x56\x00" + struct.pack(">I", (1 << 6) | (1 << 5) | 1) if extension else b""
    return b"\xde\xad\xbe\xef" + more + struct.pack(">IIBHB", seconds, nanos, 1 | (2 if extension else 0), 77, 5)


def exablaze(ts: int) -> bytes:
    seconds, nanos = divmod(ts, 1_000_000_000)
    fraction = (nanos << 40) // 1_000_000_000 + 1
    return b"\xde\xad\xbe\xef" + struct.pack(">BBI", 3, 4, seconds) + fraction.to_bytes(5, "big") + b"\0"


def frames(trailer: Trailer, fcs: bool) -> list[tuple[int, bytes]]:
    rnd = random.Random(1)
    out = []
    for i in range(60):
        ts = START + i * 1_000_007
        body = bytes(Ether() / IP() / UDP() / bytes(rnd.choice([100, 300, 18])))
        ours = metamako(ts - 5_000, i % 3 == 0) if trailer is Trailer.METAMAKO else exablaze(ts - 5_000)
        out.append((ts, body + ours + (rnd.randbytes(4) if fcs else b"")))
    return out


@pytest.mark.parametrize("trailer", list(Trailer))
@pytest.mark.parametrize("fcs", [False, True])
def test_a_trailer_is_found_and_read_as_wireshark_reads_it(tmp_path: Path, trailer: Trailer, fcs: bool) -> None:
    file = tmp_path / "a.pcap"
    packets = frames(trailer, fcs)
    file.write_bytes(writing.pcap(packets))
    (block,) = list(Capture(file).blocks())
    headers = parse(block)
    assert detect(block, headers) is trailer
    got = hardware_times(block, headers, trailer).tolist()
    assert got == [ts - 5_000 for ts, _ in packets]
    name, on, off = {
        Trailer.METAMAKO: ("metamako.time", "metamako_eth", "exablaze_eth"),
        Trailer.EXABLAZE: ("exablaze.timestamp", "exablaze_eth", "metamako_eth"),
    }[trailer]
    options = ("--enable-heuristic", on, "--disable-heuristic", off, "-o", "eth.fcs:never")
    shown = [row[0] for row in fields(file, name, options=options)]
    # A date with nanoseconds: the part of the second tells.
    assert [ns("0." + text.split(".")[1][:9]) for text in shown] == [ts % 1_000_000_000 for ts in got]


def test_the_report_states_the_difference_from_the_hardware(tmp_path: Path) -> None:
    file = tmp_path / "a.pcap"
    file.write_bytes(writing.pcap(frames(Trailer.METAMAKO, True)))
    report = analyse([file])
    assert report.files[0].trailer == "metamako"
    assert (report.hardware.samples, report.hardware.min_ns, report.hardware.max_ns) == (60, 5_000, 5_000)


@pytest.mark.parametrize("filler", [b"\0", b"\x55", None])
def test_padding_is_no_trailer(tmp_path: Path, filler: bytes | None) -> None:
    rnd = random.Random(2)
    packets = [
        (START + i, bytes(Ether() / IP() / UDP()) + (filler * 24 if filler else rnd.randbytes(24))) for i in range(50)
    ]
    file = tmp_path / "a.pcap"
    file.write_bytes(writing.pcap(packets))
    (block,) = list(Capture(file).blocks())
    assert detect(block, parse(block)) is None
    report = analyse([file])
    assert (report.files[0].trailer, report.hardware.samples) == ("", 0)


def test_one_packet_without_a_trailer_has_no_hardware_time(tmp_path: Path) -> None:
    packets = frames(Trailer.METAMAKO, False)
    packets[7] = (packets[7][0], bytes(Ether() / IP() / UDP() / bytes(50)))
    file = tmp_path / "a.pcap"
    file.write_bytes(writing.pcap(packets))
    (block,) = list(Capture(file).blocks())
    got = hardware_times(block, parse(block), Trailer.METAMAKO)
    assert [i for i, t in enumerate(got.tolist()) if t == NO_TIME] == [7]
