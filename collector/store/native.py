"""A block of rows for one insert, and ClickHouse's Native format for it, encoded with numpy.

A `Block` is what both engines take: the embedded one as Native bytes, a server through clickhouse-driver. Nothing is
cast on the way: a value of another dtype than the column's is a TypeError that names the column, because silent casts
turn 300 into 44. Format: https://clickhouse.com/docs/interfaces/specs/NativeFormat (revision 0, as files have it).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

# One insert is atomic only as one block: ClickHouse splits above max_insert_block_size.
MAX_ROWS = 1_048_449

Buffer = bytes | memoryview

_FIXED: dict[str, str] = {
    **{f"UInt{bits}": f"<u{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"Int{bits}": f"<i{bits // 8}" for bits in (8, 16, 32, 64)},
    "Float32": "<f4",
    "Float64": "<f8",
    "Bool": "|u1",
    "Date": "<u2",
    "Date32": "<i4",
    "DateTime": "<u4",
    "DateTime64": "<i8",
    "Enum8": "|i1",
    "Enum16": "<i2",
}
_TYPE = re.compile(r"(\w+)(?:\((.*)\))?", re.DOTALL)
# SerializationLowCardinality: version 1 before the column; then per block the index width with these two bits set.
_LC_VERSION = (1).to_bytes(8, "little")
_LC_HAS_KEYS, _LC_NEW_DICTIONARY = 1 << 9, 1 << 10


@dataclass(frozen=True, slots=True)
class BlockColumn:
    """One column of a block.

    `type` is the ClickHouse type as in the DDL, without the codec. `values` holds the numbers: int64 nanoseconds for
    DateTime64(9), seconds as uint32 for DateTime, days as uint16 for Date, int8 for Enum8, uint64[rows, 2] (high,
    low) for UUID, uint8[rows, N] for FixedString(N); for String and LowCardinality(String) integer codes into
    `texts`. `nulls` is True where a Nullable value is null. For Array columns `values` (with `texts`, `nulls`) are the
    flattened elements and `offsets` (uint64[rows]) the cumulative ends.
    """

    name: str
    type: str
    values: NDArray[Any]
    texts: list[str] | None = None
    nulls: NDArray[np.bool_] | None = None
    offsets: NDArray[np.uint64] | None = None


@dataclass(frozen=True, slots=True)
class Block:
    """Rows of one insert: columns of equal length."""

    rows: int
    columns: tuple[BlockColumn, ...]

    def check(self) -> None:
        """Raise TypeError or ValueError naming the column that does not fit its type or the block's length."""
        if self.rows > MAX_ROWS:
            raise ValueError(f"a block of {self.rows} rows is not one atomic insert; at most {MAX_ROWS} are")
        for column in self.columns:
            _check(column, column.type, self.rows)


def parse_type(text: str) -> tuple[str, str]:
    """A type split into its family and its arguments: "Nullable(Int64)" -> ("Nullable", "Int64")."""
    match = _TYPE.fullmatch(text.strip())
    if match is None:
        raise TypeError(f"{text!r} is not a ClickHouse type")
    return match[1], (match[2] or "").strip()


def element_dtype(type_name: str) -> np.dtype[Any] | None:
    """The numpy dtype of a scalar type's values; None where values are codes into texts."""
    family, inner = parse_type(type_name)
    if family in ("Nullable", "Array"):
        return element_dtype(inner)
    if family == "UUID":
        return np.dtype("<u8")
    if family == "FixedString":
        return np.dtype("|u1")
    if family == "String" or (family == "LowCardinality" and inner == "String"):
        return None
    if family in _FIXED:
        return np.dtype(_FIXED[family])
    raise TypeError(f"type {type_name} is not supported in blocks")


def encode(block: Block) -> list[Buffer]:
    """The block in Native format, as buffers to write one after another (large columns are not copied).

    Raises TypeError for a dtype, ValueError for a shape, code or offset that does not fit, naming the column.
    """
    block.check()
    out: list[Buffer] = [_varint(len(block.columns)) + _varint(block.rows)]
    for column in block.columns:
        out.append(_text(column.name) + _text(column.type))
        _prefix(column.type, out)
        _data(column, column.type, out)
    return out


def _prefix(type_name: str, out: list[Buffer]) -> None:
    family, inner = parse_type(type_name)
    if family == "LowCardinality":
        out.append(_LC_VERSION)
    elif family == "Array":
        _prefix(inner, out)


def _data(column: BlockColumn, type_name: str, out: list[Buffer]) -> None:
    family, inner = parse_type(type_name)
    if family == "Array":
        assert column.offsets is not None  # noqa: S101 - Block.check has refused it
        out.append(_raw(column.offsets))
        _data(column, inner, out)
    elif family == "Nullable":
        nulls = column.nulls if column.nulls is not None else np.zeros(len(column.values), dtype=np.bool_)
        out.append(_raw(nulls.view(np.uint8)))
        _data(column, inner, out)
    elif family == "LowCardinality":
        if len(column.values):
            _low_cardinality(column, out)
    elif family == "String":
        words = [_text(text) for text in column.texts or ()]
        out.append(b"".join([words[code] for code in column.values.tolist()]))
    else:
        out.append(_raw(column.values))


def _low_cardinality(column: BlockColumn, out: list[Buffer]) -> None:
    texts = column.texts or []
    width = 0 if len(texts) <= 1 << 8 else 1 if len(texts) <= 1 << 16 else 2
    keys = b"".join([_text(text) for text in texts])
    head = np.array([width | _LC_HAS_KEYS | _LC_NEW_DICTIONARY, len(texts)], dtype="<u8").tobytes()
    out.append(head + keys + len(column.values).to_bytes(8, "little"))
    out.append(_raw(column.values.astype(("<u1", "<u2", "<u4")[width], copy=False)))


def _check(column: BlockColumn, type_name: str, rows: int) -> None:
    family, inner = parse_type(type_name)
    where = f"column {column.name} {column.type}"
    if family == "Array":
        offsets = column.offsets
        if offsets is None or offsets.dtype != np.uint64:
            raise TypeError(f"{where}: offsets must be uint64, got {None if offsets is None else offsets.dtype}")
        total = len(column.values)
        if offsets.shape != (rows,) or (rows and int(offsets[-1]) != total) or (not rows and total):
            raise ValueError(f"{where}: offsets of {offsets.shape} must end at the {total} elements of {rows} rows")
        if rows > 1 and bool((offsets[1:] < offsets[:-1]).any()):
            raise ValueError(f"{where}: offsets must not decrease")
        _check(replace(column, offsets=None), inner, total)
        return
    if family == "Nullable":
        nulls = column.nulls
        if nulls is not None and (nulls.dtype != np.bool_ or nulls.shape != (rows,)):
            raise TypeError(f"{where}: nulls must be bool[{rows}], got {nulls.dtype}{list(nulls.shape)}")
        _check(replace(column, nulls=None), inner, rows)
        return
    if column.nulls is not None and bool(column.nulls.any()):
        raise TypeError(f"{where}: has nulls but is not Nullable")
    _check_values(column, type_name, rows, where)


def _check_values(column: BlockColumn, type_name: str, rows: int, where: str) -> None:
    family, inner = parse_type(type_name)
    want = element_dtype(type_name)
    values = column.values
    shape: tuple[int, ...] = (rows,)
    if family == "UUID":
        shape = (rows, 2)
    elif family == "FixedString":
        shape = (rows, int(inner))
    if values.shape != shape:
        raise ValueError(f"{where}: values have shape {values.shape}, want {shape}")
    if want is not None:
        if values.dtype != want:
            raise TypeError(f"{where}: values have dtype {values.dtype}, want {want}; cast them where that is meant")
        return
    if values.dtype.kind not in "ui":
        raise TypeError(f"{where}: codes have dtype {values.dtype}, want an integer type")
    size = len(column.texts or ())
    if rows and not 0 <= int(values.min()) <= int(values.max()) < size:
        raise ValueError(f"{where}: codes {int(values.min())}..{int(values.max())} do not fit {size} texts")


def _raw(array: NDArray[Any]) -> memoryview:
    # Little-endian is checked by the dtype comparison; a zero-length array has no castable memory.
    return memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data) if array.size else memoryview(b"")


def _text(text: str) -> bytes:
    raw = text.encode()
    return _varint(len(raw)) + raw


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
