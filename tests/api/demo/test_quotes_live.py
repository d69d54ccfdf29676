"""`tailsight up --otel`: real SDK, agent, server and store; what a program says over OpenTelemetry alone is a path."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.whole_path import Session

pytestmark = pytest.mark.timeout(150)
SERVICE, CLIENT = "otel:quotes-api:POST /quotes", "otel:quotes-client:ask for a quote"
DURATION = "metric:quotes-api:http.server.request.duration"
WINDOWS = '[windows]\ngrace = "1s"\nrerun_after = "1s"\n'


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    session = Session(tmp_path_factory.mktemp("quotes"))
    (session.data / "tailsight.toml").write_text(WINDOWS)
    try:
        session.start("--no-demo", "--otel")
        yield session
    finally:
        session.close()


def stages(session: Session, path: str) -> dict[str, dict[str, Any]]:
    where = f"{session.url}/v1/latency"
    answer = httpx.get(where, params={"path": path, "from": "-10m"}, timeout=30, trust_env=False)
    return {stage["stage"]: stage for stage in answer.json()["stages"]} if answer.status_code == 200 else {}


def counted(session: Session, path: str, least: int) -> bool:
    return int(stages(session, path).get("end_to_end", {}).get("count", 0)) >= least


def test_a_program_that_knows_only_opentelemetry_is_a_path_with_percentiles(session: Session) -> None:
    session.until(lambda: counted(session, SERVICE, 10) and counted(session, CLIENT, 10), 60, "10 quotes")
    found = stages(session, SERVICE)
    assert set(found) == {"queue", "cache lookup", "price", "end_to_end", "unattributed"}
    whole = found["end_to_end"]
    for stage in found.values():
        assert stage["count"] == whole["count"] and stage["missing"] == 0
    for name in ("queue", "cache lookup", "price", "unattributed"):
        assert 0 < found[name]["min_ns"] <= found[name]["p50_ns"] < whole["max_ns"]
    # A tree of 21 to 56 steps takes more than 10 us, and no request is waited for longer than 2 s.
    assert found["price"]["min_ns"] > 10_000 and whole["max_ns"] < 3_000_000_000
    assert whole["p50_ns"] > found["price"]["p50_ns"]
    assert whole["mean_ns"] == pytest.approx(sum(s["mean_ns"] for n, s in found.items() if n != "end_to_end"), rel=1e-6)

    outside = stages(session, CLIENT)
    assert set(outside) == {"quotes-api: POST /quotes", "end_to_end", "unattributed"}
    assert outside["end_to_end"]["mean_ns"] > outside["quotes-api: POST /quotes"]["mean_ns"]
    assert outside["unattributed"]["min_ns"] > 0  # the network and the client's own wait


def test_its_histogram_gauge_and_decisions_are_there(session: Session) -> None:
    session.until(lambda: counted(session, DURATION, 1), 30, "the histogram")
    listed = {path["name"]: path["origin"] for path in session.get("/v1/paths").json()["paths"]}
    assert listed == {SERVICE: "spans", CLIENT: "spans", DURATION: "histogram"}
    gauges = session.get("/v1/gauges", **{"name": "quotes.queue.depth", "from": "-10m"})
    assert gauges.status_code == 200, gauges.text
    assert sum(row["count"] for row in gauges.json()["gauges"]) > 0
    events = session.get("/v1/events", kind="decision", limit="5").json()["events"]
    assert len(events) == 5
    for event in events:
        assert event["body"] in ("quoted", "declined") and event["attributes"]["reason"]
    trace_id = events[0]["attributes"]["trace_id"]
    _, whole = session.tailsight("query", "message", f"trace:{trace_id}")
    assert {"otel.start:ask for a quote", "otel.start:POST /quotes", "otel.child_end:price"} <= {
        stamp["point"] for stamp in whole["stamps"]
    }


def test_nothing_is_lost_while_it_runs_and_when_it_stops(session: Session) -> None:
    assert session.stop() == 0, session.tail()
    _, answer = session.tailsight("doctor")
    rows = answer["ledger"]
    assert any(row["name"] == "otlp" and row["produced"] for row in rows)
    for row in rows:
        assert row["difference"] == 0 and row["quarantined"] == 0
        assert row["produced"] == row["stored_unique"]
    assert session.processes() == {}
