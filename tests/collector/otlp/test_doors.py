"""The HTTP door on real sockets: what is acknowledged is durable, what is wrong is said, nothing grows or hangs."""

from __future__ import annotations

import concurrent.futures
import gzip
import json
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.rpc import status_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces

from collector.agent.registry import make_source
from collector.agent.settings import AgentSettings
from collector.clock import HostClock
from collector.keys import hash64
from collector.otlp.intake import Budget, BusyError, Intake
from collector.otlp.settings import OtlpSettings
from collector.otlp.source import OtlpSource
from collector.record import EVENTS, Columns
from collector.settings import ConfigError, section
from tests.collector.otlp.kit import agent, client, nowhere, said, spooled
from tests.collector.test_agent import ENV, ROOT

LINES = {"content-type": "application/x-ndjson"}
PROTO = {"content-type": "application/x-protobuf"}
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OtlpSource]:
    small = OtlpSettings(http="127.0.0.1:0", grpc="", header_s=0.5, body_s=0.7, max_body_bytes=1 << 20)
    with agent(tmp_path_factory.mktemp("door"), nowhere(), small) as made:
        yield made


@pytest.fixture
def http(source: OtlpSource) -> Iterator[httpx.Client]:
    with client(source) as made:
        yield made
        # Whatever the test sent, the next request is served.
        assert made.post("/v1/events", content=b'{"body":"after"}', headers=LINES).status_code == 200


def span(**more: Any) -> dict[str, Any]:
    now = time.time_ns()
    return {
        "traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331", "name": "work", "kind": 2,
        "startTimeUnixNano": str(now - 1_000_000), "endTimeUnixNano": str(now), **more,
    }  # fmt: skip


def request(*spans: dict[str, Any]) -> dict[str, Any]:
    return {"resourceSpans": [{"scopeSpans": [{"spans": list(spans)}]}]}


def test_lines_become_events_and_a_wrong_one_does_not_take_the_others(tmp_path: Path) -> None:
    lines = [
        {"ts": "2026-01-01T00:00:00Z", "body": "too old"},
        {"key": "order:17", "kind": "decision", "service": "engine", "body": "buy", "reason": "signal",
         "inputs": {"feed": 981}, "model": "m-12"},
        {"key": 5, "body": "by number", "ts_ns": time.time_ns()},
        {"body": 7},
        {"key": "order"},
    ]  # fmt: skip
    body = b"\n".join(json.dumps(line).encode() for line in lines) + b"\nnot json\n\n[1]\n"
    with agent(tmp_path, nowhere()) as source, client(source) as http:
        answer = http.post("/v1/events", content=gzip.compress(body), headers={**LINES, "content-encoding": "gzip"})
        assert answer.status_code == 200, answer.text
        assert answer.json()["rejected"] == 5
        for said_of in ("line 1: ts is older", "line 4: body is not a text", "line 5: 'order' is not a key",
                        "line 6: not JSON", "line 8: not a JSON object"):  # fmt: skip
            assert said_of in answer.json()["message"]
        assert http.post("/v1/events", content=b"no\n", headers=LINES).status_code == 400
        assert source.figures() == {"accepted": 1, "rejected": 6, "refused": 0}
    found = spooled(tmp_path / "agent/otlp")
    assert said(found, "events", "key") == [hash64("order", 17), 5]
    assert said(found, "events", "kind") == ["decision", "event"]
    assert json.loads(said(found, "events", "attributes")[0]) == {
        "inputs": {"feed": 981}, "model": "m-12", "reason": "signal",
    }  # fmt: skip


@pytest.mark.parametrize("round_", range(3))
def test_a_killed_agent_has_everything_that_it_acknowledged(tmp_path: Path, round_: int) -> None:
    command = [sys.executable, "-m", "tests.collector.otlp.agent_process", nowhere(), str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    url = f"http://{process.stdout.readline().split()[0]}/v1/events"
    acknowledged: set[str] = set()

    def send(lane: int) -> None:
        with httpx.Client(trust_env=False, timeout=5) as http:
            for number in range(10_000):
                name = f"{lane}-{number}"
                try:
                    answer = http.post(url, content=json.dumps({"body": name}), headers=LINES)
                except httpx.HTTPError:
                    return
                assert answer.status_code == 200
                acknowledged.add(name)

    rng = random.Random(round_)  # noqa: S311 - repeatable
    with concurrent.futures.ThreadPoolExecutor(4) as lanes:
        running = [lanes.submit(send, lane) for lane in range(4)]
        while len(acknowledged) < 12:
            time.sleep(0.005)
        time.sleep(rng.random() * 0.2)
        process.kill()
        for each in running:
            each.result(20)
    process.communicate()
    assert acknowledged
    stored = said(spooled(tmp_path / "agent/otlp"), "events", "body")
    assert acknowledged <= set(stored)
    assert len(stored) == len(set(stored)) <= len(acknowledged) + 4


def test_an_export_is_done_when_it_is_durable_and_not_before() -> None:
    now = [0.0]
    budget = Budget(1 << 20)
    intake = Intake(budget, lambda: now[0])
    rows = [Columns.from_rows(EVENTS, [{"ts_ns": 1, "attributes": "{}"}])]
    with pytest.raises(BusyError, match="starting"):
        intake.offer(rows)
    intake.open(7)
    first, second = intake.offer(rows), intake.offer(rows)
    taken, ticket = intake.take(1)
    assert (len(taken), ticket) == (1, 8)
    assert not first.done()
    assert intake.take(1)[1] == 9
    intake.durable(8)
    assert first.done() and not second.done()
    now[0] = 3.0
    with pytest.raises(BusyError, match="spool takes nothing"):
        intake.offer(rows)
    intake.durable(9)
    assert second.done() and budget.held == 0 and intake.idle
    third = intake.offer(rows)
    intake.close("the agent stops")
    with pytest.raises(BusyError, match="stops"):
        third.result(0)
    assert budget.held == 0


def test_a_full_spool_is_503_with_retry_after_and_ends_when_there_is_room(tmp_path: Path) -> None:
    tiny = {"spool_max_bytes": 80_000, "segment_bytes": 40_000, "batch_bytes": 20_000}
    settings = OtlpSettings(http="127.0.0.1:0", grpc="", answer_s=0.3, retry_s=7)
    noise = random.Random(1)  # noqa: S311 - repeatable
    with agent(tmp_path, nowhere(), settings, when_full="drop_newest", **tiny) as source, client(source) as http:
        answers = []
        for _ in range(40):
            line = {"body": noise.randbytes(2_000).hex()}
            answers.append(http.post("/v1/events", content=json.dumps(line), headers=LINES))
            if answers[-1].status_code != 200:
                break
        refused = answers[-1]
        assert refused.status_code == 503 and refused.headers["retry-after"] == "7"
        assert "spool" in refused.json()["message"]
    # With drop_newest the agent's other spools would have dropped; what was acknowledged here is there.
    assert len(said(spooled(tmp_path / "agent/otlp"), "events", "body")) >= len(answers) - 1 > 0


def test_errors_are_a_status_in_the_requests_own_type(http: httpx.Client) -> None:
    broken = http.post("/v1/traces", content=b"\xff\xff\xff", headers=PROTO)
    assert broken.status_code == 400 and broken.headers["content-type"] == "application/x-protobuf"
    status = status_pb2.Status.FromString(broken.content)
    assert status.code == 3 and "ExportTraceServiceRequest" in status.message
    for body, status_code, word in (
        (b"{", 400, "JSON"),
        (b"[]", 400, "object"),
        (b"[" * 100_000, 400, "JSON"),
        (json.dumps(request(span(traceId="xyz"))).encode(), 400, "hex"),
        (json.dumps(request(span(startTimeUnixNano=-5))).encode(), 400, "JSON"),
        (json.dumps({"resourceSpans": 5}).encode(), 400, "JSON"),
        (json.dumps(request(span(attributes="x"))).encode(), 400, "JSON"),
    ):
        answer = http.post("/v1/traces", content=body, headers=JSON)
        assert answer.status_code == status_code, answer.text
        assert word in answer.json()["message"], answer.text
        assert "retry-after" not in answer.headers


def test_what_is_not_offered_is_named(http: httpx.Client) -> None:
    assert http.post("/v1/profiles", headers=JSON).status_code == 404
    assert http.get("/v1/traces").status_code == 405
    assert http.post("/v1/traces", content=b"x", headers={"content-type": "text/plain"}).status_code == 415
    assert http.post("/v1/traces", content=b"x", headers={**PROTO, "content-encoding": "br"}).status_code == 415
    assert http.post("/v1/events", content=b"{}", headers=JSON).status_code == 415


def test_gzip_bombs_and_large_and_cut_bodies_are_refused(http: httpx.Client) -> None:
    bomb = gzip.compress(bytes(400 << 20), 9)
    assert len(bomb) < 1 << 20
    packed = {**PROTO, "content-encoding": "gzip"}
    answer = http.post("/v1/traces", content=bomb, headers=packed)
    assert answer.status_code == 413 and b"decompressed" in answer.content
    assert http.post("/v1/traces", content=gzip.compress(b"x")[:-4], headers=packed).status_code == 400
    assert http.post("/v1/traces", content=b"not gzip", headers=packed).status_code == 400
    assert http.post("/v1/traces", content=bytes(2 << 20), headers=PROTO).status_code == 413
    chunks = (bytes(65_536) for _ in range(40))
    assert http.post("/v1/traces", content=chunks, headers=PROTO).status_code == 413


def raw(source: OtlpSource, data: bytes, wait_s: float = 3.0) -> bytes:
    host, _, port = source.addresses["http"].rpartition(":")
    with socket.create_connection((host, int(port)), timeout=wait_s) as connection:
        connection.sendall(data)
        answer = b""
        try:
            while part := connection.recv(65_536):
                answer += part
        except TimeoutError:
            return answer + b"(open)"
        except ConnectionResetError:
            pass
        return answer


@pytest.mark.usefixtures("http")
def test_slow_and_broken_clients_are_cut_off(source: OtlpSource) -> None:
    assert raw(source, b"") == b"", "a client that says nothing"
    assert raw(source, b"POST /v1/events HTTP/1.1\r\nHost: x\r\n") == b"", "half of the headers"
    late = raw(source, b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nab")
    assert late.startswith(b"HTTP/1.1 408")
    assert raw(source, b"\x16\x03\x01\x02\x00garbage\r\n\r\n").startswith(b"HTTP/1.1 400")
    assert raw(source, b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000 + b"\r\n\r\n").startswith(b"HTTP/1.1 431")
    both = b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc"
    assert raw(source, both).startswith(b"HTTP/1.1 400")


def test_beyond_the_connections_and_the_memory_clients_are_told_to_wait(tmp_path: Path) -> None:
    few = OtlpSettings(
        http="127.0.0.1:0", grpc="", connections=3, max_body_bytes=1_000_000, memory_bytes=8_000_000, concurrent=2,
        body_s=2,
    )  # fmt: skip
    with agent(tmp_path, nowhere(), few) as source:
        host, _, port = source.addresses["http"].rpartition(":")
        head = b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n"
        slow = [socket.create_connection((host, int(port)), timeout=5) for _ in range(2)]
        for each in slow:
            each.sendall(head)
        time.sleep(0.2)
        with client(source) as http:
            busy = http.post("/v1/events", content=b"{}", headers=LINES)
            assert busy.status_code == 429 and busy.headers["retry-after"] == "1"
        third = socket.create_connection((host, int(port)), timeout=5)
        time.sleep(0.1)
        full = raw(source, head)
        assert full.startswith(b"HTTP/1.1 503") and b"Retry-After: 1" in full
        for each in (*slow, third):
            each.close()
        time.sleep(0.2)
        with client(source) as http:
            assert http.post("/v1/events", content=b"{}", headers=LINES).status_code == 200


def test_partial_success_counts_the_spans_that_were_rejected(http: httpx.Client) -> None:
    many = [{"key": f"a{i}", "value": {"intValue": "1"}} for i in range(200)]
    answer = http.post("/v1/traces", headers=JSON, content=json.dumps(request(
        span(), span(spanId="00"), span(traceId="00" * 16), span(startTimeUnixNano="5"),
        span(endTimeUnixNano=str(2**64 - 1)), span(parentSpanId="aabb"), span(attributes=many),
        span(attributes=[{"key": "d", "value": {"doubleValue": "NaN"}}]),
    )))  # fmt: skip
    assert answer.status_code == 200
    partial = answer.json()["partialSuccess"]
    assert int(partial["rejectedSpans"]) == 6
    for word in ("trace id", "span id of 1 bytes", "max_past", "max_future", "200 attributes"):
        assert word in partial["errorMessage"] or "kinds more" in partial["errorMessage"]
    whole = http.post("/v1/traces", headers=JSON, content=json.dumps(request(span())))
    assert whole.json() == {}


def test_a_hundred_thousand_attributes_are_refused_without_harm(http: httpx.Client) -> None:
    message = traces.ExportTraceServiceRequest()
    one = (
        message.resource_spans.add()
        .scope_spans.add()
        .spans.add(
            trace_id=b"1" * 16, span_id=b"2" * 8, start_time_unix_nano=time.time_ns(), end_time_unix_nano=time.time_ns()
        )
    )
    for number in range(100_000):
        one.attributes.add(key=f"{number}")
    body = message.SerializeToString()
    answer = http.post("/v1/traces", content=body, headers=PROTO)
    assert answer.status_code in (200, 413)
    if answer.status_code == 200:
        got = traces.ExportTraceServiceResponse.FromString(answer.content)
        assert got.partial_success.rejected_spans == 1
        assert re.search("100000 attributes, at most 128", got.partial_success.error_message)


def test_truncated_messages_never_break_the_door(http: httpx.Client) -> None:
    whole = json.dumps(request(span())).encode()
    message = traces.ExportTraceServiceRequest()
    one = message.resource_spans.add()
    one.scope_spans.add().spans.add(trace_id=b"1" * 16, span_id=b"2" * 8, name="n", end_time_unix_nano=time.time_ns())
    packed = message.SerializeToString()
    rng = random.Random(3)  # noqa: S311 - repeatable
    for _ in range(60):
        for content, headers in ((packed, PROTO), (whole, JSON)):
            cut = bytearray(content[: rng.randrange(len(content) + 1)])
            for _ in range(rng.randrange(4)):
                if cut:
                    cut[rng.randrange(len(cut))] = rng.randrange(256)
            answer = http.post("/v1/traces", content=bytes(cut), headers=headers)
            assert answer.status_code in (200, 400), (answer.status_code, cut)


def test_a_taken_address_and_a_missing_extra_say_what_to_do(
    source: OtlpSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = OtlpSource("h", OtlpSettings(http=source.addresses["http"], grpc=""))
    state = other.start({})
    assert state.status == "unavailable" and "[agent.otlp] http and grpc" in state.reason
    monkeypatch.setitem(sys.modules, "collector.otlp.doors", None)
    state = OtlpSource("h").start({})
    assert state.status == "unavailable" and "needs the extra `otlp`" in state.reason
    assert make_source("otlp", AgentSettings(), "h", HostClock()).name == "otlp"


def test_the_agent_does_not_need_the_extra() -> None:
    code = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"google", "grpc", "opentelemetry", "h11"} and name != "google_crc32c":
            raise ImportError("the agent may not import " + name)
sys.meta_path.insert(0, Refuse())
from collector.otlp.source import OtlpSource
state = OtlpSource("h").start({})
assert state.status == "unavailable" and "tailsight[otlp]" in state.reason, state
import collector.agent.settings, collector.agent.registry
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, env=ENV)


@pytest.mark.parametrize(
    ("field", "body"),
    [
        ("http", {"http": "4318"}),
        ("grpc", {"grpc": "host:99999"}),
        ("memory_bytes", {"memory_bytes": 1000}),
        ("max_past", {"max_past": "long"}),
        ("answer_s", {"answer_s": 0}),
        ("http", {"http": "", "grpc": ""}),
    ],
)
def test_wrong_settings_name_the_field(field: str, body: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        section({"otlp": body}, AgentSettings, "agent")
    assert caught.value.field == f"agent.otlp.{field}"


def test_the_threads_end_with_the_agent(tmp_path: Path) -> None:
    with agent(tmp_path, nowhere()) as source:
        assert any(thread.name == "otlp-http" for thread in threading.enumerate())
        address = source.addresses["http"]
    assert not [t.name for t in threading.enumerate() if t.name == "otlp-http" and f"{address}" in t.name]
    host, _, port = address.rpartition(":")
    with pytest.raises(OSError):
        socket.create_connection((host, int(port)), timeout=1)
