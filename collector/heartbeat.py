"""Heartbeats: what each collector says of itself every few seconds, also when it is idle or cannot run.

**The watermark** of a collector is the start of its last poll whose frames the server has acknowledged, and those of
all polls and boots before it. Everything that was visible to the collector before that moment is in the store, or
booked as lost there. A poll that found nothing moves it too. A window that ends before the watermark is complete.

**The law** per collector and boot, from `produced` and the server's ledger alone:
`produced = stored + dropped + quarantined + in spool + in flight`. `produced` counts what is durable on the agent's
disk; `acked` is the number below which everything is acknowledged; `in_flight` are events on their way right now.
An earlier boot whose events are still in the spool has a heartbeat of its own, with status `stopped`.
"""

from __future__ import annotations

import threading
from collections import deque
from uuid import UUID

import msgspec

from collector.spool import Spool

_MARKS = 4096


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """One collector in one boot. `POST /v1/ingest/heartbeat` takes a JSON list of these."""

    collector: UUID
    boot: int
    name: str
    host: str
    status: str  # running, degraded, unavailable, stopped
    reason: str
    ts_ns: int
    watermark_ns: int
    produced: int
    acked: int
    in_flight: int
    spool_bytes: int


class Watermark:
    """Poll starts that wait until what they cut is acknowledged. A long outage makes it coarser, not larger.

    The poll thread writes it, the heartbeat thread reads it.
    """

    def __init__(self, start_ns: int = 0) -> None:
        self._marks: deque[tuple[int, int]] = deque()  # (end of the poll's sequence numbers, poll start)
        self._value = start_ns
        self._lock = threading.Lock()

    def polled(self, seq_end: int, start_ns: int) -> None:
        """A poll that started at `start_ns` ended at sequence number `seq_end`."""
        with self._lock:
            if self._marks and self._marks[-1][0] == seq_end:
                self._marks.pop()
            self._marks.append((seq_end, start_ns))
            if len(self._marks) > _MARKS:
                # Every second mark may go: the one behind it promises the same, only later.
                self._marks = deque(mark for i, mark in enumerate(self._marks) if i % 2 or i == len(self._marks) - 1)

    def value(self, acked_end: int, earlier_settled: bool) -> int:
        """The watermark when everything below `acked_end` is acknowledged, and all earlier boots are, or are not."""
        with self._lock:
            while earlier_settled and self._marks and self._marks[0][0] <= acked_end:
                self._value = max(self._value, self._marks.popleft()[1])
            return self._value


def heartbeats_of(
    spool: Spool, name: str, host: str, status: str, reason: str, ts_ns: int, watermark: Watermark
) -> list[Heartbeat]:
    """The heartbeats of one collector: the current boot's, and one for each earlier boot that is not settled."""
    books = spool.boots()
    settled = all(s.acked_end == s.produced for s, _ in books if s.boot != spool.stream.boot)
    current = next(s for s, _ in books if s.boot == spool.stream.boot)
    value = watermark.value(current.acked_end, settled)
    spool.note_watermark(value)
    beats = []
    for state, flying in books:
        here = state.boot == spool.stream.boot
        left = state.produced - state.acked_events
        beats.append(
            Heartbeat(
                collector=spool.stream.collector,
                boot=state.boot,
                name=name,
                host=host,
                status=status if here else "stopped",
                reason=reason if here else f"an earlier run; {left} of its events are still to be sent",
                ts_ns=ts_ns,
                watermark_ns=value,
                produced=state.produced,
                acked=state.acked_end,
                in_flight=flying,
                spool_bytes=spool.size_bytes if here else 0,
            )
        )
    return beats
