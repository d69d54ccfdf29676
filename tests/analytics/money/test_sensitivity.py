from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from analytics.money.effects import SensitivityError, Words
from analytics.money.sensitivity import Sensitivity, sensitivity
from tests.analytics.money.confounded import history

TRUTH = -0.0040
WORDS = Words(kpi="conversion", kpi_unit="percentage points")


def holds(result: Sensitivity, truth: float) -> bool:
    answer = result.answer
    return answer.low is not None and answer.high is not None and answer.low <= truth <= answer.high


def test_the_ladder_finds_what_the_naive_slope_gets_wrong() -> None:
    result = sensitivity(history(1), WORDS)
    experiment, strata = result.rungs
    assert result.naive.low is not None
    assert result.naive.low > 0  # the wrong sign, and sure of it
    assert result.naive.sentence.startswith("Warning")
    assert result.answer is experiment
    assert experiment.estimate == pytest.approx(TRUTH, abs=0.0008)
    assert experiment.first_stage_f is not None
    assert experiment.first_stage_f > 1000
    assert strata.estimate == pytest.approx(TRUTH, abs=0.0008)
    assert not result.checks_failed
    assert [check.design for check in result.checks] == ["placebo lead", "negative control"]
    assert "percentage points" in result.sentence
    assert "conversion" in result.sentence


@pytest.mark.parametrize("assigned", [True, False])
@pytest.mark.parametrize("confounding", [0.9, -0.9])
def test_the_interval_covers_the_truth_at_its_rate(assigned: bool, confounding: float) -> None:
    held = 0
    for seed in range(40):
        given = history(seed, TRUTH, confounding=confounding, assigned=assigned)
        result = sensitivity(dataclasses.replace(given, lead=None, earlier=None))
        assert result.answer.design == ("experiment" if assigned else "strata")
        held += holds(result, TRUTH)
    # 38 of 40 are expected; fewer than 34 would come once in 700 times if the rate is kept.
    assert held >= 34


@pytest.mark.parametrize("assigned", [True, False])
def test_an_effect_of_nothing_is_not_claimed(assigned: bool) -> None:
    claimed = 0
    for seed in range(100, 140):
        given = history(seed, 0.0, assigned=assigned)
        result = sensitivity(dataclasses.replace(given, lead=None, earlier=None), WORDS)
        claimed += result.answer.seen
        if not result.answer.seen:
            assert result.sentence.startswith("No detectable effect")
            assert "would have been seen" in result.sentence
            assert result.answer.detectable is not None
            assert 0 < result.answer.detectable < 0.004
    # 2 of 40 are expected at 5 %.
    assert claimed <= 6


def test_checks_find_a_confounder_that_nobody_measured() -> None:
    result = sensitivity(history(4, 0.0, load_known=False, assigned=False), WORDS)
    assert result.answer.design == "strata"
    assert result.answer.seen  # hours alone are not enough
    assert result.checks_failed
    assert result.sentence.startswith("No claim")


def test_checks_fail_no_more_often_than_stated() -> None:
    failed = sum(len(sensitivity(history(seed, TRUTH, assigned=False)).checks_failed) for seed in range(20))
    assert failed <= 6  # of 40 checks at 5 %


def test_a_weak_assignment_leaves_the_next_rung() -> None:
    given = history(2, TRUTH)
    noise = np.random.default_rng(0).integers(0, 2, len(given.kpi)).astype(float)
    result = sensitivity(dataclasses.replace(given, assignment=noise))
    assert result.rungs[0].verdict == "refused"
    assert result.answer.design == "strata"


def test_columns_that_do_not_fit_are_named() -> None:
    given = history(2, days=1)
    with pytest.raises(SensitivityError, match="hour"):
        sensitivity(dataclasses.replace(given, hour=np.zeros(3, dtype=np.int64)))
    none = np.zeros(0)
    with pytest.raises(SensitivityError, match="no rows"):
        sensitivity(dataclasses.replace(given, kpi=none, exposure=none, load=none))
    with pytest.raises(SensitivityError, match="lead"):
        sensitivity(dataclasses.replace(given, lead=np.zeros(3)))
    with pytest.raises(SensitivityError, match="kpi: 1 values"):
        sensitivity(dataclasses.replace(given, kpi=np.where(np.arange(len(given.kpi)) == 5, np.nan, given.kpi)))
