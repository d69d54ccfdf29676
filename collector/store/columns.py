"""Columns as clickhouse-driver takes and gives them.

What comes back is what the embedded engine gives: DateTime64 as Datetime("ns", "UTC"), DateTime as seconds (UInt32),
enums as their numbers, UUIDs as 16 bytes, LowCardinality as plain text.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from collector.store.native import Block, BlockColumn, element_dtype, parse_type

_LISTED = frozenset({"Array", "UUID", "FixedString", "Nullable"})
_ENUM = re.compile(r"'((?:[^'\\]|\\.)*)'\s*=\s*(-?\d+)")
_POLARS: dict[str, Any] = {
    **{f"UInt{bits}": getattr(pl, f"UInt{bits}") for bits in (8, 16, 32, 64)},
    **{f"Int{bits}": getattr(pl, f"Int{bits}") for bits in (8, 16, 32, 64)},
    "Float32": pl.Float32,
    "Float64": pl.Float64,
    "Bool": pl.Boolean,
    "String": pl.String,
    "Date": pl.Date,
    "DateTime": pl.UInt32,
    "DateTime64": pl.Datetime("ns", "UTC"),
    "UUID": pl.Binary,
    "FixedString": pl.Binary,
    "Enum8": pl.Int8,
    "Enum16": pl.Int16,
    "Nothing": pl.Null,
}


def needs_lists(block: Block) -> bool:
    """Whether the block has a type that the driver's numpy mode refuses or would lose precision in."""
    return any(
        parse_type(c.type)[0] in _LISTED and not (parse_type(c.type)[0] == "Nullable" and _plain_nullable(c))
        for c in block.columns
    )


def _plain_nullable(column: BlockColumn) -> bool:
    return element_dtype(column.type) is not None and (column.nulls is None or not column.nulls.any())


def driver_column(column: BlockColumn, *, lists: bool) -> Any:
    """The column for the driver: an array in numpy mode, else a list of Python values."""
    if not lists:
        if column.texts is None:
            return column.values
        words = np.array(column.texts or [""], dtype=object)
        return words[column.values]
    family, inner = parse_type(column.type)
    if family == "Array":
        assert column.offsets is not None  # noqa: S101 - Block.check has refused it
        flat = driver_column(BlockColumn(column.name, inner, column.values, column.texts, column.nulls), lists=True)
        ends = column.offsets.tolist()
        return [flat[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)] if ends else []
    if family == "Nullable":
        plain = driver_column(BlockColumn(column.name, inner, column.values, column.texts), lists=True)
        if column.nulls is None:
            return plain
        return [None if gone else value for value, gone in zip(plain, column.nulls.tolist(), strict=True)]
    if column.texts is not None:
        return [column.texts[code] for code in column.values.tolist()]
    if family == "UUID":
        return [uuid.UUID(int=(high << 64) | low) for high, low in column.values.tolist()]
    if family == "FixedString":
        return [bytes(row) for row in column.values]
    if family == "Date":
        return column.values.astype("datetime64[D]").tolist()
    return column.values.tolist()


def frame_from(data: Sequence[Any], types: Sequence[tuple[str, str]]) -> pl.DataFrame:
    """A driver result (columnar, with types) as a frame; without rows the columns and their types remain."""
    columns = data or [[] for _ in types]
    return pl.DataFrame([_series(name, kind, values) for (name, kind), values in zip(types, columns, strict=True)])


def _dtype(type_name: str) -> Any:
    family, inner = parse_type(type_name)
    if family in ("Nullable", "LowCardinality"):
        return _dtype(inner)
    if family == "Array":
        return pl.List(_dtype(inner))
    return _POLARS.get(family)


def _series(name: str, type_name: str, values: Any) -> pl.Series:
    family, inner = parse_type(type_name)
    if family == "LowCardinality":
        return _series(name, inner, np.asarray(values))
    array = (
        np.asarray(values) if not isinstance(values, np.ndarray) and family in ("DateTime", "DateTime64") else values
    )
    if isinstance(array, np.ndarray) and array.dtype.kind == "M":
        if family == "DateTime64":
            return pl.Series(name, array.astype("datetime64[ns]").view("i8")).cast(pl.Datetime("ns", "UTC"))
        if family == "DateTime":
            return pl.Series(name, array.astype("datetime64[s]").view("i8").astype(np.uint32))
        return pl.Series(name, array.astype("datetime64[D]"))
    dtype = _dtype(type_name)
    if isinstance(array, np.ndarray) and array.dtype != object:
        return pl.Series(name, array).cast(dtype) if dtype is not None else pl.Series(name, array)
    return pl.Series(name, [_value(type_name, value) for value in values], dtype=dtype)


def _value(type_name: str, value: Any) -> Any:
    family, inner = parse_type(type_name)
    if value is None:
        return None
    if family in ("Nullable", "LowCardinality"):
        return _value(inner, value)
    if family == "Array":
        return [_value(inner, element) for element in value]
    if family in ("Enum8", "Enum16"):
        return {m[1]: int(m[2]) for m in _ENUM.finditer(inner)}[str(value)]
    if family == "UUID":
        return uuid.UUID(str(value)).bytes
    if family == "FixedString":
        return value if isinstance(value, bytes) else str(value).encode()
    if family == "DateTime64":
        return int(np.datetime64(value).astype("datetime64[ns]").astype("i8"))
    return value.item() if isinstance(value, np.generic) else value
