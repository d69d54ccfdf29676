from __future__ import annotations

import numpy as np
import pytest

from analytics.changepoints.anomalies import step_p
from analytics.changepoints.effects import adjusted
from analytics.changepoints.series import Series


def series(rng: np.random.Generator, uneven: float, steps: int = 120) -> Series:
    n = rng.poisson(800, steps).astype(float)
    share = 0.01 * np.exp(uneven * rng.normal(size=steps) - uneven**2 / 2)
    x = (rng.binomial(n.astype(int), share) / n)[:, None]
    return Series("percentile", "p99", "end_to_end", "share", ("late",), x, n, x)


@pytest.mark.parametrize("uneven", [0.0, 0.5])
def test_quiet_steps_stand_out_at_the_stated_rate_only(uneven: float) -> None:
    rng = np.random.default_rng(5)
    wrong = [min(adjusted(step_p(series(rng, uneven), []).tolist())) <= 0.05 for _ in range(200)]
    assert sum(wrong) <= 21, sum(wrong)  # 5 % of 200 is 10; more than 21 once in 1,000 times


def test_one_odd_step_stands_out_and_a_change_is_none() -> None:
    one = series(np.random.default_rng(1), 0.2)
    one.plain[70] = 0.2
    one.plain[90:] *= 4
    q = np.array(adjusted(step_p(one, [90]).tolist()))
    assert np.flatnonzero(q <= 0.05).tolist() == [70]
    assert (step_p(one, [10, 15, 90])[10:15] == 1).all()  # too short to judge
    flat = Series("score", "s", "", "value", ("mean",), one.plain * 0, one.weight, one.plain * 0 + 3)
    assert (step_p(flat, []) == 1).all()
    one.weight[5] = 0
    assert step_p(one, [])[5] == 1
