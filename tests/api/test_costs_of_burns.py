"""A burn's cost and cause: computed beside the evaluation, told with the page or right after it, once per episode."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analytics import windows
from analytics.money.declared import Money
from analytics.slo import stored
from analytics.slo.episodes import Alert, Transition
from analytics.slo.openslo_read import sources
from analytics.slo.settings import SloSettings
from api.control import Control
from api.costs import CostBook, Explainer
from api.notify.deliveries import Deliveries
from api.notify.payload import Notice, alert, content
from api.notify.sender import Sender
from api.notify.settings import NotifyTarget
from api.slo_book import SloBook
from api.slo_engine import SloEngine
from collector.store import Store
from collector.store.embedded import open_embedded
from collector.store.schema import Retention, migrate
from tests.analytics.money.priced import MS, PATHS, SLO, VALUE, S, money
from tests.analytics.world import HOUR, beat, put, stamp
from tests.api.notify.kit import SECRET, receiver, webhook

NOW = HOUR + 640 * S


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Twelve minutes of messages: from the fifth on a tenth of them waits 11 ms longer in `send`."""
    store = open_embedded(tmp_path_factory.mktemp("costs"))
    migrate(store, Retention(**dict.fromkeys(Retention.__struct_fields__, 175200)))
    stamps = []
    for i in range(1440):
        at = HOUR + i * 500 * MS
        slow = i >= 600 and i % 10 == 0
        jitter = i * 7919 % 1000 * 100
        stamps += [
            stamp(i + 1, "app_ingress", at),
            stamp(i + 1, "app_decision", at + 1 * MS + jitter),
            stamp(i + 1, "app_egress", at + (12 if slow else 2) * MS + 2 * jitter),
        ]
    put(store, stamps)
    beat(store, HOUR + 740 * S, HOUR + 740 * S)
    windows.run_due(store, PATHS, now_ns=HOUR + 740 * S)
    yield store
    store.close()


@pytest.fixture
def book(control: Control) -> SloBook:
    book = SloBook(control)
    book.apply(sources(SLO), "ann")
    return book


def fire(book: SloBook, episode: str = "e1") -> Alert:
    one = Alert("fast", "page-1h", "firing", NOW, HOUR + 580 * S, NOW, episode=episode)
    body = {"severity": "page", "path": "order", "display_name": "Fast orders", "breach_ns": one.breach_ns}
    book.save([one], [(Transition("firing", one, NOW), body)])
    return one


def notices(control: Control, kind: str) -> list[Notice]:
    rows = control.rows("SELECT * FROM slo_outbox WHERE kind = ? ORDER BY id", (kind,))
    return [
        Notice(r["id"], r["episode"], r["kind"], r["objective"], r["rule"], r["at_ns"], json.loads(r["body"]))
        for r in rows
    ]


def costs_of(store: Store, book: SloBook, declared: Money | None = None) -> CostBook:
    found = CostBook(money() if declared is None else declared)
    found.refresh(store, book.compiled().objectives, book.alerts(), NOW)
    return found


def test_what_was_computed_is_stored_for_dashboards(store: Store, book: SloBook) -> None:
    costs = costs_of(store, book)
    hourly = costs.fields(book.compiled().objectives[0].name)
    assert costs.write(store) == len(book.compiled().objectives)
    name = {"o": book.compiled().objectives[0].name}
    (row,) = store.query("SELECT * FROM costs WHERE objective = {o:String}", name).iter_rows(named=True)
    assert (row["value"], row["low"], row["high"]) == (
        hourly["cost_per_hour"], hourly["cost"]["low"], hourly["cost"]["high"],
    )  # fmt: skip
    assert (row["design"], row["currency"], row["window_s"], row["reason"]) == ("experiment", "USD", 300, "")
    assert costs_of(store, book, Money()).write(store) == 0


def test_the_page_says_what_an_hour_costs_and_the_end_what_the_episode_did(
    store: Store, book: SloBook, control: Control
) -> None:
    objective = book.compiled().objectives[0]
    rows = [
        stored.Row(objective.name, objective.version, 10, HOUR // S + s, *((0, 20) if 300 <= s < 600 else (4, 4)))
        for s in range(-3600, 1800, 10)
    ]
    store.execute("TRUNCATE TABLE objective_counts")
    stored.insert(store, rows, 1)
    engine = SloEngine(book, SloSettings())
    engine.costs = costs = costs_of(store, book)
    beat(store, NOW, NOW)
    engine.tick(store, PATHS, NOW)
    (page,) = [one for one in notices(control, "firing") if one.rule == "page-1h"]
    # A tenth takes some 8 ms beyond the 4 that are allowed: 0.81 ms per message, 1 % of 36,000 an hour each.
    assert page.body["cost_per_hour"] == pytest.approx(36_000 * 0.01 * 0.81, rel=0.05)
    shown = content(page)
    assert shown["cost"]["low"] < shown["cost_per_hour"] < shown["cost"]["high"]
    assert shown["cost"]["design"] == "experiment"
    told = alert(page, None, NOW, 60 * S)
    assert "USD an hour (95 % interval" in told["annotations"]["cost_per_hour"]
    costs.refresh(store, book.compiled().objectives, book.alerts(), HOUR + 740 * S)
    later = HOUR + 1_500 * S
    beat(store, later, later)
    engine.tick(store, PATHS, later)
    (end,) = [one for one in notices(control, "resolved") if one.rule == "page-1h"]
    assert "cost_per_hour" not in end.body
    # 70 s from the first breach on were counted by then: 700 of 36,000 an hour.
    assert end.body["episode_cost"]["value"] == pytest.approx(700 * 0.01 * 0.81, rel=0.1)
    assert end.body["episode_cost"]["to_ns"] == HOUR + 710 * S
    kept = book.episodes()
    assert [(one.rule, one.severity, one.resolved_ns > one.fired_ns) for one in kept if one.rule == "page-1h"] == [
        ("page-1h", "page", True)
    ]
    assert book.episodes(to_ns=HOUR) == []


def test_without_a_price_nothing_is_said_of_money(store: Store, book: SloBook) -> None:
    one = fire(book)
    for text in ("", VALUE.replace('design = "experiment"', 'design = "assumed"')):
        costs = costs_of(store, book, money(text))
        assert costs.fields("fast", one.episode) == {}
    unsure = costs_of(store, book, money(VALUE.replace("high = -0.005", "high = 0.005")))
    assert "cost_per_hour" not in unsure.fields("fast")
    assert unsure.fields("fast")["cost"]["sentence"].startswith("No detectable cost")


def test_the_cause_is_told_once_and_never_after_the_end(
    store: Store, book: SloBook, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAILSIGHT_TEST_SECRET", SECRET)
    one = fire(book)
    explainer = Explainer(book, costs_of(store, book))
    assert explainer.run(store, book.compiled().objectives, PATHS, NOW) == 1
    assert explainer.run(store, book.compiled().objectives, PATHS, NOW) == 0
    (told,) = notices(control, "explained")
    assert told.body["top_cause"].startswith("send")
    assert told.body["cause"]["stage"] == "send"
    assert told.body["cost_per_hour"] > 0
    assert told.body["display_name"] == "Fast orders"
    with receiver() as here:
        target = webhook(here.url)
        pager = NotifyTarget(kind="alertmanager", url="http://127.0.0.1:9")
        deliveries = Deliveries(control, {"hook": target, "pager": pager})
        deliveries.begin(time.time_ns())
        deliveries.take_in("pager", time.time_ns())
        Sender("hook", target, deliveries).run()
        assert [body["status"] for body in here.bodies()] == ["firing", "explained"]
        assert here.bodies()[1]["top_cause"] == told.body["top_cause"]
        assert here.bodies()[1]["dedup_key"] == "e1"
        assert "send" in here.bodies()[1]["summary"]
    due = deliveries.due("pager", time.time_ns())
    assert [one.notice.kind for one in due] == ["firing"]
    first = notices(control, "firing")[0]
    again = alert(first, None, NOW, 60 * S, "", deliveries.explained("e1"))
    assert again["annotations"]["top_cause"] == told.body["top_cause"]
    assert again["labels"] == alert(first, None, NOW, 60 * S)["labels"]
    ended = replace(one, state="resolved", resolved_ns=NOW)
    book.save([ended], [(Transition("resolved", ended, NOW), {})])
    assert not book.explain("e1", {"top_cause": "late"}, NOW)
    assert not book.explain("never", {}, NOW)


def test_what_cannot_be_explained_is_tried_three_times(store: Store, book: SloBook, control: Control) -> None:
    fire(book)
    explainer = Explainer(book, costs_of(store, book))
    objectives: list[Any] = list(book.compiled().objectives)
    # Of a path that nobody knows no cause can be named: the cost alone is told, after the third try.
    found = [explainer.run(store, objectives, {}, NOW + s * S) for s in (0, 1, 30, 60, 90, 120)]
    assert found == [0, 0, 0, 0, 1, 0]
    (told,) = notices(control, "explained")
    assert "top_cause" not in told.body
    assert told.body["cost_per_hour"] > 0


def test_episodes_are_bounded(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.notify.deliveries.KEEP_EPISODES", 2)
    book = SloBook(control)
    for n in range(5):
        state = "firing" if n == 0 else "resolved"
        one = Alert("o", f"r{n}", state, n, n, n + 1, 0 if n == 0 else n + 2, episode=f"e{n}")  # type: ignore[arg-type]
        book.save([one], [(Transition("firing", one, n), {"severity": "page"})])
    Deliveries(control, {}).tidy(10**18)
    assert [one.episode for one in book.episodes()] == ["e4", "e3", "e0"]


def test_the_control_state_has_the_tables_after_an_upgrade(tmp_path: Path) -> None:
    Control(tmp_path / "control.sqlite").close()
    again = Control(tmp_path / "control.sqlite")
    assert again.rows("SELECT count(*) AS n FROM slo_episodes")[0]["n"] == 0
    assert again.rows("SELECT count(*) AS n FROM scenarios")[0]["n"] == 0
    again.close()
