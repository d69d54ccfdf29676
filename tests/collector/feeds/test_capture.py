"""Messages of captures: lines, sessions and gaps of UDP feeds; FIX over TCP with lost and repeated segments."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.decode import registry
from collector.decode.streams import HELD, WAITING, Direction
from collector.feeds.capture import CaptureDecoder
from collector.packet.importer import analyse
from collector.record import Columns
from tests.collector.decode.test_blocks import SESSION
from tests.collector.decode.test_fix import order
from tests.collector.feeds.captures import datagram, two_lines, write
from tests.collector.packet import writing
from tests.collector.packet.writing import START

DATA = os.environ.get("TAILSIGHT_REAL_DATA", "")


def decoded(
    file: Path, protocol: str = "auto", *groups: tuple[int, ...]
) -> tuple[list[dict[str, Any]], CaptureDecoder, list[Columns]]:
    stamped: list[Columns] = []
    decoder = CaptureDecoder(protocol, groups, stamped=stamped.append)
    analyse([file], also=decoder.take)
    return decoder.report(), decoder, stamped


def test_ports_are_lines_of_one_channel_when_they_are_named_together(tmp_path: Path) -> None:
    (one,), decoder, stamped = decoded(two_lines(tmp_path / "a.pcap"), "demo", (7001, 7002))
    a, b, both = one["lines"]
    assert [x["line"] for x in one["lines"]] == ["7001", "7002", "all"]
    assert (a["missing"], b["missing"], both["missing"]) == (2, 1, 1)
    assert (both["pairs"], both["divergent"]) == (8, 1)
    assert (a["won"], b["won"]) == (8, 1)
    assert b["skew"] == {"p50_ns": 30, "p99_ns": 30, "max_ns": 30}
    assert one["missing_ranges"] == [[4, 5]]
    assert one["sessions"] == [{"session": SESSION.decode(), "first": 1, "next": 11, "messages": 17}]
    assert sum(map(len, stamped)) == decoder.stamps == 17
    assert {t for c in stamped for t in c.text("service")} == {"demo-7001", "demo-7002"}
    assert {t for c in stamped for t in c.text("point")} == {"tap"}


def test_every_destination_is_a_channel_otherwise_and_what_is_no_protocol_is_counted(tmp_path: Path) -> None:
    found, decoder, _ = decoded(two_lines(tmp_path / "a.pcap"))
    assert [(one["channel"], one["protocol"], one["lines"][0]["missing"]) for one in found] == [
        ("10.0.0.1:7001", "demo", 2),
        ("10.0.0.1:7002", "demo", 1),
    ]
    assert decoder.undecoded == 1


def test_a_datagram_that_was_not_captured_whole_is_counted_and_not_decoded(tmp_path: Path) -> None:
    frame = datagram(7001, b"x" * 100)
    file = tmp_path / "a.pcap"
    raw = writing.pcap([(START, frame[:60])])
    file.write_bytes(raw[:36] + len(frame).to_bytes(4, "little") + raw[40:])
    found, decoder, _ = decoded(file, "demo")
    assert (found, decoder.cut) == ([], 1)


def fix_packets(pieces: list[bytes], seq: int = 100) -> list[tuple[int, bytes]]:
    packets = [(START, writing.tcp4(seq=seq - 1, flags=2))]
    for i, piece in enumerate(pieces):
        packets.append((START + (i + 1) * 1000, writing.tcp4(seq=seq, ack=1, payload=piece)))
        seq += len(piece)
    return packets


def test_fix_is_read_over_segments_that_were_cut_swapped_and_sent_again(tmp_path: Path) -> None:
    raw = b"".join(order(n) for n in range(1, 21))
    pieces = [raw[i : i + 77] for i in range(0, len(raw), 77)]
    packets = fix_packets(pieces)
    packets[3], packets[4] = (packets[3][0], packets[4][1]), (packets[4][0], packets[3][1])
    packets.insert(8, packets[6])
    (one,), _, stamped = decoded(write(tmp_path / "a.pcap", packets))
    assert one["protocol"] == "fix"
    assert one["kinds"] == {"D NewOrderSingle": 20}
    assert one["sessions"] == [{"session": "BUYER>VENUE", "first": 1, "next": 21, "messages": 20}]
    assert one["stream"] == {"holes": 0, "retransmitted_bytes": 77}
    assert one["faults"] == {}
    times = np.concatenate([c.values["ts_ns"] for c in stamped])
    assert (np.diff(times) >= 0).all()
    assert times[0] == START + 2000  # the packet that completes the first message


def test_a_segment_that_was_not_captured_is_a_hole_and_the_messages_behind_it_are_read(tmp_path: Path) -> None:
    raw = [order(n) for n in range(1, 31)]
    packets = fix_packets(raw)
    del packets[5]
    (one,), _, _ = decoded(write(tmp_path / "a.pcap", packets), "fix")
    assert one["stream"]["holes"] == 1
    assert one["lines"][0]["missing"] == 1
    assert sum(one["kinds"].values()) == 29


@settings(max_examples=60)
@given(st.binary(min_size=1, max_size=600), st.data())
def test_a_direction_gives_the_bytes_as_they_were_sent(raw: bytes, data: st.DataObject) -> None:
    cuts = sorted({0, len(raw), *data.draw(st.lists(st.integers(0, len(raw)), max_size=8))})
    start = data.draw(st.sampled_from([0, 77, 2**32 - 5]))
    segments = [((start + a) % 2**32, raw[a:b]) for a, b in pairwise(cuts)]
    again = data.draw(st.lists(st.sampled_from(segments), max_size=4)) if segments else []
    shuffled = data.draw(st.permutations(segments + again))
    direction = Direction()
    direction.syn((start - 1) % 2**32)
    for i, (seq, payload) in enumerate(shuffled):
        direction.segment(seq, payload, i)
    direction.flush()
    assert bytes(direction.data) == raw
    assert direction.holes == 0


def test_what_waits_for_a_lost_segment_is_bounded() -> None:
    direction = Direction()
    direction.syn(0)
    for i in range(1, 2000):
        direction.segment(1000 * i, b"x" * 1000, i)
    assert direction.holes >= 1
    assert direction._waiting <= WAITING
    direction.take(0)
    assert len(direction.data) <= HELD


@given(
    st.binary(min_size=300, max_size=2000), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=20)
)
@settings(max_examples=25)
def test_mutated_captures_never_raise(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, changes: list[tuple[int, int]]
) -> None:
    file = tmp_path_factory.mktemp("m") / "a.pcap"
    two_lines(file)
    packets = fix_packets([order(1), noise, order(2)])
    raw = bytearray(file.read_bytes() + writing.pcap(packets)[24:])
    for at, value in changes:
        raw[24 + at % (len(raw) - 24)] = value
    file.write_bytes(bytes(raw))
    for protocol in ("auto", "demo", "fix"):
        decoded(file, protocol)


@pytest.mark.real
@pytest.mark.skipif(not DATA, reason="set TAILSIGHT_REAL_DATA to the folder with the real market-data captures")
@pytest.mark.parametrize(
    ("name", "protocol", "messages", "first", "last"),
    [
        ("nasdaq-itch50-moldudp64", "itch", 39, 14764496, 19009154),
        ("cme-mdp3-incremental-refresh-book", "cme", 2, 1028095, 1028095),
        ("cme-mdp3-trade-summary", "cme", 5, 884140, 884140),
        ("iex-deep-plus-all-message-types", "iex", 447, 1, 59330),
    ],
)
def test_real_captures_have_their_numbers(name: str, protocol: str, messages: int, first: int, last: int) -> None:
    (one,), decoder, stamped = decoded(Path(DATA) / "marketdata" / f"{name}.pcap")
    assert (one["protocol"], one["messages"]) == (protocol, messages)
    assert [(s["first"], s["next"] - 1) for s in one["sessions"]] == [(first, last)]
    assert (one["faults"], one["malformed"], one["sampled"]["errors"], decoder.undecoded) == ({}, 0, 0, 0)
    units = {"cme": 1}.get(protocol, messages)
    assert sum(map(len, stamped)) == units
    if name.startswith("nasdaq"):
        assert one["lines"][0]["missing"] == 19009117 - 14764497  # the file is an excerpt
    if "incremental" in name:
        assert one["lines"][0]["delay_min_ns"] == 1536760535_679530000 - 1536760535_685381248  # earlier than sent


def test_connections_of_something_else_are_not_held(tmp_path: Path) -> None:
    packets = []
    for port in range(3000):
        packets.append((START + port, writing.tcp4(seq=1, flags=2, ports=(10_000 + port, 80))))
        packets.append((START + port, writing.tcp4(seq=2, payload=b"GET / HTTP/1.1", ports=(10_000 + port, 80))))
    packets += fix_packets([order(1)])
    (one,), decoder, _ = decoded(write(tmp_path / "a.pcap", packets))
    assert one["kinds"] == {"D NewOrderSingle": 1}
    assert len(decoder._directions) == 1


def test_an_unknown_decoder_is_refused_before_a_file_is_read() -> None:
    with pytest.raises(registry.UnknownDecoderError):
        CaptureDecoder("pitch")
