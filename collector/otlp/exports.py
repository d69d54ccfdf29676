"""What the two doors share: an export of one signal, mapped to rows, handed to the spool, and worded as an answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import structlog
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces

from collector.otlp.intake import Budget, BusyError, Intake
from collector.otlp.logs import LogMapper
from collector.otlp.metrics import MetricMapper
from collector.otlp.ndjson import Said, event_rows
from collector.otlp.rows import LabelSets, Rows, Times
from collector.otlp.settings import OtlpSettings
from collector.otlp.spans import SpanMapper

_SAY_EVERY_S = 60.0
_DECODED = 3  # what a decoded message and its rows hold, in sizes of the encoded one


log = structlog.get_logger("agent")


@dataclass(frozen=True, slots=True)
class Signal:
    """One of OTLP's services: its messages, how they become rows, and the name of its count of rejected records."""

    name: str
    request: type[Message]
    response: type[Message]
    rows: Callable[[Any, int, int | None], Rows]
    rejected: str


@dataclass(frozen=True, slots=True)
class Taken:
    """An export that was mapped: what was wrong with it, and the future that says that it is durable (None: nothing
    of it is to be kept)."""

    rejected: int
    message: str
    done: Future[None] | None


class Exports:
    """Maps exports, one at a time, and offers them to the intake. Thread-safe."""

    def __init__(self, settings: OtlpSettings, intake: Intake, budget: Budget, host: str) -> None:
        self._settings = settings
        self._intake = intake
        self._budget = budget
        self._host = host
        self._lock = threading.Lock()
        self._times = Times(settings)
        self._labels = LabelSets(settings.label_sets)
        spans = SpanMapper(settings, self._labels, self._times, host)
        self.error_ns: int | None = None  # bound of this host's clock, as of the last poll
        # Requests that were taken, records in them that were not, and requests that were told to come again.
        self.counts = {"accepted": 0, "rejected": 0, "refused": 0}
        self._said_s = -_SAY_EVERY_S
        self.signals: Mapping[str, Signal] = {
            signal.name: signal
            for signal in (
                Signal(
                    "traces",
                    traces.ExportTraceServiceRequest,
                    traces.ExportTraceServiceResponse,
                    spans.rows,
                    "rejected_spans",
                ),
                Signal(
                    "metrics",
                    metrics.ExportMetricsServiceRequest,
                    metrics.ExportMetricsServiceResponse,
                    MetricMapper(settings, self._labels, self._times, host).rows,
                    "rejected_data_points",
                ),
                Signal(
                    "logs",
                    logs.ExportLogsServiceRequest,
                    logs.ExportLogsServiceResponse,
                    LogMapper(settings, self._labels, self._times, host).rows,
                    "rejected_log_records",
                ),
            )
        }

    def export(self, signal: Signal, message: Message, size: int) -> Taken:
        """Map and queue a request whose encoded form has `size` bytes.

        Raises BusyError when there is no room, ValueError when a number does not fit.
        """
        return self._queue(lambda now: signal.rows(message, now, self.error_ns), size)

    def lines(self, body: bytes) -> Taken:
        """Map and queue JSON lines. Raises as `export`."""
        said = Said(self._host, attributes=self._settings.attributes)
        return self._queue(lambda now: event_rows(body, said, self._times, now), len(body))

    def answer(self, signal: Signal, taken: Taken) -> Message:
        """The response of an export that is durable: with `partial_success` where something was wrong."""
        response: Any = signal.response()
        if taken.message:
            setattr(response.partial_success, signal.rejected, taken.rejected)
            response.partial_success.error_message = taken.message
        return response

    def forget(self) -> None:
        """What was handed over may be lost: ship label sets again."""
        with self._lock:
            self._labels.forget()

    def _queue(self, rows_at: Callable[[int], Rows], size: int) -> Taken:
        self._budget.take(_DECODED * size)
        try:
            with self._lock:
                rows = rows_at(time.time_ns())
            columns = rows.columns()
        finally:
            self._budget.give(_DECODED * size)
        if rows.rejected:
            self.counts["rejected"] += rows.rejected
            self._say(rows)
        if not columns:
            return Taken(rows.rejected, rows.message, None)
        try:
            done = self._intake.offer(columns)
        except BusyError:
            self.counts["refused"] += 1
            self.forget()  # new label sets were among the refused rows
            raise
        self.counts["accepted"] += 1
        return Taken(rows.rejected, rows.message, done)

    def _say(self, rows: Rows) -> None:
        """Log what was rejected, now and then: many clients do not show what they are told."""
        now = time.monotonic()
        if now - self._said_s >= _SAY_EVERY_S:
            self._said_s = now
            log.warning("otlp records rejected", n=rows.rejected, why=rows.message)
