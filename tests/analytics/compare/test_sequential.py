"""Looking a hundred times must not raise more false alarms than looking once."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from analytics.compare import exceedance, sequential

LOOKS = 100


def blocks(
    random: np.random.Generator, runs: int, rate_a: float, rate_b: float, n_a: int = 180, n_b: int = 20
) -> tuple[np.ndarray, ...]:
    shape = (runs, LOOKS)
    a, b = np.full(shape, n_a), np.full(shape, n_b)
    return random.binomial(a, rate_a), a, random.binomial(b, rate_b), b


def ever(k_a: np.ndarray, n_a: np.ndarray, k_b: np.ndarray, n_b: np.ndarray, side: int) -> np.ndarray:
    _, likelihood, _ = sequential.paths(*(x.astype(float) for x in (k_a, n_a, k_b, n_b)))
    return sequential.anytime(likelihood, side)[..., sequential.LEAST_BLOCKS - 1 :].max(axis=-1) >= np.log(20)


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.5])
def test_a_hundred_looks_without_a_difference_alarm_at_most_at_the_stated_rate(rate: float) -> None:
    runs = 300
    found = ever(*blocks(np.random.default_rng(1), runs, rate, rate), 1)
    assert found.sum() <= stats.binom.ppf(0.999, runs, 0.05)


def test_the_naive_test_looked_at_a_hundred_times_does_not() -> None:
    k_a, n_a, k_b, n_b = blocks(np.random.default_rng(2), 20, 0.05, 0.05)
    naive = 0
    for run in range(20):
        looks = zip(*(np.cumsum(x[run])[4::2] for x in (k_a, n_a, k_b, n_b)), strict=True)
        naive += any(exceedance.fisher(*(int(v) for v in look)) < 0.05 for look in looks)
    assert naive > 4


def test_bursts_that_hit_one_side_at_a_time_raise_no_more_alarms() -> None:
    runs = 200
    random = np.random.default_rng(3)
    k_a, n_a, k_b, n_b = blocks(random, runs, 0.01, 0.01)
    # In one block of thirty a side stalls: a fifth of its messages are slow at once. Both sides stall as often.
    k_a = np.where(random.random(k_a.shape) < 1 / 30, k_a + 36, k_a)
    k_b = np.where(random.random(k_b.shape) < 1 / 30, k_b + 4, k_b)
    found = ever(k_a, n_a, k_b, n_b, 1)
    assert found.mean() <= 0.07


def test_a_worse_canary_is_found_and_the_interval_holds_its_ratio() -> None:
    random = np.random.default_rng(4)
    found = covered = 0
    for _ in range(60):
        k_a, n_a, k_b, n_b = (x[0] for x in blocks(random, 1, 0.01, 0.03))
        said = sequential.evidence(k_a, n_a, k_b, n_b)
        found += said.p_worse <= 0.05
        covered += said.low <= 3.0 <= said.high
        assert said.p_better == pytest.approx(1.0, abs=0.9)
    assert found >= 57
    assert covered >= 55


def test_the_interval_covers_at_all_times_at_once() -> None:
    random = np.random.default_rng(5)
    missed = 0
    for _ in range(60):
        k_a, n_a, k_b, n_b = (x[0] for x in blocks(random, 1, 0.02, 0.02))
        said = [sequential.evidence(*(x[:t] for x in (k_a, n_a, k_b, n_b))) for t in (10, 20, 40, 60, 80, 100)]
        missed += any(not one.low <= 1 <= one.high for one in said)
    assert missed <= stats.binom.ppf(0.999, 60, 0.05)


def test_nothing_is_said_before_there_are_blocks() -> None:
    none = np.zeros(0, dtype=np.int64)
    assert sequential.evidence(none, none, none, none).p_worse == 1.0
    k = np.full(3, 20)
    assert sequential.evidence(np.zeros(3, dtype=np.int64), np.full(3, 20), k, k).p_worse == 1.0


def test_johari_s_formula() -> None:
    d = np.array([0.5, -0.2, 0.9, 0.4])
    v, tau, n = 2.0, 0.7, 4
    expected = np.sqrt(v / (v + n * tau**2)) * np.exp(n**2 * tau**2 * d.mean() ** 2 / (2 * v * (v + n * tau**2)))
    found = sequential.msprt(d, variance=v, tau=tau)
    assert found[-1] == pytest.approx(min(1.0, 1 / expected), abs=1e-9) or found[-1] < 1 / expected
    assert list(found) == sorted(found, reverse=True)


@pytest.mark.parametrize("variance", [1.0, None])
def test_means_looked_at_a_hundred_times_alarm_at_most_at_the_stated_rate(variance: float | None) -> None:
    random = np.random.default_rng(6)
    runs = 600
    ever_found = sum(sequential.msprt(random.normal(0, 1, LOOKS), variance)[-1] <= 0.05 for _ in range(runs))
    assert ever_found <= stats.binom.ppf(0.999, runs, 0.05)
    assert sum(sequential.msprt(random.normal(0.6, 1, LOOKS), variance)[-1] <= 0.05 for _ in range(50)) >= 48


def test_the_ranks_of_a_quantile_enclose_it_at_all_times_at_once() -> None:
    random = np.random.default_rng(7)
    looks = list(range(1_000, 11_000, 500))
    ranks = {n: sequential.quantile_ranks(0.99, n) for n in looks}
    assert ranks[1_000] is None or ranks[1_000][1] <= 1_000
    missed = 0
    runs = 200
    for _ in range(runs):
        below = np.cumsum(random.random(looks[-1]) <= 0.99)
        for n in looks:
            enclosing = ranks[n]
            if enclosing is not None and not enclosing[0] <= below[n - 1] < enclosing[1]:
                missed += 1
                break
    assert missed <= stats.binom.ppf(0.999, runs, 0.05)
    # 95 % at one time alone: ranks 9,880 and 9,920 of 10,000; at all times it is wider, and not by much.
    low, high = sequential.quantile_ranks(0.99, 10_000) or (0, 0)
    assert 9_840 < low < 9_880 < 9_920 < high < 9_960
