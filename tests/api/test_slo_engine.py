"""The evaluation over a real store and control state: pages, restarts in the middle, corrections, what is held."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from analytics.slo import stored
from analytics.slo.openslo_read import sources
from analytics.slo.settings import SloSettings
from api.audit import Audit
from api.control import Control
from api.slo_book import SloBook, UnknownEpisodeError, record_changes
from api.slo_engine import SloEngine
from collector.store import Store
from collector.store.embedded import open_embedded
from collector.store.schema import Retention, migrate
from tests.analytics.world import HOUR, beat, path, put_rows

S = 1_000_000_000
HOUR_S = HOUR // S
PATHS = {"order": path()}
CASES = Path(__file__).resolve().parents[1] / "analytics" / "slo" / "cases"
GAUGE = """
apiVersion: openslo/v1
kind: SLO
metadata:
  name: ring-fill
  annotations: {tailsight.dev/rules: workbook}
spec:
  service: trading
  indicator:
    metadata: {name: ring}
    spec:
      thresholdMetric:
        metricSource:
          type: tailsight
          spec:
            gauge: {name: nic_ring_fill}
  timeWindow: [{duration: 30d, isRolling: true}]
  budgetingMethod: Occurrences
  objectives: [{target: 0.99, op: lte, value: 0.5}]
"""


@pytest.fixture(scope="module")
def whole_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = open_embedded(tmp_path_factory.mktemp("slo"))
    migrate(store, Retention(**dict.fromkeys(Retention.__struct_fields__, 175200)))
    yield store
    store.close()


@pytest.fixture
def store(whole_store: Store) -> Store:
    for table in ("objective_counts", "gauges", "heartbeats", "batches", "changes"):
        whole_store.execute(f"TRUNCATE TABLE {table}")
    return whole_store


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    made = Control(tmp_path / "control.sqlite")
    yield made
    made.close()


def fill(store: Store, book: SloBook, seconds: range, bad: int, total: int = 1000, name: str = "order-latency") -> None:
    version = next(o.version for o in book.compiled().objectives if o.name == name)
    rows = [stored.Row(name, version, 10, HOUR_S + s, total - bad, total) for s in seconds]
    stored.insert(store, rows, HOUR + seconds.start * S + bad)


def tick(engine: SloEngine, store: Store, seconds: int) -> None:
    now = HOUR + seconds * S
    beat(store, now, now)
    engine.tick(store, PATHS, now)


def book_of(control: Control, text: str = "") -> SloBook:
    book = SloBook(control)
    book.apply(sources(text or (CASES / "orders.yaml").read_text()), "ann")
    return book


def alert(book: SloBook, rule: str = "page-1h", name: str = "order-latency") -> Any:
    return next(a for a in book.alerts() if (a.objective, a.rule) == (name, rule))


def test_a_page_is_one_episode_through_restarts_and_leaves_in_the_outbox_once(store: Store, control: Control) -> None:
    book = book_of(control)
    fill(store, book, range(-7200, 0, 10), 0)
    engine = SloEngine(book, SloSettings())
    tick(engine, store, 0)
    assert alert(book).state == "inactive"
    fill(store, book, range(0, 600, 10), 150)
    tick(engine, store, 360)
    assert alert(book).state == "inactive"  # what it looks at ends 20 s before the clock: 340 s
    tick(engine, store, 370)
    fired = alert(book)
    assert (fired.state, fired.fired_ns) == ("firing", HOUR + 370 * S)
    for seconds in (380, 390):  # a new process each time, with what the killed one left
        engine = SloEngine(SloBook(control), SloSettings())
        tick(engine, store, seconds)
        assert alert(book).episode == fired.episode
    taken = book.acknowledge(fired.episode, "ann")
    assert taken.state == "acknowledged"
    tick(engine, store, 400)
    assert alert(book).acknowledged_by == "ann"
    fill(store, book, range(600, 1800, 10), 0)
    tick(SloEngine(SloBook(control), SloSettings()), store, 1200)
    assert alert(book).state == "resolved"
    kinds = [(r["kind"], r["episode"]) for r in book.outbox() if r["rule"] == "page-1h"]
    assert kinds == [(k, fired.episode) for k in ("firing", "acknowledged", "resolved")]
    body = next(r for r in book.outbox() if r["kind"] == "firing" and r["rule"] == "page-1h")["body"]
    assert body["sides"][0]["burn"] > 14.4
    assert body["budget"]["exhausted_s"] > 0
    assert body["indicator"] == "order.end_to_end <= 250 us"
    with pytest.raises(UnknownEpisodeError):
        book.acknowledge("nothing", "ann")
    with pytest.raises(ValueError, match="only a firing alert"):
        book.acknowledge(fired.episode, "ann")


def test_an_acknowledgement_is_not_lost_to_the_tick_that_is_being_written(control: Control) -> None:
    from analytics.slo.episodes import Alert

    book = SloBook(control)
    firing = Alert("o", "r", "firing", 5, 1, 5, episode="e")
    book.save([firing], [])
    book.acknowledge("e", "ann")
    book.save([firing], [])
    assert book.alerts()[0].state == "acknowledged"
    resolved = Alert("o", "r", "resolved", 9, 1, 5, 9, episode="e")
    book.save([resolved], [])
    assert book.alerts()[0].state == "resolved"


def test_an_alert_of_a_removed_objective_ends_and_one_of_an_unknown_path_stays(store: Store, control: Control) -> None:
    from analytics.slo.episodes import Alert

    book = book_of(control)
    gone = Alert("gone", "page-1h", "firing", 5, 1, 5, episode="e-gone")
    kept = Alert("order-latency", "page-1h", "firing", 5, 1, 5, episode="e-kept")
    blind = Alert("order-latency", "blind", "firing", 5, 1, 5, episode="e-blind")
    rule = Alert("order-latency", "no-such-rule", "pending", 5, 1, 5, episode="e-rule")
    book.save([gone, kept, blind, rule], [])
    SloEngine(book, SloSettings()).prepare(store, {}, HOUR)
    states = {(a.objective, a.rule): a.state for a in book.alerts()}
    assert states == {
        ("gone", "page-1h"): "resolved", ("order-latency", "page-1h"): "firing", ("order-latency", "blind"): "firing",
        ("order-latency", "no-such-rule"): "inactive",
    }  # fmt: skip
    assert [(r["episode"], r["kind"]) for r in book.outbox()] == [("e-gone", "resolved")]


def test_the_statement_of_a_notification_gives_its_counts(store: Store, control: Control) -> None:
    book = book_of(control)
    fill(store, book, range(-7200, 0, 10), 0)
    fill(store, book, range(0, 600, 10), 150)
    engine = SloEngine(book, SloSettings())
    tick(engine, store, 0)
    tick(engine, store, 370)
    body = next(r for r in book.outbox() if r["kind"] == "firing" and r["rule"] == "page-1h")["body"]
    assert body["path"] == "order"
    assert len(body["queries"]) == len(body["sides"]) == 2
    for asked, side in zip(body["queries"], body["sides"], strict=True):
        assert asked["to_s"] - asked["from_s"] == side["window_s"]
        assert store.query(asked["sql"]).row(0) == (side["good"], side["total"], side["uncertain"])
    for days in (1, 5):  # longer windows read coarse levels, and end with fine ones
        end_s = HOUR_S + 350
        statement = stored.window_statement(
            "order-latency", engine._versions["order-latency"], end_s - days * 86_400, end_s
        )
        assert store.query(statement).row(0)[1] == 755_000
    assert store.query(stored.window_statement("it's \\", 1, 0, 10)).row(0) == (0, 0, 0)


def test_late_corrections_are_taken_in(store: Store, control: Control) -> None:
    book = book_of(control)
    engine = SloEngine(book, SloSettings())
    fill(store, book, range(-3600, 0, 10), 0)
    tick(engine, store, 0)
    fill(store, book, range(-300, 0, 10), 300)
    tick(engine, store, 20)
    (long, _) = engine.snapshot.objectives["order-latency"]["rules"][0]["sides"]
    assert (long["total"], long["total"] - long["good"]) == (360_000, 9_000)
    budget = engine.snapshot.objectives["order-latency"]["budget"]
    assert budget["total"] - budget["good"] == 9_000


def test_without_a_living_collector_answers_are_held_and_blind_pages(store: Store, control: Control) -> None:
    book = book_of(control)
    engine = SloEngine(book, SloSettings())
    fill(store, book, range(-3600, 0, 10), 0)
    tick(engine, store, 0)
    for seconds in (100, 690, 710):
        engine.tick(store, PATHS, HOUR + seconds * S)
    assert alert(book, "blind").state == "firing"
    (rule, *_) = engine.snapshot.objectives["order-latency"]["rules"]
    assert rule["answer"] == "held"
    assert "the newest counts are" in rule["why"]


def test_a_gauge_rule_counts_readings_and_fires(store: Store, control: Control) -> None:
    book = book_of(control, GAUGE)
    blank = {"host": "gw", "service": "", "label_set": 0, "name": "nic_ring_fill"}
    readings = [(s, 0.1) for s in range(-3600, 0, 10)] + [(s, 0.9) for s in range(0, 900, 10)]
    put_rows(store, "gauges", [{**blank, "ts": HOUR + s * S, "value": v} for s, v in readings])
    engine = SloEngine(book, SloSettings())
    tick(engine, store, 0)
    assert alert(book, name="ring-fill").state == "inactive"
    tick(engine, store, 900)
    assert alert(book, name="ring-fill").state == "firing"
    (rule, *_) = engine.snapshot.objectives["ring-fill"]["rules"]
    assert [(s["total"], s["total"] - s["good"]) for s in rule["sides"]] == [(360, 88), (30, 30)]


def test_applying_is_recorded_and_wrong_objects_do_not_stop_the_others(store: Store, control: Control) -> None:
    book = SloBook(control)
    text = (CASES / "orders.yaml").read_text()
    applied = book.apply(sources(text + "\n---\n" + GAUGE), "ann")
    assert len(applied.added) == 6
    record_changes(store, Audit(control), applied, "ann")
    assert not book.apply(sources(text), "bob")
    stricter = book.apply(sources(text.replace("target: 0.999", "target: 0.9999")), "bob", prune=True)
    assert (stricter.changed, stricter.removed) == (("SLO order-latency",), ("SLO ring-fill",))
    record_changes(store, Audit(control), stricter, "bob")
    rows = store.query("SELECT who, kind, what FROM changes ORDER BY ts, what").rows()
    assert len(rows) == 8
    assert ("bob", "slo", "removed SLO ring-fill") in rows
    book.apply(sources(text.replace("target: 0.999", "target: 0.5")), "bob")
    made = book.compiled()
    assert [o.name for o in made.objectives] == ["order-latency", "order-minutes", "order-pyrra"]
    assert made.errors


def test_a_clock_that_is_set_back_counts_and_judges_on(store: Store, control: Control) -> None:
    """Fault 14 in the evaluation: an hour back, and the page comes as if nothing had been."""
    book = book_of(control, GAUGE)
    blank = {"host": "gw", "service": "", "label_set": 0, "name": "nic_ring_fill"}

    def read(seconds: range, value: float) -> None:
        put_rows(store, "gauges", [{**blank, "ts": HOUR + s * S, "value": value} for s in seconds])

    read(range(-3600, 3600, 10), 0.1)
    engine = SloEngine(book, SloSettings())
    for seconds in (3580, 3600):
        tick(engine, store, seconds)
    assert alert(book, name="ring-fill").state == "inactive"
    read(range(0, 900, 10), 0.9)  # the clock is set back by an hour, and what is read then is bad
    for seconds in (10, 300, 900):
        tick(engine, store, seconds)
    (rule, *_) = engine.snapshot.objectives["ring-fill"]["rules"]
    assert alert(book, name="ring-fill").state == "firing"
    assert [(s["total"], s["total"] - s["good"]) for s in rule["sides"]] == [(360, 88), (30, 30)]
    fired = alert(book, name="ring-fill").episode
    again = SloEngine(SloBook(control), SloSettings())  # and what was counted stays counted for the next process
    tick(again, store, 910)
    assert alert(book, name="ring-fill").episode == fired
    tick(again, store, 4510)  # forward again: the hour in between holds what was read then
    tick(again, store, 4520)
    assert [r["kind"] for r in book.outbox() if r["rule"] == "page-1h"] == ["firing", "resolved"]
