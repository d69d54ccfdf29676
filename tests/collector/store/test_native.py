# ruff: noqa: S106 - a deduplication token is no password
from __future__ import annotations

import datetime as dt
import uuid

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collector.record import STAMPS, Columns
from collector.store import StoreError
from collector.store.blocks import constant, from_arrays, from_columns, from_frame, from_rows
from collector.store.embedded import EmbeddedStore
from collector.store.native import Block, BlockColumn, encode
from collector.store.schema import table_types

TYPES = {
    "i": "UInt64",
    "t": "DateTime64(9, 'UTC')",
    "s": "DateTime('UTC')",
    "day": "Date",
    "u": "UUID",
    "f": "FixedString(3)",
    "e": "Enum8('a' = 1, 'b' = -2)",
    "text": "String",
    "lc": "LowCardinality(String)",
    "n": "Nullable(Int32)",
    "nt": "Nullable(String)",
    "x": "Float64",
    "alc": "Array(LowCardinality(String))",
    "an": "Array(Nullable(Int64))",
    "au": "Array(UInt32)",
}
COLUMNS = ", ".join(f"{name} {type_name}" for name, type_name in TYPES.items())
TEXT = st.text(max_size=12)
ROW = st.fixed_dictionaries(
    {
        "i": st.integers(0, 2**64 - 1),
        "t": st.integers(0, 2**62),
        "s": st.integers(0, 2**32 - 1),
        "day": st.integers(0, 65_535),
        "u": st.uuids(),
        "f": st.binary(min_size=3, max_size=3),
        "e": st.sampled_from(["a", "b"]),
        "text": TEXT,
        "lc": TEXT,
        "n": st.none() | st.integers(-(2**31), 2**31 - 1),
        "nt": st.none() | TEXT,
        "x": st.floats(allow_nan=False),
        "alc": st.lists(TEXT, max_size=4),
        "an": st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=4),
        "au": st.lists(st.integers(0, 2**32 - 1), max_size=4),
    }
)
READ = (
    "SELECT i, toUnixTimestamp64Nano(t) AS t, toUnixTimestamp(s) AS s, toUInt16(day) AS day, toString(u) AS u, "
    "hex(f) AS f, toString(e) AS e, text, lc, n, nt, x, alc, an, au FROM kinds ORDER BY at"
)


@pytest.fixture(scope="module")
def kinds(store: EmbeddedStore) -> EmbeddedStore:
    store.execute(f"CREATE TABLE kinds (at UInt32, {COLUMNS}) ENGINE = MergeTree ORDER BY at")
    return store


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ROW, max_size=12))
def test_what_goes_in_comes_out(kinds: EmbeddedStore, rows: list[dict[str, object]]) -> None:
    kinds.execute("TRUNCATE TABLE kinds")
    numbered = [{"at": at, **row} for at, row in enumerate(rows)]
    kinds.insert("kinds", from_rows({"at": "UInt32", **TYPES}, numbered), token=uuid.uuid4().hex)
    expected = [{**row, "u": str(row["u"]), "f": bytes(row["f"]).hex().upper()} for row in rows]  # type: ignore[call-overload]
    assert kinds.query(READ).to_dicts() == expected


def test_a_frame_gives_the_same_rows(kinds: EmbeddedStore) -> None:
    kinds.execute("TRUNCATE TABLE kinds")
    frame = pl.DataFrame(
        {
            "at": pl.Series([0, 1], dtype=pl.UInt32),
            "t": pl.Series([5, 6], dtype=pl.Int64).cast(pl.Datetime("ns", "UTC")),
            "lc": ["x", "y"],
            "n": pl.Series([None, 7], dtype=pl.Int32),
            "alc": [["p", "q"], []],
            "an": pl.Series([[1, None], [3]], dtype=pl.List(pl.Int64)),
            "e": pl.Series([1, -2], dtype=pl.Int8),
        }
    )
    kinds.insert("kinds", from_frame({"at": "UInt32", **TYPES}, frame), token=uuid.uuid4().hex)
    got = kinds.query("SELECT toUnixTimestamp64Nano(t) AS t, lc, n, alc, an, toString(e) AS e FROM kinds ORDER BY at")
    assert got.to_dicts() == [
        {"t": 5, "lc": "x", "n": None, "alc": ["p", "q"], "an": [1, None], "e": "a"},
        {"t": 6, "lc": "y", "n": 7, "alc": [], "an": [3], "e": "b"},
    ]


@pytest.mark.parametrize("texts", [1, 256, 257, 65_536, 65_537])
def test_low_cardinality_widths(kinds: EmbeddedStore, texts: int) -> None:
    kinds.execute("TRUNCATE TABLE kinds")
    codes = np.arange(texts, dtype=np.uint32)
    block = Block(
        texts,
        (
            BlockColumn("at", "UInt32", codes),
            BlockColumn("lc", "LowCardinality(String)", codes[::-1].copy(), [f"w{n}" for n in range(texts)]),
        ),
    )
    kinds.insert("kinds", block, token=uuid.uuid4().hex)
    got = kinds.query("SELECT count() AS n, countIf(lc = concat('w', toString({last:UInt32} - at))) AS same FROM kinds",
                      {"last": texts - 1})  # fmt: skip
    assert got.row(0) == (texts, texts)


def test_shipped_columns_become_table_rows(store: EmbeddedStore) -> None:
    rows = [
        {"ts_ns": 1_700_000_000_000_000_001, "key": 2**64 - 1, "point": "tap", "host": "a", "depth": -3, "outcome": 5},
        {"ts_ns": 1_700_000_000_000_000_002, "key": 1, "point": "acked", "host": "a", "error_ns": 9},
    ]
    types = table_types()["stamps"]
    extra = [
        constant("batch", types["batch"], 77, 2),
        BlockColumn("seq", types["seq"], np.array([5, 6], np.uint64)),
        constant("cut_day", types["cut_day"], dt.date(2023, 11, 14), 2),
    ]
    store.insert("stamps", from_columns(types, Columns.from_rows(STAMPS, rows), extra), token="shipped")
    got = store.query(
        "SELECT toUnixTimestamp64Nano(ts) AS ns, key, point, depth, error_ns, toString(outcome) AS outcome, batch, "
        "seq, toString(cut_day) AS day FROM stamps WHERE batch = 77 ORDER BY seq"
    )
    assert got.rows() == [
        (1_700_000_000_000_000_001, 2**64 - 1, "tap", -3, None, "timeout", 77, 5, "2023-11-14"),
        (1_700_000_000_000_000_002, 1, "acked", None, 9, "unset", 77, 6, "2023-11-14"),
    ]


@pytest.mark.parametrize(
    ("column", "error", "says"),
    [
        (BlockColumn("i", "UInt8", np.array([300], np.int64)), TypeError, "column i UInt8: values have dtype int64"),
        (BlockColumn("i", "Int64", np.array([3.5])), TypeError, "dtype float64, want int64"),
        (BlockColumn("i", "Int64", np.array([1, 2])), ValueError, r"shape \(2,\), want \(1,\)"),
        (BlockColumn("s", "String", np.array([1]), ["only"]), ValueError, "codes 1..1 do not fit 1 texts"),
        (BlockColumn("s", "String", np.array([-1]), ["only"]), ValueError, "codes -1..-1"),
        (BlockColumn("n", "Int64", np.array([1]), nulls=np.array([True])), TypeError, "not Nullable"),
        (BlockColumn("n", "Nullable(Int64)", np.array([1]), nulls=np.array([1])), TypeError, "nulls must be bool"),
        (BlockColumn("a", "Array(Int64)", np.array([1])), TypeError, "offsets must be uint64, got None"),
        (BlockColumn("a", "Array(Int64)", np.array([1]), offsets=np.array([2], np.uint64)), ValueError, "must end at"),
        (BlockColumn("m", "Map(String, String)", np.array([1])), TypeError, "not supported"),
    ],
)  # fmt: skip
def test_nothing_is_cast_silently(column: BlockColumn, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        encode(Block(1, (column,)))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"i": -1}, "column i UInt64"),
        ({"i": 1.0}, "1.0 is not an integer"),
        ({"i": None}, "not Nullable"),
        ({"lc": 3}, "3 is not text"),
        ({"t": dt.datetime(2026, 1, 1)}, "no time zone"),  # noqa: DTZ001 - that is the point
        ({"e": "c"}, "'c' is not one of a, b"),
        ({"f": b"four"}, "4 bytes, want 3"),
        ({"nope": 1}, "no column 'nope'"),
    ],
)
def test_rows_that_do_not_fit_name_the_column(row: dict[str, object], says: str) -> None:
    with pytest.raises(TypeError, match=says):
        from_rows(TYPES, [row])


def test_a_frame_of_another_width_is_refused() -> None:
    with pytest.raises(TypeError, match="column i UInt64: frame has Int64, want uint64"):
        from_frame(TYPES, pl.DataFrame({"i": [1]}))


def test_more_rows_than_one_part_are_refused() -> None:
    with pytest.raises(ValueError, match="not one atomic insert"):
        encode(from_arrays({"i": "UInt8"}, {"i": np.zeros(1_048_450, np.uint8)}))


def test_an_unknown_table_is_an_error_with_its_code(store: EmbeddedStore) -> None:
    with pytest.raises(StoreError, match="UNKNOWN_TABLE") as caught:
        store.insert("absent", from_rows({"i": "UInt8"}, [{"i": 1}]), token="t")
    assert (caught.value.code, caught.value.retryable) == (60, False)
