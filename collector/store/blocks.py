"""Blocks from what callers hold: shipped columns, plain rows, polars frames.

The types come from the schema (`collector.store.schema.table_types`), so that a column is described once. Nothing is
cast silently; a value that does not fit raises TypeError or ValueError with the column's name.
"""

from __future__ import annotations

import datetime as dt
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from collector.record import Columns, Kind
from collector.store.native import Block, BlockColumn, element_dtype, parse_type

if TYPE_CHECKING:
    import polars as pl

Types = Mapping[str, str]
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_ENUM = re.compile(r"'((?:[^'\\]|\\.)*)'\s*=\s*(-?\d+)")


def from_columns(types: Types, columns: Columns, extra: Sequence[BlockColumn] = ()) -> Block:
    """Shipped rows as a block: record names become the table's (`ts_ns` -> `ts`), codes keep their dictionaries.

    `extra` are columns that the receiver adds (batch, seq, cut_day). Dtypes and codes are checked when it is encoded.
    """
    out = []
    for column in columns.table.columns:
        name = store_name(column.name)
        type_name = _type_of(types, name)
        values = columns.values[column.name]
        texts = columns.texts[column.name] if column.kind is Kind.TEXT else None
        if column.kind is Kind.U8 and parse_type(type_name)[0] == "Enum8":
            # The wire has bytes, the store signed enum numbers; the door has refused what is not in the enum.
            values = values.view("<i1")
        out.append(BlockColumn(name, type_name, values, texts, columns.nulls.get(column.name)))
    return Block(len(columns), (*out, *extra))


def store_name(record_name: str) -> str:
    """The table's name of a record's column: event time is an integer `ts_ns` on the wire and `ts` in the store."""
    return "ts" if record_name == "ts_ns" else record_name


def constant(name: str, type_name: str, value: Any, rows: int) -> BlockColumn:
    """A column that has one value in every row."""
    one = _from_values(name, type_name, [value])
    return BlockColumn(name, type_name, np.repeat(one.values, rows, axis=0), one.texts)


def from_rows(types: Types, rows: Sequence[Mapping[str, Any]]) -> Block:
    """Plain rows as a block; every row has the same names, a subset of the table's columns.

    Accepts int or aware datetime for times, date or days for Date, uuid.UUID or text, enum names or numbers, lists
    for arrays, None where Nullable. For low rates; hot paths build arrays.
    """
    names = list(rows[0]) if rows else []
    for row in rows:
        if list(row) != names and set(row) != set(names):
            raise ValueError(f"rows differ in their columns: {sorted(set(row) ^ set(names))}")
    return Block(
        len(rows), tuple(_from_values(name, _type_of(types, name), [row[name] for row in rows]) for name in names)
    )


def from_arrays(types: Types, arrays: Mapping[str, NDArray[Any]]) -> Block:
    """Numeric arrays of equal length as a block; dtypes must be the columns' own."""
    columns = tuple(BlockColumn(name, _type_of(types, name), array) for name, array in arrays.items())
    return Block(len(columns[0].values) if columns else 0, columns)


def from_frame(types: Types, frame: pl.DataFrame) -> Block:
    """A polars frame as a block. Datetimes must be in ns, integers of the column's width, enums Int8 numbers."""
    return Block(
        frame.height,
        tuple(_from_series(name, _type_of(types, name), frame.get_column(name)) for name in frame.columns),
    )


def _type_of(types: Types, name: str) -> str:
    try:
        return types[name]
    except KeyError:
        raise TypeError(f"the table has no column {name!r}; it has {', '.join(types)}") from None


def _from_values(name: str, type_name: str, values: Sequence[Any]) -> BlockColumn:
    family, inner = parse_type(type_name)
    if family == "Array":
        lengths = np.array([len(v) for v in values], dtype=np.uint64)
        flat = _from_values(name, inner, [element for v in values for element in v])
        return BlockColumn(name, type_name, flat.values, flat.texts, flat.nulls, np.cumsum(lengths, dtype=np.uint64))
    nulls = None
    if family == "Nullable":
        nulls = np.array([v is None for v in values], dtype=np.bool_)
        family, _ = parse_type(inner)
        type_inner = inner
    else:
        type_inner = type_name
        if any(v is None for v in values):
            raise TypeError(f"column {name} {type_name}: None, but the column is not Nullable")
    dtype = element_dtype(type_inner)
    if dtype is None:
        codes: dict[str, int] = {}
        for v in values:
            if v is not None and not isinstance(v, str):
                raise TypeError(f"column {name} {type_name}: {v!r} is not text")
        array = np.array([codes.setdefault(v or "", len(codes)) for v in values], dtype=np.uint32)
        return BlockColumn(name, type_name, array, list(codes), nulls)
    try:
        plain = [_scalar(type_inner, v) for v in values]
        array = _array(type_inner, plain, dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"column {name} {type_name}: {error}") from error
    return BlockColumn(name, type_name, array, None, nulls)


def _array(type_name: str, plain: list[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    family, inner = parse_type(type_name)
    if family == "UUID":
        return np.array(plain, dtype=dtype).reshape(len(plain), 2)
    if family == "FixedString":
        return np.frombuffer(b"".join(plain), dtype=dtype).reshape(len(plain), int(inner))
    if dtype.kind in "iu" and not all(isinstance(v, int | np.integer) for v in plain):
        raise TypeError(f"{next(v for v in plain if not isinstance(v, int | np.integer))!r} is not an integer")
    return np.array(plain, dtype=dtype)


def _scalar(type_name: str, value: Any) -> Any:
    """A Python value as the number (or bytes) that the type stores; None becomes the value under a null."""
    family, inner = parse_type(type_name)
    if family == "UUID":
        number = uuid.UUID(str(value)).int if value is not None else 0
        return (number >> 64, number & (1 << 64) - 1)
    if family == "FixedString":
        raw = b"\0" * int(inner) if value is None else bytes(value)
        if len(raw) != int(inner):
            raise ValueError(f"{len(raw)} bytes, want {inner}")
        return raw
    if value is None:
        return 0
    if isinstance(value, dt.datetime):
        return _epoch(value, 1_000_000_000 if family == "DateTime64" else 1)
    if isinstance(value, dt.date):
        return (value - _EPOCH.date()).days
    if isinstance(value, str) and family in ("Enum8", "Enum16"):
        names = {match[1]: int(match[2]) for match in _ENUM.finditer(inner)}
        if value not in names:
            raise ValueError(f"{value!r} is not one of {', '.join(names)}")
        return names[value]
    return int(value) if isinstance(value, bool) else value


def _epoch(value: dt.datetime, per_second: int) -> int:
    if value.tzinfo is None:
        raise ValueError(f"{value} has no time zone; times are UTC")
    delta = value - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * per_second + delta.microseconds * per_second // 1_000_000


def _from_series(name: str, type_name: str, series: pl.Series) -> BlockColumn:
    import polars as pl  # the server's extra; rows and columns work without it

    family, inner = parse_type(type_name)
    if family == "Array":
        lengths = series.list.len().to_numpy().astype(np.uint64)
        if series.null_count():
            raise TypeError(f"column {name} {type_name}: an array cannot be null")
        flat = _from_series(name, inner, series.filter(series.list.len() > 0).explode())
        return BlockColumn(name, type_name, flat.values, flat.texts, flat.nulls, np.cumsum(lengths, dtype=np.uint64))
    nulls = None
    if family == "Nullable":
        nulls = series.is_null().to_numpy()
        type_name_inner = inner
    elif series.null_count():
        raise TypeError(f"column {name} {type_name}: {series.null_count()} nulls, but the column is not Nullable")
    else:
        type_name_inner = type_name
    dtype = element_dtype(type_name_inner)
    if dtype is None:
        encoded = series.cast(pl.String).fill_null("").to_arrow().dictionary_encode()
        return BlockColumn(name, type_name, encoded.indices.to_numpy(), encoded.dictionary.to_pylist(), nulls)
    if parse_type(type_name_inner)[0] in ("UUID", "FixedString"):
        one = _from_values(name, type_name_inner, series.to_list())
        return BlockColumn(name, type_name, one.values, None, nulls)
    if isinstance(series.dtype, pl.Datetime):
        family_inner = parse_type(type_name_inner)[0]
        if family_inner != "DateTime64" or series.dtype.time_unit != "ns":
            raise TypeError(f"column {name} {type_name}: frame has {series.dtype}, want integers or Datetime('ns')")
        series = series.to_physical()
    elif series.dtype == pl.Boolean:
        series = series.cast(pl.UInt8)
    elif series.dtype == pl.Date and dtype == np.dtype("<u2"):
        series = series.to_physical().cast(pl.UInt16)
    values = series.fill_null(0).to_numpy() if nulls is not None else series.to_numpy()
    if values.dtype != dtype:
        raise TypeError(f"column {name} {type_name}: frame has {series.dtype}, want {dtype}; cast it where meant")
    return BlockColumn(name, type_name, values, None, nulls)
