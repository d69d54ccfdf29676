"""One POST to a place that was decided before: no redirects, bounded in time and in what is read of the answer."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from api.notify.address import Place

MAX_REPLY = 64 * 1024


class PostError(Exception):
    """The request did not get an answer, or one that says no. `status` is None without an answer."""

    def __init__(self, text: str, status: int | None = None) -> None:
        self.status = status
        super().__init__(text)

    @property
    def ours(self) -> bool:
        """Whether it is about what was sent, not about the receiver: others may go through."""
        return (
            self.status is not None and 400 <= self.status < 500 and self.status not in (401, 403, 404, 408, 425, 429)
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """What the receiver said: a status of 2xx, and the beginning of its body."""

    status: int
    body: bytes


def post(place: Place, body: bytes, headers: Mapping[str, str], timeout_s: float, *, method: str = "POST") -> Reply:
    """Send `body` and return the reply. Raises PostError for everything but 2xx within `timeout_s` all in all."""
    link = _Link(place, timeout_s)
    # Time limits of a socket are per call: a receiver that trickles would hold the sender for ever.
    watch = threading.Timer(timeout_s, link.cut)
    watch.daemon = True
    watch.start()
    try:
        link.request(
            method,
            place.path,
            body if method == "POST" else None,
            {"Host": place.authority, "Connection": "close", **headers},
        )
        answer = link.getresponse()
        text = answer.read(MAX_REPLY)
        if link.late:
            raise PostError(f"no answer within {timeout_s:g} s")
    except (OSError, http.client.HTTPException, ValueError) as error:
        if link.late or isinstance(error, TimeoutError):
            raise PostError(f"no answer within {timeout_s:g} s") from None
        raise PostError(f"{type(error).__name__}: {error}"[:300]) from None
    finally:
        watch.cancel()
        link.close()
    if not 200 <= answer.status < 300:
        said = text[:200].decode("utf-8", "replace")
        raise PostError(f"status {answer.status}: {said!r}", answer.status)
    return Reply(answer.status, text)


class _Link(http.client.HTTPConnection):
    """A connection to the address that was checked, whatever the name means by now."""

    def __init__(self, place: Place, timeout_s: float) -> None:
        super().__init__(place.host, place.port, timeout=timeout_s)
        self._place, self._limit_s = place, timeout_s
        self._context = ssl.create_default_context() if place.tls else None
        self._open: socket.socket | None = None
        self.late = False

    def connect(self) -> None:
        plain = socket.create_connection((self._place.address, self._place.port), self._limit_s)
        self._open = self.sock = plain
        if self._context is not None:
            # The handshake comes after the assignment, so that `cut` ends it too.
            made = self._context.wrap_socket(plain, server_hostname=self._place.host, do_handshake_on_connect=False)
            self._open = self.sock = made
            made.do_handshake()

    def cut(self) -> None:
        """End it from another thread."""
        self.late = True
        if self._open is not None:
            try:
                socket.socket.shutdown(self._open, socket.SHUT_RDWR)
            except OSError:
                return  # it has ended by itself
