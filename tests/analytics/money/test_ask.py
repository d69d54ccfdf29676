"""Sensitivity asked of a real store."""

from __future__ import annotations

import numpy as np
import pytest

from analytics.money.ask import ask
from analytics.money.effects import SensitivityError
from analytics.money.exposures import Exposure
from collector.store import Store
from tests.analytics.money.bought import BEGIN, DAY, KNOWN, MS, SHOP, S, Shop, shop

SPAN = {"from_ns": BEGIN, "to_ns": BEGIN + 10 * DAY, "now_ns": BEGIN + 10 * DAY}


@pytest.fixture(scope="module")
def sold(shared_store: Store) -> tuple[Store, Shop]:
    for table in ("messages", "windows", "label_sets", "message_kpis", "kpis"):
        shared_store.execute(f"TRUNCATE TABLE {table}")
    return shared_store, shop(shared_store, 3, unfinished=0.02)


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

    for table in ("messages", "windows", "label_sets", "message_kpis", "kpis"):
        shared_store.execute(f"TRUNCATE TABLE {table}")
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
