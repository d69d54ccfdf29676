"""Difference in differences: the effect, its interval, its refusal, and the same numbers as other programs."""

from __future__ import annotations

import numpy as np
import pytest

from analytics.money.effects import SensitivityError, Words
from analytics.money.natural import Natural, clustered, natural

HOUR = 3_600_000_000_000
WORDS = Words(kpi="conversion", kpi_unit="percentage points")


def moved(seed: int, truth: float = -0.5, drift: float = 0.0, by: float = 4.0, hours: int = 96, n: int = 30) -> Natural:
    """`n` rows per hour and group; the change makes the treated `by` ms slower from the middle on."""
    rng = np.random.default_rng(seed)
    at = np.repeat(np.arange(hours), 2 * n)
    treated = np.tile(np.arange(2 * n) < n, hours)
    after = at >= hours // 2
    common = rng.normal(0, 1, hours)[at]
    own = rng.normal(0, 0.3, (hours, 2))[at, treated.astype(int)]
    latency = 10 + 2 * common + 1.5 * treated + by * (treated & after) + rng.gamma(2, 1, len(at))
    kpi = 40 + 3 * common + 2 * treated + own + truth * latency + drift * at * treated + rng.normal(0, 3, len(at))
    offset = (at - hours // 2) * HOUR + rng.integers(0, HOUR, len(at))
    return natural(kpi, latency, treated, offset, at, WORDS)


def test_the_effect_is_what_the_change_did_to_the_kpi_by_what_it_did_to_the_latency() -> None:
    found = moved(1)
    effect = found.effect
    assert effect.design == "natural experiment"
    assert effect.low is not None and effect.high is not None
    assert effect.low < -0.5 < effect.high < 0
    assert found.kpi_moved == pytest.approx(-2.0, abs=0.5)
    assert found.exposure_moved == pytest.approx(4.0, abs=0.3)
    assert "as far as nothing else of the change moved it" in effect.sentence
    offsets = [one.offset for one in found.periods]
    assert offsets == [*range(-6, 0), *range(6)]
    assert all(one.exposure_low > 3 for one in found.periods if one.offset >= 0)
    assert all(one.exposure_low < 0 < one.exposure_high for one in found.periods if one.offset < -1)


def test_the_interval_and_the_false_alarms_keep_their_rates() -> None:
    results = [moved(seed).effect for seed in range(40)]
    refused = [one for one in results if one.verdict == "refused"]
    assert len(refused) <= 6  # the test of the past is wrong in 5 %
    held = [one.low <= -0.5 <= one.high for one in results if one.low is not None and one.high is not None]
    assert sum(held) >= len(held) - 6
    claims = [moved(seed, truth=0.0).effect.seen for seed in range(40, 80)]
    assert sum(claims) <= 6


def test_groups_that_went_apart_before_are_refused() -> None:
    found = moved(3, drift=0.05)
    assert found.effect.verdict == "refused"
    assert "different ways before" in found.effect.reason
    assert found.pre_trend_p is not None and found.pre_trend_p < 0.01
    assert found.effect.estimate is None


def test_a_change_that_moved_nothing_is_refused() -> None:
    found = moved(4, by=0.0)
    assert found.effect.verdict == "refused"
    assert "hardly moved" in found.effect.reason


def test_what_is_missing_is_named() -> None:
    one = np.ones(8)
    both = np.arange(8) % 2 == 0
    offset = np.arange(8, dtype=np.int64) - 4
    block = np.arange(8)
    with pytest.raises(SensitivityError, match="control group before"):
        natural(one, one, np.ones(8, dtype=bool), offset, block, WORDS)
    with pytest.raises(SensitivityError, match="after"):
        natural(one, one, both, offset - 100, block, WORDS)
    with pytest.raises(SensitivityError, match="cluster"):
        natural(one, one, both, offset, block[1:], WORDS)


def test_coefficients_and_errors_are_those_of_statsmodels() -> None:
    sm = pytest.importorskip("statsmodels.api", reason="needs the package statsmodels")
    rng = np.random.default_rng(5)
    cluster = np.repeat(np.arange(25), 20)
    x = np.column_stack([np.ones(500), rng.normal(size=500) + 0.1 * cluster, rng.normal(size=500)])
    y = x @ [1.0, 2.0, -1.0] + rng.normal(size=25)[cluster] + rng.normal(size=500)
    mine = clustered(y, x, cluster, 0)
    theirs = sm.OLS(y, x).fit(cov_type="cluster", cov_kwds={"groups": cluster})
    assert mine.beta == pytest.approx(theirs.params)
    assert mine.covariance == pytest.approx(theirs.cov_params())


def test_the_effect_is_that_of_linearmodels_with_every_level_written_out() -> None:
    pytest.importorskip("linearmodels", reason="needs the package linearmodels")
    from linearmodels.iv import IV2SLS

    rng = np.random.default_rng(6)
    at = np.repeat(np.arange(48), 10)
    treated = np.tile(np.arange(10) < 5, 48)
    offset = (at - 24) * HOUR
    x = rng.gamma(2, 1, 480) + 3.0 * (treated & (offset >= 0)) + treated
    y = 5 - 0.5 * x + treated + rng.normal(size=48)[at] + rng.normal(size=480)
    found = natural(y, x, treated, offset, at, WORDS).effect
    period = np.where(offset < 0, -1 - (-offset - 1) // (4 * HOUR), offset // (-(-(23 * HOUR + 1) // 6)))
    levels = (period[:, None] == np.unique(period)[None, :]).astype(float)
    theirs = IV2SLS(y, np.column_stack([levels, treated]), x, (treated & (offset >= 0)).astype(float)).fit(
        cov_type="clustered", clusters=at
    )
    assert found.estimate == pytest.approx(float(theirs.params.iloc[-1]))
    # linearmodels' errors know no small samples here: times G/(G-1) (n-1)/(n-k).
    scale = np.sqrt(48 / 47 * 479 / (480 - levels.shape[1] - 2))
    assert found.se == pytest.approx(float(theirs.std_errors.iloc[-1]) * scale, rel=0.01)
