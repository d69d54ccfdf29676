"""A small HTTP/1.1 server with a deadline on everything: h11 for the protocol, asyncio for the sockets.

Bounded: connections, requests at once, bytes and seconds of headers, bytes and seconds of the body. The rest of the
agent is unaffected by a client that is slow, large or wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import h11
import structlog

from collector.otlp.intake import Budget, BusyError
from collector.otlp.settings import OtlpSettings, address

_MAX_HEADERS = 16_384
_READ = 65_536
log = structlog.get_logger("agent")


@dataclass(frozen=True, slots=True)
class Request:
    """A whole request; header names are lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What to send back."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: dict[str, str] = field(default_factory=dict)


class RefusedError(Exception):
    """The request cannot be taken: HTTP status, and in one sentence why."""

    def __init__(self, status: int, reason: str, retry_s: int | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.retry_s = retry_s


Handler = Callable[[Request], Awaitable[Answer]]
Refusal = Callable[[RefusedError, dict[str, str]], Answer]


class HttpServer:
    """Serves one address. `handle` answers requests, `refuse` words what the server itself refuses."""

    def __init__(self, settings: OtlpSettings, budget: Budget, handle: Handler, refuse: Refusal) -> None:
        self._settings = settings
        self._budget = budget
        self._handle = handle
        self._refuse = refuse
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._active = 0

    async def start(self) -> tuple[str, int]:
        """Listen; returns where. Raises OSError."""
        host, port = address(self._settings.http, "http")
        self._server = await asyncio.start_server(self._connection, host, port, limit=_READ, backlog=128)
        name: tuple[str, int] = self._server.sockets[0].getsockname()[:2]
        return name

    async def close(self) -> None:
        """Stop listening, and end every connection."""
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            return
        self._connections.add(task)
        try:
            made: socket.socket | None = writer.get_extra_info("socket")
            if made is not None:
                with contextlib.suppress(OSError):
                    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if len(self._connections) > self._settings.connections:
                refused = RefusedError(503, "too many connections (connections)", self._settings.retry_s)
                await self._send(h11.Connection(h11.SERVER), writer, self._refuse(refused, {}), close=True)
                return
            await self._talk(reader, writer)
        except (OSError, TimeoutError, h11.ProtocolError, asyncio.IncompleteReadError):
            pass  # the client went away or speaks something else
        except asyncio.CancelledError:
            pass  # the server closes
        except Exception:
            log.exception("otlp connection failed")
        finally:
            self._connections.discard(task)
            with contextlib.suppress(OSError, TimeoutError, asyncio.CancelledError):
                writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request after another, until an end says so."""
        idle = self._settings.header_s  # a new connection has to say something soon
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEADERS)
        while True:
            try:
                head = await self._head(connection, reader, idle)
            except h11.RemoteProtocolError as error:
                refused = RefusedError(error.error_status_hint, f"not HTTP/1.1 as it should be: {error}")
                await self._send(connection, writer, self._refuse(refused, {}), close=True)
                return
            if head is None:
                return
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
            close = False
            held = 0
            try:
                self._active += 1
                held = self._room_for(headers)
                async with asyncio.timeout(self._settings.body_s):
                    body = await self._body(connection, reader, writer)
                target = head.target.decode("latin-1")
                answer = await self._handle(Request(head.method.decode("latin-1"), target, headers, body))
            except RefusedError as error:
                answer = self._refuse(error, headers)
            except TimeoutError:
                answer = self._refuse(RefusedError(408, "the body did not arrive in time (body_s)"), headers)
            except h11.RemoteProtocolError as error:
                answer = self._refuse(RefusedError(400, f"the body is not HTTP/1.1 as it should be: {error}"), headers)
            finally:
                self._active -= 1
                self._budget.give(held)
            close = connection.their_state is not h11.DONE
            await self._send(connection, writer, answer, close=close)
            if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                return
            connection.start_next_cycle()
            idle = self._settings.idle_s

    async def _head(self, connection: h11.Connection, reader: asyncio.StreamReader, idle: float) -> h11.Request | None:
        """The next request's head; None when the client has gone or says nothing for `idle` seconds.

        Once a first byte is there, `header_s` is left for the rest.
        """
        deadline = asyncio.get_running_loop().time() + idle
        started = False
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                return event
            if event is not h11.NEED_DATA:
                return None
            if not started and connection.trailing_data[0]:
                started = True
                deadline = min(deadline, asyncio.get_running_loop().time() + self._settings.header_s)
            try:
                async with asyncio.timeout_at(deadline):
                    data = await reader.read(_READ)
            except TimeoutError:
                return None
            if not data:
                return None
            connection.receive_data(data)

    def _room_for(self, headers: dict[str, str]) -> int:
        """Hold the memory that the body may need, as read, decompressed and decoded; returns how much."""
        if self._active > self._settings.concurrent:
            raise RefusedError(429, "too many requests at once (concurrent)", self._settings.retry_s)
        said = headers.get("content-length", "")
        most = self._settings.max_body_bytes
        if said.isdigit() and int(said) > most:
            raise RefusedError(413, f"the body has {said} bytes, at most {most} are taken (max_body_bytes)")
        packed = int(said) if said.isdigit() else most
        size = packed + (most if "content-encoding" in headers else 0) + 4_096
        try:
            self._budget.take(size)
        except BusyError as error:
            raise RefusedError(429, str(error), self._settings.retry_s) from None
        return size

    async def _body(
        self, connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes:
        if connection.they_are_waiting_for_100_continue:
            go = connection.send(h11.InformationalResponse(status_code=100, headers=[]))
            writer.write(go or b"")
        parts = bytearray()
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Data):
                parts += event.data
                if len(parts) > self._settings.max_body_bytes:
                    most = self._settings.max_body_bytes
                    raise RefusedError(413, f"the body has more than {most} bytes (max_body_bytes)")
            elif isinstance(event, h11.EndOfMessage):
                return bytes(parts)
            elif event is h11.NEED_DATA:
                data = await reader.read(_READ)
                connection.receive_data(data)
                if not data and connection.their_state is not h11.DONE:
                    connection.next_event()  # raises: the body is cut short
                    raise RefusedError(400, "the body is cut short")
            else:
                raise RefusedError(400, "the body is cut short")

    async def _send(
        self, connection: h11.Connection, writer: asyncio.StreamWriter, answer: Answer, *, close: bool
    ) -> None:
        headers = [
            ("Content-Type", answer.content_type),
            ("Content-Length", str(len(answer.body))),
            *answer.headers.items(),
        ]
        if close:
            headers.append(("Connection", "close"))
        parts = [
            connection.send(h11.Response(status_code=answer.status, headers=headers)),
            connection.send(h11.Data(data=answer.body)),
            connection.send(h11.EndOfMessage()),
        ]
        writer.write(b"".join(part for part in parts if part))
        async with asyncio.timeout(self._settings.body_s):
            await writer.drain()
