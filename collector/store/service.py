"""What the store process does with a connection: read a request, run it in its lane, answer.

Clients that go away take their reads with them (KILL QUERY). An insert that has started is never cut short; one whose
client is gone before its body was complete is never started. Every insert is registered when its header arrives, so
that `settle` can wait for those of clients that died.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import mmap
import os
import select
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
import structlog

from collector.store import OutcomeUnknownError, StoreError
from collector.store.engine import Engine, insert_sql, read, select_rows
from collector.store.lanes import Job, Lane
from collector.store.messages import Reply, Request, receive_bytes, receive_into, receive_lengths, send
from collector.store.schema import table_types

log = structlog.get_logger()

MAX_CLIENTS = 128
GRACE_S = 1.0  # the engine's own time limit goes first, with its clearer error
SETTLE_S = 60.0


class Service:
    """The socket, the lanes, and the connections."""

    def __init__(self, engine: Engine, *, boot_id: str, readers: int, confinement: Mapping[str, str]) -> None:
        self.boot_id = boot_id
        self._engine = engine
        self._confinement = dict(confinement)
        self._inserts = Lane("insert", lambda: engine.session(reading=False), threads=1, depth=16)
        self._statements = Lane("statement", lambda: engine.session(reading=False), threads=1, depth=64)
        self._reads = Lane("read", lambda: engine.session(reading=True), threads=readers, depth=256)
        # What people write has threads of its own: it cannot hold up the product's questions.
        self._strangers = Lane("select", lambda: engine.session(reading=True), threads=2, depth=64)
        self._numbers = itertools.count(1)
        self._lanes = (self._strangers, self._reads, self._statements, self._inserts)
        self._under_way: set[int] = set()
        self._changed = threading.Condition()
        self._clients: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self._path = Path()
        self._stopping = False

    def listen(self, path: Path) -> None:
        """Accept clients on the unix socket `path`, for this user only."""
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(MAX_CLIENTS)
        self._listener, self._path = listener, path
        threading.Thread(target=self._accept, args=(listener,), name="accept", daemon=True).start()

    def idle(self) -> bool:
        """Whether no client is connected."""
        return not self._clients

    def close(self, patience: float) -> bool:
        """Stop listening, refuse what waits, let inserts finish, kill reads; True when nothing is left running."""
        self._stopping = True
        if self._listener is not None:
            # shutdown wakes the thread in accept(), which close alone does not
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._path.unlink(missing_ok=True)
        clean = True
        for lane in self._lanes:
            clean = lane.close(patience) and clean
        for client in list(self._clients):
            client.close()
        return clean

    def _accept(self, listener: socket.socket) -> None:
        while not self._stopping:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            if len(self._clients) >= MAX_CLIENTS:
                log.warning("too many clients", limit=MAX_CLIENTS)
                client.close()
                continue
            self._clients.add(client)
            threading.Thread(target=self._serve, args=(client,), name="client", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            while not self._stopping:
                head, body = receive_lengths(client)
                request = msgspec.msgpack.decode(receive_bytes(client, head), type=Request)
                if body and request.op != "insert":
                    log.warning("connection dropped", error=f"{request.op} takes no body")
                    return
                reply, result = self._answer(client, request, body)
                send(client, reply, [result])
        except (OSError, ValueError, msgspec.DecodeError, MemoryError) as error:
            if not isinstance(error, ConnectionError):
                log.warning("connection dropped", error=str(error))
        finally:
            self._clients.discard(client)
            client.close()

    def _answer(self, client: socket.socket, request: Request, body: int) -> tuple[Reply, memoryview]:
        empty = memoryview(b"")
        try:
            if request.op == "insert":
                self._insert(client, request, body)
            elif request.op == "query":
                return Reply(), self._query(client, request)
            elif request.op == "select":
                return Reply(), self._select(client, request)
            elif request.op == "execute":
                self._execute(client, request)
            elif request.op == "settle":
                self._settle()
            elif request.op == "health":
                return Reply(info=self._health()), empty
            elif request.op == "release":
                return Reply(info={"others": len(self._clients) - 1}), empty
            else:
                return Reply(info={"boot_id": self.boot_id, "version": self._engine.version, "pid": os.getpid()}), empty
        except StoreError as error:
            unknown = isinstance(error, OutcomeUnknownError)
            return Reply(str(error), error.code, error.name, error.retryable, unknown), empty
        return Reply(), empty

    def _query(self, client: socket.socket, request: Request) -> memoryview:
        tag = self._tag()
        job = Job(lambda session: read(session, tag, request.sql, request.params, request.limits), tag)
        self._reads.submit(job)
        self._wait(job, client, request.limits.seconds)
        return job.result

    def _select(self, client: socket.socket, request: Request) -> memoryview:
        tag, limits = self._tag(), request.limits
        job = Job(
            lambda session: select_rows(
                self._engine, session, tag, request.sql, request.params, request.form, limits, table_types()
            ),
            tag,
        )
        self._strangers.submit(job)
        self._wait(job, client, limits.seconds)
        return job.result

    def _execute(self, client: socket.socket, request: Request) -> None:
        tag = self._tag()
        job = Job(lambda session: session.run(tag + request.sql, request.params, writing=True), tag)
        self._statements.submit(job)
        self._wait(job, client, None)

    def _insert(self, client: socket.socket, request: Request, size: int) -> None:
        number = next(self._numbers)
        with self._changed:
            self._under_way.add(number)
        descriptor = -1

        def finished() -> None:
            if descriptor >= 0:
                os.close(descriptor)
            with self._changed:
                self._under_way.discard(number)
                self._changed.notify_all()

        try:
            descriptor = _receive_file(client, size)
            sql = insert_sql(request.table, request.columns, request.token, descriptor)
            _require_client(client)
            job = Job(lambda session: session.run(sql, writing=True), "", finished=finished)
            self._inserts.submit(job)
        except BaseException:
            finished()
            raise
        self._wait(job, client, None, cut_short=False)

    def _settle(self) -> None:
        with self._changed:
            before = set(self._under_way)
            if not self._changed.wait_for(lambda: not before & self._under_way, SETTLE_S):
                raise StoreError(f"{len(before & self._under_way)} inserts are still under way", retryable=True)

    def _wait(self, job: Job, client: socket.socket, seconds: float | None, *, cut_short: bool = True) -> None:
        """Wait for the job; kill it at its time limit or when the client leaves. Raises its error."""
        until = math.inf if seconds is None else time.monotonic() + seconds + GRACE_S
        poll = select.poll()
        poll.register(job.wake, select.POLLIN)
        if cut_short:
            poll.register(client, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
        killed = ""
        while not job.done.is_set():
            left = None if until == math.inf else max(0.0, until - time.monotonic()) * 1000
            events = poll.poll(left)
            if job.done.is_set():
                break
            killed = killed or ("its client left" if events else f"it ran past its limit of {seconds} s")
            job.cancelled = True
            if job.started:
                self._engine.kill(job.tag, job.done.is_set)
            if events:
                poll.unregister(client)
            until = time.monotonic() + GRACE_S  # again, should it have started between the look and the mark
        os.close(job.wake)
        if job.error is not None:
            if killed:
                message = f"killed because {killed}: {job.error}"
                raise StoreError(message, code=159, name="TIMEOUT_EXCEEDED") from None
            raise job.error

    def _tag(self) -> str:
        return f"/* tailsight {self.boot_id[:8]} {next(self._numbers)} */ "

    def _health(self) -> dict[str, object]:
        disk = os.statvfs(".")
        return {
            "boot_id": self.boot_id,
            "version": self._engine.version,
            "pid": os.getpid(),
            "resident_bytes": resident_bytes(),
            "disk_bytes": self._engine.disk_bytes(),
            "disk_free_bytes": disk.f_bavail * disk.f_frsize,
            "clients": len(self._clients),
            "waiting": {lane.name: lane.waiting() for lane in self._lanes},
            "confinement": self._confinement,
        }


def resident_bytes(pid: int | str = "self") -> int:
    """Resident memory of a process, from /proc/PID/statm."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _receive_file(client: socket.socket, size: int) -> int:
    """The request's body in an anonymous file; returns its descriptor."""
    descriptor = os.memfd_create("insert", os.MFD_CLOEXEC)
    try:
        if size:
            os.ftruncate(descriptor, size)
            with mmap.mmap(descriptor, size) as memory, memoryview(memory) as view:
                receive_into(client, view)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _require_client(client: socket.socket) -> None:
    """Raise ConnectionResetError when the client has left: its insert must not begin after its successor's."""
    poll = select.poll()
    poll.register(client, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
    if poll.poll(0):
        raise ConnectionResetError("the client left before its insert began")
