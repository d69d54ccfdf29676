from __future__ import annotations

import numpy as np
import pytest
from statsmodels.datasets import engel

from analytics.money.effects import SensitivityError
from analytics.money.medians import median_line
from analytics.money.response import Curve, response


def truth(latency_ms: np.ndarray) -> np.ndarray:
    """Falls by 0.02 per ms up to 60 ms, and no further."""
    return 5.0 - 0.02 * np.minimum(latency_ms, 60.0)


def drawn(seed: int, falls: bool = True, days: int = 20) -> Curve:
    """A curve of a history in which busy hours are slow and buy more."""
    rng = np.random.default_rng(seed)
    n = days * 600
    day, hour = np.arange(n) // 600, rng.integers(0, 24, n)
    busy = np.sin(hour / 24 * 2 * np.pi)
    latency = 50 + 12 * busy + rng.gamma(4.0, 6.0, n) - 24
    level = truth(latency) if falls else np.full(n, 4.0)
    kpi = level + 1.0 * busy + rng.normal(0, 0.2, days)[day] + rng.normal(0, 0.5, n)
    return response(kpi, latency, day, hour)


def test_the_curve_falls_and_saturates_where_it_does() -> None:
    curve = drawn(1)
    assert (np.diff(curve.level) <= 0).all()
    steep = curve.change(30.0, 55.0)
    assert steep.estimate == pytest.approx(-0.5, abs=0.08)
    assert steep.seen
    flat = curve.change(65.0, curve.support[1])
    assert not flat.seen
    assert curve.saturated_from_ms is not None
    assert 45 < curve.saturated_from_ms < 75


def test_changes_and_the_band_cover_the_truth() -> None:
    changes, shape = 0, []
    for seed in range(40):
        curve = drawn(seed)
        found = curve.change(35.0, 65.0)
        changes += found.low <= -0.5 <= found.high
        expected = truth(curve.at_ms)
        expected = expected - expected.mean() + curve.raw.mean()  # the level of the hours' mean is not the question
        shape.append(((curve.low <= expected) & (expected <= curve.high)).mean())
    assert changes >= 34
    assert np.mean(shape) > 0.9


def test_noise_is_no_fall() -> None:
    claimed = sum(drawn(seed, falls=False).change(30.0, 70.0).seen for seed in range(40))
    assert claimed <= 6
    flat = drawn(3, falls=False)
    assert flat.saturated_from_ms == pytest.approx(flat.support[0])


def test_a_rise_is_not_called_a_fall() -> None:
    rng = np.random.default_rng(2)
    latency = rng.uniform(10, 50, 4000)
    curve = response(0.1 * latency + rng.normal(size=4000), latency, np.arange(4000) % 10)
    assert not curve.change(15.0, 45.0).seen
    up = response(0.1 * latency + rng.normal(size=4000), latency, np.arange(4000) % 10, direction="up")
    assert up.change(15.0, 45.0).low > 2.5


def test_nothing_is_extrapolated() -> None:
    curve = drawn(1)
    least, most = curve.support
    with pytest.raises(SensitivityError, match="outside what was seen"):
        curve.at(most + 1)
    beyond = curve.change(least - 100, most + 100)
    assert beyond.clamped
    assert beyond.estimate == curve.change(least, most).estimate
    assert not curve.change(least, most).clamped


def test_without_confounding_the_levels_are_the_means() -> None:
    rng = np.random.default_rng(6)
    latency = np.repeat(np.arange(5.0), 100)
    kpi = rng.normal(size=500)
    curve = response(kpi, latency, np.arange(500) % 10, knots=5)
    assert curve.raw == pytest.approx([kpi[latency == one].mean() for one in range(5)])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"day": np.zeros(1000, dtype=np.int64)}, "1 days"),
        ({"stratum": np.arange(1000)}, "stratum"),
        ({"knots": 90}, "too few"),
        ({"knots": 2}, "knots"),
        ({"latency_ms": np.full(1000, np.nan)}, "latency_ms: 1000 values"),
    ],
)
def test_what_cannot_be_drawn_is_refused(change: dict[str, object], says: str) -> None:
    given: dict[str, object] = {
        "kpi": np.zeros(1000),
        "latency_ms": np.arange(1000.0),
        "day": np.arange(1000) % 10,
    }
    with pytest.raises(SensitivityError, match=says):
        response(**(given | change))  # type: ignore[arg-type]


def test_the_median_of_engel() -> None:
    data = engel.load_pandas().data
    level, slope = median_line(data.foodexp.to_numpy(), data.income.to_numpy())
    assert level == pytest.approx(81.482256, abs=5e-6)
    assert slope == pytest.approx(0.560181, abs=5e-7)


def test_a_median_that_cannot_be_is_refused() -> None:
    with pytest.raises(SensitivityError, match="does not vary"):
        median_line(np.arange(5.0), np.ones(5))
    with pytest.raises(SensitivityError, match="quantile"):
        median_line(np.arange(5.0), np.arange(5.0), 1.0)
