"""Percentiles: near the true order statistic, ordered, honest about doubt."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from analytics.percentiles import QUANTILES, Counts, interval_ranks, minimum_count, percentile, percentiles, rank

samples = st.lists(st.integers(-(10**6), 10**12), min_size=40, max_size=400)


@settings(max_examples=50)
@given(samples, st.sampled_from([0.5, 0.75, 0.9]))
def test_the_value_is_within_its_error_of_the_order_statistic(values: list[int], p: float) -> None:
    found = percentile(Counts.of(np.array(values)), p)
    exact = sorted(values)[max(1, math.ceil(p * len(values))) - 1]
    if found.value_ns is None:
        assert "needs at least" in found.refused
        return
    assert found.error_ns is not None
    assert abs(found.value_ns - exact) <= found.error_ns
    assert min(values) <= found.value_ns <= max(values)
    assert found.low_ns is not None
    assert found.high_ns is not None
    assert found.low_ns <= exact <= found.high_ns


@settings(max_examples=50)
@given(samples)
def test_percentiles_rise_with_their_rank(values: list[int]) -> None:
    given_values = [p.value_ns for p in percentiles(Counts.of(np.array(values))).values() if p.value_ns is not None]
    assert given_values == sorted(given_values)


@pytest.mark.parametrize(("p", "n"), [(0.99, 368), (0.999, 3_688), (0.9999, 36_887)])
def test_the_least_counts_are_those_of_the_binomial(p: float, n: int) -> None:
    assert minimum_count(p) == n
    assert percentile(Counts.of(np.arange(n)), p).value_ns is not None
    refused = percentile(Counts.of(np.arange(n - 1)), p)
    assert refused.value_ns is None
    assert refused.refused == f"p{p * 100:.10g} needs at least {n:,} samples, there are {n - 1:,}"


def test_interval_ranks_are_scipys() -> None:
    assert interval_ranks(0.99, 1_000) == (983, 997)
    for n in (368, 5_000, 10**7):
        for p in (0.5, 0.99):
            low, high = int(stats.binom.ppf(0.025, n, p)), int(stats.binom.ppf(0.975, n, p)) + 1
            assert interval_ranks(p, n) == (max(1, low), min(n, high))


def test_the_interval_covers_the_true_quantile_as_often_as_it_says() -> None:
    dice = np.random.default_rng(7)
    true = math.exp(10 + stats.norm.ppf(0.99))
    hits = 0
    for _ in range(400):
        found = percentile(Counts.of(dice.lognormal(10, 1, 1_000).astype(np.int64)), 0.99)
        assert found.low_ns is not None
        assert found.high_ns is not None
        hits += found.low_ns <= true <= found.high_ns
    assert hits / 400 >= 0.95


def test_ranks_do_not_slip_by_one() -> None:
    assert [rank(0.99, n) for n in (1, 100, 1_000, 101)] == [1, 99, 990, 100]
    assert rank(0.4, 3) == 2


def test_unfinished_messages_move_the_percentile_up_or_away() -> None:
    values = np.arange(1, 1_001) * 1_000
    plain, moved = percentile(Counts.of(values), 0.99), percentile(Counts.of(values, unfinished=5), 0.99)
    assert moved.value_ns == plain.value_ns
    assert moved.with_unfinished_ns is not None
    assert plain.value_ns is not None
    assert moved.with_unfinished_ns > plain.value_ns
    assert percentile(Counts.of(values, unfinished=50), 0.99).with_unfinished_ns is None


def test_the_extremes_are_exact_and_nonsense_is_refused() -> None:
    counts = Counts.of(np.full(40_000, 1_000_003))
    assert {p.value_ns for p in percentiles(counts).values()} == {1_000_003}
    assert set(QUANTILES) == set(percentiles(counts))
    with pytest.raises(ValueError, match="between 0 and 1"):
        percentile(counts, 1.0)
