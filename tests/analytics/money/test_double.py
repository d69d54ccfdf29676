"""Double machine learning finds a slope among confounders whose shape nobody wrote down."""

from __future__ import annotations

import numpy as np
import pytest

from analytics.money.double import double
from analytics.money.effects import SensitivityError, Words
from analytics.money.strata import compared, within

pytest.importorskip("doubleml", reason="needs the package doubleml")


def test_the_published_simulation_has_its_true_value() -> None:
    from doubleml.plm.datasets import make_plr_CCDDHNR2018

    np.random.seed(3)
    data = make_plr_CCDDHNR2018(alpha=0.5, n_obs=1000, return_type="DataFrame")
    known = [data[name].to_numpy() for name in data.columns if name.startswith("X")]
    found = double(data["y"].to_numpy(), data["d"].to_numpy(), known, np.arange(1000) // 10, Words())
    assert found.low is not None and found.high is not None
    assert found.low < 0.5 < found.high
    assert found.high - found.low < 0.25
    assert found.clusters == 100


def test_a_bent_confounder_is_learned_and_a_shared_shock_widens_the_interval() -> None:
    rng = np.random.default_rng(2)
    block = np.repeat(np.arange(60), 50)
    load = rng.uniform(-2, 2, 3000)
    latency = 5 + 2 * load**2 + rng.gamma(2, 1, 3000)
    kpi = 30 - 0.5 * latency + 4 * load**2 + rng.normal(0, 1, 60)[block] + rng.normal(0, 1, 3000)
    found = double(kpi, latency, [load], block, Words())
    naive = compared("naive", within(kpi, latency, block), Words())
    assert naive.low is not None and naive.low > 0
    assert found.low is not None and found.high is not None
    assert found.low < -0.5 < found.high < 0
    assert found.sentence.startswith("Association")
    again = double(kpi, latency, [load], block, Words())
    assert found.estimate == again.estimate


def test_too_little_is_refused_and_nothing_to_hold_fixed_is_an_error() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=100)
    assert double(x, x, [x], np.arange(100) // 10, Words()).verdict == "refused"
    with pytest.raises(SensitivityError, match="nothing to hold fixed"):
        double(x, x, [], np.arange(100), Words())
