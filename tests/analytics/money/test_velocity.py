from __future__ import annotations

import numpy as np
import pytest

from analytics.money.effects import SensitivityError, Words, estimated, refused
from analytics.money.response import response
from analytics.money.velocity import PerMs, StageTime, relative, velocity

STAGES = [StageTime("wire", "network", 30.0), StageTime("decide", "compute", 10.0), StageTime("send", "network", 8.0)]
BETA = PerMs(-0.001, -0.0015, -0.0005, 20.0, 90.0)


def test_a_millisecond_is_worth_its_part_of_revenue() -> None:
    found = velocity(STAGES, 50.0, {"wire": -10.0, "decide": -5.0}, 1_000_000.0, BETA)
    assert found.gain == pytest.approx(15_000.0)
    assert (found.erv, found.low, found.high) == pytest.approx((1_015_000.0, 1_007_500.0, 1_022_500.0))
    assert [one.stage for one in found.ranked] == ["wire", "decide"]
    assert [one.per_ms for one in found.ranked] == pytest.approx([1000.0, 1000.0])
    assert "+15,000 a month" in found.sentence


def test_weights_add_up_and_give_the_same_money() -> None:
    found = velocity(STAGES, 50.0, {"wire": -15.0}, 1_000_000.0, BETA)
    assert found.weights == pytest.approx({"network": 0.76, "compute": 0.2, "unattributed": 0.04})
    (wire,) = found.ranked
    # beta E[T] w_s r_s with the stage halved.
    assert wire.per_month == pytest.approx(1_000_000 * -0.001 * 50.0 * wire.weight * -0.5)


def test_dollars_decide_where_costs_are_known() -> None:
    changes = {"wire": -10.0, "decide": -5.0}
    found = velocity(STAGES, 50.0, changes, 1_000_000.0, BETA, {"wire": 8_000.0, "decide": 1_000.0})
    assert [(one.stage, one.per_dollar) for one in found.ranked] == [
        ("decide", pytest.approx(5.0)),
        ("wire", pytest.approx(1.25)),
    ]


def test_nothing_is_worth_more_than_was_seen() -> None:
    narrow = PerMs(-0.001, -0.0015, -0.0005, 45.0, 90.0)
    found = velocity(STAGES, 50.0, {"wire": -30.0}, 1_000_000.0, narrow)
    assert found.clamped
    assert found.gain == pytest.approx(5_000.0)
    assert "as far as latencies were seen" in found.sentence
    with pytest.raises(SensitivityError, match="total_ms"):
        velocity(STAGES, 40.0, {}, 1_000_000.0, narrow)


def test_an_effect_that_is_not_seen_earns_no_claim() -> None:
    unsure = PerMs(-0.0001, -0.0004, 0.0002, 20.0, 90.0)
    found = velocity(STAGES, 50.0, {"wire": -10.0}, 1_000_000.0, unsure)
    assert found.sentence.startswith("No detectable effect")
    assert (found.low, found.high) == pytest.approx((998_000.0, 1_004_000.0))
    assert not found.ranked[0].seen


def test_a_saturated_curve_pays_for_what_is_steep() -> None:
    rng = np.random.default_rng(1)
    latency = rng.uniform(20, 100, 12_000)
    kpi = 5.0 - 0.02 * np.minimum(latency, 60.0) + rng.normal(0, 0.3, 12_000)
    curve = response(kpi, latency, np.arange(12_000) % 15)
    far = velocity([StageTime("wire", "network", 60.0)], 90.0, {"wire": -25.0}, 1_000_000.0, curve)
    near = velocity([StageTime("wire", "network", 50.0)], 58.0, {"wire": -25.0}, 1_000_000.0, curve)
    assert far.gain == pytest.approx(0.0, abs=6_000)
    assert near.low <= 1_000_000 * (1 + 0.5 / 3.84) <= near.high
    assert near.ranked[0].seen


def test_only_an_estimate_becomes_money() -> None:
    words = Words()
    found = estimated("experiment", "", words, -0.004, 0.001, (-0.006, -0.002), 100, 40)
    assert relative(found, 4.0, 20.0, 90.0) == PerMs(-0.001, -0.0015, -0.0005, 20.0, 90.0)
    naive = estimated("naive", "", words, -0.004, 0.001, (-0.006, -0.002), 100, 40)
    with pytest.raises(SensitivityError, match="naive slope is a warning"):
        relative(naive, 4.0, 20.0, 90.0)
    with pytest.raises(SensitivityError, match="too few"):
        relative(refused("strata", "", "too few", 3, 2), 4.0, 20.0, 90.0)
    with pytest.raises(SensitivityError, match="baseline"):
        relative(found, 0.0, 20.0, 90.0)


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"wires": -1.0}, "no such stage"), ({"wire": -31.0}, "more than the 30 ms"), ({"wire": float("nan")}, "wire")],
)
def test_impossible_changes_are_named(changes: dict[str, float], says: str) -> None:
    with pytest.raises(SensitivityError, match=says):
        velocity(STAGES, 50.0, changes, 1.0, BETA)
