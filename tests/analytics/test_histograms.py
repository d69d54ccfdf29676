"""Exported histograms: intervals, resets, alignment of scales, the error that is added, and windows that repeat."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics import buckets, latency
from analytics.histograms import HistogramJob, Point, cells_of, intervals, spread
from collector.store import Store
from collector.store.blocks import from_rows
from collector.store.schema import table_types
from tests.analytics.world import AGENT, HOUR

MS = 1_000_000
S = 1_000_000_000
BOUNDS = {"bounds": [5 * MS, 10 * MS, 100 * MS]}
_batch = itertools.count(1)


def point(
    ts_s: float, counts: Any, *, cumulative: bool = True, start_s: float = 0, layout: Any = None, **more: Any
) -> Point:
    n = sum(counts) if isinstance(counts, list) else counts["zero"] + sum(counts["positive"][1] + counts["negative"][1])
    values = {"stream": 1, "sum_ns": None, "min_ns": None, "max_ns": None, "row": 0, **more}
    return Point(
        ts_ns=HOUR + round(ts_s * S), start_ns=HOUR + round(start_s * S), cumulative=cumulative, n=n,
        layout=layout or BOUNDS, counts=counts, **values,
    )  # fmt: skip


def exponential(scale: int, offset: int, counts: list[int], zero: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"scale": scale, "unit_ns": 1e9, "zero": 0}, {
        "zero": zero,
        "positive": [offset, counts],
        "negative": [0, []],
    }


def test_cumulative_points_become_what_they_add_and_a_reset_counts_from_its_start() -> None:
    found = intervals([
        point(30, [5, 1, 0, 0]), point(10, [2, 0, 0, 0]), point(20, [3, 1, 0, 0]), point(20, [3, 1, 0, 0]),
        point(40, [1, 0, 0, 0], start_s=35),
    ])  # fmt: skip
    assert [(t - HOUR) // S for t, _, _ in found] == [10, 20, 30, 40]
    assert [cells.n for _, _, cells in found] == [2, 2, 2, 1]


def test_a_series_that_began_long_before_it_was_seen_counts_from_the_second_point_on() -> None:
    assert [
        c.n for _, _, c in intervals([point(10, [9, 0, 0, 0], start_s=-7_200), point(20, [9, 3, 0, 0], start_s=-7_200)])
    ] == [3]
    assert [c.n for _, _, c in intervals([point(10, [9, 0, 0, 0], cumulative=False, start_s=-7_200)])] == [9]


def test_exact_values_stay_exact_and_the_added_error_is_stated() -> None:
    cells = cells_of(BOUNDS, [4, 2, 0, 1], 7, 300.0 * MS, 3 * MS, 200 * MS)
    assert (cells.n, cells.sum_ns, cells.min_ns, cells.max_ns) == (7, 300 * MS, 3 * MS, 200 * MS)
    # 3..5 ms, 5..10 ms, and 100..200 ms, cut to the exact ends.
    assert cells.buckets == {int(buckets.index(v)): n for v, n in ((4 * MS, 4), (15 * MS // 2, 2), (150 * MS, 1))}
    assert cells.error == pytest.approx(1 / 3)
    assert cells_of(BOUNDS, [0, 0, 0, 1], 1, None, None, None).error == 1.0


@given(st.lists(st.integers(1_000, 10**10), min_size=1, max_size=200), st.integers(-2, 10))
def test_every_value_lies_within_the_stated_error(values: list[int], scale: int) -> None:
    base = 2.0 ** (2.0**-scale)
    index = [math.ceil(math.log(v / 1e9) / math.log(base)) - 1 for v in values]
    low = min(index)
    counts = [0] * (max(index) - low + 1)
    for i in index:
        counts[i - low] += 1
    if len(counts) > 2_000:
        return
    layout, said = exponential(scale, low, counts)
    cells = cells_of(layout, said, len(values), None, min(values), max(values))
    assert sum(cells.buckets.values()) == len(values)
    got = np.repeat(
        [int(buckets.midpoint(b)) for b in sorted(cells.buckets)], [cells.buckets[b] for b in sorted(cells.buckets)]
    )
    want = np.array(sorted(values))
    assert (np.abs(got - want) <= want * (cells.error / (1 - min(cells.error, 0.99)) + 0.009) + 2).all()


def test_a_scale_that_becomes_coarser_is_aligned() -> None:
    fine, fine_counts = exponential(1, 2, [1, 1, 1, 1])
    coarse, coarse_counts = exponential(0, 1, [3, 2])
    first = point(10, fine_counts, layout=fine)
    second = point(20, coarse_counts, layout=coarse)
    (_, _, one), (_, _, two) = intervals([first, second])
    assert (one.n, two.n) == (4, 1)
    assert sum(two.buckets.values()) == 1 and max(two.buckets) == int(buckets.index(3 * S))
    assert spread(coarse, coarse_counts) == {(2e9, 4e9): 3, (4e9, 8e9): 2}


def put(store: Store, *points: Point, name: str = "request") -> None:
    batch = next(_batch)
    import msgspec

    rows = [
        {
            "ts": p.ts_ns, "start_ns": p.start_ns, "host": "a", "service": "shop", "name": name, "stream": p.stream,
            "cumulative": int(p.cumulative), "n": p.n, "sum_ns": p.sum_ns, "min_ns": p.min_ns, "max_ns": p.max_ns,
            "label_set": 0, "layout": msgspec.json.encode(p.layout).decode(),
            "counts": msgspec.json.encode(p.counts).decode(), "batch": batch, "seq": i, "cut_day": 20_254,
        }
        for i, p in enumerate(points)
    ]  # fmt: skip
    store.insert("histograms", from_rows(table_types()["histograms"], rows), token=f"h#{batch}")
    times = [p.ts_ns for p in points]
    ledger = {
        "batch": batch, "collector": AGENT, "name": "otlp", "host": "a", "boot": 1, "seq_first": batch * 1000,
        "events": len(rows), "stored": len(rows), "quarantined": 0, "dropped": 0, "reasons": [], "reason_counts": [],
        "tables": ["histograms"], "table_rows": [len(rows)], "first_ts": min(times), "last_ts": max(times),
        "seconds": [], "produced_by_second": [], "missing_by_second": [], "cut": max(times), "cut_day": 20_254,
        "received": max(times) + batch, "checksum": 0, "bytes": 0, "attempt": 0,
    }  # fmt: skip
    store.insert("batches", from_rows(table_types()["batches"], [ledger]), token=f"hb#{batch}")


def test_windows_are_the_same_however_often_and_in_which_order_they_are_written(store: Store) -> None:
    store.execute("TRUNCATE TABLE histograms")
    series = [point(s, [s // 10, 0, 0, 0], sum_ns=float(s * MS), min_ns=MS, max_ns=5 * MS) for s in range(10, 100, 10)]
    job = HistogramJob()
    put(store, *series[:3], *series[5:])
    path = job.run_due(store, HOUR + 100 * S)["metric:shop:request"].path
    assert job.run_due(store, HOUR + 101 * S) == {}, "nothing new"

    def told() -> list[tuple[int, int]]:
        return [(s.count, s.max_ns or 0) for s in latency.series(store, path, step_s=10, stage="end_to_end")]

    assert sum(n for n, _ in told()) == 9
    put(store, *series[3:5])  # late: what is after them is counted again
    job.run_due(store, HOUR + 102 * S)
    assert [n for n, _ in told()] == [1] * 9
    generations = store.query("SELECT count() AS n FROM windows WHERE level = 10")["n"][0]
    put(store, *series)  # a client that repeats all of it
    HistogramJob().run_due(store, HOUR + 103 * S)
    assert [n for n, _ in told()] == [1] * 9
    assert store.query("SELECT count() AS n FROM windows WHERE level = 10")["n"][0] == generations
    (whole,) = latency.percentiles(store, path)
    assert (whole.count, whole.mean_ns, whole.min_ns) == (9, 10 * MS, MS)
    HistogramJob().run_due(store, HOUR + 3_600 * S)
    states = store.query("SELECT path, window, argMax(toString(state), (generation, state)) AS s FROM windows "
                         "WHERE level = 10 GROUP BY path, window")["s"].to_list()  # fmt: skip
    assert set(states) == {"final"}
