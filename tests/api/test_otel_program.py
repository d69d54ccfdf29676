"""A program instrumented with OpenTelemetry alone: real SDK and exporters, a real agent, a real server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from tests.api.live import Live, running
from tests.collector.otlp.kit import agent
from tests.collector.test_agent import until

pytestmark = pytest.mark.timeout(180)
CONFIG = """
[windows]
grace = "1s"
rerun_after = "1s"
"""
# 400 requests: 2 ms each with 1.5 ms of database; every tenth 20 ms with 19.5 ms.
REQUESTS = 400
MS = 1_000_000


class World:
    def __init__(self, live: Live, http: str, grpc: str) -> None:
        self.live, self.http, self.grpc = live, http, grpc
        self.client = live.client(trust_env=False)

    def get(self, where: str, **params: Any) -> Any:
        answer = self.client.get(where, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def stages(self, path: str, **params: Any) -> dict[str, dict[str, Any]]:
        answer = self.client.get("/v1/latency", params={"path": path, "from": "-10m", **params})
        return {s["stage"]: s for s in answer.json()["stages"]} if answer.status_code == 200 else {}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("otel")
    with running(folder / "server", CONFIG) as live, agent(folder / "agent", live.url) as source:
        world = World(live, source.addresses["http"], source.addresses.get("grpc", ""))
        yield world
        world.client.close()


def program(exporter: SpanExporter, service: str, begin_ns: int) -> list[int]:
    """Known durations under explicit times; returns the trace ids."""
    provider = TracerProvider(resource=Resource.create({"service.name": service, "service.version": "1.2.3"}))
    provider.add_span_processor(BatchSpanProcessor(exporter, max_export_batch_size=128))
    tracer = provider.get_tracer("test")
    traces = []
    for number in range(REQUESTS):
        slow = number % 10 == 9
        begin = begin_ns + number * 25 * MS
        length = 20 * MS if slow else 2 * MS
        request = tracer.start_span(
            "GET /cart", kind=SpanKind.SERVER, start_time=begin, attributes={"http.request.method": "GET"}
        )
        here = trace.set_span_in_context(request)
        query = tracer.start_span("SELECT", context=here, kind=SpanKind.CLIENT, start_time=begin + MS // 4)
        query.end(begin + length - MS // 4)
        if number == 0:
            request.record_exception(ValueError("no such cart"), timestamp=begin + MS)
            request.set_status(StatusCode.ERROR, "no such cart")
        request.end(begin + length)
        traces.append(request.get_span_context().trace_id)
    assert provider.force_flush(30_000)
    provider.shutdown()
    return traces


def ended_s_ago(seconds: float) -> int:
    return time.time_ns() - REQUESTS * 25 * MS - round(seconds * 1e9)


def counted(world: World, path: str, n: int = REQUESTS) -> bool:
    return world.stages(path).get("end_to_end", {}).get("count") == n


def exact(world: World, path: str) -> None:
    """The percentiles are those of the durations that the program stated."""
    stages = world.stages(path)
    whole = stages["end_to_end"]
    assert (whole["min_ns"], whole["max_ns"]) == (2 * MS, 20 * MS)
    assert whole["mean_ns"] == 3.8 * MS
    for name, want in (("p50_ns", 2 * MS), ("p90_ns", 2 * MS), ("p95_ns", 20 * MS), ("p99_ns", 20 * MS)):
        assert abs(whole[name] - want) <= whole["value_error"][name] <= want * 0.004, name
    assert (whole["unfinished"], whole["headless"], whole["missing"], whole["negative"]) == (0, 0, 0, 0)
    below = stages["SELECT"]
    assert (below["count"], below["min_ns"], below["max_ns"]) == (REQUESTS, 3 * MS // 2, 39 * MS // 2)
    assert stages["unattributed"]["min_ns"] == stages["unattributed"]["max_ns"] == MS // 2


def test_a_program_appears_without_configuration(world: World) -> None:
    exporter = OTLPSpanExporter(endpoint=f"http://{world.http}/v1/traces", compression=Compression.Gzip)
    traces = program(exporter, "shop", ended_s_ago(3))
    path = "otel:shop:GET /cart"
    until(lambda: counted(world, path), "all requests counted", 30)
    exact(world, path)
    listed = {p["name"]: p for p in world.get("/v1/paths")["paths"]}
    assert set(listed) == {path}
    assert listed[path]["origin"] == "spans"
    assert [s["name"] for s in listed[path]["stages"]] == ["SELECT", "end_to_end", "unattributed"]

    slow = world.get("/v1/messages", path=path, limit=3, **{"from": "-10m"})["messages"]
    assert [m["e2e_ns"] for m in slow] == [20 * MS] * 3
    assert slow[0]["labels"] == {"http.request.method": "GET", "service.version": "1.2.3"}
    found = world.get(f"/v1/messages/{slow[0]['key']}")
    (span,) = (e for e in found["events"] if e["kind"] == "span")
    assert int(span["attributes"]["trace_id"], 16) in traces

    whole = world.get(f"/v1/messages/trace:{traces[0]:032X}")
    assert [s["point"] for s in whole["stamps"]] == [
        "otel.start:GET /cart", "otel.child_start:SELECT", "otel.child_end:SELECT", "otel.end:GET /cart",
    ]  # fmt: skip
    assert whole["stamps"][-1]["outcome"] == "error"
    assert {e["kind"] for e in whole["events"]} == {"span", "span_event"}
    exception = next(e for e in whole["events"] if e["kind"] == "span_event")
    assert exception["attributes"]["exception.message"] == "no such cart"


def test_everything_is_accounted_for(world: World) -> None:
    def settled() -> bool:
        rows = world.get("/v1/ledger")["ledger"]
        return bool(rows) and all(r["produced"] and not r["in_spool"] and not r["in_flight"] for r in rows)

    until(settled, "the ledger", 20)
    for row in world.get("/v1/ledger")["ledger"]:
        assert row["difference"] == 0 and row["quarantined"] == 0
        assert row["produced"] == row["stored_unique"]


def test_the_command_line_knows_learned_paths(world: World) -> None:
    import json
    import subprocess
    import sys

    from tests.collector.test_agent import ENV, ROOT

    def ask(*arguments: str) -> Any:
        command = [sys.executable, "-m", "api.cli", *arguments, "--data", str(world.live.data), "--json"]
        done = subprocess.run(command, cwd=ROOT, env=ENV, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr + done.stdout
        return json.loads(done.stdout)

    path = "otel:shop:GET /cart"
    assert [p["name"] for p in ask("paths")["paths"]] == [path]
    assert ask("query", "messages", "--path", path, "--limit", "1")["messages"][0]["stages"] == {"SELECT": 39 * MS // 2}
    trace_id = ask("query", "events", "--kind", "span", "--limit", "1")["events"][0]["attributes"]["trace_id"]
    assert len(ask("query", "message", f"trace:{trace_id}")["stamps"]) == 4
    assert ask("verify", "percentiles", "--path", path)


def test_a_second_program_below_the_first_is_a_stage_of_it(world: World) -> None:
    """Two services in one trace, exported apart, the caller last: its stage is the other's whole time."""
    now = ended_s_ago(3)
    providers = {name: TracerProvider(resource=Resource.create({"service.name": name})) for name in ("front", "back")}
    for provider in providers.values():
        exporter = OTLPSpanExporter(endpoint=f"http://{world.http}/v1/traces")
        provider.add_span_processor(BatchSpanProcessor(exporter))
    for number in range(50):
        begin = now + number * 10 * MS
        root = providers["front"].get_tracer("t").start_span("checkout", start_time=begin)
        here = trace.set_span_in_context(root)
        inner = (
            providers["back"]
            .get_tracer("t")
            .start_span("pay", context=here, kind=SpanKind.SERVER, start_time=begin + MS)
        )
        inner.end(begin + 4 * MS)
        root.end(begin + 6 * MS)
    providers["back"].shutdown()
    time.sleep(0.3)
    providers["front"].shutdown()
    until(lambda: counted(world, "otel:front:checkout", 50), "the caller", 30)
    until(lambda: counted(world, "otel:back:pay", 50), "the callee", 30)
    stages = world.stages("otel:front:checkout")
    assert stages["back: pay"]["max_ns"] == 3 * MS
    assert stages["unattributed"]["max_ns"] == 3 * MS
    assert stages["end_to_end"]["headless"] == 0
    assert world.stages("otel:back:pay")["end_to_end"]["headless"] == 0


def test_the_door_is_not_the_servers(world: World) -> None:
    assert httpx.post(f"{world.live.url}/v1/traces", trust_env=False).status_code == 404


def metrics_of(exporter: Any, views: Any = ()) -> Any:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
    return MeterProvider([reader], Resource.create({"service.name": "meter"}), views=views)


def test_histograms_of_latency_are_paths_and_gauges_are_gauges(world: World) -> None:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics import Histogram
    from opentelemetry.sdk.metrics.export import AggregationTemporality
    from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View

    view = View(
        instrument_name="rpc.duration", aggregation=ExponentialBucketHistogramAggregation(max_size=160, max_scale=7)
    )
    exporter = OTLPMetricExporter(
        endpoint=f"http://{world.http}/v1/metrics", preferred_temporality={Histogram: AggregationTemporality.DELTA}
    )
    provider = metrics_of(exporter, [view])
    meter = provider.get_meter("t")
    exponential = meter.create_histogram("rpc.duration", unit="ms")
    collections = meter.create_histogram("jvm.gc.duration", unit="s")
    meter.create_histogram("size", unit="By").record(5)
    orders = meter.create_counter("orders")
    meter.create_observable_gauge("lag", callbacks=[lambda _: [observation(7, {"topic": "ticks"})]])
    for value in range(1, 1_001):
        exponential.record(1 + value / 1_000)  # 1.001 .. 2 ms
    collections.record(0.25)
    orders.add(10)
    assert provider.force_flush(20_000)
    exponential.record(1.5)
    orders.add(5)
    assert provider.force_flush(20_000)
    provider.shutdown()
    path = "metric:meter:rpc.duration"
    until(lambda: counted(world, path, 1_001), "the histogram", 30)
    whole = world.stages(path)["end_to_end"]
    assert (whole["min_ns"], whole["max_ns"]) == (1_001_000, 2 * MS)
    assert abs(whole["p50_ns"] - 1.5 * MS) <= whole["value_error"]["p50_ns"] <= 0.02 * MS
    assert whole["mean_ns"] == pytest.approx(1.5005 * MS, rel=1e-6)
    (listed,) = (p for p in world.get("/v1/paths")["paths"] if p["name"] == path)
    assert listed["origin"] == "histogram" and 0 < listed["value_error"] < 0.01
    rows = world.live.data
    found = query(world, "SELECT toString(name) AS name, value FROM gauges ORDER BY ts, name, value")
    assert ("lag", 7.0) in found and ("orders", 10.0) in found and ("orders", 15.0) in found
    names = {name for name, _ in found}
    assert {"orders.rate", "gc.pause.share", "gc.pauses.rate"} <= names and "size" not in names, rows


def observation(value: float, attributes: dict[str, str]) -> Any:
    from opentelemetry.metrics import Observation

    return Observation(value, attributes)


def query(world: World, sql: str) -> list[Any]:
    from collector.store.connect import StoreSettings, connect

    store = connect(StoreSettings(), world.live.data)
    try:
        return list(store.query(sql).iter_rows())
    finally:
        store.close()


def test_logs_are_events_of_the_span_they_belong_to(world: World) -> None:
    import logging

    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

    resource = Resource.create({"service.name": "talker"})
    provider = LoggerProvider(resource)
    provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(endpoint=f"http://{world.http}/v1/logs")))
    traces = TracerProvider(resource=resource)
    traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"http://{world.http}/v1/traces")))
    logger = logging.getLogger("tailsight-test")
    logger.setLevel("INFO")
    logger.propagate = False
    logger.addHandler(LoggingHandler(logger_provider=provider))
    with traces.get_tracer("t").start_as_current_span("talk") as span:
        logger.warning("slow pool", extra={"pool": 3})
        identity = f"{span.get_span_context().trace_id:032x}"
    logger.info("bought", extra={"tailsight.key": "order:77", "model": "m-12"})
    provider.shutdown()
    traces.shutdown()
    until(lambda: world.get("/v1/events", key="order:77")["events"], "the order's log line", 20)
    (bought,) = world.get("/v1/events", key="order:77")["events"]
    assert (bought["body"], bought["service"], bought["kind"]) == ("bought", "talker", "log")
    assert bought["attributes"]["model"] == "m-12"
    where = f"/v1/messages/trace:{identity}"
    until(lambda: len(world.client.get(where).json().get("events", ())) == 2, "both", 20)
    found = {e["kind"]: e for e in world.get(f"/v1/messages/trace:{identity}")["events"]}
    assert found["log"]["body"] == "slow pool" and found["log"]["attributes"]["severity"] == "WARN"
