"""Maintenance windows over a real evaluation: held, told at the end, forgotten when over, annotated, paused."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from analytics.slo.maintenance import Window
from analytics.slo.settings import SloSettings
from api.control import Control
from api.maintenance import Maintenance, UnknownWindowError
from api.notify.deliveries import Deliveries
from api.notify.payload import alert as alertmanager_alert
from api.notify.payload import content
from api.slo_book import SloBook
from api.slo_engine import SloEngine
from collector.settings import ConfigError
from collector.store import Store
from collector.store.embedded import open_embedded
from collector.store.schema import Retention, migrate
from tests.analytics.world import HOUR
from tests.api.live import Live
from tests.api.notify.kit import webhook
from tests.api.test_slo_engine import alert, book_of, fill, tick

S = 1_000_000_000
DAY = 86_400 * S


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = open_embedded(tmp_path_factory.mktemp("maintenance"))
    migrate(store, Retention(**dict.fromkeys(Retention.__struct_fields__, 175200)))
    yield store
    store.close()


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    made = Control(tmp_path / "control.sqlite")
    yield made
    made.close()


def window(seconds: int, name: str = "upgrade", start: int = 0, **fields: object) -> Window:
    return Window(name, HOUR + start * S, HOUR + seconds * S, "ann", "new firmware", ("order-*",), **fields)  # type: ignore[arg-type]


def world(store: Store, control: Control, *windows: Window) -> tuple[SloEngine, SloBook, Deliveries]:
    for table in ("objective_counts", "heartbeats", "batches"):
        store.execute(f"TRUNCATE TABLE {table}")
    book = book_of(control)
    fill(store, book, range(-7200, 0, 10), 0)
    engine = SloEngine(book, SloSettings(), Maintenance(control, windows))
    tick(engine, store, 0)
    return engine, book, Deliveries(control, {"hook": webhook("http://127.0.0.1:1/")})


def test_what_fires_through_the_end_is_told_then_and_says_why_so_late(store: Store, control: Control) -> None:
    engine, book, out = world(store, control, window(500))
    fill(store, book, range(0, 600, 10), 150)
    tick(engine, store, 370)
    assert alert(book).state == "firing"
    assert engine.snapshot.objectives["order-latency"]["maintenance"] == "upgrade"
    held = {r["rule"]: r["held_by"] for r in engine.snapshot.objectives["order-latency"]["rules"]}
    assert held["page-1h"] == "upgrade"
    out.begin(HOUR)
    assert (out.take_in("hook", HOUR), out.waiting("hook")[0]) == (0, 0)
    # A new process goes on holding; an acknowledgement waits with its episode.
    engine = SloEngine(SloBook(control), SloSettings(), Maintenance(control, [window(500)]))
    tick(engine, store, 490)
    book.acknowledge(alert(book).episode, "bob")
    assert out.take_in("hook", HOUR) == 0
    tick(engine, store, 500)
    assert out.take_in("hook", HOUR + 500 * S) >= 2
    first = out.due("hook", HOUR + 501 * S)[0].notice
    told = content(first)
    assert told["dedup_key"] == alert(book).episode
    assert told["maintenance"] == {
        "name": "upgrade", "who": "ann", "why": "new firmware", "until_ns": HOUR + 500 * S,
        "held_until_ns": HOUR + 500 * S,
    }  # fmt: skip
    assert (
        "upgrade of ann: new firmware, held until"
        in alertmanager_alert(first, None, HOUR, S)["annotations"]["maintenance"]
    )
    assert {one.outcome for one in engine.maintenance.held(all_=True)} == {"told"}


def test_what_ends_within_the_window_is_recorded_and_never_told(store: Store, control: Control) -> None:
    engine, book, out = world(store, control, window(2000))
    fill(store, book, range(0, 600, 10), 150)
    tick(engine, store, 370)
    fill(store, book, range(600, 1800, 10), 0)
    tick(engine, store, 1200)
    assert alert(book).state == "resolved"
    tick(engine, store, 2010)
    out.take_in("hook", HOUR)
    told = [one.notice.rule for one in out.due("hook", HOUR + 2020 * S)]
    assert "page-1h" not in told  # it ended in the window; the slow rules still fire
    assert "page-6h" in told
    assert ("page-1h", "over") in {(one.rule, one.outcome) for one in engine.maintenance.held(all_=True)}


def test_an_episode_from_before_the_window_is_told_of_to_its_end(store: Store, control: Control) -> None:
    engine, book, out = world(store, control, window(3000, start=600))
    fill(store, book, range(0, 600, 10), 150)
    tick(engine, store, 370)
    assert out.take_in("hook", HOUR)
    fill(store, book, range(600, 1800, 10), 0)
    tick(engine, store, 1200)
    page = [r["kind"] for r in book.outbox() if r["rule"] == "page-1h"]
    assert page == ["firing", "resolved"]
    assert out.take_in("hook", HOUR)


def test_annotated_is_sent_at_once_and_ending_early_tells(store: Store, control: Control) -> None:
    engine, book, out = world(store, control, window(5000, send="annotate"))
    fill(store, book, range(0, 600, 10), 150)
    tick(engine, store, 370)
    assert out.take_in("hook", HOUR)
    (body,) = [r["body"] for r in book.outbox() if r["rule"] == "page-1h"]
    assert body["maintenance"]["why"] == "new firmware"


def test_a_paused_budget_counts_nothing_of_the_window(store: Store, control: Control) -> None:
    engine, *_ = world(store, control, window(600, start=300, budget_burns=False), window(900, "loud"))
    goals = engine.goals
    (one,) = [o for o in goals.by_path["order"] if o.name == "order-latency"]
    from analytics.slo.calendars import closed_windows

    at = HOUR // S
    assert closed_windows(goals.calendars, one.hours, at, at + 900) == list(range(at + 300, at + 600, 10))


def test_windows_have_an_end_an_author_and_a_name_of_their_own(control: Control) -> None:
    now = time.time_ns()
    book = Maintenance(control, [Window("given", now, now + 2 * DAY, "net", "lines", ("*",))])
    made = book.add(Window("late", now - DAY, now + DAY, "ann", "x", ("*",)), "ann@here")
    assert made.window.start_ns >= now  # the past was told already
    for name in ("late", "given"):
        with pytest.raises(ValueError, match="is called"):
            book.add(Window(name, now, now + DAY, "ann", "x", ("*",)), "ann")
    with pytest.raises(ConfigError, match="at most 7 d"):
        book.add(Window("long", now, now + 8 * DAY, "ann", "x", ("*",)), "ann")
    with pytest.raises(ValueError, match="over already"):
        book.add(Window("gone", now - 2 * DAY, now - DAY, "ann", "x", ("*",)), "ann")
    assert book.end("given", "bob").ended_by == "bob"  # one of the configuration, too
    assert not next(w for w in book.windows() if w.name == "given").at(time.time_ns())
    with pytest.raises(ValueError, match="ended at"):
        book.end("given", "bob")
    with pytest.raises(UnknownWindowError, match="not over are late"):
        book.end("nothing", "bob")
    book.tidy(now + 40 * DAY)
    assert [w.name for w in book.windows()] == ["given"]


def test_the_route_declares_lists_and_ends_with_who_and_an_audit_leaf(plain_server: Live) -> None:
    with plain_server.client() as client:
        body = {"name": "rest one", "objectives": ["*"], "why": "drill", "end": "+2h"}
        made = client.post("/v1/maintenance", json=body)
        assert made.status_code == 201, made.text
        assert (made.json()["state"], made.json()["who"]) == ("active", "local")
        assert client.post("/v1/maintenance", json=body).status_code == 409
        long = client.post("/v1/maintenance", json={**body, "name": "long", "end": "+8d"})
        assert long.status_code == 422
        assert "at most 7 d" in long.text
        assert client.post("/v1/maintenance", json={**body, "name": "none", "objectives": []}).status_code == 422
        assert "tailsight_maintenance_active 1.0" in client.get("/metrics").text
        assert client.post("/v1/maintenance/rest one/end").json()["state"] == "over"
        assert client.post("/v1/maintenance/rest one/end").status_code == 409
        assert client.post("/v1/maintenance/nothing/end").status_code == 404
        assert client.get("/v1/maintenance").json()["windows"] == []
        assert client.get("/v1/maintenance?past=true").json()["windows"][0]["ended_by"] == "local"
    control = Control(plain_server.data / "control.sqlite")
    rows = control.rows("SELECT action FROM audit_staging WHERE target = 'rest one'")
    control.close()
    assert {r["action"] for r in rows} <= {"maintenance.add", "maintenance.end"}
