"""The client of the store process.

`open_embedded(data)` connects to the process that holds DATA, or starts one and owns it: it ends when its owner and
its last client have gone, however they went.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from collector.store import Limits, OutcomeUnknownError, StoreError, StoreHealth
from collector.store.messages import QueryLimits, Reply, Request, dial, receive_bytes, receive_lengths, send
from collector.store.native import Block, Buffer, encode
from collector.store.params import texts
from collector.store.starting import CONNECT_S, Child, start

if TYPE_CHECKING:
    import polars as pl

REPLY_S = 30.0  # beyond a query's own limit
WRITE_S = 600.0


class EmbeddedStore:
    """`Store` over a store process's socket. Thread-safe: each call has a connection of its own from a pool."""

    def __init__(self, data: Path, revive: Callable[[], Child | None] | None = None) -> None:
        self._data = data
        self._revive = revive
        self._child: Child | None = None
        self._idle: list[socket.socket] = []
        self._lock = threading.Lock()
        self._closed = False
        # Held open for our lifetime, so that the process can see that it still has a client.
        self._idle.append(dial(data, CONNECT_S))

    def own(self, child: Child) -> None:
        """Take over the process that was started for this store."""
        self._child = child

    def insert(self, table: str, block: Block, *, token: str) -> None:
        """See `Store.insert`. The block is one part: atomic when it lies in one partition."""
        body = encode(block)
        if not block.rows:
            return
        request = Request("insert", table=table, columns=tuple(c.name for c in block.columns), token=token)
        self._call(request, body, seconds=WRITE_S, writing=True)

    def query(self, sql: str, params: Mapping[str, Any] | None = None, *, limits: Limits | None = None) -> pl.DataFrame:
        """See `Store.query`. Enums arrive as their numbers, UUIDs as 16 bytes, DateTime as seconds (UInt32)."""
        import polars as pl
        import pyarrow as pa

        limit = limits or Limits()
        wire = QueryLimits(limit.seconds, limit.memory_bytes, limit.result_rows, limit.rows_to_read)
        seconds = WRITE_S if limit.seconds is None else limit.seconds + REPLY_S
        request = Request("query", sql=sql, params=texts(params), limits=wire)
        _, result = self._call(request, (), seconds=seconds, writing=False)
        with pa.ipc.open_stream(result) as stream:
            frame = pl.from_arrow(stream.read_all())
        assert isinstance(frame, pl.DataFrame)  # noqa: S101 - a table becomes a frame, an array a series
        return frame

    def select(self, sql: str, params: Mapping[str, Any], form: str, limits: Limits, result_bytes: int) -> bytearray:
        """Run one SELECT that somebody wrote, behind the wall (collector/store/wall.py), and return it in a format.

        `form` is an output format of ClickHouse. The values of `params` are text, as ClickHouse's HTTP interface takes
        them. Raises StoreError with ClickHouse's code.
        """
        seconds = WRITE_S if limits.seconds is None else limits.seconds + REPLY_S
        wire = QueryLimits(
            limits.seconds, limits.memory_bytes, limits.result_rows, limits.rows_to_read, result_bytes=result_bytes
        )
        request = Request("select", sql=sql, params=dict(params), limits=wire, form=form)
        return self._call(request, (), seconds=seconds, writing=False)[1]

    def execute(self, sql: str, params: Mapping[str, Any] | None = None) -> None:
        """See `Store.execute`."""
        self._call(Request("execute", sql=sql, params=texts(params)), (), seconds=WRITE_S, writing=True)

    def settle(self, token_prefix: str) -> None:
        """See `Store.settle`; waits for every insert that the process has begun to receive."""
        self._call(Request("settle", token=token_prefix), (), seconds=WRITE_S, writing=False)

    def boot_id(self) -> str:
        """The identity of the engine's present life. Raises StoreError when it does not answer."""
        reply, _ = self._call(Request("hello"), (), seconds=REPLY_S, writing=False)
        return str(reply.info["boot_id"])

    def health(self) -> StoreHealth:
        """See `Store.health`."""
        try:
            info = dict(self._call(Request("health"), (), seconds=REPLY_S, writing=False)[0].info)
        except StoreError as error:
            return StoreHealth(False, "chdb", "", "", str(error))
        return StoreHealth(
            True,
            "chdb",
            str(info.pop("version")),
            str(info.pop("boot_id")),
            disk_bytes=info.pop("disk_bytes"),
            disk_free_bytes=info.pop("disk_free_bytes"),
            resident_bytes=info.pop("resident_bytes"),
            extra=info,
        )

    def close(self) -> None:
        """Release the connections; an owned process ends unless others use it, and is waited for."""
        others = 0
        if self._child is not None:
            with contextlib.suppress(StoreError):
                with self._lock:
                    mine = len(self._idle)
                reply, _ = self._call(Request("release"), (), seconds=REPLY_S, writing=False)
                others = int(reply.info["others"]) - max(0, mine - 1)
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for sock in idle:
            sock.close()
        if self._child is not None:
            self._child.release(wait=others <= 0)
            self._child = None

    def __enter__(self) -> EmbeddedStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(
        self, request: Request, body: Sequence[Buffer], *, seconds: float, writing: bool
    ) -> tuple[Reply, bytearray]:
        sock = self._connection()
        try:
            sock.settimeout(seconds)
            send(sock, request, body)
            head, size = receive_lengths(sock)
            reply = msgspec.msgpack.decode(receive_bytes(sock, head), type=Reply)
            result = receive_bytes(sock, size)
        except (OSError, ValueError, msgspec.DecodeError) as error:
            sock.close()
            what = f"the store process stopped answering during {request.op} ({error or type(error).__name__})"
            if writing:
                raise OutcomeUnknownError(what) from error
            raise StoreError(what, retryable=True) from error
        except BaseException:
            sock.close()  # an interrupted exchange leaves the connection between two messages
            raise
        with self._lock:
            if self._closed:
                sock.close()
            else:
                self._idle.append(sock)
        if reply.error:
            if reply.unknown:
                unknown = OutcomeUnknownError(reply.error)
                unknown.code, unknown.name = reply.code, reply.name
                raise unknown
            raise StoreError(reply.error, code=reply.code, name=reply.name, retryable=reply.retryable)
        return reply, result

    def _connection(self) -> socket.socket:
        """A live connection. Raises StoreError (nothing was done) when the process cannot be reached."""
        if self._closed:
            raise StoreError("this store was closed")
        while True:
            with self._lock:
                sock = self._idle.pop() if self._idle else None
            if sock is None:
                break
            if not select.select([sock], [], [], 0)[0]:
                return sock
            sock.close()  # readable while idle: the other side has closed it
        try:
            return dial(self._data, CONNECT_S)
        except OSError as error:
            if self._revive is None or self._child is None:
                raise StoreError(f"no store process answers on {self._data}: {error}", retryable=True) from error
            child = self._revive()
            if child is not None:
                self._child.release(wait=False)
                self._child = child
            try:
                return dial(self._data, CONNECT_S)
            except OSError as again:
                raise StoreError(f"no store process answers on {self._data}: {again}", retryable=True) from again


def open_embedded(data: Path, *, options: Sequence[str] = ()) -> EmbeddedStore:
    """The store in DATA: connect to the process that holds it, or start one (with extra `options`) and own it.

    Raises StoreError with the process's own words when it cannot start.
    """
    data = Path(data)
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    data = data.resolve()
    with contextlib.suppress(OSError):
        return EmbeddedStore(data)

    child = start(data, options)
    store = EmbeddedStore(data, lambda: start(data, options))
    if child is not None:
        store.own(child)
    return store
