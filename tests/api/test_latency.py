from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from functools import cache
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest

from collector.keys import hash64
from tests.api.frames_kit import Agent, stamp
from tests.api.live import Live, running

TOML = """
[paths.order]
description = "tick to order"
max_age = "1s"
rollup = ["host"]

[[paths.order.stages]]
name = "decide"
class = "compute"
budget = "150us"
from = {point = "app_ingress"}
to = {point = "app_decision"}

[[paths.order.stages]]
name = "send"
class = "network"
from = {point = "app_decision"}
to = {point = "app_egress"}
"""
MESSAGES = 500
DECIDE = np.random.default_rng(7).integers(10_000, 200_000, MESSAGES)
SEND = np.random.default_rng(8).integers(1_000, 20_000, MESSAGES)


@cache
def start() -> int:
    """The beginning of a window about a minute before the first test here, not before the whole suite."""
    return (time.time_ns() // 10**10 - 6) * 10**10


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with running(tmp_path_factory.mktemp("latency"), TOML) as live:
        agent = Agent()
        rows = []
        for n in range(MESSAGES):
            at = start() + n * 20_000_000
            for point, after in (("app_ingress", 0), ("app_decision", DECIDE[n]), ("app_egress", DECIDE[n] + SEND[n])):
                rows.append(stamp(n, point, int(at + after)))
        for n in range(3):  # never finished
            rows.append(stamp(10_000 + n, "app_ingress", start() + n))
        headers, body = agent.batch(rows)
        with live.client() as client:
            assert client.post("/v1/ingest", headers=headers, content=body).json()["stored"] == len(rows)
            end = time.monotonic() + 30
            while time.monotonic() < end:
                client.post("/v1/ingest/heartbeat", json=[agent.heartbeat()])
                if _count(client) == MESSAGES:
                    break
                time.sleep(0.2)
            assert _count(client) == MESSAGES
        yield live


@pytest.fixture
def client(live: Live) -> Iterator[httpx.Client]:
    with live.client() as client:
        yield client


def _count(client: httpx.Client) -> int:
    stages = client.get("/v1/latency", params={"path": "order", "stage": "end_to_end"}).json()["stages"]
    return stages[0]["count"] if stages else 0


def get(client: httpx.Client, path: str, **params: str) -> Any:
    answer = client.get(path, params={"path": "order", **params})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_percentiles_are_those_of_what_was_sent(client: httpx.Client) -> None:
    found = get(client, "/v1/latency")
    stages = {row["stage"]: row for row in found["stages"]}
    assert list(stages) == ["decide", "send", "end_to_end", "unattributed"]
    for name, values in (("decide", DECIDE), ("send", SEND), ("end_to_end", DECIDE + SEND)):
        row = stages[name]
        assert row["count"] == MESSAGES
        assert row["min_ns"] == values.min()
        assert row["max_ns"] == values.max()
        assert row["mean_ns"] == pytest.approx(values.mean())
        for field, p in (("p50_ns", 0.5), ("p90_ns", 0.9), ("p99_ns", 0.99)):
            exact = np.sort(values)[int(np.ceil(p * MESSAGES)) - 1]
            assert abs(row[field] - exact) <= row["value_error"][field]
        assert row["p999_ns"] is None
        assert "3,688" in row["refused"]["p999_ns"]
        assert row["unfinished"] == 3
    assert found["completeness"]["missing"] == 0
    assert found["from_ns"] % 10**10 == 0


def test_series_histogram_and_heatmap_add_up(client: httpx.Client) -> None:
    series = get(client, "/v1/latency/series", step="10s", stage="decide")
    assert sum(row["count"] for row in series["series"]) == MESSAGES
    bars = get(client, "/v1/latency/histogram", stage="decide")["bars"]
    assert sum(bar["count"] for bar in bars) == MESSAGES
    exact = [int(((bar["low_ns"] <= DECIDE) & (bar["high_ns"] >= DECIDE)).sum()) for bar in bars]
    assert [bar["count"] for bar in bars] == exact
    cells = get(client, "/v1/latency/heatmap", step="10s", stage="decide")["cells"]
    assert sum(cell["count"] for cell in cells) == MESSAGES
    assert min(cell["start_ns"] for cell in cells) == start()


def test_a_coarser_heatmap_has_the_same_counts_at_the_same_edges(client: httpx.Client) -> None:
    fine = get(client, "/v1/latency/heatmap", step="10s", stage="decide")["cells"]
    coarse = get(client, "/v1/latency/heatmap", step="10s", stage="decide", per_octave="8")["cells"]
    assert len(coarse) < len(fine) / 2
    for cell in coarse:
        inside = [c for c in fine if c["start_ns"] == cell["start_ns"] and c["low_ns"] >= cell["low_ns"]]
        assert cell["count"] == sum(c["count"] for c in inside if c["high_ns"] <= cell["high_ns"])
        assert (cell["high_ns"] + 1) / cell["low_ns"] <= 1 + 1 / 8
    assert get(client, "/v1/latency/heatmap", step="10s", stage="decide", per_octave="128")["cells"] == fine
    for wrong in ("0", "3", "256", "-8", "x"):
        params = {"path": "order", "step": "10s", "per_octave": wrong}
        assert client.get("/v1/latency/heatmap", params=params).status_code == 422


def test_a_rollup_has_numbers_of_its_own(client: httpx.Client) -> None:
    assert get(client, "/v1/latency", rollup="host=host-1", stage="decide")["stages"][0]["count"] == MESSAGES
    assert get(client, "/v1/latency", rollup="host=host-2", stage="decide")["stages"] == []
    # What is not users' is counted by its mode on every path, and asked for by name.
    assert get(client, "/v1/latency", rollup="mode=synthetic", stage="decide")["stages"] == []


def test_every_format_has_the_same_numbers(client: httpx.Client) -> None:
    params = {"path": "order", "from": str(start()), "to": str(start() + 10**10)}
    rows = client.get("/v1/latency", params=params).json()["stages"]
    for name in ("arrow", "parquet", "csv"):
        answer = client.get("/v1/latency", params={**params, "format": name})
        body = io.BytesIO(answer.content)
        frame = {"arrow": pl.read_ipc_stream, "parquet": pl.read_parquet, "csv": pl.read_csv}[name](body)
        for field in ("stage", "count", "p50_ns", "p99_ns", "p999_ns", "max_ns", "mean_ns"):
            assert frame[field].to_list() == [row[field] for row in rows], (name, field)
        assert [json.loads(text) for text in frame["ci"]] == [row["ci"] for row in rows]
        assert set(json.loads(answer.headers["tailsight-answer"])) == {"path", "from_ns", "to_ns", "completeness"}


def test_an_empty_time_has_columns_and_no_rows(client: httpx.Client) -> None:
    for route in ("", "/histogram"):
        params = {"path": "order", "from": "2026-01-01T00:00:00Z", "to": "2026-01-01T01:00:00Z", "format": "parquet"}
        answer = client.get(f"/v1/latency{route}", params=params)
        frame = pl.read_parquet(io.BytesIO(answer.content))
        assert frame.height == 0
        assert "count" in frame.columns


def test_paths_say_which_events_a_stage_lies_between(client: httpx.Client) -> None:
    path = client.get("/v1/paths").json()["paths"][0]
    assert path["name"] == "order"
    assert path["rollups"] == ["host"]
    assert [s["name"] for s in path["stages"]] == ["decide", "send", "end_to_end", "unattributed"]
    assert path["stages"][0]["budget_ns"] == 150_000
    assert "app_ingress" in path["stages"][0]["sentence"]
    assert path["computed_to_ns"] >= start() + 10**10


def test_completeness_is_of_the_whole_and_of_steps(client: httpx.Client) -> None:
    found = client.get("/v1/completeness", params={"from": "-2m", "step": "10s"}).json()
    assert found["completeness"]["produced"] >= 3 * MESSAGES
    assert found["completeness"]["missing"] == 0
    assert sum(step["produced"] for step in found["steps"]) == found["completeness"]["produced"]


def test_the_slowest_come_first_page_by_page(client: httpx.Client) -> None:
    whole = DECIDE + SEND
    got = []
    cursor: dict[str, str] = {}
    for _ in range(3):
        page = get(client, "/v1/messages", limit="7", **cursor)
        got += page["messages"]
        cursor = {"cursor": page["next"]}
    assert [m["e2e_ns"] for m in got] == sorted(whole.tolist(), reverse=True)[:21]
    first = got[0]
    assert sum(s["value_ns"] for s in first["stages"]) + first["unattributed_ns"] == first["e2e_ns"]
    assert [s["stage"] for s in first["stages"]] == ["decide", "send"]
    by_stage = get(client, "/v1/messages", stage="send", limit="1000")
    assert by_stage["next"] is None
    sends = [m["stages"][1]["value_ns"] for m in by_stage["messages"]]
    assert sends == sorted(SEND.tolist(), reverse=True)
    frame = pl.read_parquet(
        io.BytesIO(
            client.get("/v1/messages?path=order&limit=5", headers={"Accept": "application/vnd.apache.parquet"}).content
        )
    )
    assert frame["key"].to_list() == [m["key"] for m in got[:5]]


def test_a_message_has_its_timeline_under_every_form_of_its_key(client: httpx.Client) -> None:
    key = hash64("order", 17)
    stamps = [start() + 17 * 20_000_000 + int(after) for after in (0, DECIDE[17], DECIDE[17] + SEND[17])]
    for form in ("order:17", str(key), f"0x{key:016x}"):
        found = client.get(f"/v1/messages/{form}").json()
        assert [s["ts_ns"] for s in found["stamps"]] == stamps, form
        assert found["key"] == f"0x{key:016x}"
    assert [s["point"] for s in found["stamps"]] == ["app_ingress", "app_decision", "app_egress"]
    assert found["stamps"][-1]["since_start_ns"] == DECIDE[17] + SEND[17]
    assert [s["step_ns"] for s in found["stamps"]] == [0, DECIDE[17], SEND[17]]
    assert [s["parts"] for s in found["stamps"]] == [[], None, None]  # nobody measured the scheduler there
    csv = pl.read_csv(io.BytesIO(client.get("/v1/messages/order:17?format=csv").content))
    assert csv["ts_ns"].to_list() == stamps
    assert client.get("/v1/messages/order:99999").status_code == 404
    assert client.get("/v1/messages/nonsense").status_code == 422
    assert client.get("/v1/messages/order:17?from=-1s").status_code == 404


def test_the_ledger_accounts_for_every_event(client: httpx.Client) -> None:
    row = client.get("/v1/ledger").json()["ledger"][0]
    assert row["produced"] == row["stored_unique"] == 3 * MESSAGES + 3
    assert row["difference"] == row["in_spool"] == row["in_flight"] == row["quarantined"] == 0
    assert row["dropped"] == {}
    collector = client.get("/v1/collectors").json()["collectors"][0]
    assert (collector["name"], collector["host"], collector["live"]) == ("agent", "host-1", True)
    assert collector["collector"] == row["collector"]


def test_new_windows_are_events_with_their_metrics(client: httpx.Client) -> None:
    events = []
    with client.stream("GET", f"/v1/stream?kinds=window&path=order&after={start()}") as response:
        for line in response.iter_lines():
            if line.startswith("data: "):
                events.append(json.loads(line[6:]))
                if events[-1].get("level") == 10 and events[-1]["finished"] == MESSAGES:
                    break
    assert events[-1]["window_ns"] == start()
    assert events[-1]["unfinished"] == 3
    metrics = client.get("/metrics").text
    assert 'tailsight_windows_lag_seconds{path="order"}' in metrics
    assert f'tailsight_ingest_events_total{{result="stored"}} {3 * MESSAGES + 3}.0' in metrics


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/v1/latency", "path"),
        ("/v1/latency?path=nothere", "path"),
        ("/v1/latency?path=order&stage=nothere", "stage"),
        ("/v1/latency?path=order&rollup=symbol=x", "rollup"),
        ("/v1/latency?path=order&rollup=host", "rollup"),
        ("/v1/latency/series?path=order", "step"),
        ("/v1/latency/series?path=order&step=7s", "step"),
        ("/v1/latency/heatmap?path=order&step=10s&from=-300d", "step"),
        ("/v1/completeness?step=0s", "step"),
    ],
)
def test_wrong_questions_are_named(client: httpx.Client, path: str, named: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 422
    assert [e["name"] for e in answer.json()["errors"]] == [named]


def test_every_json_answer_fits_its_description(client: httpx.Client) -> None:
    from pydantic import BaseModel

    from api.routes import completeness, delivery, latency, messages, paths, scheduler

    asked: list[tuple[str, type[BaseModel]]] = [
        ("/v1/latency?path=order", latency.Latency),
        ("/v1/latency/series?path=order&step=1m", latency.Series),
        ("/v1/latency/histogram?path=order", latency.Histogram),
        ("/v1/latency/heatmap?path=order&step=1m", latency.Heatmap),
        ("/v1/paths", paths.PathList),
        ("/v1/messages?path=order&limit=3", messages.Slowest),
        ("/v1/messages/order:17", messages.Timeline),
        ("/v1/scheduler/budget?path=order&limit=50", scheduler.Budget),
        ("/v1/ledger", delivery.Ledger),
        ("/v1/collectors", delivery.Collectors),
        ("/v1/completeness?step=1m", completeness.CompletenessAnswer),
    ]
    for path, model in asked:
        text = client.get(path).text
        assert model.model_validate_json(text, strict=True).model_dump(mode="json") == json.loads(text)
