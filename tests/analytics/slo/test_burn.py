"""Burn rates, budgets and rules on counts, against formulas, exact tests and other people's tables."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.slo.burn import Counts, budget, burn_rate, few, judge, p_value, time_to_fire_s
from analytics.slo.episodes import Alert, acknowledge, step
from analytics.slo.rules import Over, Rule, rules_named, unreachable

PAGE = rules_named("workbook", 30 * 86_400)[0]
DAY = 86_400
S = 1_000_000_000


def two(long: Counts, short: Counts, target: float = 0.999, **more: bool) -> str:
    return judge(PAGE, [long, short], [target, target], **more).answer


@pytest.mark.parametrize(
    ("row", "seconds"), [(0, 51.84), (1, 129.6), (2, 259.2)]
)  # a full outage at 99.9 %, Site Reliability Workbook's rows
def test_a_full_outage_fires_when_the_formula_says(row: int, seconds: float) -> None:
    rule = rules_named("workbook", 30 * DAY)[row]
    assert time_to_fire_s(rule, 0.999, 1.0) == pytest.approx(seconds)


def test_the_workbooks_tables() -> None:
    assert time_to_fire_s(PAGE, 0.999, 0.15) == pytest.approx(5.76 * 60)
    assert time_to_fire_s(PAGE, 0.999, 0.0144) is None
    for burn, seconds in ((1, 30 * DAY), (2, 15 * DAY), (10, 3 * DAY), (1000, 43.2 * 60)):
        found = budget(Counts(1000, 1000), 0.999, 30 * DAY, burn, observed_s=30 * DAY)
        assert found.exhausted_s == pytest.approx(seconds)
    # Low traffic: 10 requests an hour and one failure are 13.9 % of the month's budget and a burn of 100.
    assert burn_rate(1 / 10, 0.999) == pytest.approx(100)
    one = budget(Counts(7199, 7200), 0.999, 30 * DAY, 100, observed_s=30 * DAY)
    assert one.burned == pytest.approx(1 / 7.2)


def test_the_comparison_is_strict_and_float_noise_does_not_decide_it() -> None:
    exactly = Counts(100_000 - 1_440, 100_000)
    assert two(exactly, exactly) == "under"
    more = Counts(100_000 - 1_441, 100_000)
    assert two(more, more) == "over"
    at_least = Rule("r", "page", (Over(3600, 14.4, or_equal=True),))
    assert judge(at_least, [exactly], [0.999]).answer == "over"


@given(st.integers(1, 999), st.integers(1, 10**6))
def test_a_rule_that_validation_lets_through_fires_in_a_full_outage(per_mille: int, total: int) -> None:
    target = per_mille / 1000
    rule = Rule("r", "page", (Over(3600, 14.4), Over(300, 14.4)))
    counts = Counts(0, max(total, 1000))
    answer = judge(rule, [counts, counts], [target, target]).answer
    assert (answer == "over") == (not unreachable(rule, target))


def test_with_few_events_one_failure_does_not_page_and_many_do() -> None:
    clean = Counts(60, 60)
    assert few(69, PAGE.overs[0], 0.999)
    assert not few(70, PAGE.overs[0], 0.999)
    assert two(clean, clean) == "under"
    once = Counts(59, 60)
    verdict = judge(PAGE, [once, once], [0.999, 0.999])
    assert verdict.answer == "insufficient"
    assert "below 70 events" in verdict.why
    assert two(Counts(2, 60), Counts(1, 10)) == "over"  # 90 % failures at low volume have to page
    assert two(Counts(), Counts()) == "insufficient"


@given(st.integers(1, 300), st.integers(0, 300), st.floats(1e-4, 0.9))
def test_the_binomial_test_is_scipys(total: int, bad: int, ratio: float) -> None:
    from scipy.stats import binom

    bad = min(bad, total)
    assert p_value(bad, total, ratio) == pytest.approx(float(binom.sf(bad - 1, total, ratio)), rel=1e-9, abs=1e-290)


def test_incomplete_data_holds_what_they_could_change() -> None:
    quiet, loud = Counts(100_000, 100_000), Counts(90_000, 100_000)
    assert two(Counts(100_000, 100_000, missing=0.05), Counts(100_000, 100_000, missing=0.05)) == "held"
    assert two(Counts(100_000, 100_000, missing=0.01), quiet) == "under"
    assert two(Counts(90_000, 100_000, missing=0.05), loud) == "over"
    assert two(loud, Counts(missing=1.0)) == "held"
    cut = Counts(98_000, 100_000, uncertain=1_900)
    verdict = judge(PAGE, [cut, loud], [0.999, 0.999])
    assert verdict.answer == "held"
    assert "1900 events may be good or bad" in verdict.why


@given(st.integers(0, 500), st.integers(1, 500), st.integers(0, 500), st.floats(0, 0.99))
def test_bounds_hold_whatever_the_missing_events_were(bad: int, total: int, uncertain: int, missing: float) -> None:
    bad = min(bad, total)
    uncertain = min(uncertain, bad)
    least, most = Counts(total - bad, total, uncertain, missing).bounds()
    produced = total / (1 - missing)
    for lost_bad in (0.0, produced - total):
        for unsure_bad in (0, uncertain):
            truth = (bad - uncertain + unsure_bad + lost_bad) / produced
            assert least - 1e-9 <= truth <= most + 1e-9


def test_silence_does_not_end_a_page_but_the_empty_long_window_does() -> None:
    loud = Counts(90_000, 100_000)
    assert two(loud, Counts()) == "under"
    assert two(loud, Counts(), firing=True) == "over"
    assert two(loud, Counts(1, 1), firing=True) == "over"
    assert two(loud, Counts(1000, 1000), firing=True) == "under"
    assert two(Counts(1000, 1000), Counts(), firing=True) == "under"
    assert two(Counts(), Counts(), firing=True) == "insufficient"


def test_a_young_objective_has_the_budget_of_a_whole_period() -> None:
    young = budget(Counts(998, 1000), 0.999, 30 * DAY, 2.0, observed_s=3 * DAY)
    assert young.burned == pytest.approx(0.2)
    assert young.exhausted_s == pytest.approx(0.8 * 15 * DAY)
    gone = budget(Counts(990, 1000), 0.999, 30 * DAY, 10.0, observed_s=30 * DAY)
    assert (gone.remaining < 0, gone.exhausted_s) == (True, 0.0)
    calendar = budget(Counts(9995, 10_000), 0.999, 30 * DAY, 1.0, observed_s=15 * DAY, left_s=15 * DAY)
    assert calendar.forecast == pytest.approx(0.75)
    assert budget(Counts(5, 5), 0.9, DAY, 0.0, observed_s=DAY).exhausted_s is None


def test_an_episode_goes_its_way_once() -> None:
    alert = Alert("o", "page-1h")
    alert, heard = step(alert, "over", 100 * S, for_s=60)
    assert (alert.state, heard) == ("pending", None)
    episode = alert.episode
    alert, heard = step(alert, "held", 150 * S, for_s=60)
    assert (alert.state, alert.held_ns, heard) == ("pending", 150 * S, None)
    alert, heard = step(alert, "over", 160 * S, for_s=60)
    assert heard is not None
    assert (heard.kind, alert.state, alert.episode, alert.breach_ns, alert.held_ns) == (
        "firing", "firing", episode, 100 * S, 0,
    )  # fmt: skip
    taken, heard = acknowledge(alert, "ann", 170 * S)
    assert heard.kind == "acknowledged"
    assert step(taken, "over", 180 * S)[1] is None
    done, heard = step(taken, "under", 190 * S)
    assert heard is not None
    assert (heard.kind, done.state, done.episode) == ("resolved", "resolved", episode)
    assert step(done, "under", 200 * S) == (done, None)
    again, heard = step(done, "over", 300 * S)
    assert heard is not None
    assert again.episode != episode
    with pytest.raises(ValueError, match="only a firing alert"):
        acknowledge(done, "ann", 1)


def test_a_pending_breach_that_ends_was_never_an_episode() -> None:
    alert, _ = step(Alert("o", "r"), "over", 100 * S, for_s=60)
    alert, heard = step(alert, "under", 130 * S, for_s=60)
    assert (alert.state, alert.episode, heard) == ("inactive", "", None)


@given(
    st.lists(st.tuples(st.sampled_from(["over", "under", "held", "insufficient"]), st.integers(-3600, 3600))),
    st.integers(0, 120),
)
def test_firing_and_resolved_alternate_whatever_the_clock_does(ticks: list[tuple[str, int]], for_s: int) -> None:
    alert, heard, now = Alert("o", "r"), [], 10**6
    for answer, seconds in ticks:
        now += seconds
        alert, one = step(alert, answer, now * S, for_s=for_s)  # type: ignore[arg-type]
        if one:
            heard.append((one.kind, one.alert.episode))
    assert [kind for kind, _ in heard] == ["firing", "resolved"] * (len(heard) // 2) + ["firing"] * (len(heard) % 2)
    for i in range(0, len(heard) - 1, 2):
        assert heard[i][1] == heard[i + 1][1]
    assert math.isfinite(now)
