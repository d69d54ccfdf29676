"""Frames: what is encoded is decoded, and every lie is found where it is, without reading past anything."""

from __future__ import annotations

import dataclasses
import struct
import uuid
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from collector import frames, payload
from collector.frames import HEADER_BYTES, Frame, FrameError, Stream, UnknownVersionError, decode, encode, seal
from collector.payload import Packed, decompress, pack_columns
from collector.record import GAUGES, STAMPS, TABLES, Column, Columns, DropReason, Kind, Table

STREAM = Stream(uuid.UUID("00112233-4455-6677-8899-aabbccddeeff"), 7)
GOLDEN = Path(__file__).parent / "golden"
_RANGES = {
    Kind.I64: (-(2**63), 2**63 - 1), Kind.U64: (0, 2**64 - 1), Kind.I32: (-(2**31), 2**31 - 1),
    Kind.U32: (0, 2**32 - 1), Kind.U16: (0, 2**16 - 1), Kind.U8: (0, 255),
}  # fmt: skip


def cell(column: Column) -> st.SearchStrategy[Any]:
    if column.kind is Kind.TEXT:
        return st.text(max_size=12)
    if column.kind is Kind.F64:
        return st.floats(allow_nan=False)
    value = st.integers(*_RANGES[column.kind])
    return st.none() | value if column.nullable else value


@st.composite
def some_columns(draw: st.DrawFn) -> Columns:
    table = draw(st.sampled_from(list(TABLES.values())))
    row = st.fixed_dictionaries({c.name: cell(c) for c in table.columns})
    return Columns.from_rows(table, draw(st.lists(row, min_size=1, max_size=20)))


def same(a: Columns, b: Columns) -> None:
    assert a.table == b.table and len(a) == len(b)
    for column in a.table.columns:
        if column.kind is Kind.TEXT:
            assert a.text(column.name) == b.text(column.name)
            continue
        none = np.zeros(len(a), bool)
        nulls = a.nulls.get(column.name, none)
        assert np.array_equal(nulls, b.nulls.get(column.name, none))
        assert np.array_equal(a.values[column.name][~nulls], b.values[column.name][~nulls])


def stamps(n: int, first: int = 0) -> Columns:
    at = np.arange(first, first + n)
    values = {c.name: np.zeros(n, c.kind.dtype) for c in STAMPS.columns}
    values["ts_ns"] = (1_700_000_000_000_000_000 + at * 1000).astype("<i8")
    values["key"] = at.astype("<u8") * np.uint64(0x9E3779B97F4A7C15)
    values["point"] = (at % 2).astype("<u2")
    texts = {"point": ["app_ingress", "app_egress"], "host": ["h"], "service": ["s"], "clock": ["monotonic"]}
    return Columns(STAMPS, values, texts, {"error_ns": at % 3 == 0, "data_age_ns": np.ones(n, bool)})


@settings(max_examples=50, deadline=None)
@given(
    many=st.lists(some_columns() | st.tuples(st.sampled_from(DropReason), st.integers(1, 2**32 - 1)), max_size=4),
    positions=st.dictionaries(st.text(max_size=20), st.integers(0, 2**64 - 1), max_size=3),
)
def test_what_is_encoded_is_decoded(many: list[Any], positions: dict[str, int]) -> None:
    seq, parts = 5, []
    for what in many:
        parts.append(
            encode(
                what,
                stream=STREAM,
                seq_first=seq,
                created_ns=1,
                created_mono_ns=2,
                watermark_ns=-3,
                positions=positions,
            )
        )
        seq += len(what) if isinstance(what, Columns) else what[1]
    got = list(decode(b"".join(parts)))
    assert len(got) == len(many)
    at = 5
    for what, frame in zip(many, got, strict=True):
        header = frame.header
        assert (header.stream, header.seq_first, header.watermark_ns) == (STREAM, at, -3)
        assert (header.created_ns, header.created_mono_ns, frame.positions) == (1, 2, positions)
        at = header.seq_end
        if isinstance(what, Columns):
            assert frame.columns is not None and frame.columns.seq is not None
            same(what, frame.columns)
            assert frame.columns.seq.tolist() == list(range(header.seq_first, header.seq_end))
        else:
            assert (frame.reason, header.events) == what and frame.columns is None


@pytest.mark.parametrize("form", [bytes, bytearray, memoryview])
def test_any_buffer_is_read(form: Any) -> None:
    data = encode(stamps(3), stream=STREAM, seq_first=0, created_ns=0)
    (frame,) = decode(form(data))
    assert frame.columns is not None
    same(stamps(3), frame.columns)


def golden() -> bytes:
    """One frame of each table with every kind of value, small and compressed, and a drop frame."""
    parts = [encode(stamps(40), stream=STREAM, seq_first=0, created_ns=11, created_mono_ns=12, watermark_ns=13)]
    seq = 40
    for name, rows in {
        "links": [{"ts_ns": 1, "parent": 2**64 - 1, "child": 3, "host": "h", "service": "s"}],
        "gauges": [{"ts_ns": -1, "name": "grüße", "host": "h", "service": "", "label_set": 9, "value": 1.5}],
        "intervals": [{"ts_ns": 1, "duration_ns": 2, "kind": "run_queue", "host": "h", "thread": 3, "culprit": "x"}],
        "clock": [{"ts_ns": 1, "host": "h", "clock": "realtime", "source": "adjtimex", "event": "step", "step_ns": -7}],
        "label_sets": [{"label_set": 5, "labels": '{"symbol":"X"}'}],
    }.items():
        columns = Columns.from_rows(TABLES[name], rows)
        parts.append(encode(columns, stream=STREAM, seq_first=seq, created_ns=11, positions={"1.2.0.ring": seq}))
        seq += 1
    drop = (DropReason.RING_OVERWRITTEN, 1000)
    return b"".join([*parts, encode(drop, stream=STREAM, seq_first=seq, created_ns=11, flags=frames.FLAG_FIRST)])


def test_frames_written_by_version_1_are_read() -> None:
    stored = (GOLDEN / "frames_v1.bin").read_bytes()
    new, old = list(decode(golden())), list(decode(stored))
    assert len(old) == len(new) == 7
    for a, b in zip(old, new, strict=True):
        # The compressor may change with its version; everything it says may not.
        assert dataclasses.replace(a.header, payload_bytes=0, payload_crc=0) == dataclasses.replace(
            b.header, payload_bytes=0, payload_crc=0
        )
        assert (a.reason, a.positions) == (b.reason, b.positions)
        if a.columns is not None and b.columns is not None:
            same(a.columns, b.columns)
    assert stored[:4] == b"TSF1" and stored[4] == 1 and struct.unpack_from("<H", stored, 6) == (HEADER_BYTES,) == (80,)


def test_large_columns_are_compressed_and_small_ones_are_not() -> None:
    big, small = pack_columns(stamps(5000)), pack_columns(stamps(2))
    assert big.compressed and len(big.payload) < 5000 * 20
    assert not small.compressed
    noise = stamps(50)
    rng = np.random.default_rng(1)
    for name in ("ts_ns", "key", "label_set"):
        noise.values[name] = np.frombuffer(rng.bytes(400), noise.values[name].dtype)
    assert len(pack_columns(noise).payload) <= 50 * 58 + 300


def resealed(raw: bytes, events: int = 3, wire_id: int = 1, version: int = 1, compressed: bool = False) -> bytes:
    """A frame whose checksums are right and whose payload is whatever a liar wants."""
    return seal(Packed(raw, compressed, events, wire_id, version), STREAM, 0, 0, 0, 0)


def raw_stamps() -> bytes:
    packed = pack_columns(stamps(3))
    assert not packed.compressed
    return packed.payload


@pytest.mark.parametrize(
    ("lie", "says"),
    [
        (lambda raw: raw[:-1], "needs|left"),
        (lambda raw: raw + b"\0", "1 bytes follow the payload"),
        (lambda raw: struct.pack("<I", 70_000) + raw[4:], "dictionary of 70000 texts"),
        (lambda raw: struct.pack("<II", 2, 2**32 - 1) + raw[8:], "texts need 4294967305 bytes"),
        (lambda raw: raw[:12] + b"\xff" + raw[13:], "not UTF-8"),
        (lambda _: b"", "dictionary size needs 4 bytes, 0 are left"),
    ],
)
def test_a_payload_that_lies_is_refused_with_its_place(lie: Any, says: str) -> None:
    with pytest.raises(FrameError, match=says) as caught:
        list(decode(resealed(lie(raw_stamps()))))
    assert caught.value.offset >= HEADER_BYTES


def test_more_rows_than_bytes_are_refused() -> None:
    with pytest.raises(FrameError, match="values needs"):
        list(decode(resealed(raw_stamps(), events=2**31)))


def test_wrong_codes_and_nulls_are_refused() -> None:
    columns = stamps(3)
    good = raw_stamps()
    code = good.index(columns.values["point"].tobytes(), 60)
    with pytest.raises(FrameError, match="has code 258 but only 2 texts"):
        list(decode(resealed(good[:code] + b"\2\1" + good[code + 2 :])))
    flag = good.index(b"\1\1\0\0")  # nulls of error_ns
    with pytest.raises(FrameError, match="null mark"):
        list(decode(resealed(good[: flag + 1] + b"\7" + good[flag + 2 :])))
    with pytest.raises(FrameError, match="ts_ns has null flag 1"):
        first = good.index(b"\0" + columns.values["ts_ns"].tobytes())
        list(decode(resealed(good[:first] + b"\1" + good[first + 1 :])))


@pytest.mark.parametrize("claim", [0, 1, 100, None])
def test_a_zstd_frame_that_lies_about_its_size_is_refused(claim: int | None) -> None:
    raw = raw_stamps()
    honest = zstandard.ZstdCompressor(write_content_size=False).compress(raw)
    if claim is None:
        lying = honest
    else:
        descriptor = honest[4]
        assert descriptor >> 6 == 0 and not descriptor & 0x20
        # Single segment with a one-byte content size: magic, descriptor 0x20, the claim, then the same blocks.
        lying = honest[:4] + bytes([0x20 | (descriptor & 4), claim]) + honest[6:]
    with pytest.raises(FrameError, match="zstd"):
        list(decode(resealed(lying, compressed=True)))


def test_a_bomb_is_not_unpacked() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(payload.MAX_RAW_BYTES + 1))
    assert len(bomb) < 10_000
    with pytest.raises(FrameError, match=f"says it holds {payload.MAX_RAW_BYTES + 1} bytes"):
        decompress(bomb, 0)
    assert decompress(zstandard.ZstdCompressor().compress(bytes(1000)), 0, 1000) == bytes(1000)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_no_flipped_bit_goes_unseen(data: st.DataObject) -> None:
    good = encode(stamps(30), stream=STREAM, seq_first=9, created_ns=1)
    at = data.draw(st.integers(0, len(good) * 8 - 1))
    bad = bytearray(good)
    bad[at // 8] ^= 1 << at % 8
    with pytest.raises(FrameError):
        list(decode(bad))


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_garbage_raises_nothing_but_frame_error(raw: bytes, sealed: bool) -> None:
    try:
        list(decode(resealed(raw) if sealed else raw))
    except FrameError as error:
        assert error.offset >= 0
    else:
        assert not raw, "only nothing decodes to nothing"


def test_a_cut_buffer_names_the_byte() -> None:
    one = encode(stamps(2), stream=STREAM, seq_first=0, created_ns=0)
    for cut in range(1, len(one)):
        with pytest.raises(FrameError) as caught:
            list(decode(one + one[:cut]))
        assert caught.value.offset >= len(one)


def test_the_version_before_is_read_and_others_are_refused() -> None:
    older = Table(
        GAUGES.name, GAUGES.wire_id, 1, tuple(c for c in GAUGES.columns if c.name not in ("label_set", "service"))
    )
    newer = Table(GAUGES.name, GAUGES.wire_id, 2, (*GAUGES.columns, Column("quality", Kind.F64, nullable=True)))
    old_rows = Columns.from_rows(older, [{"ts_ns": 5, "name": "n", "host": "h", "value": 2.5}])
    data = encode(old_rows, stream=STREAM, seq_first=0, created_ns=0)
    readable = {(3, 1): older, (3, 2): newer}
    (frame,) = decode(data, readable)
    assert frame.columns is not None and frame.columns.table == newer
    frame.columns.check()
    assert frame.columns.text("service") == [""] and frame.columns.values["value"].tolist() == [2.5]
    assert frame.columns.nulls["quality"].tolist() == [True]
    with pytest.raises(UnknownVersionError, match=r"table 3 version 2 is unknown \(known: \[1\]\); upgrade"):
        list(decode(encode(Columns.from_rows(newer, [{}]), stream=STREAM, seq_first=0, created_ns=0)))


def test_an_unknown_frame_version_is_told_from_damage() -> None:
    data = bytearray(encode((DropReason.TORN, 1), stream=STREAM, seq_first=0, created_ns=0))
    data[4] = 2
    with pytest.raises(FrameError, match="CRC32C") as damage:
        list(decode(data))
    assert not isinstance(damage.value, UnknownVersionError)
    struct.pack_into("<I", data, 72, google_crc32c.value(bytes(data[:72])))
    with pytest.raises(UnknownVersionError, match="frame version 2"):
        list(decode(data))


def test_a_frame_without_rows_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        pack_columns(Columns.from_rows(GAUGES, []))
    with pytest.raises(ValueError, match="counts 1 to"):
        encode((DropReason.TORN, 0), stream=STREAM, seq_first=0, created_ns=0)


def test_split_shares_and_loses_nothing() -> None:
    parts = payload.split(stamps(10), 4)
    assert [len(p) for p in parts] == [4, 4, 2]
    assert np.concatenate([p.values["ts_ns"] for p in parts]).tolist() == stamps(10).values["ts_ns"].tolist()
    assert np.concatenate([p.nulls["error_ns"] for p in parts]).tolist() == stamps(10).nulls["error_ns"].tolist()


def test_decoded_arrays_cannot_be_written_through() -> None:
    (frame,) = decode(encode(stamps(3), stream=STREAM, seq_first=0, created_ns=0))
    assert isinstance(frame, Frame) and frame.columns is not None
    assert not frame.columns.values["key"].flags.writeable
