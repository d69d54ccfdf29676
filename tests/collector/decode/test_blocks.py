"""Blocks of datagrams: hostile bytes, lying counts and lengths, and users' own protocols."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.demo.market_data import Datagram, Listing, Quote, TradingAction, feed_key, session_name
from collector.decode import Fault, registry
from collector.keys import hash64

UDP = ("itch", "cme", "iex", "demo")
SESSION = session_name(1_790_000_000_000)


def one_of(parts: list[bytes]) -> tuple[np.ndarray[Any, Any], ...]:
    lengths = np.array([len(p) for p in parts], dtype=np.int64)
    return np.frombuffer(b"".join(parts), np.uint8), np.cumsum(lengths) - lengths, lengths


def quotes(first: int, count: int) -> bytes:
    return Datagram(SESSION, first, [Quote(i % 8, i, 1, 2, 3, 4).encode() for i in range(count)]).encode()


def test_the_demo_is_decoded_with_the_keys_that_its_programs_stamp() -> None:
    listing = Datagram(SESSION, 4, [Listing(2, 100, 1).encode()])
    halt = Datagram(SESSION, 5, [TradingAction(3, True, 7).encode()])
    rest = (Datagram(SESSION, 4, ()), listing, halt, Datagram(SESSION, 6, (), end=True))
    parts = [quotes(1, 3), *(one.encode() for one in rest)]
    got = registry.make("demo").decode(*one_of(parts))
    assert got.row.tolist() == [0, 0, 0, 2, 3]
    assert got.sequence.tolist() == [1, 2, 3, 4, 5]
    assert got.key.tolist() == [hash64("feed", feed_key(SESSION, n)) for n in (1, 2, 3, 4, 5)]
    assert got.by_kind() == {"Q Quote": 3, "D Listing": 1, "H TradingAction": 1}
    assert got.instrument.tolist() == [0, 1, 2]  # neither a listing nor a halt is an update
    assert got.datagrams.count.tolist() == [3, 0, 1, 1, 0]
    assert got.datagrams.end.tolist() == [False, False, False, False, True]


def header(sequence: int, count: int) -> bytes:
    return struct.pack(">10sQH", SESSION.rjust(10), sequence, count)


@pytest.mark.parametrize(
    ("datagram", "fault"),
    [
        (b"", Fault.SHORT),
        (b"x" * 19, Fault.SHORT),
        (header(1, 2) + b"\0\1Q", Fault.COUNT),
        (header(1, 1) + b"\xff\xffQ", Fault.CUT),
        (header(1, 0xFFFE) + b"\0\0" * 10, Fault.COUNT),
        (header(1, 1) + b"\0", Fault.CUT),
        (header(1 << 63, 1) + b"\0\1Q", Fault.SEQUENCE),
        (header(1, 1) + b"\0\1Qmore", Fault.TRAILING),
    ],
    ids=lambda v: v.name if isinstance(v, Fault) else "",
)
def test_what_does_not_follow_the_protocol_is_a_fault_and_its_neighbours_are_read(
    datagram: bytes, fault: Fault
) -> None:
    got = registry.make("demo").decode(*one_of([quotes(1, 2), datagram, quotes(3, 1)]))
    assert got.faults == {fault: 1}
    kept = [1, 1] if fault is Fault.TRAILING else []
    assert sorted(got.sequence.tolist()) == sorted([1, 2, 3, *kept[:1]])
    assert got.unknown == 0 if not kept else got.malformed == 1


def test_an_unknown_type_is_counted_and_keeps_its_number() -> None:
    got = registry.make("demo").decode(
        *one_of([Datagram(SESSION, 1, [b"Zzz", Quote(1, 1, 1, 1, 1, 1).encode()]).encode()])
    )
    assert (got.unknown, got.sequence.tolist(), got.by_kind()) == (1, [1, 2], {"unknown": 1, "Q Quote": 1})


@given(st.sampled_from(UDP), st.lists(st.binary(max_size=200), max_size=20))
def test_any_bytes_are_decoded_without_raising_and_inside_their_datagram(name: str, parts: list[bytes]) -> None:
    data, starts, lengths = one_of(parts)
    got = DECODERS[name].decode(data, starts, lengths)
    inside(got, starts, lengths)


DECODERS = {name: registry.make(name) for name in UDP}


def inside(got: Any, starts: Any, lengths: Any) -> None:
    row = got.row[got.message_row]
    assert (got.message_at >= starts[row]).all()
    assert (got.message_at + got.message_len <= starts[row] + lengths[row]).all()
    assert (got.datagrams.count >= 0).all()
    assert len(got.digest) == len(got.key) == len(got.row)
    assert (np.diff(got.row) >= 0).all()


@given(
    st.sampled_from(UDP),
    st.integers(0, 2**32),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=8),
)
def test_mutated_datagrams_never_raise(name: str, seed: int, changes: list[tuple[int, int]]) -> None:
    rng = np.random.default_rng(seed)
    raw = bytearray(sample(name, rng))
    for at, value in changes:
        raw[at % len(raw)] = value
    data, starts, lengths = one_of([bytes(raw)] * 3)
    inside(DECODERS[name].decode(data, starts, lengths), starts, lengths)


def sample(name: str, rng: np.random.Generator) -> bytes:
    if name == "cme":
        entries = struct.pack("<QB2xHB", 1, 0, 32, 3) + rng.bytes(96) + struct.pack("<H5xB", 24, 0)
        return struct.pack("<IQ", 5, 6) + 2 * (struct.pack("<HHHHH", 10 + len(entries), 11, 46, 1, 9) + entries)
    if name == "iex":
        body = struct.pack("<cBq8s", b"I", 1, 5, b"ZXZZT")
        blocks = 3 * (struct.pack("<H", len(body)) + body)
        return struct.pack("<BBHIIHHQQq", 1, 0, 0x8005, 1, 7, len(blocks), 3, 0, 9, 5) + blocks
    if name == "itch":
        body = struct.pack(">cHH6sQ", b"D", 7, 0, b"\0" * 6, 5)
        return struct.pack(">10sQH", b"000010059B", 9, 4) + 4 * (struct.pack(">H", len(body)) + body)
    return quotes(1, 4)


@pytest.mark.parametrize("name", UDP)
def test_the_samples_of_these_tests_are_sound(name: str) -> None:
    got = DECODERS[name].decode(*one_of([sample(name, np.random.default_rng(1))]))
    assert (got.faults, got.unknown, got.malformed, got.sample_errors) == ({}, 0, 0, 0)
    assert len(got) > 0


def test_of_messages_with_a_variable_layout_scapy_dissects_a_share_and_says_how_many() -> None:
    from collector.decode import cme
    from collector.decode.blocks import BlockDecoder

    part = sample("cme", np.random.default_rng(1))
    got = BlockDecoder(cme.PROTOCOL, sample=10).decode(*one_of([part] * 50))
    assert (got.sampled, got.sampled_of, got.sample_errors) == (10, 100, 0)
    broken = part[:-6] + b"\xff" * 6  # the second group claims entries that are not there
    got = BlockDecoder(cme.PROTOCOL, sample=1).decode(*one_of([broken]))
    assert (got.sampled, got.sampled_of, got.sample_errors) == (2, 2, 1)


def test_an_unknown_decoder_is_named_with_those_there_are() -> None:
    with pytest.raises(registry.UnknownDecoderError, match="itch, cme, iex, demo, fix"):
        registry.make("pitch")


def test_without_scapy_the_absence_is_said_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "scapy").mkdir()
    (tmp_path / "scapy" / "__init__.py").write_text("raise ModuleNotFoundError('no scapy', name='scapy')")
    script = (
        "import collector.agent.run, collector.decode.registry as r, sys\n"
        "assert 'scapy' not in sys.modules\n"
        "r.make('fix')\n"
        "try:\n    r.make('itch')\n"
        "except r.ScapyMissingError as error:\n    print(error)\n"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": f"{tmp_path}:{root}:{root / 'collector/probe/src'}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "pip install 'tailsight[packets]'" in done.stdout
