"""Comparisons of simulated populations: what is found, how often falsely, and that counts and messages agree."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from analytics import buckets
from analytics.compare import exceedance, location, shifts
from analytics.compare.arms import Arm, of_rows, of_values
from analytics.compare.comparing import budget, compare, judged, outcomes, quantile_of, tails

N = 5_000


def latencies(random: np.random.Generator, n: int, slow: float = 0.0, factor: float = 5.0) -> NDArray[np.int64]:
    base = random.lognormal(np.log(100_000), 0.35, n)
    return np.where(random.random(n) < slow, factor * base, base).astype(np.int64)


def found_worse(a: Arm, b: Arm) -> bool:
    return any(t.finding == "worse" for t in judged(tails(a, b), 0.05))


def test_one_percent_of_requests_five_times_slower_is_found() -> None:
    random = np.random.default_rng(1)
    hits = [
        found_worse(of_values("a", latencies(random, N)), of_values("b", latencies(random, N, 0.01)))
        for _ in range(100)
    ]
    assert np.mean(hits) >= 0.98
    # A test of location does not see it.
    a, b = of_values("a", latencies(random, N)), of_values("b", latencies(random, N, 0.01))
    assert location.mann_whitney(a, b)[1] > 0.001


def test_without_a_difference_the_false_alarms_are_at_their_stated_rate() -> None:
    random = np.random.default_rng(2)
    runs = 400
    any_of = 0
    p99 = 0
    for _ in range(runs):
        tests = judged(tails(of_values("a", latencies(random, N)), of_values("b", latencies(random, N))), 0.05)
        any_of += any(t.finding in ("worse", "better") for t in tests)
        p99 += (next(t for t in tests if t.name == "p99").p_value or 1) <= 0.05
    most = stats.binom.ppf(0.999, runs, 0.05)
    assert any_of <= most
    assert 0.005 * runs <= p99 <= most  # exact tests keep below 5 %, not at nothing


def clustered(random: np.random.Generator, clusters: int, each: int, spread: float) -> Arm:
    """Blocks of time that share a factor of their own."""
    of = np.repeat(np.arange(clusters), each)
    values = latencies(random, clusters * each) * np.exp(random.normal(0, spread, clusters))[of]
    return of_values("x", values.astype(np.int64), of)


def test_messages_that_share_bad_minutes_raise_no_false_alarms() -> None:
    random = np.random.default_rng(3)
    runs = 200
    fisher = robust = 0
    for _ in range(runs):
        a, b = clustered(random, 30, 200, 0.15), clustered(random, 30, 200, 0.15)
        b = Arm(b.name, b.source, b.bucket, b.n, [f"later {c}" for c in b.cluster], b.clustering, b.total)
        tests = judged(tails(a, b), 0.05)
        robust += any(t.finding in ("worse", "better") for t in tests)
        fisher += min(exceedance.holm([t.p_fisher or 1 for t in tests])) <= 0.05
    assert fisher > 0.3 * runs  # what taking them as independent would do
    assert robust <= stats.binom.ppf(0.999, runs, 0.05)


def test_the_intervals_of_a_ratio_cover_at_their_rate() -> None:
    random = np.random.default_rng(4)
    runs = 300
    covered = dict.fromkeys(("p50", "p99"), 0)
    for _ in range(runs):
        a = of_values("a", latencies(random, 3_000))
        b = of_values("b", (1.2 * latencies(random, 3_000)).astype(np.int64))
        for name, p in (("p50", 0.5), ("p99", 0.99)):
            moved = shifts.shift(a, b, p)
            assert moved.ratio_low is not None
            assert moved.ratio_high is not None
            covered[name] += moved.ratio_low <= 1.2 <= moved.ratio_high
    for name, hits in covered.items():
        assert hits >= stats.binom.ppf(0.001, runs, 0.95), name


def test_the_interval_of_a_quantile_is_that_of_order_statistics_without_clusters() -> None:
    values = np.arange(1, 1_001) * 1_000_000
    found = shifts.level(of_values("a", values), 0.99)
    assert not isinstance(found, str)
    # ranks 983 and 997 of 1,000, as scipy's quantile test has them, up to the buckets' width
    expected = stats.quantile_test(values, p=0.99, q=values[989]).confidence_interval(0.95)
    assert found.low_ns == pytest.approx(expected.low, rel=0.009)
    assert found.high_ns == pytest.approx(expected.high, rel=0.009)
    assert shifts.level(of_values("a", values[:300]), 0.99) == "needs at least 368 samples; a has 300"


def test_counts_give_what_messages_give() -> None:
    random = np.random.default_rng(5)
    of = np.repeat(np.arange(20), 250)
    arms, counted = [], []
    for name, slow in (("a", 0.0), ("b", 0.02)):
        values = latencies(random, N, slow)
        arms.append(of_values(name, values, of))
        rows = np.stack([of, buckets.index(values)])
        (cluster, bucket), n = np.unique(rows, axis=1, return_counts=True)
        counted.append(of_rows(name, cluster, bucket, n, clustering="time", source="messages"))
    assert compare(*arms) == compare(*counted)
    assert compare(*arms).verdict == "regression"


def test_mann_whitney_is_scipys() -> None:
    random = np.random.default_rng(6)
    x, y = random.integers(1, 60, 300), random.integers(3, 62, 200)
    slower, p_value = location.mann_whitney(of_values("a", x), of_values("b", y))
    expected = stats.mannwhitneyu(y, x, use_continuity=False, method="asymptotic")
    assert slower == pytest.approx(expected.statistic / (300 * 200))
    assert p_value == pytest.approx(expected.pvalue)


def test_holm_and_fisher_and_mcnemar_are_the_textbooks() -> None:
    assert exceedance.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert exceedance.fisher(1, 10, 9, 10) == pytest.approx(stats.fisher_exact([[1, 9], [9, 1]])[1])
    large = exceedance.fisher(10_000, 1_000_000, 10_200, 1_000_000)
    assert large == pytest.approx(stats.fisher_exact([[10_000, 990_000], [10_200, 989_800]])[1], rel=0.05)
    assert exceedance.mcnemar(5, 15) == pytest.approx(stats.binomtest(15, 20).pvalue)
    assert exceedance.fisher(0, 10, 0, 10) == 1.0


def test_too_few_messages_are_no_verdict() -> None:
    random = np.random.default_rng(7)
    few = compare(of_values("a", latencies(random, 300)), of_values("b", latencies(random, 300)))
    assert few.verdict == "insufficient"
    assert any("p99 needs at least 368" in line for line in few.sentences)
    assert (
        compare(of_values("a", latencies(random, 300)), of_values("b", latencies(random, 300)), needed="p95").verdict
        == "no_regression"
    )
    nothing = compare(of_values("a", np.array([])), of_values("b", latencies(random, 300)))
    assert nothing.verdict == "insufficient"
    assert nothing.location is None


def test_a_side_that_loses_its_slow_messages_does_not_look_fast() -> None:
    random = np.random.default_rng(8)
    values = latencies(random, N, 0.02)
    kept = np.sort(values)[: N - 100]
    a = of_values("a", values, unfinished=1)
    b = of_values("b", kept, unfinished=100)
    assert [t.name for t in outcomes(a, b)] == ["unfinished"]
    found = compare(a, b)
    assert found.verdict == "regression"
    assert next(t for t in found.tests if t.name == "unfinished").finding == "worse"
    assert found.b.unfinished == 100


def test_a_tolerance_lets_small_shifts_pass_and_says_so() -> None:
    random = np.random.default_rng(9)
    a = of_values("a", latencies(random, 200_000))
    b = of_values("b", (1.02 * latencies(random, 200_000)).astype(np.int64))
    assert compare(a, b).verdict == "regression"
    tolerant = compare(a, b, tolerance=0.05)
    assert tolerant.verdict == "no_regression"
    assert any("within the tolerance" in line for line in tolerant.sentences)
    with pytest.raises(ValueError, match="tolerance not negative"):
        compare(a, b, tolerance=-1)


def test_budgets_are_over_only_when_the_whole_interval_is() -> None:
    random = np.random.default_rng(10)
    arm = of_values("b", latencies(random, N))
    level = shifts.level(arm, 0.99)
    assert not isinstance(level, str)
    assert budget(arm, "p99", level.low_ns - 1).status == "over"
    assert budget(arm, "p99", level.value_ns).status == "undecided"
    assert budget(arm, "p99", level.high_ns).status == "within"
    assert budget(arm, "p99.99", 10**9).status == "refused"
    with pytest.raises(ValueError, match="is no percentile"):
        budget(arm, "99", 1)
    assert quantile_of("p99.9") == 0.999
    same = of_values("a", latencies(random, N))
    assert compare(same, arm, budgets_ns={"p99": 1_000}).verdict == "regression"


def test_many_instances_let_one_bad_host_be_one() -> None:
    random = np.random.default_rng(11)
    hosts = np.repeat(np.arange(12), 500)
    good = of_values("a", latencies(random, 6_000), hosts, clustering="instance")
    one_bad = latencies(random, 6_000)
    one_bad[hosts == 3] *= 3
    named = np.array([f"b{h}" for h in hosts])
    b = of_values("b", one_bad, named, clustering="instance")
    tests = tails(good, b)
    assert min(t.p_fisher or 1 for t in tests) < 1e-6
    assert compare(good, b).verdict == "no_regression"
    assert "one bad host" in compare(good, b).sentences[-1]
