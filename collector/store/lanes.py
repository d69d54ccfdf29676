"""Lanes of the store process: bounded queues, each with threads that own one engine session.

Inserts have a lane of one thread, so that they are ordered and `settle` means something; statements have another, so
that a long INSERT SELECT does not hold up acknowledgements; reads share a few.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from collector.store import OutcomeUnknownError, StoreError
from collector.store.engine import Session

Work = Callable[[Session], memoryview]


@dataclass(slots=True, eq=False)
class Job:
    """One piece of work. `done` is set, and a byte readable on `wake`, when `result` or `error` holds the answer."""

    work: Work
    tag: str
    result: memoryview = field(default_factory=lambda: memoryview(b""))
    error: StoreError | None = None
    started: bool = False
    cancelled: bool = False
    done: threading.Event = field(default_factory=threading.Event)
    wake: int = field(default_factory=lambda: os.eventfd(0, os.EFD_CLOEXEC))
    finished: Callable[[], None] | None = None

    def finish(self) -> None:
        """Tell whoever waits."""
        if self.finished is not None:
            self.finished()
        self.done.set()
        os.eventfd_write(self.wake, 1)


class Lane:
    """A bounded queue and its threads."""

    def __init__(self, name: str, open_session: Callable[[], Session], *, threads: int, depth: int) -> None:
        self.name = name
        self._open_session = open_session
        self._queue: queue.Queue[Job | None] = queue.Queue(depth)
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}-{number}", daemon=True) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job. Raises StoreError (retryable) when the lane is full: nothing has happened then."""
        try:
            self._queue.put_nowait(job)
        except queue.Full:
            raise StoreError(
                f"{self._queue.maxsize} requests wait in the store's {self.name} lane; try again later",
                code=202,
                name="TOO_MANY_SIMULTANEOUS_QUERIES",
                retryable=True,
            ) from None

    def waiting(self) -> int:
        """How many jobs are queued."""
        return self._queue.qsize()

    def close(self, patience: float) -> bool:
        """Refuse what is queued, let what runs finish; True when all threads ended in time."""
        while True:
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                break
            if job is not None:
                job.error = StoreError("the store is shutting down; nothing was done", retryable=True)
                job.finish()
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join(patience)
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        session: Session | None = None
        while (job := self._queue.get()) is not None:
            if job.cancelled:
                job.error = StoreError("cancelled before it started; nothing was done", retryable=True)
                job.finish()
                continue
            job.started = True
            try:
                if session is None:
                    session = self._open_session()
                job.result = job.work(session)
            except StoreError as error:
                job.error = error
            except Exception as error:  # noqa: BLE001 - a thread that dies would hang its lane's clients
                job.error = OutcomeUnknownError(f"the store process failed: {error!r}")
            job.finish()
        if session is not None:
            session.close()
