"""An estimate of the store becomes the effect of a path's value, or is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import msgspec
import pytest

from analytics.money.ask import Asked, ask
from analytics.money.effects import SensitivityError
from analytics.money.exposures import Exposure
from analytics.money.saved_effects import effect_of
from analytics.money.value import LatencyEffect, MoneySettings, refusal
from collector.store import Store
from tests.analytics.money.bought import BEGIN, DAY, KNOWN, SHOP, Shop, shop


@pytest.fixture(scope="module")
def asked(shared_store: Store) -> tuple[Asked, Shop]:
    for table in ("messages", "windows", "label_sets", "message_kpis", "kpis"):
        shared_store.execute(f"TRUNCATE TABLE {table}")
    what = shop(shared_store, 3)
    span = {"from_ns": BEGIN, "to_ns": BEGIN + 10 * DAY, "now_ns": BEGIN + 10 * DAY}
    return ask(shared_store, SHOP, "bought", KNOWN, curve=False, **span), what


def test_the_effect_is_relative_to_the_mean(asked: tuple[Asked, Shop]) -> None:
    found, what = asked
    effect = effect_of(found)
    answer = found.result.answer
    assert answer.low is not None
    assert answer.high is not None
    mean = float(what.value.mean())  # the shop's rule: two percentage points less per millisecond
    assert effect.low < -2.0 / mean < effect.high < 0
    assert found.mean == pytest.approx(mean, rel=0.05)
    assert (effect.least_ms, effect.most_ms) == (found.least, found.most)
    assert effect.design == "strata"
    last = date.fromordinal(date(1970, 1, 1).toordinal() + (found.to_ns - 1) // DAY)
    assert effect.measured == last
    assert refusal(effect, MoneySettings(), found.to_ns, "value.shop.effect") == ""
    strict = MoneySettings(accept=("experiment",))
    assert "is of design 'strata'" in refusal(effect, strict, found.to_ns, "value.shop.effect")
    written = msgspec.json.decode(msgspec.json.encode(effect), type=LatencyEffect)
    assert written == effect


def test_what_may_not_become_money_is_refused(asked: tuple[Asked, Shop]) -> None:
    found, _ = asked
    with pytest.raises(SensitivityError, match="must be latency from end to end"):
        effect_of(replace(found, exposure=Exposure(stage="decide")))
    failed = replace(found.result, checks_failed=("placebo lead",), sentence="No claim: it moves")
    with pytest.raises(SensitivityError, match="No claim"):
        effect_of(replace(found, result=failed))
    with pytest.raises(SensitivityError, match="naive slope is a warning"):
        effect_of(replace(found, result=replace(found.result, answer=found.result.naive)))
