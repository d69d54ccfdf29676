"""What slow and bad events cost: the arithmetic by hand, the store's answer, and when nothing becomes money."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.kpis import KpiValue, record
from analytics.money import losing
from analytics.money.value import LatencyEffect, values_from
from analytics.money.velocity import StageTime, velocity
from analytics.money.worth import WorthError, worth
from analytics.slo import stored
from collector.settings import ConfigError
from collector.store import Store
from tests.analytics.money.priced import KPIS, PATHS, SLO, VALUE, S, fill, money, objective
from tests.analytics.world import HOUR

NOW = HOUR + 60 * S
EFFECT = LatencyEffect(
    estimate=-0.01, low=-0.015, high=-0.005, least_ms=1, most_ms=50, design="experiment", measured=date(2025, 6, 1)
)


def test_an_objective_costs_what_went_beyond_its_threshold(store: Store) -> None:
    end = fill(store)
    found = money().pricer(store, NOW).objective(objective(), HOUR, end)
    # 10 of 100 messages took 12 ms instead of 4: 0.8 ms per message, of 100 USD in 10 s, at 1 % per ms.
    assert (found.bad, found.total) == (10, 100)
    assert found.excess_ms == pytest.approx(0.8, rel=0.01)
    assert found.mean_ms == pytest.approx(3.0, rel=0.01)
    assert found.revenue == pytest.approx(100.0)
    assert found.cost.value == pytest.approx(0.8, rel=0.01)
    assert (found.cost.low, found.cost.high) == pytest.approx((0.4, 1.2), rel=0.01)
    assert "95 % interval" in found.cost.sentence
    assert "experiment, measured until 2025-06-01" in found.cost.sentence
    # Hours without messages bring nothing, so that they cost nothing.
    wide = money().pricer(store, NOW).objective(objective(), HOUR - 30 * 86_400 * S, HOUR + 86_400 * S)
    assert wide.revenue is not None
    assert found.cost.value is not None
    assert wide.cost.value == pytest.approx(found.cost.value * wide.revenue / 100.0)
    assert wide.revenue <= 36_000 / 60 + 1e-6  # a minute at most: the windows of a minute are whole ones
    hourly = money().pricer(store, NOW).objective(objective(), HOUR, end, hourly=True)
    assert hourly.cost.value == pytest.approx(288.0, rel=0.01)
    assert "USD an hour" in hourly.cost.sentence


def test_revenue_of_a_measure_is_per_message(store: Store) -> None:
    end = fill(store)
    store.execute("TRUNCATE TABLE kpis")
    values = [
        KpiValue(name="revenue", ts_ns=HOUR, duration_ns=10 * S, value=one, region=region)
        for one, region in ((30.0, "eu"), (20.0, "us"))
    ]
    record(store, values, KPIS, NOW)
    text = VALUE.replace("revenue_per_hour = 36000", 'revenue_kpi = "revenue"\nrevenue_over = "1h"')
    pricer = money(text).pricer(store, NOW)
    found = pricer.objective(objective(), HOUR, end)
    assert found.revenue == pytest.approx(50.0)
    assert pricer.revenue("order").per_hour == pytest.approx(18_000.0)
    assert pricer.revenue("order").per_message == pytest.approx(0.5)
    assert pricer.revenue("order").per_clock_hour == pytest.approx(50.0 * 60)  # in the minute since its first value
    store.execute("TRUNCATE TABLE kpis")
    refused = money(text).pricer(store, NOW).objective(objective(), HOUR, end)
    assert refused.cost.value is None
    assert refused.cost.reason == "revenue has no values in the last 1h"


def test_bad_events_without_milliseconds_have_an_effect_of_their_own(store: Store) -> None:
    end = fill(store)
    one = objective(SLO.replace("latency: {path: order, threshold: 4ms}", "errors: {path: order}"))
    pricer = money().pricer(store, NOW)
    assert "give its effect as [value.PATH.bad.fast]" in pricer.objective(one, HOUR, end).cost.reason
    store.execute("TRUNCATE TABLE objective_counts")
    stored.insert(store, [stored.Row(one.name, one.version, 10, HOUR // S, 95, 100)], 1)
    text = VALUE + (
        "[value.order.bad.fast]\nestimate = -0.5\nlow = -0.8\nhigh = -0.2\nmost = 0.5\n"
        'design = "natural experiment"\nmeasured = 2025-06-01\n'
    )
    found = money(text).pricer(store, NOW).objective(one, HOUR, end)
    assert (found.bad, found.total) == (5, 100)
    assert found.cost.value == pytest.approx(100.0 * 0.5 * 0.05)
    assert (found.cost.low, found.cost.high) == pytest.approx((1.0, 4.0))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (('design = "experiment"', 'design = "published"'), "is of design 'published'; accepted are experiment"),
        (('design = "experiment"', 'design = "double machine learning"'), "is of design 'double machine learning'"),
        (("measured = 2025-06-01", "measured = 2023-01-01"), "longer than max_age of 400 days"),
        (("[value.order]", "[money]\naccept = []\n[value.order]"), "accepted are none"),
    ],
)
def test_without_an_accepted_effect_nothing_is_money(store: Store, change: tuple[str, str], reason: str) -> None:
    end = fill(store)
    pricer = money(VALUE.replace(*change)).pricer(store, NOW)
    cost = pricer.objective(objective(), HOUR, end).cost
    assert cost.value is None
    assert cost.low is None
    assert reason in cost.reason
    with pytest.raises(WorthError, match=r"value\.order\.effect"):
        worth(pricer, PATHS["order"], {"send": -1.0}, from_ns=HOUR, to_ns=end)
    assert "give [value.order] revenue" in money("").pricer(store, NOW).objective(objective(), HOUR, end).cost.reason


def test_what_is_not_told_from_nothing_is_not_a_cost(store: Store) -> None:
    end = fill(store)
    cost = (
        money(VALUE.replace("high = -0.005", "high = 0.005")).pricer(store, NOW).objective(objective(), HOUR, end).cost
    )
    assert cost.value is None
    assert cost.low is not None
    assert cost.low < 0
    assert cost.sentence.startswith("No detectable cost: between -0.4")


def test_velocity_of_the_store_is_the_arithmetics_on_its_means(store: Store) -> None:
    end = fill(store)
    found = worth(money().pricer(store, NOW), PATHS["order"], {"send": -1.0}, {"send": 1000.0}, from_ns=HOUR, to_ns=end)
    by_hand = velocity(
        [StageTime("decide", "compute", 1.0), StageTime("send", "network", 2.0)], 3.0, {"send": -1.0},
        36_000 * 730.5, EFFECT.per_ms, {"send": 1000.0},
    )  # fmt: skip
    assert found.gain == pytest.approx(by_hand.gain, rel=0.01)
    assert found.ranked[0].per_dollar == pytest.approx(262.98, rel=0.01)
    assert found.weights == pytest.approx({"compute": 1 / 3, "network": 2 / 3, "unattributed": 0.0}, abs=0.01)
    every = worth(money().pricer(store, NOW), PATHS["order"], {}, from_ns=HOUR, to_ns=end)
    assert {one.stage: one.change_ms for one in every.ranked} == pytest.approx({"send": -1.0, "decide": -1.0}, rel=0.01)
    with pytest.raises(WorthError, match="no finished message"):
        worth(money().pricer(store, NOW), PATHS["order"], {}, from_ns=HOUR - 100 * S, to_ns=HOUR - 50 * S)


@given(
    st.floats(0, 1e6), st.floats(1, 50), st.floats(0, 49), st.floats(-0.05, 0.05),
    st.floats(0, 0.05), st.floats(0, 0.05),
)  # fmt: skip
def test_a_loss_stays_inside_its_interval_and_never_grows_beyond_the_support(
    revenue: float, mean: float, less: float, beta: float, below: float, above: float
) -> None:
    effect = LatencyEffect(
        estimate=beta, low=beta - below, high=beta + above, least_ms=1, most_ms=50, design="experiment",
        measured=date(2025, 6, 1),
    )  # fmt: skip
    value, low, high, _ = losing.per_ms(revenue, effect, mean, less)
    assert low - 1e-6 <= value <= high + 1e-6
    assert abs(value) <= revenue * abs(beta) * min(less, 49) + 1e-6


def test_beyond_the_support_the_cost_is_at_least() -> None:
    value, _, _, more = losing.per_ms(1000.0, EFFECT, 80.0, 40.0)
    assert (value, more) == (pytest.approx(100.0), True)
    said = losing.cost(losing.per_ms(1000.0, EFFECT, 80.0, 40.0), "EUR", EFFECT)
    assert said.at_least
    assert "nothing is counted" in said.sentence


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ({"value": {"nope": {"revenue_per_hour": 1}}}, "value.nope"),
        ({"value": {"order": {}}}, "value.order.revenue_per_hour"),
        ({"value": {"order": {"revenue_kpi": "success"}}}, "value.order.revenue_kpi"),
        ({"value": {"order": {"revenue_per_hour": 1, "effect": {"estimate": 1}}}}, "value.order.effect"),
        ({"value": 3}, "value"),
    ],
)
def test_a_wrong_value_is_named(text: dict[str, object], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        values_from(text, PATHS, {"success": "ratio"})
    assert caught.value.field.startswith(field)


def test_an_effect_may_be_a_saved_estimate(tmp_path: Path) -> None:
    fields = {
        "estimate": -0.01, "low": -0.02, "high": -0.005, "least_ms": 1, "most_ms": 9, "design": "strata",
        "measured": "2025-05-31",
    }  # fmt: skip
    (tmp_path / "effect.json").write_text(json.dumps({"effect": fields}))
    document = {"value": {"order": {"revenue_per_hour": 1, "effect_file": "effect.json"}}}
    found = values_from(document, PATHS, {}, str(tmp_path / "tailsight.toml"))["order"].effect
    assert found is not None
    assert (found.low, found.measured) == (-0.02, date(2025, 5, 31))
    (tmp_path / "effect.json").write_text("[")
    with pytest.raises(ConfigError, match="is not JSON"):
        values_from(document, PATHS, {}, str(tmp_path / "tailsight.toml"))
