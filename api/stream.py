"""Events for `/v1/stream`: one numbered history, a bounded buffer per reader, and readers that are cut when they lag.

An event's id is the nanosecond it was published (made strictly increasing), so that a reader that comes back after
the server was restarted can still be served from the store.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened: kind `window`, `change` or `collector`, and its data as plain values."""

    id: int
    kind: str
    data: dict[str, Any]
    path: str = ""  # windows only; for the reader's filter


@dataclass(eq=False)
class Reader:
    """One open stream. `missed` becomes True when the reader was too slow; nothing is queued after that."""

    kinds: frozenset[str]
    path: str | None
    loop: asyncio.AbstractEventLoop
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    queue: deque[Event] = field(default_factory=deque)
    missed: bool = False
    closed: bool = False

    def wants(self, event: Event) -> bool:
        """Whether the event passes this reader's filter."""
        return event.kind in self.kinds and (self.path is None or event.path in ("", self.path))


class Broker:
    """Publishes from any thread to readers on the event loop."""

    def __init__(self, *, buffer: int, history: int, readers: int) -> None:
        self._buffer = buffer
        self._readers_max = readers
        self._lock = threading.Lock()
        self._history: deque[Event] = deque(maxlen=history)
        self._readers: set[Reader] = set()
        self._last = 0
        self._closed = False
        self.started_ns = time.time_ns()
        self.published = 0
        self.dropped_readers = 0

    def publish(self, kind: str, data: dict[str, Any], path: str = "") -> Event:
        """Number an event and hand it to every reader that wants it."""
        with self._lock:
            self._last = max(self._last + 1, time.time_ns())
            event = Event(self._last, kind, data, path)
            self._history.append(event)
            self.published += 1
            for reader in list(self._readers):
                if reader.wants(event):
                    self._offer(reader, event)
        return event

    def _offer(self, reader: Reader, event: Event) -> None:
        if len(reader.queue) >= self._buffer:
            reader.missed = True
            self._readers.discard(reader)
            self.dropped_readers += 1
        else:
            reader.queue.append(event)
        _wake(reader)

    def subscribe(self, reader: Reader, after: int | None) -> tuple[bool, bool]:
        """Add a reader and queue what came after event id `after`.

        Returns (accepted, whole): not accepted when there are too many readers or the server stops; not whole when the
        history begins after `after`, so that the caller must fetch the time before it from the store.
        """
        with self._lock:
            if self._closed or len(self._readers) >= self._readers_max:
                return False, True
            whole = True
            if after is not None:
                oldest = self._history[0].id if len(self._history) == self._history.maxlen else self.started_ns
                whole = after >= oldest
                missed = [e for e in self._history if e.id > after and reader.wants(e)]
                reader.queue.extend(missed[-self._buffer :])
                whole = whole and len(missed) <= self._buffer
            self._readers.add(reader)
            if reader.queue:
                reader.wake.set()
            return True, whole

    def unsubscribe(self, reader: Reader) -> None:
        """Forget a reader."""
        with self._lock:
            self._readers.discard(reader)

    def take(self, reader: Reader) -> list[Event]:
        """All events queued for the reader, oldest first."""
        with self._lock:
            events = list(reader.queue)
            reader.queue.clear()
            reader.wake.clear()
            return events

    @property
    def readers(self) -> int:
        """Open readers."""
        return len(self._readers)

    def close(self) -> None:
        """End every stream; used when the server stops."""
        with self._lock:
            self._closed = True
            for reader in self._readers:
                reader.closed = True
                _wake(reader)
            self._readers.clear()


def _wake(reader: Reader) -> None:
    # The loop may already be gone while the server stops.
    if not reader.loop.is_closed():
        reader.loop.call_soon_threadsafe(reader.wake.set)
