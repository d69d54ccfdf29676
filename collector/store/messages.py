"""What travels over the store process's socket: one request, one reply, each a small header and a raw body.

    header length u32 | body length u64 | header (msgpack) | body

The body of an insert is its Native block, the body of a query's reply an Arrow stream, that of a select's reply in the
format that was asked for.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

SOCKET = "store.sock"
MAX_HEADER = 4 << 20
MAX_BODY = 1 << 30

_LENGTHS = struct.Struct("<IQ")

Op = Literal["hello", "insert", "query", "select", "execute", "settle", "health", "release"]


class QueryLimits(msgspec.Struct, frozen=True):
    """`collector.store.Limits` on the wire."""

    seconds: float | None = None
    memory_bytes: int | None = None
    result_rows: int | None = None
    rows_to_read: int | None = None
    result_bytes: int | None = None


class Request(msgspec.Struct, frozen=True, omit_defaults=True):
    """One request: which fields matter depends on `op`."""

    op: Op
    sql: str = ""
    params: dict[str, str] = {}
    limits: QueryLimits = QueryLimits()
    table: str = ""
    columns: tuple[str, ...] = ()
    token: str = ""
    form: str = ""


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer: `error` is empty when it went well; `unknown` when the effect of a write cannot be said."""

    error: str = ""
    code: int = 0
    name: str = ""
    retryable: bool = False
    unknown: bool = False
    info: dict[str, Any] = {}


class ClosedError(ConnectionError):
    """The other side has closed the connection."""


def send(sock: socket.socket, header: Request | Reply, body: Sequence[bytes | memoryview] = ()) -> None:
    """Send one message. Raises OSError when the connection is gone."""
    head = msgspec.msgpack.encode(header)
    size = sum(len(part) for part in body)
    sock.sendall(_LENGTHS.pack(len(head), size) + head)
    for part in body:
        sock.sendall(part)


def receive_lengths(sock: socket.socket) -> tuple[int, int]:
    """The lengths of the next message's header and body. Raises ClosedError, or ValueError when they are absurd."""
    raw = bytearray(_LENGTHS.size)
    receive_into(sock, memoryview(raw))
    header, body = _LENGTHS.unpack(raw)
    if header > MAX_HEADER or body > MAX_BODY:
        raise ValueError(f"a message of {header} + {body} bytes is over the limit of {MAX_HEADER} + {MAX_BODY}")
    return header, body


def receive_bytes(sock: socket.socket, size: int) -> bytearray:
    """Exactly `size` bytes."""
    raw = bytearray(size)
    receive_into(sock, memoryview(raw))
    return raw


def receive_into(sock: socket.socket, view: memoryview) -> None:
    """Fill `view`. Raises ClosedError when the other side closes first."""
    done = 0
    while done < len(view):
        got = sock.recv_into(view[done:])
        if not got:
            raise ClosedError("the connection was closed")
        done += got


def dial(data: Path, timeout: float) -> socket.socket:
    """A connection to DATA's store process.

    Socket addresses hold 107 bytes, paths may be longer: the directory is reached through its descriptor.
    Raises OSError when no process listens.
    """
    folder = os.open(data, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.settimeout(timeout)
        sock.connect(f"/proc/self/fd/{folder}/{SOCKET}")
    except BaseException:
        sock.close()
        raise
    finally:
        os.close(folder)
    return sock
