"""What is inside a frame: dictionaries, columns and positions as bytes, and back by length arithmetic alone.

Layout (little-endian; docs/architecture.md, "Frames, version 1"): for each TEXT column `count u32, lengths
u32[count], UTF-8 bytes`; then for each column a null flag u8, `u8[n]` nulls if it is 1, and `n x width` bytes; then
`positions u32` and as many `(length u16, UTF-8 name, u64 next)`. A drop frame has `length u16, reason` in place of
dictionaries and columns.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from collector.record import MAX_DICTIONARY, Columns, DropReason, Kind, Table

DROP_WIRE_ID = 0
DROP_VERSION = 1
# A frame's decompressed payload may have this many bytes; a compressed one that claims more is refused unread.
MAX_RAW_BYTES = 64 << 20
# What a frame may take on disk and in a request: a batch of 16 MiB must hold at least one.
MAX_PAYLOAD_BYTES = 8 << 20

_U16, _U32, _U64 = struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<Q")
_LEVEL = 1
_WORTH_TRYING = 512  # bytes: below this a zstd frame's own header eats the gain


class FrameError(ValueError):
    """Bytes that are not a frame: `offset` says where in the buffer, `problem` what was wrong there."""

    def __init__(self, offset: int, problem: str) -> None:
        self.offset = offset
        self.problem = problem
        super().__init__(f"at byte {offset}: {problem}")


@dataclass(frozen=True, slots=True)
class Packed:
    """A payload that is ready to be sealed into a frame: its bytes and what the header must say of them."""

    payload: bytes
    compressed: bool
    events: int
    wire_id: int
    version: int


def pack_columns(columns: Columns, positions: Mapping[str, int] | None = None) -> Packed:
    """The payload of one columns frame. Raises ValueError for columns that do not fit their table or are too large."""
    columns.check()
    n = len(columns)
    if n == 0:
        raise ValueError(f"a frame of {columns.table.name} needs at least one row")
    parts: list[Any] = []
    for column in columns.table.columns:
        if column.kind is Kind.TEXT:
            words = [word.encode() for word in columns.texts[column.name]]
            parts += [_U32.pack(len(words)), np.array([len(w) for w in words], "<u4").data, *words]
    for column in columns.table.columns:
        nulls = columns.nulls.get(column.name)
        if nulls is None or not nulls.any():
            parts.append(b"\0")
        else:
            parts += [b"\1", np.ascontiguousarray(nulls).view(np.uint8).data]
        parts.append(np.ascontiguousarray(columns.values[column.name]).data)
    parts.append(_pack_positions(positions or {}))
    return _pack(b"".join(parts), n, columns.table.wire_id, columns.table.version)


def pack_drop(reason: DropReason, events: int, positions: Mapping[str, int] | None = None) -> Packed:
    """The payload of a drop frame: `events` events were lost for `reason`."""
    if not 0 < events < 1 << 32:
        raise ValueError(f"a drop frame counts 1 to 2^32-1 events, got {events}")
    word = reason.value.encode()
    return _pack(_U16.pack(len(word)) + word + _pack_positions(positions or {}), events, DROP_WIRE_ID, DROP_VERSION)


def unpack_columns(raw: bytes, table: Table, events: int, at: int) -> tuple[Columns, dict[str, int]]:
    """Columns and positions of a decompressed payload; `at` is its place, for errors. Arrays are read-only views.

    Raises FrameError on every length, code, null or text that does not add up.
    """
    cursor = _Cursor(raw, at)
    texts: dict[str, list[str]] = {}
    for column in table.columns:
        if column.kind is Kind.TEXT:
            texts[column.name] = cursor.dictionary(f"{table.name}.{column.name}")
    values: dict[str, NDArray[Any]] = {}
    nulls: dict[str, NDArray[np.bool_]] = {}
    for column in table.columns:
        where = f"{table.name}.{column.name}"
        flag = cursor.take(1, f"{where} null flag")[0]
        if flag not in (0, 1) or (flag and not column.nullable):
            raise FrameError(cursor.place - 1, f"{where} has null flag {flag}")
        if flag:
            marks = np.frombuffer(cursor.take(events, f"{where} nulls"), np.uint8)
            if marks.max() > 1:
                raise FrameError(cursor.place - events, f"{where} has a null mark that is neither 0 nor 1")
            nulls[column.name] = marks.view(np.bool_)
        dtype = column.kind.dtype
        values[column.name] = np.frombuffer(cursor.take(events * dtype.itemsize, f"{where} values"), dtype)
    positions = cursor.positions()
    columns = Columns(table, values, texts, nulls)
    try:
        columns.check()
    except ValueError as error:
        raise FrameError(at, str(error)) from error
    return columns, positions


def unpack_drop(raw: bytes, at: int) -> tuple[DropReason, dict[str, int]]:
    """Reason and positions of a drop frame's payload. Raises FrameError, also for a reason outside the closed list."""
    cursor = _Cursor(raw, at)
    word = cursor.text(cursor.number(_U16, "reason length"), "reason")
    try:
        reason = DropReason(word)
    except ValueError:
        raise FrameError(at, f"{word!r} is no reason to drop; known are {[r.value for r in DropReason]}") from None
    return reason, cursor.positions()


def decompress(payload: bytes, at: int, limit: int = MAX_RAW_BYTES) -> bytes:
    """The content of one zstd frame that states its size, never more than `limit` bytes of it. Raises FrameError."""
    try:
        size = zstandard.frame_content_size(payload)
        if size < 0:
            raise FrameError(at, "the zstd frame does not state its size")
        if size > limit:
            raise FrameError(at, f"the zstd frame says it holds {size} bytes, at most {limit} are allowed")
        # The stated size may lie, so read through a stream that is stopped one byte behind it.
        with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(payload) as stream:
            raw = stream.read(size + 1)
            while 0 < len(raw) <= size and (more := stream.read(size + 1 - len(raw))):
                raw += more
    except zstandard.ZstdError as error:
        raise FrameError(at, f"not a zstd frame: {error}") from error
    if len(raw) != size:
        raise FrameError(
            at, f"the zstd frame says it holds {size} bytes, it has {'more' if len(raw) > size else len(raw)}"
        )
    return raw


def split(columns: Columns, rows: int) -> list[Columns]:
    """The columns in slices of at most `rows` rows that share the dictionaries; nothing is copied."""
    n = len(columns)
    if n <= rows:
        return [columns]
    return [
        Columns(
            columns.table,
            {name: array[start : start + rows] for name, array in columns.values.items()},
            columns.texts,
            {name: mask[start : start + rows] for name, mask in columns.nulls.items()},
        )
        for start in range(0, n, rows)
    ]


def _pack(raw: bytes, events: int, wire_id: int, version: int) -> Packed:
    if len(raw) > MAX_RAW_BYTES:
        raise ValueError(f"a payload of {len(raw)} bytes is too large, at most {MAX_RAW_BYTES} fit a frame")
    payload, compressed = raw, False
    if len(raw) >= _WORTH_TRYING:
        small = zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True).compress(raw)
        if len(small) < 0.9 * len(raw):
            payload, compressed = small, True
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"a payload of {len(payload)} bytes is too large, at most {MAX_PAYLOAD_BYTES} fit a frame")
    return Packed(payload, compressed, events, wire_id, version)


def _pack_positions(positions: Mapping[str, int]) -> bytes:
    parts = [_U32.pack(len(positions))]
    for name, position in positions.items():
        word = name.encode()
        parts += [_U16.pack(len(word)), word, _U64.pack(position)]
    return b"".join(parts)


class _Cursor:
    """Reads forward through bytes and refuses to read past their end."""

    def __init__(self, raw: bytes, at: int) -> None:
        self._raw = raw
        self._view = memoryview(raw)
        self._base = at
        self._offset = 0

    @property
    def place(self) -> int:
        """Where the next byte is, for errors: the payload's place plus the offset in its decompressed bytes."""
        return self._base + self._offset

    def take(self, size: int, what: str) -> memoryview:
        left = len(self._raw) - self._offset
        if size > left:
            raise FrameError(self.place, f"{what} needs {size} bytes, {left} are left")
        view = self._view[self._offset : self._offset + size]
        self._offset += size
        return view

    def number(self, form: struct.Struct, what: str) -> int:
        value: int = form.unpack(self.take(form.size, what))[0]
        return value

    def text(self, size: int, what: str) -> str:
        start = self.place
        try:
            return str(self.take(size, what), "utf-8")
        except UnicodeDecodeError as error:
            raise FrameError(start, f"{what} is not UTF-8: {error}") from error

    def dictionary(self, where: str) -> list[str]:
        count = self.number(_U32, f"{where} dictionary size")
        if count > MAX_DICTIONARY:
            raise FrameError(self.place - 4, f"{where} has a dictionary of {count} texts, at most {MAX_DICTIONARY}")
        lengths: Sequence[int] = np.frombuffer(self.take(4 * count, f"{where} text lengths"), "<u4").tolist()
        left = len(self._raw) - self._offset
        if sum(lengths) > left:
            raise FrameError(self.place, f"{where} texts need {sum(lengths)} bytes, {left} are left")
        return [self.text(length, f"{where} text") for length in lengths]

    def positions(self) -> dict[str, int]:
        """The positions, which end a payload: whatever is left behind them is an error."""
        positions: dict[str, int] = {}
        for _ in range(self.number(_U32, "number of positions")):
            name = self.text(self.number(_U16, "position name length"), "position name")
            positions[name] = self.number(_U64, f"position of {name!r}")
        if self._offset != len(self._raw):
            raise FrameError(self.place, f"{len(self._raw) - self._offset} bytes follow the payload")
        return positions
