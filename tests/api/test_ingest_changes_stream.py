from __future__ import annotations

import io
import json
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import polars as pl
import pytest

from collector.changes import Change, change_columns, change_id
from tests.api.frames_kit import Agent, stamp
from tests.api.live import Live, running


@pytest.fixture(scope="module")
def live(plain_server: Live) -> Live:
    return plain_server


@pytest.fixture
def client(live: Live) -> Iterator[httpx.Client]:
    with live.client() as client:
        yield client


def test_a_batch_is_stored_once_however_often_it_comes(client: httpx.Client) -> None:
    headers, body = Agent().batch([stamp(n, "app_ingress", time.time_ns()) for n in range(23)])
    first = client.post("/v1/ingest", headers=headers, content=body)
    assert first.status_code == 200
    assert {k: first.json()[k] for k in ("status", "events", "stored", "quarantined", "dropped")} == {
        "status": "stored",
        "events": 23,
        "stored": 23,
        "quarantined": 0,
        "dropped": 0,
    }
    for attempt in range(1, 4):
        again = client.post("/v1/ingest", headers=headers | {"Tailsight-Attempt": str(attempt)}, content=body)
        assert again.json()["status"] == "duplicate"
        assert again.json()["stored"] == 23
    row = client.get(f"/v1/ingest/batches/{headers['Tailsight-Batch']}").json()
    assert (row["events"], row["stored"], row["seq_first"], row["attempt"]) == (23, 23, 0, 0)
    assert client.get(f"/v1/ingest/batches/{uuid.uuid4()}/1/0").status_code == 404


def test_the_same_batch_twice_at_once_is_stored_once(live: Live) -> None:
    headers, body = Agent().batch([stamp(n, "app_ingress", time.time_ns()) for n in range(50)])
    answers: list[httpx.Response] = []

    def send() -> None:
        with live.client() as client:
            answer = client.post("/v1/ingest", headers=headers, content=body)
            while answer.status_code in (429, 503):
                assert int(answer.headers["retry-after"]) >= 1
                time.sleep(0.05)
                answer = client.post("/v1/ingest", headers=headers, content=body)
            answers.append(answer)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(a.json()["status"] for a in answers) == ["duplicate"] * 3 + ["stored"]


def test_bad_rows_are_set_aside_and_the_others_stored(client: httpx.Client) -> None:
    now = time.time_ns()
    rows = [stamp(1, "app_ingress", now), stamp(2, "no_such_point", now), stamp(3, "app_ingress", 5)]
    headers, body = Agent().batch(rows)
    landed = client.post("/v1/ingest", headers=headers, content=body).json()
    assert (landed["stored"], landed["quarantined"]) == (1, 2)


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ("flip", 400),
        ("short", 400),
        ("noise", 400),
        ("empty", 400),
        ("type", 415),
        ("batch", 422),
        ("collector", 422),
        ("attempt", 422),
        ("missing", 422),
        ("other", 400),
    ],
)
def test_what_is_no_batch_is_refused_for_good_and_the_door_stays_open(
    client: httpx.Client, how: str, status: int
) -> None:
    agent = Agent()
    headers, body = agent.batch([stamp(n, "app_ingress", time.time_ns()) for n in range(10)])
    match how:
        case "flip":
            body = body[:100] + bytes([body[100] ^ 1]) + body[101:]
        case "short":
            body = body[:-1]
        case "noise":
            body = bytes(range(256)) * 10
        case "empty":
            body = b""
        case "type":
            headers["Content-Type"] = "application/octet-stream"
        case "batch":
            headers["Tailsight-Batch"] = "x/1/2"
        case "collector":
            headers["Tailsight-Collector"] = "nobody"
        case "attempt":
            headers["Tailsight-Attempt"] = "-1"
        case "missing":
            del headers["Tailsight-Batch"]
        case "other":  # another stream's id on these frames
            headers["Tailsight-Batch"] = f"{uuid.uuid4()}/1/0"
    answer = client.post("/v1/ingest", headers=headers, content=body)
    assert answer.status_code in ({400, 422} if status == 400 else {status}), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    headers, body = agent.batch([stamp(1, "app_ingress", time.time_ns())])
    assert client.post("/v1/ingest", headers=headers, content=body).status_code == 200


def test_heartbeats_are_taken_checked_and_stored(live: Live, client: httpx.Client) -> None:
    agent = Agent()
    assert client.post("/v1/ingest/heartbeat", json=[agent.heartbeat()]).json() == {"taken": 1}
    for bad, named in (({"produced": -1}, "produced"), ({"watermark_ns": 1 << 63}, "watermark_ns")):
        answer = client.post("/v1/ingest/heartbeat", json=[agent.heartbeat(**bad)])
        assert answer.status_code == 422
        assert named in answer.json()["errors"][0]["name"]
    assert client.post("/v1/ingest/heartbeat", content=b"[{]").status_code == 422
    from collector.store.embedded import open_embedded

    with open_embedded(live.data) as store:
        sql = "SELECT count() AS n FROM heartbeats WHERE collector = {c:UUID}"
        end = time.monotonic() + 10
        while not (n := store.query(sql, {"c": str(agent.collector)}).item()) and time.monotonic() < end:
            time.sleep(0.05)
    assert n == 1


def test_changes_come_back_page_by_page_newest_first(client: httpx.Client) -> None:
    service = f"s-{uuid.uuid4()}"
    at = time.time_ns() - 10**9
    made = []
    for n in range(7):
        # Equal times too: the cursor must not skip or repeat among them.
        body = {"kind": "config", "what": f"change {n}", "service": service, "when": str(at + n // 3)}
        answer = client.post("/v1/changes", json=body)
        assert answer.status_code == 201
        made.append(answer.json())
    got: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    for _ in range(4):
        page = client.get("/v1/changes", params={"service": service, "limit": 2, **cursor}).json()
        got += page["changes"]
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
    assert len(got) == 7
    assert {c["id"] for c in got} == {c["id"] for c in made}
    assert [c["ts_ns"] for c in got] == sorted((c["ts_ns"] for c in made), reverse=True)
    assert {c["id"]: c for c in got} == {c["id"]: c for c in made}


def test_a_change_with_its_own_id_is_recorded_once(client: httpx.Client) -> None:
    body = {"kind": "deploy", "what": "engine 2", "id": str(uuid.uuid4()), "labels": {"b": "2", "a": "1"}}
    first = client.post("/v1/changes", json=body)
    again = client.post("/v1/changes", json=body)
    assert first.json() == again.json()
    assert client.post("/v1/changes", json=body | {"what": "engine 3"}).status_code == 409
    all_changes = client.get("/v1/changes?limit=1000").json()["changes"]
    assert [c["id"] for c in all_changes].count(body["id"]) == 1


def test_changes_that_a_collector_ships_are_listed_beside_the_recorded_ones(live: Live, client: httpx.Client) -> None:
    agent, service, now = Agent(), f"s-{uuid.uuid4()}", time.time_ns()
    posted = client.post("/v1/changes", json={"kind": "deploy", "what": "posted", "service": service}).json()
    shipped = [
        Change(
            now, "config", "governor of cpu 0: performance -> powersave", "agent", "h1", service, labels={"item": "x"}
        ),
        Change(now + 1, "network", "10.0.0.1 -> 10.0.0.2: 3 hops -> 4 hops", "agent", "h1", service),
    ]
    headers, body = agent.columns(change_columns(shipped))
    for attempt in range(3):  # the answer was lost twice
        headers["Tailsight-Attempt"] = str(attempt)
        assert client.post("/v1/ingest", headers=headers, content=body).status_code == 200
    got = client.get("/v1/changes", params={"service": service, "to": str(now + 10**10)}).json()["changes"]
    assert {c["what"] for c in got} == {"posted", *(c.what for c in shipped)}
    assert len(got) == 3
    one = next(c for c in got if c["kind"] == "config")
    assert one["id"] == change_id(shipped[0])
    assert (one["host"], one["labels"], one["ts_ns"]) == ("h1", {"item": "x"}, now)
    assert one["recorded_ns"] >= now
    # Whoever follows the stream gets it too, once.
    told = [event["id"] for _, _, event in sse(live, posted["recorded_ns"], 3)]
    assert told == [posted["id"], *(change_id(c) for c in shipped)]


@pytest.mark.parametrize("how", ["format", "accept"])
def test_changes_in_every_format(client: httpx.Client, how: str) -> None:
    from api.negotiate import MEDIA

    service = f"f-{uuid.uuid4()}"
    what = '=HYPERLINK("http://evil")\n,"quoted" é'
    client.post("/v1/changes", json={"kind": "flag", "what": what, "service": service, "labels": {"x": "y"}})

    def get(name: str) -> httpx.Response:
        if how == "format":
            return client.get("/v1/changes", params={"service": service, "format": name})
        return client.get("/v1/changes", params={"service": service}, headers={"Accept": MEDIA[name]})

    row = get("json").json()["changes"][0]
    for name in ("arrow", "parquet", "csv"):
        answer = get(name)
        assert answer.headers["content-type"].startswith(MEDIA[name])
        assert json.loads(answer.headers["tailsight-answer"])["next"] is None
        body = io.BytesIO(answer.content)
        if name == "csv":
            frame = pl.read_csv(body)
        else:
            frame = pl.read_parquet(body) if name == "parquet" else pl.read_ipc_stream(body)
        assert frame["ts_ns"].to_list() == [row["ts_ns"]]
        assert frame["what"].to_list() == [("'" if name == "csv" else "") + what]
        assert json.loads(frame["labels"][0]) == {"x": "y"}
    assert client.get("/v1/changes", headers={"Accept": "image/png"}).status_code == 406


def record(client: httpx.Client, what: str) -> str:
    return client.post("/v1/changes", json={"kind": "flag", "what": what}).json()["id"]


def sse(live: Live, after: int | None, count: int, query: str = "kinds=change") -> list[tuple[int, str, Any]]:
    """The next `count` events of a stream."""
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    events: list[tuple[int, str, Any]] = []
    number = 0
    kind = ""
    with live.client() as client, client.stream("GET", f"/v1/stream?{query}", headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        for line in response.iter_lines():
            if line.startswith("id: "):
                number = int(line[4:])
            elif line.startswith("event: "):
                kind = line[7:]
            elif line.startswith("data: "):
                events.append((number, kind, json.loads(line[6:])))
                if len(events) == count:
                    return events
    return events


def test_a_stream_resumes_exactly_after_its_last_event(live: Live, client: httpx.Client) -> None:
    before = time.time_ns()  # ids are times: everything still to come is after it
    ids = [record(client, f"resume {n}") for n in range(5)]
    first = sse(live, before, 2)
    assert [data["id"] for _, _, data in first] == ids[:2]
    rest = sse(live, first[-1][0], 3)
    assert [data["id"] for _, _, data in rest] == ids[2:]
    assert [n for n, _, _ in first + rest] == sorted({n for n, _, _ in first + rest})


def test_a_stream_resumes_over_a_restart_from_the_store(tmp_path_factory: pytest.TempPathFactory) -> None:
    data = tmp_path_factory.mktemp("resume")
    with running(data) as live, live.client() as client:
        start = time.time_ns()
        ids = [record(client, f"kept {n}") for n in range(3)]
        seen = sse(live, start, 1)
    with running(data) as live:
        again = sse(live, seen[0][0], 2)
        # At least once: what lies shortly before the cursor may come again, nothing after it may be missing.
        got = [d["id"] for _, _, d in sse(live, seen[0][0], 3)]
    assert {d["id"] for _, _, d in again} <= set(ids)
    assert set(ids[1:]) <= set(got)


def test_collectors_states_are_events(live: Live, client: httpx.Client) -> None:
    agent = Agent()
    start = time.time_ns()
    client.post("/v1/ingest/heartbeat", json=[agent.heartbeat()])
    client.post("/v1/ingest/heartbeat", json=[agent.heartbeat()])  # no change: no event
    client.post("/v1/ingest/heartbeat", json=[agent.heartbeat(status="degraded", reason="no CAP_BPF")])
    events = sse(live, start, 2, "kinds=collector")
    assert [(d["status"], d["reason"]) for _, _, d in events] == [("running", ""), ("degraded", "no CAP_BPF")]


def test_a_reader_that_lags_is_told_and_dropped(tmp_path_factory: pytest.TempPathFactory) -> None:
    toml = "[server]\nstream_buffer = 3\nwrite_seconds = 1.0\n"
    with running(tmp_path_factory.mktemp("slow"), toml) as live, live.client() as client:
        import socket

        host, _, port = live.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as sock:
            sock.sendall(b"GET /v1/stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert sock.recv(100)
            # Heartbeats of 50 collectors in one request: 50 events before the reader's task runs once.
            beats = [Agent().heartbeat() for _ in range(50)]
            assert client.post("/v1/ingest/heartbeat", json=beats).status_code == 200
            sock.settimeout(20)
            got = b""
            while chunk := sock.recv(65536):
                got += chunk
                if b"event: dropped" in got:
                    break
        assert b"event: dropped" in got
        assert b"\nevent: collector" in got
        assert "tailsight_stream_readers_dropped_total 1.0" in client.get("/metrics").text


def test_streams_are_limited_in_number(tmp_path_factory: pytest.TempPathFactory) -> None:
    toml = "[server]\nstream_readers = 1\n"
    with (
        running(tmp_path_factory.mktemp("many"), toml) as live,
        live.client() as client,
        client.stream("GET", "/v1/stream") as first,
    ):
        assert first.status_code == 200
        refused = httpx.get(f"{live.url}/v1/stream")
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
