"""What-ifs against simulations that really do what is asked, and out of a real store."""

from __future__ import annotations

import numpy as np
import pytest

from analytics import windows
from analytics.compare.arms import of_values
from analytics.whatif import asking, hedging
from analytics.whatif.answers import effects
from collector.store import Store
from tests.analytics.conftest import shared_store, store  # noqa: F401 - fixtures
from tests.analytics.world import HOUR, ORDER, label_set, path, put, put_rows, stamp

MS = 1_000_000
S = 1_000_000_000


def backend(random: np.random.Generator, n: int) -> np.ndarray:
    """Milliseconds mostly, and now and then a server that is away for seconds: the shape of The Tail at Scale."""
    body = random.lognormal(np.log(3 * MS), 0.4, n)
    return np.where(random.random(n) < 0.002, body + random.uniform(0.5 * S, 2 * S, n), body).astype(np.int64)


def test_hedging_takes_the_tail_away_for_a_few_more_requests() -> None:
    random = np.random.default_rng(1)
    n = 200_000
    first, second = backend(random, n), backend(random, n)
    after = 10 * MS
    truly = np.where(first <= after, first, np.minimum(first, after + second))
    arm = of_values("x", first, np.arange(n) // (n // 40))
    found, load = hedging.hedged(arm, arm, after)
    by_name = {one.name: one for one in found}
    p999 = by_name["p99.9"]
    assert p999.before_ns is not None
    assert p999.after_ns is not None
    assert p999.before_ns > 500 * MS
    assert p999.after_ns < 30 * MS
    assert load == pytest.approx((first > after).mean(), abs=1e-4)
    assert 0.002 < load < 0.02
    for name, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("p99.9", 0.999)):
        value = by_name[name].after_ns
        assert value is not None
        assert value == pytest.approx(np.quantile(truly, q), rel=0.06), name
        interval = by_name[name].after_ci
        assert interval is not None
        assert interval[0] * 0.98 <= np.quantile(truly, q) <= interval[1] * 1.02


def test_slowness_that_both_requests_meet_is_not_hedged_away() -> None:
    random = np.random.default_rng(2)
    n = 40_000
    block = np.arange(n) // 500
    values = np.where(block % 20 == 0, 400 * MS, 3 * MS) + random.integers(0, MS, n)  # whole seconds are bad
    arm = of_values("x", values, block)
    found = {one.name: one for one in hedging.hedged(arm, arm, 10 * MS)[0]}
    assert (found["p99"].after_ns or 0) < 20 * MS
    assert (found["p99"].same_time_ns or 0) > 390 * MS


def test_unfinished_messages_are_slower_than_anything_until_they_are_hedged() -> None:
    values = np.full(1_000, 3 * MS)
    arm = of_values("x", values, np.arange(1_000) // 25, unfinished=30)
    found = {one.name: one for one in hedging.hedged(arm, arm, 10 * MS)[0]}
    assert "never finished" in found["p99"].refused
    assert found["p95"].before_ns is not None


def test_a_faster_stage_is_taken_off_each_message() -> None:
    random = np.random.default_rng(3)
    n = 20_000
    slow, rest = random.lognormal(np.log(MS), 1, n).astype(np.int64), random.integers(MS, 2 * MS, n)
    before = slow + rest
    after = asking.shorter(before, slow, 2.0)
    assert np.abs(after - (slow / 2 + rest)).max() <= 1
    block = np.arange(n) // 500
    found = {one.name: one for one in effects(of_values("a", before, block), of_values("b", after, block))}
    p99 = found["p99"]
    assert p99.after_ns == pytest.approx(np.quantile(slow / 2 + rest, 0.99, method="inverted_cdf"), rel=0.005)
    assert p99.change is not None
    assert p99.change_ci is not None
    assert p99.change_ci[0] < p99.change < p99.change_ci[1] < 0
    # Never the sum of percentiles: p99 of a sum is not the sum of p99s.
    assert asking.shorter(np.array([10]), np.array([-4]), 2.0).tolist() == [10]


def test_few_messages_are_refused_percentile_by_percentile() -> None:
    arm = of_values("a", np.arange(1, 400) * 1_000)
    refused = {one.name: one.refused for one in effects(arm, arm)}
    assert refused["p99"] == ""
    assert refused["p99.9"] == "p99.9 needs at least 3,688 messages; there are 399"


@pytest.fixture
def filled(store: Store) -> Store:  # noqa: F811 - a fixture
    stamps, waits = [], []
    for i in range(400):
        at = HOUR + i * (S // 20)
        waited = 40_000 if i % 10 == 0 else 0
        points = [("app_ingress", 0), ("app_decision", 100_000 + waited), ("app_egress", 150_000 + waited)]
        stamps += [stamp(i + 1, point, at + after, thread=7) for point, after in points]
        if waited:
            waits.append(
                {"ts": at + 20_000, "duration_ns": waited, "host": "a", "thread": 7, "kind": "run_queue",
                 "culprit": "hog", "label_set": 0}
            )  # fmt: skip
    put(store, stamps)
    put_rows(store, "intervals", waits)
    how = label_set(store, {"mechanism": "eBPF", "sees": "run_queue"})
    row = {"ts": HOUR, "name": "scheduler_threshold_ns", "host": "a", "service": "", "label_set": how, "value": 1.0}
    put_rows(store, "gauges", [row])
    windows.run_due(store, {"order": path(ORDER)}, now_ns=HOUR + 120 * S)
    return store


def test_no_waiting_for_cpus_takes_exactly_the_waits_off(filled: Store) -> None:
    found = asking.without_scheduler(filled, path(ORDER), from_ns=HOUR, to_ns=HOUR + 20 * S)
    by_name = {one.name: one for one in found.effects}
    assert found.messages == 400
    assert by_name["p99"].before_ns == pytest.approx(190_000, rel=0.004)
    assert by_name["p99"].after_ns == pytest.approx(150_000, rel=0.004)
    assert by_name["p50"].change == pytest.approx(0, abs=0.004)


def test_it_is_asked_of_the_store_with_its_assumptions(filled: Store) -> None:
    found = asking.faster(filled, path(ORDER), "decide", 2.0, from_ns=HOUR, to_ns=HOUR + 20 * S)
    by_name = {one.name: one for one in found.effects}
    assert by_name["p50"].after_ns == pytest.approx(100_000, rel=0.004)
    assert any("no queue gets shorter" in line for line in found.assumptions)
    hedge = asking.hedged(filled, path(ORDER), 160_000, from_ns=HOUR, to_ns=HOUR + 20 * S)
    assert hedge.extra_load == pytest.approx(0.1)
    assert hedge.messages == 400
    for call in (
        lambda: asking.faster(filled, path(ORDER), "nowhere", 2.0, from_ns=HOUR, to_ns=HOUR + S),
        lambda: asking.faster(filled, path(ORDER), "decide", 0.0, from_ns=HOUR, to_ns=HOUR + S),
        lambda: asking.hedged(filled, path(ORDER), 0, from_ns=HOUR, to_ns=HOUR + S),
        lambda: asking.hedged(filled, path(ORDER), 1, from_ns=HOUR + 1_000 * S, to_ns=HOUR + 2_000 * S),
    ):
        with pytest.raises(asking.WhatIfError):
            call()
