from __future__ import annotations

import numpy as np
import pytest

from analytics.queueing.headroom import date_at_trend, headroom
from analytics.queueing.knee import saturation, usl
from analytics.queueing.load import Load, limits, resampled
from tests.analytics.queueing.simulated import S, fifo

DAY = 86_400


def queue_load(seed: int, rhos: np.ndarray, *, threshold: float = 10.0, step: int = 400) -> tuple[Load, Load]:
    """An M/M/1 of mean service 1 s whose load changes slowly: steps of 400 s by latency, and by wait alone."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rhos * 2_000)
    gaps = np.concatenate([rng.exponential(S / r, c) for r, c in zip(rhos, counts, strict=True)]).astype(np.int64)
    queue = fifo(gaps, np.maximum(1, rng.exponential(S, len(gaps))).astype(np.int64))
    at = queue.arrived_ns // (step * S)
    m = int(at[-1])  # the last one is not whole
    took, wait = queue.left_ns - queue.arrived_ns, queue.taken_ns - queue.arrived_ns

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(at, weights=values, minlength=m)[:m]

    n = total(np.ones(len(at)))
    late = total((took > threshold * S).astype(float))
    one = Load(step, np.arange(m) * step, n, late, total(took), n)
    return one, Load(step, np.arange(m) * step, n, late, total(wait), n)


def test_headroom_of_a_queue_is_the_theorys() -> None:
    truth = 1 + np.log(0.01) / 10  # P(T > 10) = exp(-10 (1 - r)) = 1 %
    held, widths = [], []
    for seed in range(40):
        rng = np.random.default_rng(500 + seed)
        rhos = 0.45 + 0.25 * np.sin(np.linspace(0, 12, 40)) + rng.normal(0, 0.02, 40)
        found = headroom(queue_load(seed, rhos)[0], threshold_ns=10 * S, good=0.99)
        assert found.rate_s is not None and found.low_s is not None and found.high_s is not None, found.refused
        held.append(found.low_s <= truth <= found.high_s)
        widths.append(found.high_s - found.low_s)
        assert found.headroom_s == pytest.approx(found.rate_s - found.now_s)
    assert sum(held) >= 33, sum(held)  # 95 % of 40: fewer once in 2,000 times
    assert np.mean(widths) < 0.15


def test_headroom_says_when_it_cannot_know() -> None:
    flat = queue_load(1, np.full(40, 0.5))[0]
    assert "hardly changed" in headroom(
        Load(400, flat.start_s, np.full_like(flat.count, 200.0), flat.late + 5, flat.sum_ns, flat.finished),
        threshold_ns=S, good=0.99,
    ).refused  # fmt: skip
    quiet = queue_load(2, 0.1 + 0.05 * np.sin(np.linspace(0, 9, 40)))[0]
    assert "nothing says where it breaks" in headroom(quiet, threshold_ns=10 * S, good=0.99).refused
    far = queue_load(3, 0.2 + 0.15 * np.sin(np.linspace(0, 9, 60)), threshold=4.0)[0]
    assert "below 80 %" in headroom(far, threshold_ns=4 * S, good=0.5).refused
    rng = np.random.default_rng(0)
    other = Load(10, np.arange(100) * 10, rng.poisson(500, 100) + np.linspace(0, 300, 100),
                 rng.poisson(5, 100).astype(float), np.ones(100), np.ones(100))  # fmt: skip
    assert "does not rise with the load" in headroom(other, threshold_ns=S, good=0.99).refused
    assert "at least 20 steps" in headroom(Load(10, *(np.ones(3) for _ in range(5))), threshold_ns=S, good=0.9).refused
    with pytest.raises(ValueError, match="between 0 and 1"):
        headroom(far, threshold_ns=S, good=1.0)


def test_saturation_is_the_service_rate_and_is_refused_from_afar() -> None:
    held = []
    for seed in range(15):
        rhos = np.repeat(0.6 + 0.25 * np.sin(np.linspace(0, 12, 60)), 4)
        found = saturation(queue_load(seed, rhos)[1])
        assert found.value is not None and found.low is not None, found.refused
        held.append(found.low <= 1.0 <= (found.high or np.inf))
    assert sum(held) >= 11, sum(held)
    idle = saturation(queue_load(5, 0.3 + 0.2 * np.sin(np.linspace(0, 12, 60)))[1])
    assert idle.value is None and "below 80 %" in idle.refused
    assert "there are 1" in saturation(Load(10, *(np.ones(1) for _ in range(5)))).refused


def scaled(rng: np.random.Generator, most: float, g: float, a: float, b: float) -> Load:
    n = rng.uniform(1, most, 120)
    x = g * n / (1 + a * (n - 1) + b * n * (n - 1)) * rng.lognormal(0, 0.02, 120)
    count = x * 10
    return Load(10, np.arange(120) * 10, count, count * 0, n / x * 1e9 * count, count)


def test_the_knee_of_a_system_that_coordinates() -> None:
    g, a, b = 100.0, 0.03, 0.001
    truth = np.sqrt((1 - a) / b)
    held = []
    for seed in range(30):
        found = usl(scaled(np.random.default_rng(seed), 50, g, a, b))
        assert found.value is not None and found.low is not None and found.high is not None, found.refused
        held.append(found.low <= truth <= found.high)
    assert sum(held) >= 24, sum(held)
    far = usl(scaled(np.random.default_rng(1), 12, g, a, b))
    assert far.value is None and "below 80 %" in far.refused
    ceiling = usl(scaled(np.random.default_rng(2), 60, g, 0.5, 0.0))
    assert ceiling.unit == "messages per second" and ceiling.value == pytest.approx(g / 0.5, rel=0.05)
    straight = usl(scaled(np.random.default_rng(3), 60, g, 0.0, 0.0))
    assert straight.value is None
    assert "this idle" in usl(queue_load(1, np.full(30, 0.2))[0]).refused


def test_the_date_at_trend() -> None:
    rng = np.random.default_rng(3)
    days = np.arange(30) * DAY
    grown = date_at_trend(days, 100 + 2 * np.arange(30) + rng.normal(0, 3, 30), 220.0)
    assert grown.at_s is not None and grown.early_s is not None and grown.late_s is not None
    assert grown.early_s < 60 * DAY < grown.late_s
    assert grown.at_s == pytest.approx(60 * DAY, rel=0.1)
    none = date_at_trend(days, 100 + rng.normal(0, 3, 30), 220.0)
    assert none.at_s is None and "not told apart from none" in none.refused
    falls = date_at_trend(days, 100 - 2 * np.arange(30) + rng.normal(0, 3, 30), 220.0)
    assert "fall" in falls.refused
    assert "at least 10 days" in date_at_trend(days[:5], np.ones(5), 10.0).refused


def test_no_growth_is_called_growth_at_the_stated_rate_only() -> None:
    called = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        called += not date_at_trend(np.arange(30) * DAY, 100 + rng.normal(0, 5, 30), 500.0).refused.startswith(
            "the gro"
        )
    assert called <= 28  # 5 % of 300, and what chance adds once in 1,000 times


def test_blocks_are_drawn_whole() -> None:
    weights = resampled(100, np.random.default_rng(0), blocks=10, times=50)
    assert weights.shape == (50, 100)
    assert (weights.reshape(50, 10, 10).std(axis=2) == 0).all()
    assert (weights.sum(axis=1) == 100).all()
    assert limits(np.array([1.0, np.inf, np.nan, 2.0] * 10)) == (1.0, float("inf"))
