"""The way to the server: one HTTP connection, and answers with three values.

A request ends **stored** (the server has it durably), **refused** (for good: the same bytes will never be taken) or
**unknown** (anything else: a timeout, a reset, an overload). Unknown is never taken for failed: the bytes may be in.
"""

from __future__ import annotations

import socket
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec

from collector.agent.settings import AgentSettings
from collector.settings import ConfigError

_PERMANENT = frozenset({400, 413, 415, 422})
# The request was not judged: the token, the address or the server's version is wrong, and somebody will mend it.
_MISCONFIGURED = frozenset({401, 403, 404, 405})
_BUSY = frozenset({429, 503})
_CHUNK = 64 << 10
_MAX_ANSWER = 64 << 10


class Outcome(Enum):
    """What is known of a request after it ended."""

    STORED = "stored"
    REFUSED = "refused"
    BUSY = "busy"  # not now, says the server: the next request would fare no better
    FAILED = "failed"  # this request failed on the server; another one may succeed
    UNREACHABLE = "unreachable"  # no answer at all, or one about the agent and not about the batch
    STRANGE = "strange"  # an answer nobody planned for


@dataclass(frozen=True, slots=True)
class Answer:
    """An outcome, the HTTP status (0: none), what the server said, and how long it asked to be left alone."""

    outcome: Outcome
    status: int = 0
    detail: str = ""
    retry_after_s: float | None = None
    body: bytes = b""


class TokenBucket:
    """At most `rate` bytes a second over any time longer than one chunk. A rate of 0 never waits."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._free_at = 0.0

    def wait(self, size: int) -> None:
        """Wait until `size` more bytes may go."""
        if not self._rate:
            return
        now = time.monotonic()
        self._free_at = max(self._free_at, now) + size / self._rate
        time.sleep(max(0.0, self._free_at - now))


class Uplink:
    """One keep-alive connection to the server. Not thread-safe: each thread has its own.

    Raises ConfigError for a token file that others can read.
    """

    def __init__(self, settings: AgentSettings, timeout_s: float | None = None) -> None:
        self._timeout_s = timeout_s or settings.request_timeout_s
        self._bucket = TokenBucket(settings.rate_bytes_s)
        self._token_file = Path(settings.token_file) if settings.token_file else None
        self._headers()  # refuse a bad token file at start, not at the first batch
        unix = settings.server.removeprefix("unix:") if settings.server.startswith("unix:") else None
        # The certificates of the world take 5 MB and 20 ms to load: only where there is TLS to check.
        tls = settings.server.startswith("https:")
        self._client = httpx.Client(
            base_url="http://agent.local" if unix else settings.server,
            verify=tls,
            transport=httpx.HTTPTransport(
                verify=tls,
                uds=unix,
                local_address=settings.source_address or None,
                socket_options=None if unix else _socket_options(settings),
                limits=httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=60.0),
            ),
            timeout=httpx.Timeout(self._timeout_s, connect=min(5.0, self._timeout_s)),
            trust_env=False,  # a proxy variable must not send timestamps elsewhere
        )

    def post(self, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        """Send a body and say what is known of it. Never raises for what the network or the server does."""
        head = {**self._headers(), **headers, "Content-Length": str(len(body))}
        deadline = time.monotonic() + self._timeout_s + (len(body) / self._bucket._rate if self._bucket._rate else 0)
        try:
            with self._client.stream("POST", path, content=self._paced(body), headers=head) as response:
                answer = bytearray()
                for part in response.iter_raw(_CHUNK):
                    answer += part
                    if len(answer) > _MAX_ANSWER or time.monotonic() > deadline:
                        return Answer(Outcome.UNREACHABLE, response.status_code, "the answer is too long or too slow")
                return _judge(response.status_code, response.headers.get("retry-after"), bytes(answer))
        except (httpx.HTTPError, OSError, ValueError) as error:
            # A server that refuses early closes the door before the body is through; without its answer it is unknown.
            return Answer(Outcome.UNREACHABLE, 0, f"{type(error).__name__}: {error}")

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _paced(self, body: bytes) -> Iterator[bytes]:
        for start in range(0, len(body), _CHUNK):
            chunk = body[start : start + _CHUNK]
            self._bucket.wait(len(chunk))
            yield chunk

    def _headers(self) -> dict[str, str]:
        if self._token_file is None:
            return {}
        try:
            mode = self._token_file.stat().st_mode
            if mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise ConfigError("agent.token_file", f"{self._token_file} can be read by others; chmod 600 it")
            return {"Authorization": f"Bearer {self._token_file.read_text('ascii').strip()}"}
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError("agent.token_file", f"{self._token_file} cannot be read: {error}") from error


def _judge(status: int, retry_after: str | None, body: bytes) -> Answer:
    detail = body[:300].decode("utf-8", "replace")
    wait = _seconds(retry_after)
    if 200 <= status < 300:
        return Answer(Outcome.STORED, status, detail, body=body)
    if status in _PERMANENT:
        return Answer(Outcome.REFUSED, status, f"{status} {detail}")
    if status in _BUSY:
        return Answer(Outcome.BUSY, status, f"{status} {detail}", wait)
    if status in _MISCONFIGURED:
        return Answer(Outcome.UNREACHABLE, status, f"{status} {detail}; check server and token_file in [agent]", wait)
    if status >= 500 or status in (408, 425):
        return Answer(Outcome.FAILED, status, f"{status} {detail}", wait)
    return Answer(Outcome.STRANGE, status, f"{status} {detail}", wait)


def _seconds(retry_after: str | None) -> float | None:
    try:
        return min(max(float(retry_after or ""), 0.0), 300.0)
    except ValueError:
        return None


def _socket_options(settings: AgentSettings) -> list[Any]:
    options: list[Any] = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
    if settings.source_interface:
        options.append((socket.SOL_SOCKET, socket.SO_BINDTODEVICE, settings.source_interface.encode() + b"\0"))
    if settings.dscp:
        six = ":" in (urlsplit(settings.server).hostname or "")
        level, option = (socket.IPPROTO_IPV6, socket.IPV6_TCLASS) if six else (socket.IPPROTO_IP, socket.IP_TOS)
        options.append((level, option, settings.dscp << 2))
    return options


class StoredAnswer(msgspec.Struct):
    """The body of a 200 to a batch."""

    batch: str
    status: str
    events: int


def stored_answer(answer: Answer) -> StoredAnswer | None:
    """The body of a stored answer, or None when it is not the server's."""
    try:
        return msgspec.json.decode(answer.body, type=StoredAnswer)
    except (msgspec.DecodeError, ValueError):
        return None
