"""What one request may cost, enforced before the application sees it: an ASGI middleware and two counters.

Refusals come before bytes are read wherever a header tells enough: too many headers, a body longer than its route
takes, an address over its rate. What no header tells (a chunked body, a slow sender, a slow reader) is cut while it
happens.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from limits import parse as parse_rate
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import ProblemError
from api.server_settings import ServerSettings

INGEST = "/v1/ingest"
_UNMETERED = ("/healthz", "/readyz")
_UNTIMED = ("/v1/stream",)


class Rates:
    """Sliding-window rates per client; in memory, so a restart forgives."""

    def __init__(self, settings: ServerSettings) -> None:
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._rates = {
            "query": parse_rate(settings.query_rate),
            "ingest": parse_rate(settings.ingest_rate),
            "refused": parse_rate(settings.refused_rate),
        }

    def hit(self, lane: str, client: str) -> float | None:
        """Count one request; None when it may go on, else the seconds until it may come again."""
        rate = self._rates[lane]
        if self._limiter.hit(rate, lane, client):
            return None
        return max(1.0, self._limiter.get_window_stats(rate, lane, client).reset_time - time.time())

    def spent(self, lane: str, client: str) -> bool:
        """Whether nothing is left, without counting."""
        return not self._limiter.test(self._rates[lane], lane, client)


class QuerySlots:
    """How many queries run at once, for all and for one client; a few may wait a moment."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._free = asyncio.Semaphore(settings.queries_at_once)
        self._of_client: Counter[str] = Counter()
        self.waiting = 0
        self.running = 0

    @asynccontextmanager
    async def take(self, client: str) -> AsyncIterator[None]:
        """Hold a slot. Raises a 429 problem when the client holds its share, or too many wait, or waiting took 5 s."""
        if self._of_client[client] >= self._settings.queries_per_client:
            raise ProblemError(
                429,
                "too-many-queries",
                f"{self._settings.queries_per_client} queries of this client run already; wait for one to end",
                retry_after=1,
            )
        if self._free.locked() and self.waiting >= self._settings.queries_waiting:
            raise ProblemError(429, "too-many-queries", "the server is busy with queries; try again", retry_after=1)
        self._of_client[client] += 1
        self.waiting += 1
        try:
            try:
                await asyncio.wait_for(self._free.acquire(), 5)
            except TimeoutError:
                raise ProblemError(429, "too-many-queries", "no query ended in time", retry_after=2) from None
            finally:
                self.waiting -= 1
            self.running += 1
            try:
                yield
            finally:
                self.running -= 1
                self._free.release()
        finally:
            self._of_client[client] -= 1
            if not self._of_client[client]:
                del self._of_client[client]


class ReaderTooSlowError(Exception):
    """The client did not take the answer in time; the connection is cut."""


class LimitsMiddleware:
    """Sizes, deadlines and the per-address rate."""

    def __init__(self, app: ASGIApp, settings: ServerSettings, rates: Rates) -> None:
        self._app = app
        self._settings = settings
        self._rates = rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application within the limits, or answer with a problem."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        guard = _Exchange(scope, receive, send, self._settings)
        try:
            self._check(scope, guard)
            await self._app(scope, guard.receive, guard.send)
        except ProblemError as problem:
            if guard.started:
                raise
            await problem.response()(scope, guard.receive, guard.send)

    def _check(self, scope: Scope, guard: _Exchange) -> None:
        settings, headers = self._settings, Headers(scope=scope)
        size = sum(len(name) + len(value) + 4 for name, value in scope["headers"])
        if len(scope["headers"]) > settings.max_headers or size > settings.max_header_bytes:
            raise ProblemError(
                431,
                "headers-too-large",
                f"{len(scope['headers'])} headers of {size} bytes; at most {settings.max_headers} "
                f"and {settings.max_header_bytes} bytes are taken",
                headers=_CLOSE,
            )
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > settings.max_target_bytes:
            raise ProblemError(
                414, "target-too-long", f"the path and query take at most {settings.max_target_bytes} bytes"
            )
        encoding = headers.get("content-encoding", "identity")
        if encoding != "identity":
            raise ProblemError(
                415,
                "encoding-not-taken",
                f"Content-Encoding {encoding[:40]!r} is not taken; frames are compressed inside, send the rest plain",
                headers=_CLOSE,
            )
        length = headers.get("content-length")
        if length is not None and (not length.isdigit() or int(length) > guard.max_body):
            raise guard.too_large()
        path = scope["path"]
        if path in _UNMETERED:
            return
        client = scope["client"][0] if scope.get("client") else "unix"
        wait = self._rates.hit("ingest" if path.startswith(INGEST) else "query", client)
        if wait is not None:
            raise ProblemError(
                429, "too-many-requests", "this address is over its rate", retry_after=wait, headers=_CLOSE
            )


# After a refusal that leaves a body unread the connection cannot be used again.
_CLOSE = {"Connection": "close"}
_PIECE = 128 << 10


class _Exchange:
    """One request's body and answer, counted and timed."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, settings: ServerSettings) -> None:
        self._receive, self._send, self._settings = receive, send, settings
        self.max_body = settings.max_ingest_bytes if scope["path"] == INGEST else settings.max_body_bytes
        self._timed = scope["path"] not in _UNTIMED
        self._read = 0
        self._body_ends = 0.0
        self._answer_ends = 0.0
        self._body_done = False
        self.started = False

    def too_large(self) -> ProblemError:
        return ProblemError(
            413, "body-too-large", f"this route takes at most {self.max_body} bytes; send less", headers=_CLOSE
        )

    async def receive(self) -> Message:
        if self._body_done:
            return await self._receive()  # waits for the client to leave
        now = time.monotonic()
        self._body_ends = self._body_ends or now + self._settings.body_seconds
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, self._body_ends - now))
        except TimeoutError:
            raise ProblemError(
                408,
                "body-too-slow",
                f"the body did not arrive within {self._settings.body_seconds:g} s",
                headers=_CLOSE,
            ) from None
        self._read += len(message.get("body", b""))
        self._body_done = message["type"] != "http.request" or not message.get("more_body", False)
        if self._read > self.max_body:
            raise self.too_large()
        return message

    async def send(self, message: Message) -> None:
        self.started = True
        body = message.get("body", b"")
        # A body handed over whole would wait for a reader out of our sight: in pieces, each piece has the deadline.
        while message["type"] == "http.response.body" and len(body) > _PIECE:
            await self._pass({"type": message["type"], "body": bytes(body[:_PIECE]), "more_body": True})
            body = memoryview(body)[_PIECE:]
            message = {**message, "body": body}
        if isinstance(body, memoryview):
            message = {**message, "body": bytes(body)}
        await self._pass(message)

    async def _pass(self, message: Message) -> None:
        now = time.monotonic()
        self._answer_ends = self._answer_ends or now + self._settings.response_seconds
        wait = self._settings.write_seconds
        if self._timed:
            wait = min(wait, max(0.0, self._answer_ends - now))
        try:
            await asyncio.wait_for(self._send(message), wait)
        except TimeoutError:
            raise ReaderTooSlowError(f"the client took nothing for {wait:.1f} s") from None
