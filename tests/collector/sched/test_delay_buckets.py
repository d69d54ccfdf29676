from __future__ import annotations

import math

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.sched.delay_buckets import (
    BUCKETS,
    MAX_EXPONENT,
    bucket_bounds,
    bucket_index,
    quantile,
    samples_needed,
)

DELAYS = st.integers(0, (1 << MAX_EXPONENT) - 1)


@given(DELAYS)
@settings(max_examples=50)
def test_bounds_are_those_of_the_hdrhistogram_library(delay: int) -> None:
    # 2 significant digits give 256 sub-buckets, 128 per power of two.
    reference = HdrHistogram(1, (1 << MAX_EXPONENT) - 1, 2)
    assert reference.sub_bucket_count == 256
    low, high = bucket_bounds(bucket_index(np.array([delay])))
    assert int(low[0]) == reference.get_lowest_equivalent_value(delay)
    assert int(high[0]) == reference.get_highest_equivalent_value(delay)


def test_buckets_follow_one_another_without_gap_to_the_last() -> None:
    low, high = bucket_bounds(np.arange(BUCKETS))
    assert low[0] == 0
    assert (low[1:] == high[:-1] + 1).all()
    assert high[-1] == (1 << MAX_EXPONENT) - 1
    assert (bucket_index(low) == np.arange(BUCKETS)).all()
    assert (bucket_index(high) == np.arange(BUCKETS)).all()


def test_a_delay_beyond_the_range_is_counted_in_the_last_bucket() -> None:
    assert bucket_index(np.array([1 << 50]))[0] == BUCKETS - 1


@given(st.lists(st.integers(0, 10**9), min_size=400, max_size=600), st.sampled_from([0.5, 0.9, 0.99]))
@settings(max_examples=50)
def test_a_quantile_is_within_the_stated_error_of_the_exact_one(delays: list[int], p: float) -> None:
    counts = np.bincount(bucket_index(np.array(delays)), minlength=BUCKETS)
    exact = sorted(delays)[max(1, math.ceil(round(p * len(delays), 6))) - 1]
    value = quantile(counts, p, max(delays)).value_ns
    assert value is not None
    assert abs(value - exact) <= max(0.5, exact / 256)


@pytest.mark.parametrize(("p", "needed"), [(0.5, 6), (0.9, 36), (0.99, 368), (0.999, 3688)])
def test_a_quantile_is_refused_below_the_sample_it_needs(p: float, needed: int) -> None:
    assert samples_needed(p) == needed
    counts = np.zeros(BUCKETS, dtype=np.uint32)
    counts[10] = needed - 1
    assert quantile(counts, p, 10).value_ns is None
    assert f"needs at least {needed:,} samples" in quantile(counts, p, 10).refused
    counts[10] += 1
    assert quantile(counts, p, 10).value_ns == 10
