"""Buckets: numpy, SQL and HdrHistogram agree; values lie in their bucket and near its midpoint."""

from __future__ import annotations

import numpy as np
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st

from analytics import buckets
from collector.store import Store

EDGES = sorted({max(0, (1 << k) + d) for k in range(53) for d in (-1, 0, 1)} | set(range(300)))
latencies = st.integers(-(1 << 53) + 1, (1 << 53) - 1)


def test_the_index_is_hdrhistograms_counts_index() -> None:
    histogram = HdrHistogram(1, 1 << 54, 2)
    values = np.array(EDGES, dtype=np.int64)
    assert buckets.index(values).tolist() == [histogram._counts_index_for(v) for v in EDGES]
    assert buckets.high(buckets.index(values)).tolist() == [histogram.get_highest_equivalent_value(v) for v in EDGES]


def test_sql_gives_the_same_index(store: Store) -> None:
    values = [*EDGES, *(-v for v in EDGES)]
    rows = store.query(
        f"SELECT v, {buckets.index_sql('v')} AS b FROM (SELECT arrayJoin({{values:Array(Int64)}}) AS v)",  # noqa: S608
        {"values": values},
    )
    assert rows["b"].to_list() == buckets.index(rows["v"].to_numpy()).tolist()


@given(latencies)
def test_a_value_lies_in_its_bucket_and_near_its_midpoint(value: int) -> None:
    bucket = buckets.index(value)
    assert buckets.low(bucket) <= value <= buckets.high(bucket)
    distance = abs(value - int(buckets.midpoint(bucket)))
    assert distance <= buckets.half_width(bucket)
    assert distance <= 0.00391 * abs(value)


@given(st.lists(latencies, min_size=2))
def test_order_is_kept(values: list[int]) -> None:
    ordered = np.array(sorted(values))
    assert (np.diff(buckets.index(ordered)) >= 0).all()
