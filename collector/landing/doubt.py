"""Which batches may have been tried before, here or by the process before this one: they are read back first."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections import OrderedDict
from collections.abc import Iterator

from collector.frames import Stream

# The first batches of a stream that this process sees may have been tried by the process before it.
_READ_BACK_FIRST = 64
_MAX_DOUBTS = 100_000


class Doubts:
    """Batches whose last attempt here had an unknown outcome, and streams met lately. Thread-safe."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._batches: OrderedDict[str, None] = OrderedDict()
        self._met: dict[tuple[uuid.UUID, int, str], int] = {}

    def about(self, batch_id: str, stream: Stream, boot_id: str) -> bool:
        """Whether the batch must be read back, in this life of the store (`boot_id`)."""
        with self._mutex:
            if batch_id in self._batches:
                return True
            key = (stream.collector, stream.boot, boot_id)
            self._met[key] = self._met.get(key, 0) + 1
            return self._met[key] <= _READ_BACK_FIRST

    def add(self, batch_id: str) -> None:
        """Its outcome is unknown."""
        with self._mutex:
            self._batches[batch_id] = None
            while len(self._batches) > _MAX_DOUBTS:  # its sender counts attempts too
                self._batches.popitem(last=False)

    def clear(self, batch_id: str) -> None:
        """Its outcome is known."""
        with self._mutex:
            self._batches.pop(batch_id, None)


class Turns:
    """A lock for each batch id that is in use."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._locks: dict[str, tuple[threading.Lock, int]] = {}  # with how many hold it or wait for it

    @contextlib.contextmanager
    def of(self, batch_id: str) -> Iterator[None]:
        """Wait until nobody else has the batch, and keep it."""
        with self._mutex:
            lock, users = self._locks.get(batch_id, (threading.Lock(), 0))
            self._locks[batch_id] = (lock, users + 1)
        try:
            with lock:
                yield
        finally:
            with self._mutex:
                lock, users = self._locks.pop(batch_id)
                if users > 1:
                    self._locks[batch_id] = (lock, users - 1)
