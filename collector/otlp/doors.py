"""The HTTP door: OTLP/HTTP on /v1/traces, /v1/metrics and /v1/logs, JSON lines on /v1/events.

https://opentelemetry.io/docs/specs/otlp/#otlphttp: 200 with the response in the request's content type, 429 and 503
with Retry-After for what may be sent again, 400 and the like for what may not, errors as google.rpc.Status.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import msgspec

from collector.otlp.decode import JSON, PROTOBUF, decompress, encoded, message_of, status
from collector.otlp.exports import Exports, Signal, Taken
from collector.otlp.http import Answer, RefusedError, Request
from collector.otlp.intake import BusyError
from collector.otlp.settings import OtlpSettings

LINES = ("application/x-ndjson", "application/jsonl", "application/json-lines")


class HttpDoor:
    """Answers requests of `HttpServer`. Decoding runs in `pool`, so that it does not hold up the sockets."""

    def __init__(self, settings: OtlpSettings, exports: Exports, pool: ThreadPoolExecutor) -> None:
        self._settings = settings
        self._exports = exports
        self._pool = pool

    async def handle(self, request: Request) -> Answer:
        """The answer to a whole request; only what is durable is answered with 200. Raises RefusedError."""
        name = request.target.partition("?")[0].removeprefix("/v1/")
        signal = self._exports.signals.get(name)
        if not request.target.startswith("/v1/") or (signal is None and name != "events"):
            raise RefusedError(404, f"there is no {request.target[:80]!r}; there are /v1/traces, /v1/metrics, "
                               "/v1/logs and /v1/events")  # fmt: skip
        if request.method != "POST":
            raise RefusedError(405, "only POST is taken here")
        media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        limit = self._settings.max_body_bytes

        def take() -> Taken:
            body = decompress(request.body, request.headers.get("content-encoding", ""), limit)
            if signal is None:
                if media not in LINES:
                    raise RefusedError(415, f"content type {media[:80]!r} is not taken; use {LINES[0]}")
                return self._exports.lines(body)
            return self._exports.export(signal, message_of(body, media, signal.request), len(body))

        taken = await self._kept(take)
        if signal is None:
            return _lines_answer(taken)
        return self._export_answer(signal, taken, media)

    async def _kept(self, take: Callable[[], Taken]) -> Taken:
        """Take an export and wait until it is durable."""
        try:
            taken = await asyncio.get_running_loop().run_in_executor(self._pool, take)
            if taken.done is not None:
                await _durable(taken.done, self._settings.answer_s)
        except BusyError as error:
            full = "memory_bytes" in str(error)
            raise RefusedError(429 if full else 503, str(error), self._settings.retry_s) from None
        except ValueError as error:
            raise RefusedError(400, f"a number does not fit: {error}") from None
        return taken

    def _export_answer(self, signal: Signal, taken: Taken, media: str) -> Answer:
        body, content_type = encoded(self._exports.answer(signal, taken), media)
        return Answer(200, body, content_type)


async def _durable(future: Future[None], seconds: float) -> None:
    """Wait until an export is durable. Raises BusyError when it is refused, or is not within `seconds`."""
    done = asyncio.wrap_future(future)
    done.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    finished, _ = await asyncio.wait({done}, timeout=seconds)
    if not finished:
        raise BusyError("the spool did not confirm in time (answer_s); what was sent may be stored twice")
    done.result()


def refusal(error: RefusedError, headers: dict[str, str]) -> Answer:
    """A refusal as OTLP/HTTP words it."""
    media = headers.get("content-type", "").partition(";")[0].strip().lower()
    body, content_type = status(error.status, error.reason, PROTOBUF if media == PROTOBUF else JSON)
    more = {} if error.retry_s is None else {"Retry-After": str(error.retry_s)}
    return Answer(error.status, body, content_type, more)


def _lines_answer(taken: Taken) -> Answer:
    body = {"rejected": taken.rejected, "message": taken.message}
    # Nothing of it was good: that is the sender's mistake, and a 200 would hide it.
    return Answer(400 if taken.done is None and taken.rejected else 200, msgspec.json.encode(body), JSON)
