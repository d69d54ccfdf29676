"""A canary that is worse is rolled back, one that is not may advance, and looking often changes neither."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from analytics import buckets, windows
from analytics.compare import burning, rollout, sequential, watching
from analytics.compare.rollout import Burn, Kpi, decide
from analytics.slo.calendars import SloCalendar
from analytics.slo.episodes import Alert
from analytics.slo.indicators import Errors, Indicator, Latency
from analytics.slo.objectives import Objective
from analytics.slo.openslo import TimeWindow
from analytics.slo.rules import Rule, rules_named
from collector.store import Store
from tests.analytics.conftest import shared_store, store  # noqa: F401 - fixtures
from tests.analytics.world import HOUR, ORDER, label_set, path, put, stamp

S = 1_000_000_000
MS = 1_000_000
THRESHOLDS = {"p50": 1_000_000, "p95": 2_000_000, "p99": 3_000_000}


def rows(random: np.random.Generator, blocks: int, each: int, slow: float = 0.0, errors: float = 0.0) -> pl.DataFrame:
    """Blocks of messages around 1 ms: 5 % above 2 ms and 1 % above 3 ms, and `slow` more above 6 ms."""
    n = blocks * each
    values = 1_000_000 * np.exp(random.normal(0, 1, n) * 0.435)
    values = np.where(random.random(n) < slow, values + 6_000_000, values).astype(np.int64)
    frame = pl.DataFrame(
        {
            "block": np.repeat(np.arange(blocks), each),
            "bucket": buckets.index(values),
            "errors": (random.random(n) < errors).astype(np.int64),
        }
    )
    counted = frame.group_by("block", "bucket").agg(pl.len().alias("n"), pl.col("errors").sum())
    return counted.with_columns(
        pl.lit("h").alias("instance"), pl.lit(0).alias("rejected"), pl.lit(0).alias("unfinished")
    )


def test_a_canary_that_is_slower_for_two_percent_of_messages_is_rolled_back() -> None:
    random = np.random.default_rng(1)
    found = [decide(rows(random, 30, 450), rows(random, 30, 50, slow=0.02), THRESHOLDS, "before") for _ in range(20)]
    assert [one.decision for one in found].count("rollback") >= 18
    told = next(one for one in found if one.decision == "rollback")
    assert any("exceed the reference's p99" in line for line in told.reasons)


def test_a_canary_that_is_as_good_is_almost_never_rolled_back_and_advances() -> None:
    random = np.random.default_rng(2)
    looks = (10, 30, 60, 120)
    ever = advanced = 0
    for _ in range(40):
        a, b = rows(random, 120, 180), rows(random, 120, 120)
        decisions = [
            decide(*(side.filter(pl.col("block") < upto) for side in (a, b)), THRESHOLDS, "before").decision
            for upto in looks
        ]
        ever += "rollback" in decisions
        advanced += decisions[-1] == "advance"
    assert ever <= 5
    assert advanced >= 30


def test_errors_business_and_burn_can_each_roll_back() -> None:
    random = np.random.default_rng(3)
    good = rows(random, 60, 100)
    canary = rows(random, 60, 100)
    assert decide(good, canary, THRESHOLDS, "x").decision != "rollback"
    wrong = decide(good, rows(random, 60, 100, errors=0.02), THRESHOLDS, "x")
    assert wrong.decision == "rollback"
    assert any("came to errors" in line for line in wrong.reasons)
    kpi = Kpi("conversion", random.normal(0.3, 0.02, 60), random.normal(0.25, 0.02, 60))
    poor = decide(good, canary, THRESHOLDS, "x", kpis=[kpi])
    assert poor.decision == "rollback"
    assert any(line.startswith("conversion is 0.2") for line in poor.reasons)
    better = Kpi("conversion", kpi.canary, kpi.baseline)
    assert decide(good, canary, THRESHOLDS, "x", kpis=[better]).decision != "rollback"
    total = np.full(60, 100)
    fast = Burn("99.9 %", random.binomial(total, 0.05), total, 0.999)
    burning = decide(good, canary, THRESHOLDS, "x", burns=[fast])
    assert burning.decision == "rollback"
    assert any("burns the budget" in line for line in burning.reasons)
    slow = Burn("99.9 %", random.binomial(total, 0.005), total, 0.999)
    assert decide(good, canary, THRESHOLDS, "x", burns=[slow]).decision != "rollback"
    never = decide(good, canary, THRESHOLDS, "x", burns=[Burn("90 %", total, total, 0.9)])
    assert any("never reached" in m.said for m in never.metrics)
    several = decide(good, canary, THRESHOLDS, "x", burns=[slow, fast], kpis=[better])
    assert [m.state for m in several.metrics if m.kind == "burn"] == ["no difference", "worse"]


def test_nothing_advances_while_an_alert_of_the_objective_fires() -> None:
    random = np.random.default_rng(8)
    a, b = rows(random, 120, 360), rows(random, 120, 360)
    assert decide(a, b, THRESHOLDS, "x").decision == "advance"
    held = decide(a, b, THRESHOLDS, "x", firing=["order-latency (page-1h)"])
    assert held.decision == "hold"
    assert held.reasons[0] == "An alert fires: order-latency (page-1h). Nothing advances meanwhile."
    assert decide(a, rows(random, 120, 360, slow=0.05), THRESHOLDS, "x", firing=["any"]).decision == "rollback"


def test_burn_looked_at_often_alarms_at_most_at_the_stated_rate() -> None:
    random = np.random.default_rng(4)
    total = np.full(100, 200)
    alarms = sum(sequential.against(random.binomial(total, 0.0144), total, 0.0144) <= 0.05 for _ in range(300))
    assert alarms <= 25


def test_percentiles_of_both_sides_have_intervals_for_all_looks() -> None:
    random = np.random.default_rng(7)
    found = {one.name: one for one in decide(rows(random, 60, 100), rows(random, 60, 100), THRESHOLDS, "x").levels}
    for name, true in (("p50", 1_000_000), ("p95", 2_045_000)):
        for ci in (found[name].baseline_ci, found[name].canary_ci):
            assert ci is not None
            assert ci[0] <= true <= ci[1]
    few = decide(rows(random, 3, 20), rows(random, 3, 20), THRESHOLDS, "x")
    assert {one.name: one.canary_ci for one in few.levels}["p99"] is None


def test_what_is_missing_is_said() -> None:
    random = np.random.default_rng(5)
    few = decide(rows(random, 3, 20), rows(random, 3, 20), {}, "none")
    assert few.decision == "hold"
    assert any("no thresholds yet" in line for line in few.reasons)
    assert any("at least 368" in line for line in few.reasons)
    assert {m.name for m in few.metrics if m.state == "absent"} == {"kpi", "burn"}
    apart = decide(rows(random, 3, 20), rows(random, 0, 20), THRESHOLDS, "none")
    assert (apart.blocks, apart.canary_count) == (0, 0)


def goal(name: str, indicator: Indicator, rules: tuple[Rule, ...], **more: object) -> Objective:
    """An objective of 99.9 % over 30 days."""
    window = TimeWindow(count=30, unit="d", rolling=True)
    about = {"slo": name, "service": "s", "display_name": "", "description": "", "target": 0.999, "window": window}
    return Objective(name=name, indicator=indicator, rules=rules, **{**about, **more})  # type: ignore[arg-type]


def test_thresholds_and_beginnings_do_not_move_between_looks(store: Store) -> None:  # noqa: F811 - a fixture
    random = np.random.default_rng(6)
    stamps = []
    old, new = (label_set(store, {"gateway": v}) for v in "12")
    for i in range(2_400):
        canary = i >= 1_200 and i % 4 == 0
        took = int(100_000 * random.lognormal(0, 0.3)) + (2 * MS if canary and i % 20 == 0 else 0)
        at = HOUR + i * (S // 10)
        more = {"label_set": new if canary else old}
        stamps += [stamp(i + 1, "app_ingress", at, **more), stamp(i + 1, "app_egress", at + took, **more)]
    put(store, stamps)
    kpis = [
        {"ts": HOUR + (120 + i) * S, "name": "conversion", "cohort": cohort, "channel": "", "region": "",
         "value": 0.3 + i % 3 / 100, "weight": 1.0, "version": 1}
        for i in range(40) for cohort in ("old", "new")
    ]  # fmt: skip
    from collector.store.blocks import from_rows
    from collector.store.schema import table_types

    store.insert("kpis", from_rows(table_types()["kpis"], kpis), token="kpis")  # noqa: S106 - the name of a block
    windows.run_due(store, {"order": path(ORDER)}, now_ns=HOUR + 600 * S)
    ask = {"to_ns": HOUR + 300 * S, "objective": watching.objective_from("1ms=99.9%")}
    question = watching.KpiQuestion("conversion", "cohort=old", "cohort=new")
    found = watching.look(store, path(ORDER), "gateway=1", "gateway=2", kpis=[question], **ask)
    assert found.decision.decision == "rollback"
    assert found.from_ns == HOUR + 120 * S  # the canary's first message
    assert "30 minutes before" in found.decision.thresholds_from
    assert found.decision.canary_count == 300
    by_name = {m.name: m for m in found.decision.metrics}
    assert (by_name["conversion"].state, by_name["conversion"].ratio) == ("no difference", 1.0)
    assert by_name["99.9 %"].canary_hits == 60
    # Objectives in force count by their own definition: the second is of slices, the third of another path.
    shut = SloCalendar(zone="UTC", sessions=["00:00-00:02"])
    goals = [
        goal("latency", Latency("order", "end_to_end", MS), rules_named("workbook", 30 * 86_400)),
        goal("slices", Latency("order", "end_to_end", MS), (), slice_s=60),
        goal("other", Errors("tick"), ()),
        goal("closed", Latency("order", "end_to_end", MS), (), calendar="shut"),
    ]
    firing = [
        Alert("latency", "page-1h", "firing"),
        Alert("else", "page-1h", "firing"),
        Alert("closed", "x", "resolved"),
    ]
    budgets = burning.Budgets(burning.chosen(goals, [g.name for g in goals], path(ORDER)), firing, {"shut": shut})
    held = watching.look(store, path(ORDER), "gateway=1", "gateway=2", budgets=budgets, to_ns=HOUR + 300 * S)
    burnt = {m.name: m for m in held.decision.metrics if m.kind == "burn"}
    assert (burnt["latency"].canary_hits, burnt["latency"].canary_total) == (60, 300)
    assert (burnt["latency"].state, burnt["latency"].limit) == ("worse", 14.4)
    assert burnt["latency"].ratio == pytest.approx(200)
    assert burnt["latency"].baseline_hits == 0
    assert [burnt[name].state for name in ("slices", "other", "closed")] == ["absent"] * 3
    assert "about path tick" in burnt["other"].said
    assert budgets.firing() == ["latency (page-1h)"]
    assert [one.name for one in burning.chosen(goals, ["all"], path(ORDER))] == ["latency", "closed"]
    with pytest.raises(ValueError, match=r"no objective in force is called 'x'; there are closed, latency"):
        burning.chosen(goals, ["x"], path(ORDER))
    early = watching.look(store, path(ORDER), "gateway=1", "gateway=2", to_ns=HOUR + 150 * S)
    assert early.from_ns == found.from_ns
    assert {m.name: m.threshold_ns for m in early.decision.metrics} | {"conversion": None, "99.9 %": None} == {
        m.name: m.threshold_ns for m in found.decision.metrics
    } | {"kpi": None, "burn": None}
    # Without messages before, the first ones of both sides set the thresholds and are not tested.
    learned = watching.look(store, path(ORDER), "gateway=1", "gateway=2", from_ns=HOUR, to_ns=HOUR + 240 * S)
    assert "which are not tested" in learned.decision.thresholds_from
    for wrong in ({"stage": "nowhere"}, {"margin": 0.5}):
        with pytest.raises(watching.RolloutError):
            watching.look(store, path(ORDER), "gateway=1", "gateway=2", **wrong)  # type: ignore[arg-type]
    with pytest.raises(watching.RolloutError, match="the same messages"):
        watching.look(store, path(ORDER), "gateway=1", "gateway=1")
    with pytest.raises(watching.RolloutError, match="cohort, channel and region"):
        bad = watching.KpiQuestion("conversion", "version=1", "version=2")
        watching.look(store, path(ORDER), "gateway=1", "gateway=2", kpis=[bad], **ask)


@pytest.mark.parametrize("text", ["5ms", "5ms=x", "5ms=100%", "x=99%", "5ms=0"])
def test_objectives_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        watching.objective_from(text)


def test_an_objective_is_a_share_or_a_percentage() -> None:
    assert watching.objective_from("5ms=99.9%") == watching.objective_from("5ms=0.999")
    assert rollout.MARGIN == 2.0
