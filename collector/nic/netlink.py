"""Netlink dumps without a library: one request, its answers as (type, body), attributes as (type, value).

A dump costs microseconds here and half a millisecond through an asyncio-based library, which matters at one sample a
second or faster. Needs no privilege. Everything that is read is checked by length arithmetic.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

ROUTE, SOCK_DIAG = 0, 4
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_REQUEST, _DUMP = 0x1, 0x300
_ERROR, _DONE = 2, 3
_BUFFER = 1 << 18
_MOST = 1 << 16  # answers to one dump


class NetlinkError(OSError):
    """The kernel refused a request or lost answers; `errno` is its number."""


class Netlink:
    """One netlink socket. Not thread-safe."""

    def __init__(self, family: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        try:
            self._socket.bind((0, 0))
            self._socket.settimeout(1.0)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        except OSError:
            self._socket.close()
            raise
        self._sequence = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def dump(self, kind: int, body: bytes) -> list[tuple[int, memoryview]]:
        """All answers to one dump request. Raises NetlinkError."""
        self._sequence += 1
        header = _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | _DUMP, self._sequence, 0)
        self._socket.send(header + body)
        answers: list[tuple[int, memoryview]] = []
        while True:
            data = memoryview(self._socket.recv(_BUFFER))
            for sequence, got, part in messages(data):
                if sequence != self._sequence:
                    continue  # of an earlier dump that was given up
                if got == _DONE:
                    return answers
                if got == _ERROR:
                    number = -struct.unpack_from("=i", part)[0] if len(part) >= 4 else 0
                    raise NetlinkError(number, os.strerror(number))
                answers.append((got, part))
            if len(answers) > _MOST:
                raise NetlinkError(7, f"more than {_MOST} answers to one dump")


def messages(data: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """The (sequence, type, body) of each message of one datagram. A lying length ends it."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _, sequence, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size or at + length > len(data):
            return
        yield sequence, kind, data[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def attributes(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The (type, value) of each attribute; flags of the type are removed. A lying length ends it."""
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4 or at + length > len(data):
            return
        yield kind & 0x3FFF, data[at + 4 : at + length]
        at += (length + 3) & ~3
