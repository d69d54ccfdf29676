"""Scraping real exporters on real sockets: prometheus_client's own server, native histograms, and hostile targets."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary, start_http_server

from collector.agent.runner import Runner
from collector.agent.settings import AgentSettings
from collector.clock import HostClock
from collector.otlp.rows import LabelSets
from collector.prometheus.protobuf import _family, families
from collector.prometheus.samples import SampleMapper, Scraped
from collector.prometheus.settings import PrometheusSettings, Target
from collector.prometheus.source import PrometheusSource
from collector.settings import ConfigError, section
from collector.spool import Spool
from collector.spool.settings import SpoolSettings
from tests.collector.otlp.kit import said

NATIVE = """# TYPE rpc_seconds histogram
rpc_seconds{method="get"} {count:24,sum:100,schema:3,zero_threshold:0.001,zero_count:4,positive_spans:[0:2,1:2],positive_deltas:[2,1,-2,3],negative_spans:[],negative_deltas:[]}
# EOF
"""  # noqa: E501 - one line of the format


@contextmanager
def target(answer: Callable[[Any], None]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()


def text(body: bytes, kind: str = "text/plain; version=0.0.4") -> Callable[[Any], None]:
    def answer(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def scraped(*urls: str, times: int = 1, **more: Any) -> tuple[list[Any], PrometheusSource]:
    """The rows of `times` scrapes of each target."""
    settings = PrometheusSettings(
        targets=tuple(Target(url=u, service="svc") for u in urls), **{"timeout_s": 1.0, **more}
    )
    source = PrometheusSource("here", settings)
    assert source.start({}).status == "running"
    clock = HostClock()
    found: list[Any] = []
    try:
        for number in range(1, times + 1):
            source._due.clear()
            deadline = time.monotonic() + 10
            while said(found, "gauges", "name").count("up") < number * len(urls):
                assert time.monotonic() < deadline
                found += source.poll(clock.read()).columns
                time.sleep(0.01)
    finally:
        source.close()
    return found, source


def gauges(found: list[Any]) -> dict[str, list[float]]:
    out: dict[str, list[float]] = {}
    for name, value in zip(said(found, "gauges", "name"), said(found, "gauges", "value"), strict=True):
        out.setdefault(name, []).append(value)
    return out


def test_a_real_exporter_gives_gauges_rates_and_histograms() -> None:
    registry = CollectorRegistry()
    lag = Gauge("consumer_lag", "", ["topic"], registry=registry)
    orders = Counter("orders", "", registry=registry)
    wait = Histogram("wait_seconds", "", buckets=(0.001, 0.01), registry=registry)
    Summary("size", "", registry=registry).observe(3)
    Histogram("batch", "", buckets=(1, 2), registry=registry).observe(1)
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    try:
        lag.labels("ticks").set(7)
        orders.inc(5)
        for value in (0.0005, 0.002, 5.0):
            wait.observe(value)
        found, _ = scraped(f"http://127.0.0.1:{server.server_port}/metrics", times=2)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    values = gauges(found)
    assert values["consumer_lag"] == [7.0, 7.0] and values["up"] == [1.0, 1.0]
    assert values["orders_total"] == [5.0, 5.0] and values["orders_total.rate"] == [0.0]
    assert values["size_count"] == [1.0, 1.0] and values["batch_count"] == [1.0, 1.0]
    assert said(found, "histograms", "name") == ["wait_seconds"] * 2
    assert json.loads(said(found, "histograms", "layout")[0]) == {"bounds": [1_000_000, 10_000_000]}
    assert json.loads(said(found, "histograms", "counts")[0]) == [1, 1, 1]
    assert said(found, "histograms", "sum_ns")[0] == pytest.approx(5_002_500_000)
    labels = {json.loads(one).get("topic") for one in said(found, "label_sets", "labels")}
    assert "ticks" in labels


def native_rows(body: bytes, kind: str) -> tuple[Any, Any]:
    with target(text(body, kind)) as url:
        found, source = scraped(url)
    assert not any(source.problems.values()), source.problems
    return json.loads(said(found, "histograms", "layout")[0]), json.loads(said(found, "histograms", "counts")[0])


def test_native_histograms_come_as_openmetrics_and_as_protobuf() -> None:
    layout, counts = native_rows(NATIVE.encode(), "application/openmetrics-text; version=1.0.0")
    assert layout == {"scale": 3, "unit_ns": 1e9, "zero": 1_000_000}
    assert counts == {"zero": 4, "positive": [-1, [2, 3, 0, 1, 4]], "negative": [0, []]}
    family = _family()(name="rpc_seconds", type=4)
    one = family.metric.add().histogram
    one.count, one.sum, one.schema, one.zero_threshold, one.zero_count = 14, 100, 3, 0.001, 4
    one.positive_span.add(offset=0, length=2)
    one.positive_span.add(offset=1, length=2)
    one.positive_delta.extend([2, 1, -2, 3])
    packed = family.SerializeToString()
    body = bytes([len(packed)]) + packed
    assert native_rows(body, "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily") == (
        layout,
        counts,
    )
    for cut in range(1, len(body)):
        with pytest.raises(ValueError, match="metric family"):
            list(families(body[:cut]))


def slow(handler: Any) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "text/plain")
    handler.end_headers()
    for _ in range(200):
        try:
            handler.wfile.write(b"# x\n")
            handler.wfile.flush()
        except OSError:
            return
        time.sleep(0.05)


FALLING = b'# TYPE h_seconds histogram\nh_seconds_bucket{le="1"} 5\nh_seconds_bucket{le="+Inf"} 2\n'
BAD: list[tuple[str, Callable[[Any], None], str]] = [
    ("slow", slow, "timeout_s"),
    ("large", text(b"#" * 2_000_000), "max_body_bytes"),
    ("many", text(b"".join(b"a%d 1\n" % i for i in range(200))), "max_samples"),
    ("garbage", text(bytes(range(256)) * 10), ""),
    ("html", text(b"<html>a page</html>"), ""),
    ("error", lambda handler: handler.send_error(500), "500"),
    ("buckets", text(FALLING), "do not rise"),
]  # fmt: skip


def test_a_bad_target_is_down_and_the_others_are_read() -> None:
    from contextlib import ExitStack

    with ExitStack() as stack:
        good = stack.enter_context(target(text(b"pool_size 4\n")))
        urls = {stack.enter_context(target(answer)): word for _, answer, word in BAD}
        found, source = scraped(good, *urls, "http://127.0.0.1:1/metrics", max_body_bytes=1_000_000, max_samples=100)
    values = gauges(found)
    assert values["pool_size"] == [4.0]
    assert sorted(values["up"]) == [0.0] * (len(BAD) + 1) + [1.0]
    assert source.problem.endswith(f"and {len(BAD) + 1 - 3} more")
    for url, word in urls.items():
        assert source.problems[url] and word in source.problems[url]


def test_stale_samples_and_values_that_are_not_finite_are_left_out() -> None:
    now = time.time()
    body = f"a 1 {round((now - 3600) * 1000)}\nb 2 {round(now * 1000)}\nc NaN\nd 4 {round((now + 9e5) * 1000)}\n"
    with target(text(body.encode())) as url:
        found, _ = scraped(url)
    values = gauges(found)
    assert {"b", "d", "up"} <= set(values) and not {"a", "c"} & set(values)
    assert max(said(found, "gauges", "ts_ns")) <= time.time_ns()


def test_label_sets_are_bounded() -> None:
    from prometheus_client.parser import text_string_to_metric_families

    mapper = SampleMapper(LabelSets(10))
    body = "\n".join(f'a{{n="{i}"}} 1' for i in range(50)) + "\n"
    of = Scraped("h", "s", "i", 10**18, 10**12)
    rows, seen = mapper.rows(text_string_to_metric_families(body), of, 1_000)
    assert seen == 50 and len(rows.tables["gauges"]) == 50 and len(rows.tables["label_sets"]) == 10
    assert rows.notes and math.isclose(sum(row[5] for row in rows.tables["gauges"]), 50)


@pytest.mark.parametrize(
    ("field", "body"),
    [
        ("targets[0].url", {"targets": [{"url": "ftp://x"}]}),
        ("targets", {"targets": [{"url": "http://x/m"}, {"url": "http://x/m"}]}),
        ("interval", {"interval": "1ms"}),
        ("timeout_s", {"timeout_s": 60}),
    ],
)
def test_wrong_settings_name_the_field(field: str, body: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        section({"prometheus": body}, AgentSettings, "agent")
    assert caught.value.field == f"agent.prometheus.{field}"


def test_without_targets_it_says_so() -> None:
    state = PrometheusSource("h").start({})
    assert state.status == "degraded" and "[agent.prometheus] targets" in state.reason


def test_a_target_that_is_down_shows_in_the_collectors_status(tmp_path: Path) -> None:
    runner = Runner(PrometheusSource("h", PrometheusSettings(targets=(Target(url="http://127.0.0.1:1/m"),))),
                    Spool(tmp_path, SpoolSettings(min_free_bytes=0)), "h")  # fmt: skip
    try:
        clock = HostClock()
        deadline = time.monotonic() + 10
        beat = runner.heartbeats(time.time_ns())[0]
        while "ConnectError" not in beat.reason:
            assert time.monotonic() < deadline, beat
            runner.poll(clock.read(), time.monotonic())
            time.sleep(0.05)
            beat = runner.heartbeats(time.time_ns())[0]
        assert beat.status == "degraded" and "http://127.0.0.1:1/m" in beat.reason
    finally:
        runner.close()
        runner.spool.close()
