from __future__ import annotations

import numpy as np
import pytest

from analytics.changepoints.watch import Watch, lead, learn, warnings

MINUTE = 60_000_000_000
HOUR = 60 * MINUTE


def steps(
    rng: np.random.Generator, n: int, share: float = 0.01, uneven: float = 0.0, common: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Steps of about 500 messages; `uneven` is how much their shares vary, `common` how alike neighbours are."""
    x = rng.normal(size=n)
    for i in range(1, n):
        x[i] = common * x[i - 1] + np.sqrt(1 - common**2) * x[i]
    count = rng.poisson(500, n)
    return rng.binomial(count, np.clip(share * np.exp(uneven * x - uneven**2 / 2), 0, 1)), count


@pytest.mark.parametrize(("uneven", "common"), [(0.0, 0.0), (0.5, 0.0), (0.5, 0.5)])
def test_quiet_time_warns_at_the_stated_rate(uneven: float, common: float) -> None:
    alarms, runs = 0, 60
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        k, n = steps(rng, 200, uneven=uneven, common=common)
        watch = learn(k, n, period=200, false_alarm=0.1, seed=seed)
        assert isinstance(watch, Watch)
        alarms += len(warnings(watch, *steps(rng, 200, uneven=uneven, common=common))) > 0
    # 10 % of 60 is 6; more than 14 once in 1,000 times. Fewer is what the unknown of a short baseline costs.
    assert alarms <= 14, alarms


def test_a_small_lasting_rise_warns_soon() -> None:
    delays = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        watch = learn(*steps(rng, 200), period=200, false_alarm=0.01, seed=seed)
        assert isinstance(watch, Watch)
        k, n = steps(rng, 100, share=0.02)
        found = warnings(watch, k, n)
        assert len(found) == 1
        delays.append(int(found[0]))
    assert np.median(delays) <= 6


def test_a_warning_ends_and_a_new_one_begins() -> None:
    watch = Watch(0.01, 0.0198, 5.0, 100, 0.05)
    n = np.full(60, 500)
    k = np.full(60, 4)
    k[10:20] = 40
    k[40:50] = 40
    assert warnings(watch, k, n).tolist() == [10, 40]


def test_what_cannot_be_learned_says_so() -> None:
    rng = np.random.default_rng(0)
    k, n = steps(rng, 10)
    assert "needs 30 steps" in str(learn(k, n, period=10))
    assert "messages beyond its threshold" in str(learn(np.zeros(100), np.full(100, 5), period=10))


def test_lead_times_and_false_alarms_are_measured() -> None:
    warned = np.array([10, 50, 100]) * MINUTE
    found = lead(warned, np.array([14, 102, 300]) * MINUTE, horizon_ns=10 * MINUTE, quiet_ns=24 * HOUR)
    assert (found.warnings, found.breaches, found.warned, found.false_alarms) == (3, 3, 2, 1)
    assert (found.lead_low_ns, found.lead_high_ns) == (2 * MINUTE, 4 * MINUTE)
    assert found.false_per_day == 1.0
    assert found.false_low == pytest.approx(0.0253, abs=1e-3) and found.false_high == pytest.approx(5.572, abs=1e-2)
    none = lead(warned[:0], warned[:0], horizon_ns=MINUTE, quiet_ns=24 * HOUR)
    assert (none.lead_ns, none.false_low) == (None, 0.0)
