"""Sensitivity asked of a real store."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from analytics.money.ask import ask
from analytics.money.assignments import Assignment
from analytics.money.assignments import record as record_assignments
from analytics.money.designs import Struck, struck_by
from analytics.money.effects import SensitivityError
from analytics.money.exposures import Exposure
from analytics.money.told import told
from collector.store import Store
from collector.store.blocks import from_rows
from collector.store.schema import table_types
from tests.analytics.money.bought import BEGIN, DAY, KNOWN, MS, SHOP, S, Shop, shop

SPAN = {"from_ns": BEGIN, "to_ns": BEGIN + 10 * DAY, "now_ns": BEGIN + 10 * DAY}


def emptied(store: Store) -> None:
    for table in ("messages", "windows", "label_sets", "message_kpis", "kpis", "assignments", "changes"):
        store.execute(f"TRUNCATE TABLE {table}")


@pytest.fixture(scope="module")
def sold(shared_store: Store) -> tuple[Store, Shop]:
    emptied(shared_store)
    return shared_store, shop(shared_store, 1, unfinished=0.02)


def test_messages_are_compared_with_what_is_alike(sold: tuple[Store, Shop]) -> None:
    store, _ = sold
    found = ask(store, SHOP, "bought", KNOWN, **SPAN)
    answer, naive = found.result.answer, found.result.naive
    assert answer.design == "strata"
    assert answer.low is not None and answer.high is not None and naive.low is not None
    assert answer.low < -2.0 < answer.high < 0
    assert naive.low > 0  # bunches buy more and are slower
    assert found.result.checks_failed == ()
    assert found.left_out["unfinished"] > 50
    assert any("survivors" in note for note in found.notes)
    assert found.least < found.exposure_mean < found.most
    assert found.curve is not None
    assert "bought" in found.sentence and "percentage points" in found.sentence


def test_a_cohort_has_its_own_answer(sold: tuple[Store, Shop]) -> None:
    store, what = sold
    found = ask(store, SHOP, "bought", KNOWN, by="cohort", curve=False, **SPAN)
    assert {group.value for group in found.groups} == {"retail", "professional"}
    for group in found.groups:
        assert group.result is not None
        answer = group.result.answer
        assert answer.low is not None and answer.high is not None
        assert answer.low < -2.0 < answer.high
        assert group.mean == pytest.approx(float(what.value[what.cohort == group.value].mean()), abs=0.6)
    # What the KPI does not say, the message's labels do.
    by_label = ask(store, SHOP, "bought", KNOWN, by="region", curve=False, **SPAN)
    assert [group.value for group in by_label.groups] == ["emea"]


def test_a_stage_a_threshold_and_a_windows_tail_are_exposures(sold: tuple[Store, Shop]) -> None:
    store, what = sold
    stage = ask(store, SHOP, "bought", KNOWN, exposure=Exposure(stage="decide"), curve=False, **SPAN)
    estimate = stage.result.answer.estimate
    assert estimate is not None and -10 < estimate < -6  # a quarter of the latency: four times the slope
    over = ask(store, SHOP, "bought", KNOWN, exposure=Exposure("exceedance", threshold_ns=9 * MS), **SPAN)
    assert over.result.answer.estimate is not None and over.result.answer.estimate < 0
    assert over.curve is None
    assert "unfinished" not in over.left_out  # what never ended was slow
    assert over.exposure_mean > float((what.latency_ms > 9).mean())
    age = ask(store, SHOP, "bought", KNOWN, exposure=Exposure("data_age"), curve=False, **SPAN)
    assert age.result.answer.verdict == "no detectable effect"
    with pytest.raises(SensitivityError, match="in a thin window"):
        ask(store, SHOP, "bought", KNOWN, exposure=Exposure("p99"), **SPAN)
    day = ask(store, SHOP, "bought", KNOWN, exposure=Exposure("p99", window_s=21_600), curve=False, **SPAN)
    assert len(np.unique([day.least, day.most])) == 2


def test_values_that_may_still_come_are_not_waited_for(sold: tuple[Store, Shop]) -> None:
    store, _ = sold
    whole = ask(store, SHOP, "bought", KNOWN, curve=False, **SPAN)
    ripe = ask(store, SHOP, "bought", KNOWN, curve=False, horizon_ns=3 * DAY, **SPAN)
    assert ripe.rows == pytest.approx(0.7 * whole.rows, rel=0.1)
    assert any("may still come" in note for note in ripe.notes)
    with pytest.raises(SensitivityError, match="nothing in it is ripe"):
        ask(store, SHOP, "bought", KNOWN, horizon_ns=11 * DAY, **SPAN)


def test_what_cannot_be_asked_is_named(sold: tuple[Store, Shop]) -> None:
    store, _ = sold
    for more, words in (
        ({"kpi": "nothing"}, "is not declared"),
        ({"by": "symbol"}, "is no dimension"),
        ({"exposure": Exposure(stage="nowhere")}, "it has decide, send"),
        ({"exposure": Exposure("exceedance")}, "threshold"),
        ({"exposure": Exposure("data_age", stage="decide")}, "whole message"),
        ({"exposure": Exposure("p99", window_s=0)}, "window"),
        ({"kpi": "late"}, "has no value in this time"),
        ({"to_ns": BEGIN + S, "now_ns": BEGIN + S}, "fewer than 200"),
    ):
        asked = {"kpi": "bought", **SPAN, **more}
        with pytest.raises(SensitivityError, match=words):
            ask(store, SHOP, asked.pop("kpi"), KNOWN, **asked)


def test_intervals_take_the_latency_that_lay_in_them(shared_store: Store) -> None:
    from analytics.kpis import KpiValue, record

    emptied(shared_store)
    what = shop(shared_store, 2, by_message=False, confounding=0.0)
    length = 900 * S
    slot = (what.start_ns - BEGIN) // length
    values = [
        KpiValue(name="bought", ts_ns=BEGIN + int(at) * length, duration_ns=length, version=1,
                 value=float(what.value[slot == at].mean()))
        for at in np.unique(slot)
    ]  # fmt: skip
    values.append(KpiValue(name="bought", ts_ns=BEGIN + 7 * S, duration_ns=60 * S, version=1, value=1.0))
    record(shared_store, values, KNOWN, 1)
    found = ask(shared_store, SHOP, "bought", KNOWN, **SPAN)
    answer = found.result.answer
    assert found.source == "intervals"
    assert found.left_out["of another length"] == 1
    assert answer.low is not None and answer.high is not None
    assert answer.low < -2.0 < answer.high < 0
    assert any("all the path's messages" in note for note in found.notes)


def test_who_was_assigned_what_answers_before_all_else(shared_store: Store) -> None:
    emptied(shared_store)
    what = shop(shared_store, 4, dose_ms=4.0)
    values = [
        Assignment(experiment="slow", arm="slow" if dose else "control", key=hex(int(key)), version=1)
        for key, dose in zip(what.key, what.dose, strict=True)
    ]
    assert record_assignments(shared_store, values, BEGIN) == len(values)
    found = ask(shared_store, SHOP, "bought", KNOWN, experiment="slow", curve=False, **SPAN)
    answer = found.result.answer
    assert answer.design == "experiment"
    assert answer.low is not None and answer.high is not None and answer.first_stage_f is not None
    assert answer.low < -2.0 < answer.high < 0
    assert answer.first_stage_f > 100
    assert found.result.rungs[1].design == "strata"
    assert any("Messages by arm of slow: control " in note for note in found.notes)
    with pytest.raises(SensitivityError, match="there are slow"):
        ask(shared_store, SHOP, "bought", KNOWN, experiment="fast", **SPAN)
    with pytest.raises(SensitivityError, match="not of the design strata"):
        ask(shared_store, SHOP, "bought", KNOWN, experiment="slow", design="strata", **SPAN)
    with pytest.raises(SensitivityError, match="name the one"):
        ask(shared_store, SHOP, "bought", KNOWN, design="experiment", **SPAN)


def test_units_are_assigned_by_a_label_of_their_messages(shared_store: Store) -> None:
    emptied(shared_store)
    what = shop(shared_store, 5, dose_ms=4.0, accounts=60)
    arms = [
        Assignment(experiment="by-account", arm=f"plus {dose:g}", dose=dose, label="account", unit=str(unit), version=1)
        for unit, dose in sorted({(int(u), float(d)) for u, d in zip(what.account, what.dose, strict=True)})
    ]
    over = BEGIN + 99 * DAY
    later = [Assignment(experiment="by-account", arm="off", dose=0.0, label="account", unit="1", ts_ns=over)]
    record_assignments(shared_store, [*arms, *later], BEGIN)
    found = ask(shared_store, SHOP, "bought", KNOWN, experiment="by-account", design="experiment", curve=False, **SPAN)
    answer = found.result.answer
    assert answer.design == "experiment"
    assert answer.clusters == 60  # what was assigned
    assert answer.low is not None and answer.high is not None
    assert answer.low < -2.0 < answer.high < 0


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"experiment": "a b", "arm": "x", "key": "1"}, "experiment"),
        ({"experiment": "e", "arm": "x"}, "either key, or label"),
        ({"experiment": "e", "arm": "x", "label": "account"}, "either key, or label"),
        ({"experiment": "e", "arm": "x", "key": "1", "label": "a", "unit": "b"}, "either key, or label"),
        ({"experiment": "e", "arm": "x", "key": "1", "dose": float("nan")}, "dose"),
        ({"experiment": "e", "arm": "x", "key": "1", "ts_ns": -1}, "ts_ns"),
        ({"experiment": "e", "arm": "", "key": "1"}, "arm"),
    ],
)
def test_an_assignment_that_cannot_be_is_named(shared_store: Store, wrong: dict[str, Any], words: str) -> None:
    fine = Assignment(experiment="e", arm="x", key="1")
    with pytest.raises(SensitivityError, match="assignment 1: .*" + words):
        record_assignments(shared_store, [fine, Assignment(**wrong)], 1)


def test_a_change_that_struck_some_is_a_natural_experiment(shared_store: Store) -> None:
    emptied(shared_store)
    shop(shared_store, 6, struck_ms=3.0)
    at = BEGIN + 5 * DAY
    struck = Struck(at, {"cohort": "retail"})
    found = ask(shared_store, SHOP, "bought", KNOWN, design="natural", struck=struck, curve=False, **SPAN)
    answer = found.result.answer
    assert answer.design == "natural experiment"
    assert answer.low is not None and answer.high is not None
    assert answer.low < -2.0 < answer.high < 0
    assert found.natural is not None
    assert found.natural.exposure_moved == pytest.approx(3.0, abs=0.6)
    row = {
        "ts": at, "id": "c-1", "kind": "network", "who": "me", "what": "failover", "host": "", "service": "",
        "version": "", "url": "", "labels": "{}", "recorded": at,
    }  # fmt: skip
    shared_store.insert("changes", from_rows(table_types()["changes"], [row]), token="change/c-1")  # noqa: S106 - a name
    assert struck_by(shared_store, "c-1", "cohort=retail,region=emea") == Struck(
        at, {"cohort": "retail", "region": "emea"}, "failover"
    )
    assert struck_by(shared_store, str(at), "site=east").at_ns == at
    for change, treated, words in (("c-2", "a=b", "no change has"), ("c-1", "retail", "label=value")):
        with pytest.raises(SensitivityError, match=words):
            struck_by(shared_store, change, treated)
    for treated, words in (({"cohort": "nobody"}, "no row has"), ({"region": "emea"}, "every row has")):
        with pytest.raises(SensitivityError, match=words):
            ask(shared_store, SHOP, "bought", KNOWN, design="natural", struck=Struck(at, treated), **SPAN)


def test_double_machine_learning_is_asked_for_by_name(sold: tuple[Store, Shop]) -> None:
    pytest.importorskip("doubleml", reason="needs the package doubleml")
    store, _ = sold
    emptied(store)
    shop(store, 7, bunches=60)
    found = ask(store, SHOP, "bought", KNOWN, design="dml", curve=False, **SPAN)
    answer = found.result.answer
    assert answer.design == "double machine learning"
    assert answer.low is not None and answer.high is not None
    assert answer.low < -2.0 < answer.high < 0
    assert told(found)["answer"]["design"] == "double machine learning"
    msgspec.json.encode(told(found))
