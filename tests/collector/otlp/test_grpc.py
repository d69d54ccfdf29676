"""The gRPC door with the real SDK exporter, and with calls that are wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as services
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from collector.otlp.settings import OtlpSettings
from collector.otlp.source import OtlpSource
from tests.collector.otlp.kit import agent, nowhere, said, spooled

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


@pytest.fixture
def channel(source: OtlpSource) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(source.addresses["grpc"]) as made:
        yield made


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OtlpSource]:
    small = OtlpSettings(http="127.0.0.1:0", grpc="127.0.0.1:0", max_body_bytes=1 << 20, retry_s=3)
    with agent(tmp_path_factory.mktemp("grpc"), nowhere(), small) as made:
        yield made


def request(**span: object) -> traces.ExportTraceServiceRequest:
    message = traces.ExportTraceServiceRequest()
    now = time.time_ns()
    values = {
        "trace_id": b"1" * 16, "span_id": b"2" * 8, "name": "n", "start_time_unix_nano": now,
        "end_time_unix_nano": now + 5, **span,
    }  # fmt: skip
    message.resource_spans.add().scope_spans.add().spans.add(**values)
    return message


def test_spans_of_the_real_exporter_are_durable(tmp_path: Path) -> None:
    with agent(tmp_path, nowhere()) as source:
        exporter = OTLPSpanExporter(
            endpoint=f"http://{source.addresses['grpc']}", insecure=True, compression=grpc.Compression.Gzip
        )
        provider = TracerProvider(resource=Resource.create({"service.name": "shop"}))
        provider.add_span_processor(BatchSpanProcessor(exporter))
        for number in range(300):
            provider.get_tracer("t").start_span("GET /cart", attributes={"number": number}).end()
        assert provider.force_flush(20_000)
        provider.shutdown()
    found = spooled(tmp_path / "agent/otlp")
    assert said(found, "stamps", "point") == ["otel.start:GET /cart", "otel.end:GET /cart"] * 300
    assert len(set(said(found, "stamps", "key"))) == 300


def test_partial_success_and_what_is_wrong(channel: grpc.Channel) -> None:
    stub = services.TraceServiceStub(channel)
    assert not stub.Export(request(), timeout=5).HasField("partial_success")
    partial = stub.Export(request(trace_id=b"short"), timeout=5).partial_success
    assert partial.rejected_spans == 1 and "trace id of 5 bytes" in partial.error_message
    raw = channel.unary_unary(EXPORT)
    with pytest.raises(grpc.RpcError) as wrong:
        raw(b"\xff\xff", timeout=5)
    assert wrong.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "ExportTraceServiceRequest" in wrong.value.details()
    with pytest.raises(grpc.RpcError) as large:
        raw(bytes(2 << 20), timeout=5)
    assert large.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    with pytest.raises(grpc.RpcError) as nothing:
        channel.unary_unary("/opentelemetry.Other/Export")(b"", timeout=5)
    assert nothing.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert not stub.Export(request(), timeout=5).HasField("partial_success"), "the door still works"


def test_a_spool_that_takes_nothing_is_unavailable_with_retry_info(source: OtlpSource, channel: grpc.Channel) -> None:
    assert source._receiver is not None
    source._receiver.intake.close("the spool is full")
    try:
        with pytest.raises(grpc.RpcError) as busy:
            services.TraceServiceStub(channel).Export(request(), timeout=5)
    finally:
        source._receiver.intake.open(10**6)
    assert busy.value.code() is grpc.StatusCode.UNAVAILABLE
    metadata = dict(busy.value.trailing_metadata())
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    assert status.code == grpc.StatusCode.UNAVAILABLE.value[0]
    info = error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info) and info.retry_delay.seconds == 3
    assert not services.TraceServiceStub(channel).Export(request(), timeout=5).HasField("partial_success")
