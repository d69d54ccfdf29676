"""Backtests against what the engine did live on the same counts, over a real store, and through the doors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from analytics.kpis import KpiDefinition, KpiValue, record
from analytics.slo import stored
from analytics.slo.compiled import compiled
from analytics.slo.histories import World
from analytics.slo.openslo_read import read, sources
from analytics.slo.settings import SloSettings
from api.backtests import Asked, AskedError, live_pages, run
from api.control import Control
from api.slo_book import SloBook
from api.slo_engine import SloEngine
from collector.store import Store
from collector.store.embedded import open_embedded
from collector.store.schema import Retention, migrate
from tests.analytics.world import HOUR, beat, path, put_rows
from tests.api.live import ROOT, Live, running
from tests.api.test_slo_engine import GAUGE

S = 1_000_000_000
HOUR_S = HOUR // S
PATHS = {"order": path()}
CASES = Path(__file__).resolve().parents[1] / "analytics" / "slo" / "cases"
KPIS = {"order_success": KpiDefinition(), "slippage": KpiDefinition(kind="level")}


@pytest.fixture(scope="module")
def whole_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = open_embedded(tmp_path_factory.mktemp("backtests"))
    migrate(store, Retention(**dict.fromkeys(Retention.__struct_fields__, 175200)))
    yield store
    store.close()


@pytest.fixture
def store(whole_store: Store) -> Store:
    for table in ("objective_counts", "gauges", "heartbeats", "batches", "kpis", "message_kpis"):
        whole_store.execute(f"TRUNCATE TABLE {table}")
    return whole_store


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    made = Control(tmp_path / "control.sqlite")
    yield made
    made.close()


def world(store: Store, now_s: int) -> World:
    return World(store, PATHS, {}, KPIS, now_s * S)


def test_it_says_what_the_live_engine_did_on_the_same_counts(store: Store, control: Control) -> None:
    book = SloBook(control)
    book.apply(sources((CASES / "orders.yaml").read_text()), "ann")
    one = next(o for o in book.compiled().objectives if o.name == "order-latency")

    def fill(seconds: range, bad: int) -> None:
        rows = [stored.Row(one.name, one.version, 10, HOUR_S + s, 1000 - bad, 1000) for s in seconds]
        stored.insert(store, rows, HOUR + seconds.start * S + bad)

    fill(range(-7_200, 0, 10), 0)
    fill(range(0, 120, 10), 500)
    fill(range(120, 480, 10), 0)
    engine = SloEngine(book, SloSettings())
    for seconds in range(30, 500, 10):
        beat(store, HOUR + seconds * S, HOUR + seconds * S)
        engine.tick(store, PATHS, HOUR + seconds * S)
    rows = control.rows("SELECT rule, kind, at_ns FROM slo_outbox WHERE objective = ? ORDER BY at_ns", (one.name,))
    live = sorted((row["rule"], row["kind"], row["at_ns"]) for row in rows)
    assert {("page-1h", "firing"), ("page-1h", "resolved")} <= {(rule, kind) for rule, kind, _ in live}
    asked = Asked(HOUR_S, HOUR_S + 470).checked(HOUR_S + 500)
    every = list(book.compiled().objectives)
    (found,) = run(world(store, HOUR_S + 500), every, [one.name], SloSettings(), asked, ticks=10_000)["objectives"]
    said = [(f["rule"], "firing", f["fired_ns"]) for f in found["fired"]]
    said += [(f["rule"], "resolved", f["resolved_ns"]) for f in found["fired"] if f["resolved_ns"]]
    assert sorted(said) == live
    assert found["stored_counts"]
    assert [p["rule"] for p in live_pages(control, one.name, HOUR, HOUR + 500 * S)] == [
        rule for rule, kind, _ in sorted(live, key=lambda row: row[2]) if kind == "firing"
    ]
    budget = engine.snapshot.objectives[one.name]["budget"]
    assert found["burned"] == pytest.approx(budget["burned"])


def gauge(store: Store) -> None:
    blank = {"host": "gw", "service": "", "label_set": 0, "name": "nic_ring_fill"}
    level = [(s, 0.1) for s in range(-7_200, 0, 10)] + [(s, 0.9) for s in range(0, 1_800, 10)]
    level += [(s, 0.3) for s in range(1_800, 7_200, 10)] + [(s, 0.7) for s in range(7_200, 9_000, 10)]
    level += [(s, 0.1) for s in range(9_000, 10_800, 10)]
    put_rows(store, "gauges", [{**blank, "ts": HOUR + s * S, "value": v} for s, v in level])


def test_a_document_that_is_not_in_force_is_counted_and_nothing_is_stored(store: Store) -> None:
    gauge(store)
    (one,) = compiled(read(GAUGE).objects).objectives
    asked = Asked(HOUR_S, HOUR_S + 10_800, incidents=((HOUR, HOUR + 1_800 * S),), fires=1, fresh=True)
    found = run(world(store, HOUR_S + 11_000), [one], [one.name], SloSettings(), asked.checked(HOUR_S + 11_000),
                ticks=1_000_000)  # fmt: skip
    (made,) = found["objectives"]
    assert (made["events"], made["bad"]) == (1_080, 360)
    assert (made["pages"] >= 2, made["stored_counts"]) == (True, False)
    (hit,) = made["detections"]
    # 6 % of the windows since two hours ago come before 14.4 % of an hour's; both with the delay of the evaluation.
    assert (hit["rule"], hit["after_s"]) == ("page-6h", 46 * 10 + 20)
    assert next(f["fired_ns"] for f in made["fired"] if f["rule"] == "page-1h") == HOUR + (52 * 10 + 20) * S
    search = made["search"]
    assert search["parameter"] == "value"
    for tried in search["tried"]:  # below 0.7 both stretches page, from there on one, from 0.9 on none
        if tried["value"] >= 0.9:
            assert tried["pages"] == 0
    assert search["from"] is None or 0.7 <= search["from"] <= search["to"] < 0.9
    assert store.query("SELECT count() FROM objective_counts").row(0) == (0,)
    with pytest.raises(AskedError, match="takes too long"):
        run(world(store, HOUR_S + 11_000), [one], [one.name], SloSettings(), asked, ticks=3)


def test_thresholds_that_would_have_paged_once_are_found(store: Store) -> None:
    gauge(store)
    (one,) = compiled(read(GAUGE).objects).objectives
    asked = Asked(HOUR_S + 3_600, HOUR_S + 10_800, fires=0, fresh=True).checked(HOUR_S + 11_000)
    (made,) = run(world(store, HOUR_S + 11_000), [one], [one.name], SloSettings(), asked, ticks=1_000_000)["objectives"]
    assert made["search"]["from"] is not None
    assert made["search"]["to"] == pytest.approx(0.7)  # the largest reading of that time
    pages = {tried["value"]: tried["pages"] for tried in made["search"]["tried"]}
    assert max(pages.values()) >= 1


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (Asked(HOUR_S + 7_200, HOUR_S + 7_000), "is empty"),
        (Asked(HOUR_S - 40 * 86_400, HOUR_S), "at most 35 days"),
        (Asked(HOUR_S - 3_600, HOUR_S, incidents=((5, 5),)), "has to end after it began"),
        (Asked(HOUR_S - 3_600, HOUR_S, fires=-1), "0 to 1000"),
    ],
)
def test_what_cannot_be_asked_is_said(asked: Asked, says: str) -> None:
    with pytest.raises(AskedError, match=says):
        asked.checked(HOUR_S)


def test_late_business_values_page_when_they_come_and_corrections_take_it_back(store: Store, control: Control) -> None:
    book = SloBook(control)
    book.apply(sources((CASES / "business.yaml").read_text()), "ann")
    engine = SloEngine(book, SloSettings(), kpis=KPIS)

    def values(minutes: range, good: int, version: int) -> None:
        given = [
            KpiValue(name="order_success", ts_ns=HOUR + m * 60 * S, numerator=good, denominator=600, version=version)
            for m in minutes
        ]
        record(store, given, KPIS, HOUR)

    def tick(seconds: int) -> tuple[str, Any]:
        now = HOUR + seconds * S
        beat(store, now, now)
        engine.tick(store, PATHS, now)
        state = next(a.state for a in book.alerts() if (a.objective, a.rule) == ("order-success", "page-1h"))
        return state, engine.snapshot.objectives["order-success"]["rules"][0]["sides"][0]

    values(range(-120, -50), 600, 1)
    state, side = tick(0)
    assert (state, side["total"]) == ("inactive", 600 * 10 + 600 * 20 // 60)
    values(range(-50, 0), 300, 1)  # fifty minutes late at most
    state, side = tick(10)
    assert state == "firing"
    assert side["total"] - side["good"] == 50 * 300 - 50  # what it looks at ends ten seconds before the hour
    values(range(-50, 0), 600, 2)
    state, side = tick(20)
    assert (state, side["total"] - side["good"]) == ("resolved", 0)
    values(range(-30 * 60, -29 * 60), 0, 1)  # thirty hours ago: beyond the short rings, within the horizon
    for seconds in (30, 40, 50):
        tick(seconds)
    hour = HOUR_S - 30 * 3_600
    rows = store.query(
        "SELECT sum(t) FROM (SELECT argMax(total, generation) AS t FROM objective_counts WHERE level = 10 "
        "AND objective = 'order-success' AND window >= {a:UInt32} AND window < {b:UInt32} GROUP BY window)",
        {"a": hour, "b": hour + 3_600},
    )
    assert rows.row(0) == (36_000,)


CONFIG = '[kpis.order_success]\nnumerator = "accepted"\n\n[kpis.slippage]\nkind = "level"\n'


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with running(tmp_path_factory.mktemp("replayed"), CONFIG) as live:
        now = time.time_ns() // (60 * S) * 60 * S
        values = [
            {"name": "order_success", "when": str(now - m * 60 * S), "numerator": 300 if 60 <= m < 110 else 600,
             "denominator": 600}
            for m in range(1, 300)
        ]  # fmt: skip
        with live.client() as client:
            assert client.post("/v1/kpis", json={"values": values}).status_code == 200
        yield live


def test_the_door_replays_documents(live: Live) -> None:
    documents = "---".join((CASES / "business.yaml").read_text().split("---")[:2])
    with live.client() as client:
        answer = client.post("/v1/slos/backtest", json={"documents": documents, "from": "-4h", "fires": 1})
        assert answer.status_code == 200, answer.text
        found = {one["name"]: one for one in answer.json()["objectives"]}
        assert found["order-success"]["pages"] >= 1
        assert found["order-success"]["bad"] == 50 * 300
        assert found["order-success"]["search"]["parameter"] == "target"
        old = client.post("/v1/slos/backtest", json={"documents": documents, "from": "-9h", "to": "-7h"})
        assert old.json()["notes"] == ["order-success: nothing was counted in this time"]
        for body, status in (
            ({"name": "nothing"}, 404), ({}, 422), ({"documents": "x: ["}, 422), ({"documents": "[]"}, 422),
            ({"name": "a", "documents": "b"}, 422), ({"name": "a", "fires": 5_000}, 422),
        ):  # fmt: skip
            refused = client.post("/v1/slos/backtest", json=body)
            assert refused.status_code == status, refused.text


def test_the_command_shows_a_table_and_a_plot(live: Live, tmp_path: Path) -> None:
    file = tmp_path / "success.yaml"
    file.write_text("---".join((CASES / "business.yaml").read_text().split("---")[:2]))
    words = [sys.executable, "-m", "api.cli", "slo", "backtest", str(file), "--from", "-4h", "--data", str(live.data)]
    since = time.time_ns() - 110 * 60 * S
    words += ["--incident", f"{since}/{since + 3_600 * S}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, env=environment, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    for text in ("order-success: ", "would have fired", "page-1h", "incidents", "burn rate of the last hour", "^", "█"):
        assert text in done.stdout, done.stdout
    done = subprocess.run([*words, "--json"], capture_output=True, text=True, timeout=120, env=environment, check=False)
    first = json.loads(done.stdout)["objectives"][0]
    assert first["name"] == "order-success"
    assert first["points"][-1]["remaining"] == first["remaining"]
