"""Accepted exports on their way to the spool: a receiver gives one in, and is told when it is durable.

`offer` takes rows and returns a future that is done once they survive a crash; only then may the client be answered.
The agent's poll thread takes what waits and appends it, and passes on what has become durable. Bounded in bytes; what
does not fit, or would wait for a spool that stands still, is refused at once.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from collector.record import Columns

_STALL_S = 2.0  # exports that wait longer than this mean that the spool takes nothing


class BusyError(RuntimeError):
    """Not now: come again later. The message says why."""


@dataclass(slots=True)
class _Export:
    columns: Sequence[Columns]
    size: int
    since: float
    done: Future[None]


class Budget:
    """Bytes that requests may hold together. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self.held = 0

    def take(self, size: int) -> None:
        """Hold `size` bytes more. Raises BusyError when they do not fit."""
        with self._lock:
            if self.held + size > self._limit:
                raise BusyError(f"requests hold {self.held} bytes of {self._limit} (memory_bytes)")
            self.held += size

    def give(self, size: int) -> None:
        """Let go of `size` bytes."""
        with self._lock:
            self.held -= size


class Intake:
    """The queue between the receivers' threads and the poll thread. Thread-safe."""

    def __init__(self, budget: Budget, now: Callable[[], float] = time.monotonic) -> None:
        self._budget = budget
        self._now = now
        self._lock = threading.Lock()
        self._waiting: deque[_Export] = deque()  # not yet taken by a poll
        self._taken: deque[tuple[int, _Export]] = deque()  # in the spool, perhaps not durable
        self._ticket = 0
        self._closed = "the agent is starting"

    def open(self, ticket: int) -> None:
        """Take exports from now on, numbered after `ticket`."""
        with self._lock:
            self._ticket, self._closed = ticket, ""

    def offer(self, columns: Sequence[Columns]) -> Future[None]:
        """Queue the rows of one export. Raises BusyError when there is no room or the spool stands still."""
        size = sum(_size(each) for each in columns)
        with self._lock:
            if self._closed:
                raise BusyError(self._closed)
            oldest = self._taken[0][1] if self._taken else self._waiting[0] if self._waiting else None
            if oldest is not None and self._now() - oldest.since > _STALL_S:
                raise BusyError("the spool takes nothing at the moment: it is full, or the disk is slow")
            self._budget.take(size)
            export = _Export(columns, size, self._now(), Future())
            self._waiting.append(export)
        return export.done

    def take(self, rows: int) -> tuple[list[Columns], int]:
        """The rows of waiting exports, about `rows` of them, and the ticket of the last one."""
        found: list[Columns] = []
        taken = 0
        with self._lock:
            while self._waiting and taken < rows:
                export = self._waiting.popleft()
                self._ticket += 1
                self._taken.append((self._ticket, export))
                found += export.columns
                taken += sum(map(len, export.columns))
            return found, self._ticket

    def durable(self, ticket: int) -> None:
        """Everything up to `ticket` survives a crash."""
        done = []
        with self._lock:
            while self._taken and self._taken[0][0] <= ticket:
                done.append(self._taken.popleft()[1])
        for export in done:
            self._budget.give(export.size)
            if not export.done.cancelled():
                export.done.set_result(None)

    def close(self, reason: str) -> None:
        """Refuse what comes and what waits."""
        with self._lock:
            self._closed = reason
            left = [*self._waiting, *(export for _, export in self._taken)]
            self._waiting.clear()
            self._taken.clear()
        for export in left:
            self._budget.give(export.size)
            if not export.done.cancelled():
                export.done.set_exception(BusyError(reason))

    @property
    def idle(self) -> bool:
        """Whether nothing waits."""
        with self._lock:
            return not self._waiting and not self._taken


def _size(columns: Columns) -> int:
    numbers = sum(array.nbytes for array in columns.values.values())
    return numbers + sum(sum(map(len, texts)) + 60 * len(texts) for texts in columns.texts.values())
