"""What the collectors say of themselves: heartbeats, kept in memory, written to the store once per second.

One insert per heartbeat would make one part per agent and second, so they are written together by a job. A crash loses
at most the last second of them; the next heartbeat says everything again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from api.stream import Broker
from collector.heartbeat import Heartbeat
from collector.landing import record_heartbeats
from collector.store import Store, StoreError

MAX_WAITING = 10_000
MAX_COLLECTORS = 10_000
# DateTime64(9) holds times up to 2262.
_BOUNDS = (
    ("ts_ns", 0, (1 << 63) - 1),
    ("watermark_ns", 0, (1 << 63) - 1),
    ("boot", 0, (1 << 32) - 1),
    ("produced", 0, (1 << 64) - 1),
    ("acked", 0, (1 << 64) - 1),
    ("in_flight", 0, (1 << 64) - 1),
    ("spool_bytes", 0, (1 << 64) - 1),
)


@dataclass(slots=True)
class Last:
    """A collector's last heartbeat and when it came, in nanoseconds of the server's clock."""

    heartbeat: Heartbeat
    received_ns: int
    silent: bool = False


def check(heartbeat: Heartbeat) -> None:
    """Raise ValueError naming the number that the store's column does not hold: it would block all that wait."""
    for name, low, high in _BOUNDS:
        value = getattr(heartbeat, name)
        if not low <= value <= high:
            raise ValueError(f"{name}: {value} must lie in {low}..{high}")


class CollectorBook:
    """The last heartbeat of every collector, and those that still have to be stored."""

    def __init__(self, broker: Broker, silent_after_ns: int) -> None:
        self._broker = broker
        self._silent_after_ns = silent_after_ns
        self._lock = threading.Lock()
        self._last: dict[tuple[str, int], Last] = {}  # an earlier boot with events left has a heartbeat of its own
        self._newest: dict[str, int] = {}
        self._waiting: list[Heartbeat] = []
        self.lost = 0  # not stored because the store was away for long; the last of each is never lost

    def add(self, heartbeats: Sequence[Heartbeat], now_ns: int | None = None) -> None:
        """Take heartbeats in; a change of status becomes an event. Raises ValueError, and takes none, for a bad one."""
        now = time.time_ns() if now_ns is None else now_ns
        for heartbeat in heartbeats:
            check(heartbeat)
        for heartbeat in heartbeats:
            collector = str(heartbeat.collector)
            key = (collector, heartbeat.boot)
            with self._lock:
                newest = self._newest[collector] = max(heartbeat.boot, self._newest.get(collector, 0))
                before = self._last.get(key)
                if before is None and len(self._last) >= MAX_COLLECTORS:
                    oldest = min(self._last, key=lambda k: self._last[k].received_ns)
                    del self._last[oldest]
                    self._newest.pop(oldest[0], None)
                self._last[key] = Last(heartbeat, now)
                self._waiting.append(heartbeat)
                if len(self._waiting) > MAX_WAITING:
                    self._waiting.pop(0)
                    self.lost += 1
            changed = before is None or before.silent or before.heartbeat.status != heartbeat.status
            if changed and heartbeat.boot == newest:
                self._event(heartbeat, heartbeat.status)

    def flush(self, store: Store) -> int:
        """Write what waits as one block; how many. On an error they wait for the next time."""
        with self._lock:
            rows, self._waiting = self._waiting, []
        if not rows:
            return 0
        try:
            record_heartbeats(store, rows)
        except StoreError:
            with self._lock:
                self._waiting = rows + self._waiting
            raise
        return len(rows)

    def mark_silent(self, now_ns: int) -> int:
        """Publish every collector that has said nothing for too long, once; how many are newly silent."""
        with self._lock:
            gone = [
                last
                for last in self._last.values()
                if not last.silent
                and last.heartbeat.status != "stopped"
                and last.heartbeat.boot == self._newest.get(str(last.heartbeat.collector))
                and now_ns - last.received_ns > self._silent_after_ns
            ]
            for last in gone:
                last.silent = True
        for last in gone:
            self._event(last.heartbeat, "silent")
        return len(gone)

    def all(self) -> list[Last]:
        """The last of each, by name."""
        with self._lock:
            return sorted(self._last.values(), key=lambda last: (last.heartbeat.host, last.heartbeat.name))

    def _event(self, heartbeat: Heartbeat, status: str) -> None:
        data: dict[str, Any] = {
            "collector": str(heartbeat.collector),
            "name": heartbeat.name,
            "host": heartbeat.host,
            "status": status,
            "reason": heartbeat.reason,
        }
        self._broker.publish("collector", data)
