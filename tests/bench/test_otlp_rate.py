"""Spans per second through the receiver, against what the SDK itself spends to make and encode them, in one run."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind

from tests.collector.otlp.kit import agent, client, nowhere

SPANS, EXPORTS = 512, 40


class Keep(SpanExporter):
    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def export(self, spans: object) -> SpanExportResult:
        self.spans += spans  # type: ignore[operator] # a sequence of spans
        return SpanExportResult.SUCCESS


def make() -> bytes:
    """One export: requests with one child each."""
    keep = Keep()
    provider = TracerProvider(resource=Resource.create({"service.name": "bench"}))
    provider.add_span_processor(SimpleSpanProcessor(keep))
    tracer = provider.get_tracer("bench")
    for _ in range(SPANS // 2):
        root = tracer.start_span("GET /", kind=SpanKind.SERVER, attributes={"http.request.method": "GET"})
        tracer.start_span("SELECT", context=trace.set_span_in_context(root)).end()
        root.end()
    return encode_spans(keep.spans).SerializeToString()


@pytest.mark.bench
def test_taking_a_span_costs_less_than_making_it(tmp_path: Path) -> None:
    began = time.thread_time()
    exports = [make() for _ in range(EXPORTS)]
    made_us = (time.thread_time() - began) / (SPANS * EXPORTS) * 1e6
    with agent(tmp_path, nowhere()) as source, client(source) as http:
        headers = {"content-type": "application/x-protobuf"}
        waits = []
        cpu, wall = time.process_time(), time.perf_counter()
        for body in exports:
            at = time.perf_counter()
            assert http.post("/v1/traces", content=body, headers=headers).status_code == 200
            waits.append(time.perf_counter() - at)
        taken_us = (time.process_time() - cpu) / (SPANS * EXPORTS) * 1e6
        rate = SPANS * EXPORTS / (time.perf_counter() - wall)
    wait_ms = sorted(waits)[len(waits) // 2] * 1e3
    said = (
        f"\nmaking a span {made_us:.1f} us, taking it to the disk {taken_us:.1f} us of CPU (ratio "
        f"{taken_us / made_us:.2f}); one client {rate:,.0f} spans/s, an export waits {wait_ms:.0f} ms\n"
    )
    sys.stdout.write(said)
    assert taken_us < made_us
