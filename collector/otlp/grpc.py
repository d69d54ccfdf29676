"""The gRPC door: the Export calls of OTLP/gRPC for traces, metrics and logs.

https://opentelemetry.io/docs/specs/otlp/#otlpgrpc: what may be sent again is UNAVAILABLE, or RESOURCE_EXHAUSTED with a
RetryInfo that says when; what may not is INVALID_ARGUMENT. A call is answered once it is durable, as over HTTP.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from collector.otlp.exports import Exports, Signal
from collector.otlp.intake import BusyError
from collector.otlp.settings import OtlpSettings

_SERVICES = {
    "traces": "opentelemetry.proto.collector.trace.v1.TraceService",
    "metrics": "opentelemetry.proto.collector.metrics.v1.MetricsService",
    "logs": "opentelemetry.proto.collector.logs.v1.LogsService",
}
_DETAILS = "grpc-status-details-bin"
_SPARE = 64  # calls that wait for one of the `concurrent`; beyond them gRPC itself refuses, without a RetryInfo


class GrpcServer:
    """Serves one address with a bounded pool of threads."""

    def __init__(self, settings: OtlpSettings, exports: Exports) -> None:
        self._settings = settings
        self._exports = exports
        self._pool = ThreadPoolExecutor(settings.concurrent, thread_name_prefix="otlp-grpc")
        self._server = grpc.server(
            self._pool,
            maximum_concurrent_rpcs=settings.concurrent + _SPARE,
            compression=None,
            options=[
                ("grpc.max_receive_message_length", settings.max_body_bytes),
                ("grpc.max_metadata_size", 16_384),
                ("grpc.max_connection_idle_ms", round(settings.idle_s * 1_000)),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
                ("grpc.max_concurrent_streams", settings.concurrent),
                ("grpc.so_reuseport", 0),
            ],
        )
        for name, service in _SERVICES.items():
            handler = grpc.unary_unary_rpc_method_handler(self._exporter(exports.signals[name]))
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": handler}),))

    def start(self) -> str:
        """Listen; returns where. Raises OSError."""
        host, _, _ = self._settings.grpc.rpartition(":")
        try:
            port = self._server.add_insecure_port(self._settings.grpc)
        except RuntimeError as error:
            raise OSError(f"{self._settings.grpc}: {error}") from error
        if not port:
            raise OSError(f"{self._settings.grpc} cannot be bound")
        self._server.start()
        return f"{host}:{port}"

    def close(self) -> None:
        """Refuse new calls and end the others."""
        self._server.stop(0.2).wait(2.0)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _exporter(self, signal: Signal) -> Callable[[bytes, Any], bytes]:
        def export(body: bytes, context: Any) -> bytes:
            # The bytes are decoded here and not by gRPC, whose answer to a wrong message does not say what was wrong.
            message: Message = signal.request()
            try:
                message.ParseFromString(body)
            except (DecodeError, RecursionError) as error:
                self._refuse(context, grpc.StatusCode.INVALID_ARGUMENT, f"not {message.DESCRIPTOR.name}: {error}")
            try:
                taken = self._exports.export(signal, message, len(body))
                if taken.done is not None:
                    taken.done.result(self._settings.answer_s)
            except BusyError as error:
                full = "memory_bytes" in str(error)
                code = grpc.StatusCode.RESOURCE_EXHAUSTED if full else grpc.StatusCode.UNAVAILABLE
                self._refuse(context, code, str(error), retry=True)
            except TimeoutError:
                late = "the spool did not confirm in time (answer_s); what was sent may be stored twice"
                self._refuse(context, grpc.StatusCode.UNAVAILABLE, late, retry=True)
            except ValueError as error:
                self._refuse(context, grpc.StatusCode.INVALID_ARGUMENT, f"a number does not fit: {error}")
            answer: bytes = self._exports.answer(signal, taken).SerializeToString()
            return answer

        return export

    def _refuse(self, context: Any, code: Any, reason: str, *, retry: bool = False) -> None:
        """End the call with a status; with `retry` it says when to come again. Raises always."""
        if retry:
            info = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=self._settings.retry_s))
            details = any_pb2.Any()
            details.Pack(info)
            status = status_pb2.Status(code=code.value[0], message=reason, details=[details])
            context.set_trailing_metadata(((_DETAILS, status.SerializeToString()),))
        context.abort(code, reason)
