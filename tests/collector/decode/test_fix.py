"""FIX streams: messages found and checked as a plain parser would, whatever the pieces."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from collector.decode import Fault
from collector.decode.fix import FixDecoder
from collector.keys import hash64


def fix(body: str, begin: str = "FIX.4.2") -> bytes:
    raw = body.replace("|", "\x01").encode()
    front = f"8={begin}\x019={len(raw)}\x01".encode() + raw
    return front + b"10=%03d\x01" % (sum(front) % 256)


def order(number: int, kind: str = "D", more: str = "") -> bytes:
    sent = f"52=20260102-03:04:05.{number % 1000:03d}"
    return fix(f"35={kind}|49=BUYER|56=VENUE|34={number}|{sent}|11=ord{number}|55=MSFT|{more}")


def decode(raw: bytes, decoder: FixDecoder | None = None):  # type: ignore[no-untyped-def]
    decoder = decoder or FixDecoder()
    data = np.frombuffer(raw, np.uint8)
    return decoder.decode(data, np.array([0]), np.array([len(data)])), int(decoder.taken[0])


def test_messages_have_number_type_session_time_symbol_and_key() -> None:
    got, taken = decode(order(7) + order(8, "8"))
    assert got.sequence.tolist() == [7, 8]
    assert got.by_kind() == {"D NewOrderSingle": 1, "8 ExecutionReport": 1}
    assert set(got.sessions.values()) == {"BUYER>VENUE"}
    assert got.time_ns is not None
    assert got.time_ns.tolist() == [1767323045007000000, 1767323045008000000]
    assert FixDecoder().describe(int(got.instrument[0])) == "MSFT"
    assert int(got.key[0]) == hash64("fix", b"BUYER\x01VENUE\x01" + (7).to_bytes(8, "little"))
    assert taken == len(order(7) + order(8, "8"))


def test_the_key_may_be_the_order_id() -> None:
    got, _ = decode(order(7) + fix("35=0|49=BUYER|56=VENUE|34=8|"), FixDecoder(key_tag=11, space="order"))
    assert got.key.tolist() == [hash64("order", "ord7"), 0]


def test_a_wrong_checksum_and_a_wrong_length_are_counted_and_the_next_message_is_read() -> None:
    bad = bytearray(order(2))
    bad[-2] = ord("0") + (bad[-2] - ord("0") + 1) % 10
    long = order(3).replace(b"\x0135=", b"\x0135=")
    length = long.index(b"9=") + 2
    long = long[:length] + b"9" + long[length + 1 :]
    got, _ = decode(order(1) + bytes(bad) + long + b"".join(order(n) for n in range(4, 30)))
    assert got.sequence.tolist() == [1, *range(4, 30)]
    assert got.faults == {Fault.CHECKSUM: 1, Fault.CUT: 1}


def test_a_data_field_may_hold_anything() -> None:
    inner = order(99)
    body = b"35=B\x0149=A\x0156=B\x0134=1\x0195=%d\x0196=" % len(inner) + inner + b"\x01"
    front = b"8=FIX.4.4\x019=%d\x01" % len(body) + body
    got, _ = decode(front + b"10=%03d\x01" % (sum(front) % 256) + order(2))
    assert got.sequence.tolist() == [1, 2]
    assert not got.faults


def test_a_gap_fill_takes_the_numbers_it_replaces() -> None:
    got, _ = decode(fix("35=4|49=A|56=B|34=5|123=Y|36=9|"))
    assert got.datagrams.count.tolist() == [4]


@given(st.lists(st.integers(0, 2000), max_size=6), st.integers(1, 12))
def test_any_cut_of_a_stream_gives_the_same_messages(cuts: list[int], count: int) -> None:
    raw = b"".join(order(n) for n in range(1, count + 1))
    places = sorted({0, len(raw), *(c % (len(raw) + 1) for c in cuts)})
    decoder, held, seen = FixDecoder(), b"", []
    for low, high in pairwise(places):
        held += raw[low:high]
        got, taken = decode(held, decoder)
        seen += got.sequence.tolist()
        assert not got.faults
        held = held[taken:]
    assert seen == list(range(1, count + 1))
    assert held == b""


@given(st.binary(max_size=400), st.integers(0, 400), st.binary(max_size=8))
def test_hostile_bytes_never_raise_and_never_hold_more_than_a_message(noise: bytes, at: int, swap: bytes) -> None:
    raw = bytearray(order(1) + noise + order(2) + order(3))
    raw[at % len(raw) : at % len(raw) + len(swap)] = swap
    got, taken = decode(bytes(raw))
    assert 0 <= taken <= len(raw)
    for number, start, size in zip(got.sequence, got.message_at, got.message_len, strict=True):
        piece = bytes(raw[start : start + size])
        assert piece.startswith(b"8=")
        assert b"\x0134=%d\x01" % number in piece
        assert sum(piece[:-7]) % 256 == int(piece[-4:-1])
