"""How many bytes of batches are in memory between the sockets and the store; a batch that does not fit is refused."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class IngestFullError(Exception):
    """The batch does not fit now; `retry_after_s` is how long the ones before it are expected to take."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class IngestQueue:
    """Counts bytes from admission to the end of landing, and how fast they land."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.held_bytes = 0
        self._rate = 0.0  # bytes per second, smoothed
        self._lock = threading.Lock()
        self._landing: set[str] = set()

    @contextmanager
    def admit(self, batch: str, size: int) -> Iterator[None]:
        """Hold `size` bytes of room for a batch that is not already on its way.

        Raises IngestFullError, before anything of the batch is read.
        """
        with self._lock:
            if batch in self._landing:
                raise IngestFullError("this batch is being landed already; ask again for its outcome", 1.0)
            if self.held_bytes + size > self.max_bytes:
                wait = self.held_bytes / self._rate if self._rate else 1.0
                raise IngestFullError("the ingest queue is full", min(30.0, max(1.0, wait)))
            self.held_bytes += size
            self._landing.add(batch)
        started = time.monotonic()
        try:
            yield
        finally:
            took = max(1e-3, time.monotonic() - started)
            with self._lock:
                self.held_bytes -= size
                self._landing.discard(batch)
                self._rate += 0.2 * (size / took - self._rate)
