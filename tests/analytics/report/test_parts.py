"""Budgets, reliability, cost and funding as arithmetic on plain values."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.feeds import FeedLine
from analytics.money.effects import Words
from analytics.money.scenario_files import example, scenarios_from
from analytics.money.sensitivity import Observations, sensitivity
from analytics.report.budgets import line_of
from analytics.report.cost import Estimated, Measure, amount, cost_of
from analytics.report.funding import funding
from analytics.report.headline import headline
from analytics.report.period import NS, Period
from analytics.report.reliability import reliability, union_ns
from analytics.report.value import EpisodeLine
from analytics.slo.compiled import compiled
from analytics.slo.openslo_read import read
from tests.dashboards.report.sample import path_line

HOUR = 3_600 * NS
T0 = 1_794_787_200 * NS
WEEK = Period(T0 - 168 * HOUR, T0, "7d")


def episode(name: str, breach_h: float, fired_h: float, resolved_h: float | None) -> EpisodeLine:
    at = [WEEK.from_ns + round(h * HOUR) if h is not None else None for h in (breach_h, fired_h, resolved_h)]
    return EpisodeLine(
        episode=name, objective="o", rule="page", breach_ns=at[0] or 0, fired_ns=at[1] or 0, resolved_ns=at[2]
    )


def objective(target: str = "0.99"):  # type: ignore[no-untyped-def]
    text = f"""
apiVersion: openslo/v1
kind: SLO
metadata: {{name: fast}}
spec:
  service: s
  indicator:
    metadata: {{name: i}}
    spec:
      ratioMetric:
        rawType: success
        raw: {{metricSource: {{type: tailsight, spec: {{latency: {{path: order, threshold: 20ms}}}}}}}}
  timeWindow: [{{duration: 28d, isRolling: true}}]
  budgetingMethod: Occurrences
  objectives: [{{target: {target}}}]
"""
    made = compiled(read(text, "t").objects, paths={"order"}, calendars=None)
    assert not made.errors
    return made.objectives[0]


def test_a_week_at_twice_the_allowed_rate_takes_half_of_a_28_day_budget() -> None:
    line = line_of(objective(), (98_000, 100_000, 0), (100_000, 100_000, 0), (398_000, 400_000, 0), WEEK, 28 * 86_400)
    assert line.burned == pytest.approx(0.5)
    assert line.burned_before == 0
    assert line.left == pytest.approx(0.5)
    assert (line.bad, line.total) == (2_000, 100_000)


def test_uncertain_events_count_half_and_no_events_are_not_known() -> None:
    line = line_of(objective(), (99_000, 100_000, 1_000), (0, 0, 0), (0, 0, 0), WEEK, 28 * 86_400)
    assert line.burned == pytest.approx(0.125)
    assert line.bad == 0
    assert line.burned_before is None
    assert line.left is None


def test_detection_recovery_and_what_was_exposed() -> None:
    overlapping = [episode("a", 10, 10.1, 12), episode("b", 11, 11.5, 13)]
    found = reliability(
        [*overlapping, episode("old", -5, -4, 1), episode("on", 167, 167.5, None)],
        [], WEEK, objectives=2, revenue=(1_680_000.0, "USD"),
    )  # fmt: skip
    assert found.detection_max_ns == HOUR // 2
    assert found.detection_median_ns == HOUR // 2
    assert found.recovery_max_ns == 6 * HOUR
    assert found.open == 1
    assert found.in_breach_ns == (3 + 1 + 1) * HOUR  # overlapping ones once, the old one from the period's begin
    assert found.exposed == pytest.approx(50_000)
    assert "exposed, not lost" in " ".join(found.sentences)


def test_an_alert_that_ended_later_was_open_at_the_end() -> None:
    found = reliability([episode("a", 160, 161, 180)], [], WEEK, objectives=1)
    assert found.open == 1
    assert found.recovery_max_ns is None
    assert found.in_breach_ns == 8 * HOUR
    assert "not known" in " ".join(found.sentences)


def test_without_objectives_nothing_is_called_quiet() -> None:
    found = reliability([], [], WEEK, objectives=0)
    assert found.unknown
    assert not any("No alert" in one for one in found.sentences)


def test_the_gap_window_of_feeds() -> None:
    blank = {f.name: 0 for f in dataclasses.fields(FeedLine)}
    seen = {"channel": "itch", "line": "", "host": "h", "gaps": 3, "missing": 2, "recovery_max_ns": 98_000_000}
    whole = FeedLine(**{**blank, **seen, "recovery_mean_ns": 4e6})  # type: ignore[arg-type]
    one = dataclasses.replace(whole, line="A", missing=900)
    found = reliability([], [whole, one], WEEK, objectives=1)
    assert len(found.gaps) == 1  # what a receiver of all lines missed
    assert "3 gaps" in found.sentences[-1]
    assert "98.0 ms" in found.sentences[-1]


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=12))
def test_overlaps_count_once(spans: list[tuple[int, int]]) -> None:
    covered = {t for a, b in spans for t in range(a, b)}
    assert union_ns(spans) == len(covered)


def drawn(effect: float, *, hidden: bool = False, n: int = 24_000):  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(9)
    block = np.arange(n) // 400
    load = rng.gamma(4, 0.25, n)
    mood = np.repeat(np.cumsum(rng.normal(0, 0.3, n // 400)), 400)  # what nobody measured
    ms = 3 + 2 * load + rng.gamma(2, 1.0, n) + (mood if hidden else 0)
    y = 0.4 + effect * ms + 0.05 * load + rng.normal(0, 0.2, n) + (0.2 * mood if hidden else 0)
    earlier = np.concatenate([np.full(400, np.nan), y[:-400]])
    given = Observations(kpi=y, exposure=ms, cluster=block, load=load, earlier=earlier)
    return sensitivity(given, Words("conversion"))


MEASURE = Measure(name="conversion", unit="ratio", good="up", value=0.4, before=0.41)


def test_the_cost_is_the_effect_times_the_change_of_the_mean() -> None:
    path = path_line("order")  # 0.6 ms slower
    cost = cost_of(path, MEASURE, Estimated(found=drawn(-0.01)))
    assert cost.effect is not None
    assert cost.change == pytest.approx(0.6 * (cost.effect.estimate or 0))
    assert (cost.change_low or 0) < (cost.change or 0) < (cost.change_high or 0) < 0
    assert cost.sentence.startswith("Association, not proof")
    assert "percentage points" in cost.sentence
    faster = dataclasses.replace(path, mean_ns=4.0e6)
    assert (cost_of(faster, MEASURE, Estimated(found=drawn(-0.01))).change_low or 0) > 0


def test_no_effect_says_so_and_what_would_have_been_seen() -> None:
    cost = cost_of(path_line("order"), MEASURE, Estimated(found=drawn(0.0)))
    assert cost.sentence.startswith("No detectable effect")
    assert "would have been seen" in cost.sentence
    assert "Warning" in cost.naive  # beside it, never as the answer


def test_a_failed_check_makes_no_cost() -> None:
    cost = cost_of(path_line("order"), MEASURE, Estimated(found=drawn(0.0, hidden=True)))
    assert not cost.may_claim
    assert cost.change is None
    assert "No claim" in cost.sentence
    assert (
        "No claim"
        in headline([path_line("order")], [cost], [], reliability([], [], WEEK, objectives=0), funding(None))[1]
    )


def test_what_was_not_estimated_is_not_known() -> None:
    cost = cost_of(path_line("order"), MEASURE, Estimated(refused="there are no messages"))
    assert cost.change is None
    assert "not known" in cost.sentence
    assert "there are no messages" in cost.sentence


def test_amounts_of_shares_are_points_and_of_others_have_their_unit() -> None:
    assert amount(0.412, "ratio") == "41.2 %"
    assert amount(-0.0045, "ratio", change=True) == "\N{MINUS SIGN}0.450 percentage points"
    assert amount(12.0, "USD", change=True) == "+12.0 USD"


def test_the_best_investment_comes_first_and_a_loss_is_called_one() -> None:
    import tomllib

    given = scenarios_from(tomllib.loads(example()))
    found = funding(given, 2_000)
    values = [one.npv for one in found.scenarios]
    assert values == sorted(values, reverse=True)
    assert ("None of the scenarios" in found.sentence) == (values[0] <= 0)
    assert "published" in found.sentence
    assert funding(None).unknown
