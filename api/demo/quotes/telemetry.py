"""OpenTelemetry for the quote service, as its own documentation tells a program to set it up.

Where to export to, how often and as what are the SDK's environment variables (`OTEL_...`); nothing here decides it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from opentelemetry._logs import Logger, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import Meter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Tracer

VERSION = "1"


@dataclass(frozen=True, slots=True)
class Exports:
    """Where spans, metrics and logs go."""

    spans: SpanExporter
    metrics: MetricReader
    logs: LogRecordExporter


def over_otlp() -> Exports:
    """OTLP over HTTP, to where the environment says."""
    return Exports(OTLPSpanExporter(), PeriodicExportingMetricReader(OTLPMetricExporter()), OTLPLogExporter())


class Telemetry:
    """One program's tracer, meter and logger."""

    def __init__(self, service: str, exports: Exports) -> None:
        resource = Resource.create({"service.name": service, "service.version": VERSION})
        self._traces = TracerProvider(resource=resource)
        self._traces.add_span_processor(BatchSpanProcessor(exports.spans))
        self._metrics = MeterProvider([exports.metrics], resource)
        self._logs = LoggerProvider(resource)
        self._logs.add_log_record_processor(BatchLogRecordProcessor(exports.logs))
        self.tracer: Tracer = self._traces.get_tracer(service)
        self.meter: Meter = self._metrics.get_meter(service)
        self._logger: Logger = self._logs.get_logger(service)

    def log(self, event: str, body: str, attributes: dict[str, str | int | float], context: Context) -> None:
        """One log record of the span in `context`."""
        self._logger.emit(
            timestamp=time.time_ns(),
            event_name=event,
            body=body,
            attributes=attributes,
            context=context,
            severity_number=SeverityNumber.INFO,
        )

    def close(self) -> None:
        """Export what is left, and end."""
        self._traces.shutdown()
        self._logs.shutdown()
        self._metrics.shutdown()
