"""Bounded queues, one per priority class; the first class goes first, and equal instruments are conflated. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class ClassQueues(Generic[T]):
    """Places for `size` items per class; an item has its place from `admit` to `take`, queued or still prepared."""

    def __init__(self, classes: Sequence[str], size: int) -> None:
        self._size = size
        self._taken = dict.fromkeys(classes, 0)
        self._ready: dict[str, deque[tuple[int, T]]] = {name: deque() for name in classes}

    def admit(self, name: str) -> tuple[int, bool]:
        """(how many places of the class were taken, whether there was one left and it is taken now)."""
        depth = self._taken[name]
        if depth >= self._size:
            return depth, False
        self._taken[name] = depth + 1
        return depth, True

    def put(self, name: str, instrument: int, item: T) -> int:
        """Queue an item that was admitted; returns how many were queued before it in its class."""
        queue = self._ready[name]
        queue.append((instrument, item))
        return len(queue) - 1

    def take(self) -> list[T]:
        """The first item of the most urgent class, with all that wait behind it for the same instrument."""
        for name, queue in self._ready.items():
            if queue:
                instrument = queue[0][0]
                batch = [item for number, item in queue if number == instrument]
                rest = [entry for entry in queue if entry[0] != instrument]
                queue.clear()
                queue.extend(rest)
                self._taken[name] -= len(batch)
                return batch
        return []
