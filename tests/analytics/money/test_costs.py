"""Latency budgets of market actions, showback, the debt ledger, degraded modes and provider agreements."""

from __future__ import annotations

import tomllib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.kpis import KpiDefinition, KpiValue, record
from analytics.money.actions import actions_from, budget_ms, budget_of
from analytics.money.agreements import agreement, agreements_from, bounds, due, judge
from analytics.money.debts import debts_from, ledger
from analytics.money.modes import modes
from analytics.money.showback import UNLABELLED, divided, showback, showback_from
from analytics.percentiles import Counts
from analytics.slo.episodes import Episode
from collector.settings import ConfigError
from collector.store import Store
from tests.analytics.money.priced import KPIS, MS, PATHS, VALUE, S, fill, money
from tests.analytics.money.test_burned import EFFECT
from tests.analytics.world import HOUR, beat

NOW = HOUR + 60 * S
KINDS = {name: one.kind for name, one in KPIS.items()}

ACTIONS = """
[actions.take]
path = "order"
match = "symbol=A"
value = 10.0
tolerate = 0.2
"""
SHOWBACK = """
[showback.servers]
path = "order"
by = ["symbol", "host"]
per_month = 73050
"""
DEBTS = """
[debts.copy]
what = "the book is copied for every quote"
owner = "pricing"
path = "order"
stage = "send"
costs_ms = {low = 0.5, likely = 1.0, high = 1.5}
since = 2025-06-01
objective = "fast"
fix_cost = 100000

[debts.larger_than_its_stage]
what = "nothing that takes 100 ms"
owner = "nobody"
path = "order"
stage = "decide"
costs_ms = 100
since = 2025-06-01
"""
AGREEMENT = """
[agreements.venue]
provider = "Venue East"
path = "order"
stage = "send"
percentile = 50
limit = "900us"
period = "day"
fee = 1000
credits = [{above = "900us", share = 0.05}, {above = "950us", share = 0.1}, {above = "5ms", share = 0.5}]
"""


def test_a_budget_is_what_the_value_at_stake_allows(store: Store) -> None:
    end = fill(store, symbols=("A", "B"))
    one = actions_from(tomllib.loads(ACTIONS), PATHS)["take"]
    found = budget_of(money().pricer(store, NOW), "take", one, from_ns=HOUR, to_ns=end)
    # 0.2 of 10 USD at 1 % per ms: 2 ms above the fastest seen of 1 ms; 0.2 / 0.15 with the strongest effect.
    assert found.budget_ns == 3_000_000
    assert found.least_ns == pytest.approx(1e6 + 0.2 / 0.15 * 1e6, abs=1)
    assert found.most_ns == pytest.approx(5e6)
    assert (found.count, found.over) == (50, pytest.approx(0.1))
    assert found.lost_per_decision == pytest.approx(10.0 * 0.01 * 2.0, rel=0.01)
    text = VALUE.replace("high = -0.005", "high = 0.005")
    none = budget_of(money(text).pricer(store, NOW), "take", one, from_ns=HOUR, to_ns=end)
    assert none.budget_ns is None
    assert "holds zero" in none.reason


@given(st.floats(0.01, 1e6), st.floats(1e-6, 0.99))
def test_a_dearer_action_never_gets_more_time(value: float, share: float) -> None:
    tolerate = share * value
    one, dearer = budget_ms(value, tolerate, EFFECT), budget_ms(2 * value, tolerate, EFFECT)
    assert one[1] <= one[0] <= one[2] <= EFFECT.most_ms
    assert dearer[0] <= one[0]


def test_costs_are_divided_by_decisions_and_add_up(store: Store) -> None:
    fill(store, symbols=("A", "A", "B", "B", "B"))
    one = showback_from(tomllib.loads(SHOWBACK), PATHS, KINDS)["servers"]
    by_symbol, by_host = showback(money().pricer(store, NOW), "servers", one, from_ns=HOUR, to_ns=HOUR + 3_600 * S)
    assert by_symbol.cost == pytest.approx(100.0)
    assert [(s.who, s.decisions, s.cost) for s in by_symbol.shares] == [
        ("B", 60, pytest.approx(60.0)),
        ("A", 40, pytest.approx(40.0)),
    ]
    assert by_symbol.per_decision == pytest.approx(1.0)
    assert [s.who for s in by_host.shares] == ["a"]
    store.execute("TRUNCATE TABLE kpis")
    record(
        store,
        [
            KpiValue(name="success", ts_ns=HOUR, numerator=1, denominator=n, region=region)
            for n, region in ((30, "eu"), (10, ""))
        ],
        KPIS,
        NOW,
    )
    text = SHOWBACK.replace('path = "order"\nby = ["symbol", "host"]', 'kpi = "success"\nby = ["region"]')
    of_kpi = showback_from(tomllib.loads(text), PATHS, KINDS)["servers"]
    (found,) = showback(money().pricer(store, NOW), "servers", of_kpi, from_ns=HOUR, to_ns=HOUR + 3_600 * S)
    assert [(s.who, s.share) for s in found.shares] == [("eu", 0.75), (UNLABELLED, 0.25)]


@given(st.dictionaries(st.text(max_size=5), st.floats(0, 1e9), max_size=20), st.floats(0, 1e9), st.floats(0, 1e9))
def test_showback_never_loses_or_makes_money(decisions: dict[str, float], more: float, cost: float) -> None:
    total = sum(decisions.values()) + more
    shares = divided(cost, decisions, total)
    if total > 0:
        assert sum(one.cost for one in shares) == pytest.approx(cost, abs=1e-6 * max(1, cost))
    else:
        assert shares == []


def test_debts_are_priced_as_far_as_the_stage_takes_that_long(store: Store) -> None:
    end = fill(store)
    debts = debts_from(tomllib.loads(DEBTS), PATHS)
    episodes = [
        Episode(
            episode=name, objective=objective, rule="page-1h", severity="page", breach_ns=at, fired_ns=at,
            resolved_ns=at + 60 * S,
        )
        for name, objective, at in (("e1", "fast", HOUR), ("e2", "other", HOUR), ("e3", "fast", 10 * S))
    ]  # fmt: skip
    first, second = ledger(money().pricer(store, NOW), debts, episodes, from_ns=HOUR, to_ns=end)
    assert first.debt == "copy"
    monthly = 36_000 * 730.5
    assert first.per_month.value == pytest.approx(monthly * 0.01, rel=0.01)
    assert (first.per_month.low, first.per_month.high) == pytest.approx(
        (monthly * 0.005 * 0.5, monthly * 0.015 * 1.5), rel=0.01
    )
    assert first.payback_months == pytest.approx(100_000 / (monthly * 0.01), rel=0.01)
    assert (first.alerts, first.firing_s, [e.episode for e in first.episodes]) == (1, 60.0, ["e1"])
    assert first.so_far.value is not None
    days = (NOW / S - 1_748_736_000) / 86_400  # since 2025-06-01
    assert first.so_far.value == pytest.approx(36_000 * 24 * days * 0.01, rel=0.01)
    assert second.counted_ms == pytest.approx(1.0, rel=0.01)
    assert second.per_month.at_least
    unpriced = ledger(money("").pricer(store, NOW), debts, [], from_ns=HOUR, to_ns=end)
    assert {one.per_month.value for one in unpriced} == {None}
    assert unpriced[0].stage_mean_ms is not None


def test_a_credit_is_due_only_where_even_the_near_end_breaks(store: Store) -> None:
    fill(store, error_ns=1_000)
    beat(store, HOUR + 86_400 * S, HOUR + 86_400 * S)
    after = HOUR + 86_400 * S * 2
    one = agreements_from(tomllib.loads(AGREEMENT), PATHS)["venue"]
    found = agreement(store, "venue", one, "USD", at_ns=HOUR, now_ns=after)
    assert (found.count, found.lost) == (100, 0)
    assert found.clock_error_ns is not None
    assert found.clock_error_ns > 0
    assert found.verdict == "broken", found
    assert found.near_ns is not None
    assert 950_000 < found.near_ns < 1_000_000 + found.clock_error_ns
    assert (found.credit_share, found.credit) == (0.1, 100.0)
    assert "credit due 100.00 USD (10 % of the fee)" in found.sentence
    running = agreement(store, "venue", one, "USD", at_ns=HOUR, now_ns=HOUR + 60 * S)
    assert (running.over, running.credit) == (False, 0.0)
    wide = tomllib.loads(AGREEMENT.replace('limit = "900us"', 'limit = "1ms"').replace('above = "9', 'above = "19'))
    held = agreement(store, "venue", agreements_from(wide, PATHS)["venue"], "USD", at_ns=HOUR, now_ns=after)
    assert (held.verdict, held.credit) == ("not decided", 0.0)
    assert "inside what the measurement leaves open" in held.reason
    kept = tomllib.loads(AGREEMENT.replace('limit = "900us"', 'limit = "2ms"').replace('above = "9', 'above = "29'))
    assert (
        agreement(store, "v", agreements_from(kept, PATHS)["venue"], "USD", at_ns=HOUR, now_ns=after).verdict == "kept"
    )


def test_an_unknown_clock_or_loss_decides_nothing(store: Store) -> None:
    fill(store)
    one = agreements_from(tomllib.loads(AGREEMENT), PATHS)["venue"]
    beat(store, HOUR + 3_600 * S, HOUR + 30 * S, produced=10**9, acked=0)  # much has not arrived
    found = agreement(store, "venue", one, "USD", at_ns=HOUR, now_ns=HOUR + 86_400 * S * 2)
    assert (found.verdict, found.lost) == ("not decided", None)
    assert "not known" in found.reason
    counts = Counts.of(np.full(1000, 5 * MS))
    assert bounds(counts, 0.99, 0, None)[2].startswith("the clocks' error")
    assert bounds(counts, 0.9999, 0, 0)[2].startswith("p99.99 needs at least")


def test_lost_messages_widen_both_ends() -> None:
    counts = Counts.of(np.arange(1, 100_001) * 1000)
    ends = [bounds(counts, 0.99, unseen, 0) for unseen in (0, 900, 50_000)]
    near, far = [one[0] for one in ends], [one[1] for one in ends]
    assert near[0] is not None
    assert near[2] is not None
    # Of 150,000 the rank 148,500 is rank 98,500 of those seen if the lost were faster; its interval goes below.
    assert near[2] < 98_500_000 < near[0] + 500_000
    assert far[0] is not None
    assert far[1] is not None
    assert far[0] < 99_200_000 < 99_891_000 < far[1]
    assert far[2] is None  # a third never arrived: p99 may be anything
    one = agreements_from(tomllib.loads(AGREEMENT), PATHS)["venue"]
    assert judge(one.limit_ns, None, None) == "not decided"
    assert [due(one, ns) for ns in (None, 900_000, 900_001, 6 * MS)] == [0.0, 0.0, 0.05, 0.5]


def degraded(store: Store, lost: float, seed: int = 1) -> None:
    """Half a day: under load more fall back, and load itself lowers the conversion; falling back costs `lost`."""
    dice = np.random.default_rng(seed)
    n = 20_000
    start = dice.integers(0, 12 * 3_600, 4 * n)
    kept = dice.random(4 * n) < np.where((start // 600) % 2, 0.8, 0.2)
    start = np.sort(start[kept][:n])
    busy = (start // 600) % 2
    fallback = dice.random(n) < 0.05 + 0.3 * busy
    success = dice.random(n) < 0.8 - 0.2 * busy - lost * fallback
    from collector.store.blocks import from_rows
    from collector.store.schema import table_types

    types = table_types()
    blank = {
        "path": "order", "generation": 1, "e2e_ns": 1, "e2e_error_ns": None, "stage_ns": [], "stage_error_ns": [],
        "stage_host": [], "stage_thread": [], "stage_depth": [], "duplicates": 0, "repeated": 0, "host": "a",
        "service": "", "outcome": 1, "cache": 0, "data_age_ns": None, "weight": 1.0, "label_set": 0,
        "completeness": None,
    }  # fmt: skip
    at = (HOUR // S + start).tolist()
    rows = [
        {**blank, "window": t // 10 * 10, "key": i, "start": t * S, "mode": 3 if bad else 1}
        for i, (t, bad) in enumerate(zip(at, fallback.tolist(), strict=True))
    ]
    rows = [{name: row[name] for name in types["messages"] if name in row} for row in rows]
    store.insert(
        "messages",
        from_rows({n: t for n, t in types["messages"].items() if n in rows[0]}, rows),
        token=f"m{lost}{seed}",
    )
    commits = [
        {
            "path": "order", "level": 10, "window": w, "generation": 1, "state": 2, "messages": 1, "finished": 1,
            "unfinished": 0, "headless": 0, "stamps": 1, "completeness": None, "basis": 1, "computed": HOUR,
        }
        for w in sorted({t // 10 * 10 for t in at})
    ]  # fmt: skip
    store.insert("windows", from_rows(types["windows"], commits), token=f"w{lost}{seed}")
    store.execute("TRUNCATE TABLE message_kpis")
    region = np.where(dice.random(n) < 0.5, "eu", "us").tolist()
    kpis = [
        {
            "ts": t * S, "key": i, "name": "success", "cohort": "", "channel": "", "region": where, "offer": "",
            "value": float(won), "version": 1,
        }
        for i, (t, won, where) in enumerate(zip(at, success.tolist(), region, strict=True))
    ]  # fmt: skip
    store.insert("message_kpis", from_rows(types["message_kpis"], kpis), token=f"k{lost}{seed}")


@pytest.mark.parametrize("lost", [0.1, 0.0])
def test_a_degraded_mode_is_compared_among_what_is_alike(store: Store, lost: float) -> None:
    degraded(store, lost)
    cached, fallback = modes(
        store, PATHS["order"], "success", {"success": KpiDefinition()}, from_ns=HOUR, to_ns=HOUR + 12 * 3_600 * S
    )
    assert cached.verdict == "refused"
    assert "0 messages of mode cached" in cached.reason
    assert fallback.messages + fallback.normal == 20_000
    assert fallback.low is not None
    assert fallback.high is not None
    assert fallback.plain is not None
    assert fallback.low <= -lost <= fallback.high
    assert fallback.plain < -lost - 0.03  # the plain difference takes the load's harm for the mode's
    assert not fallback.low <= fallback.plain <= fallback.high
    if lost:
        assert fallback.lost is not None
        assert fallback.lost == pytest.approx(-lost * fallback.messages, rel=0.35)
        assert "Association, not proof" in fallback.sentence
    else:
        assert fallback.lost is None
        assert "no detectable effect" in fallback.sentence


@pytest.mark.parametrize(
    ("reader", "text", "field"),
    [
        ("actions", ACTIONS.replace("tolerate = 0.2", ""), "actions.take.tolerate"),
        ("actions", ACTIONS.replace("symbol=A", "team=A"), "actions.take.match"),
        ("actions", ACTIONS.replace("order", "none"), "actions.take.path"),
        ("showback", SHOWBACK.replace('"host"', '"team"'), "showback.servers.by"),
        ("showback", SHOWBACK.replace("73050", "-1"), "showback.servers.per_month"),
        ("debts", DEBTS.replace('stage = "send"', 'stage = "nope"'), "debts.copy.stage"),
        ("debts", DEBTS.replace("low = 0.5", "low = 5"), "debts.copy.costs_ms"),
        ("agreements", AGREEMENT.replace('above = "950us"', 'above = "10us"'), "agreements.venue.credits[1].above"),
        ("agreements", AGREEMENT.replace('limit = "900us"', 'limit = "soon"'), "agreements.venue.limit"),
        ("agreements", AGREEMENT + 'time_zone = "Mars"', "agreements.venue.time_zone"),
    ],
)
def test_a_wrong_declaration_is_named(reader: str, text: str, field: str) -> None:
    document = tomllib.loads(text)
    with pytest.raises(ConfigError) as caught:
        match reader:
            case "actions":
                actions_from(document, PATHS)
            case "showback":
                showback_from(document, PATHS, KINDS)
            case "debts":
                debts_from(document, PATHS)
            case _:
                agreements_from(document, PATHS)
    assert caught.value.field == field or caught.value.field.startswith(field), caught.value
