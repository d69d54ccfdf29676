"""The collector `otlp`: what OpenTelemetry SDKs and JSON lines say, acknowledged once it is durable in the spool.

A request is mapped in a thread of the door, queued, appended to the spool by the agent's next poll, and answered when
the spool's group commit has reached it: what a client was told is accepted survives a kill of the agent. It measures
between the two times that a span states; the clocks are the programs' own.

Cost: about 20 us of one core per span (docs/otlp.md), and the sockets.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from collector.clock import ClockReading
from collector.otlp.settings import OtlpSettings
from collector.sources import Availability, Poll

_NEEDS = "collector otlp: needs the extra `otlp` ({}); install it with: pip install 'tailsight[otlp]'"
_BUSY_S, _IDLE_S = 0.01, 0.1
_ROWS = 200_000
_POSITION = "exports"
_DECODERS = 2


class OtlpSource:
    """Serves the doors and hands what they take to the agent.

    `when_full` is what its spool does: a full one takes nothing, so that clients are told to wait, never acknowledged
    and then dropped.
    """

    name = "otlp"
    when_full = "block"

    def __init__(self, host: str, settings: OtlpSettings | None = None) -> None:
        self.period_s = _IDLE_S
        self._host = host
        self._settings = settings or OtlpSettings()
        self._receiver: _Receiver | None = None
        self.addresses: dict[str, str] = {}

    def start(self, positions: Mapping[str, int]) -> Availability:
        """Listen. Unavailable without the extra's packages, or when an address is taken; both say so."""
        try:
            self._receiver = _Receiver(self._host, self._settings)
        except ImportError as error:
            return Availability("unavailable", _NEEDS.format(error))
        try:
            self.addresses = self._receiver.open(positions.get(_POSITION, 0))
        except OSError as error:
            self._receiver.close("the agent cannot listen")
            self._receiver = None
            where = " and ".join(filter(None, (self._settings.http, self._settings.grpc)))
            reason = f"cannot listen on {where}: {error.strerror or error}"
            reason += "; set [agent.otlp] http and grpc to free addresses"
            return Availability("unavailable", reason)
        return Availability("running")

    def poll(self, clock: ClockReading) -> Poll:
        """What the doors have taken since the last poll."""
        if self._receiver is None:
            return Poll()
        self._receiver.exports.error_ns = clock.error_ns
        columns, ticket = self._receiver.intake.take(_ROWS)
        self.period_s = _IDLE_S if self._receiver.intake.idle else _BUSY_S
        return Poll(columns, positions={_POSITION: ticket}) if columns else Poll()

    def figures(self) -> dict[str, int]:
        """Requests accepted and refused, and records rejected, since the start."""
        return {} if self._receiver is None else dict(self._receiver.exports.counts)

    def durable(self, positions: Mapping[str, int]) -> None:
        """Answer the clients whose exports are safe."""
        if self._receiver is not None:
            self._receiver.intake.durable(positions.get(_POSITION, 0))

    def close(self) -> None:
        """Refuse what waits, and stop listening."""
        if self._receiver is not None:
            self._receiver.close("the agent stops")
            self._receiver = None


class _Receiver:
    """The doors and their threads. Imports the extra's packages: raises ImportError without them."""

    def __init__(self, host: str, settings: OtlpSettings) -> None:
        from collector.otlp.doors import HttpDoor, refusal
        from collector.otlp.exports import Exports
        from collector.otlp.http import HttpServer
        from collector.otlp.intake import Budget, Intake

        budget = Budget(settings.memory_bytes)
        self._settings = settings
        self.intake = Intake(budget)
        self.exports = Exports(settings, self.intake, budget, host)
        self._pool = ThreadPoolExecutor(_DECODERS, thread_name_prefix="otlp-decode")
        door = HttpDoor(settings, self.exports, self._pool)
        self._http = HttpServer(settings, budget, door.handle, refusal)
        self._grpc: Any = None
        if settings.grpc:
            from collector.otlp.grpc import GrpcServer

            self._grpc = GrpcServer(settings, self.exports)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="otlp-http", daemon=True)

    def open(self, ticket: int) -> dict[str, str]:
        """Start all doors; returns where they listen. Raises OSError."""
        self._thread.start()
        addresses = {}
        if self._settings.http:
            host, port = asyncio.run_coroutine_threadsafe(self._http.start(), self._loop).result(10)
            addresses["http"] = f"{host}:{port}"
        if self._grpc is not None:
            addresses["grpc"] = self._grpc.start()
        self.intake.open(ticket)
        return addresses

    def close(self, reason: str) -> None:
        """Refuse what waits, end the connections and the threads."""
        self.intake.close(reason)
        self.exports.forget()
        if self._grpc is not None:
            self._grpc.close()
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
        self._loop.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _stop(self) -> None:
        await asyncio.sleep(0.05)  # let the refusals go out
        await self._http.close()
