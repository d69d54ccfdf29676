"""One collector in the agent: polls its source, cuts the poll into frames, appends them to its spool.

A poll is appended whole: its frames, what the source lost, and how far it has read become durable together, so that
after a crash the source goes on exactly behind the last durable poll.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import structlog

from collector.clock import ClockReading
from collector.heartbeat import Heartbeat, Watermark, heartbeats_of
from collector.payload import Packed, pack_columns, pack_drop, split
from collector.record import Columns, DropReason
from collector.sources import Availability, Poll, Source
from collector.spool import Spool, SpoolFullError

_FRAME_ROWS = 32_768
_RESTART_S = (1.0, 60.0)

log = structlog.get_logger("agent")


@runtime_checkable
class TellsDurable(Protocol):
    """A source that wants to know what is safe, to let go of it. It may return the positions that are no more."""

    def durable(self, positions: Mapping[str, int]) -> Collection[str] | None:
        """Everything up to `positions` survives a crash."""


@runtime_checkable
class TellsState(Protocol):
    """A source whose availability changes while it runs, without failing."""

    def state(self) -> Availability:
        """As it is now; cheap, asked after every poll."""


@runtime_checkable
class TakesFolder(Protocol):
    """A source that keeps files of its own, or is asked things through them."""

    def use_folder(self, folder: Path) -> None:
        """The agent's folder, DIR/agent; called once, before `start`."""


@runtime_checkable
class SumsUp(Protocol):
    """A source that sums over a period: what it has summed since the last one would end with it."""

    def rest(self, clock: ClockReading) -> Poll:
        """Everything up to now, the period that has begun included. Called once more before `close`."""


@runtime_checkable
class GivesLines(Protocol):
    """A source that can set aside datagrams of feed lines as it reads its taps (`collector.packet.live.line_tap`)."""

    def line(self, tap: str, address: str, port: int, most_bytes: int) -> Any:
        """The datagrams for an address and port on a tap. Raises LookupError for a tap that is not there."""


@runtime_checkable
class TakesLines(Protocol):
    """A source that may follow feed lines on another source's taps."""

    def use_taps(self, taps: GivesLines) -> None:
        """Where the taps are; called once, before `start`."""


class Runner:
    """A source with its spool. All methods but `heartbeats` belong to the poll thread."""

    def __init__(self, source: Source, spool: Spool, host: str) -> None:
        self.name = source.name
        self.source = source
        self.spool = spool
        self._host = host
        self._watermark = Watermark(spool.watermark_ns)
        self._positions = dict(spool.positions)
        self._held: tuple[list[Packed], int, int, int] | None = None  # a poll that found the spool full
        self._safe: dict[str, int] = {}
        self._waiting: deque[tuple[int, dict[str, int]]] = deque()  # positions that are not durable yet
        self._failures = 0
        self._started = False
        self.due = 0.0
        self.status = Availability("degraded", "starting")

    def start(self, now: float) -> None:
        """Open the source where the spool says it was; a source that fails is tried again later."""
        try:
            self.status = self.source.start(self._positions)
            self._started = self.status.status != "unavailable"
        except Exception as error:  # noqa: BLE001 - one broken source must not take the others down
            self._failed(error, now)
            return
        self.due = now if self._started else now + _RESTART_S[1]
        log.info("collector", name=self.name, status=self.status.status, reason=self.status.reason)

    def poll(self, clock: ClockReading, now: float) -> None:
        """One poll, if it is due: into the spool, or held until the spool has room."""
        if now < self.due:
            return
        if not self._started:
            self.start(now)
            return
        self.due = now + self.source.period_s
        if self._held is None:
            try:
                self._held = self._take(self.source.poll(clock), clock)
            except Exception as error:  # noqa: BLE001 - as above
                self._failed(error, now)
                return
        if self._held is not None:
            self._append(*self._held)
        self.tell_durable()

    def finish(self, clock: ClockReading) -> None:
        """Take what the source has summed up and not handed over; what finds no room in the spool is counted."""
        if not self._started or not isinstance(self.source, SumsUp):
            return
        held, self._held = self._held, None
        try:
            taken = self._take(self.source.rest(clock), clock)
        except Exception as error:  # noqa: BLE001 - it ends anyway, and the others go on
            log.warning("the last period was not handed over", name=self.name, error=f"{type(error).__name__}: {error}")
            taken = None
        for group in filter(None, (held, taken)):
            self._held = group
            self._append(*group)
            if self._held is None:
                continue
            lost = sum(one.events for one in group[0])
            self._held = [pack_drop(DropReason.FULL_NEWEST, lost)], *group[1:]
            self._append(*self._held)
            if self._held is not None:
                log.error("lost uncounted: the spool is full", name=self.name, events=lost)
        self._held = None
        self.spool.commit()

    def close(self) -> None:
        """Release the source. What it has not given stays with it, but for sums: see `finish`."""
        if self._started:
            self.source.close()

    def heartbeats(self, ts_ns: int, stopped: bool = False) -> list[Heartbeat]:
        """What this collector says of itself now."""
        status, reason = self.status.status, self.status.reason
        # A source whose troubles come and go while it runs says so in `problem`.
        problem = "; ".join(filter(None, (str(getattr(self.source, "problem", "")), self.spool.problem)))
        if problem and status != "unavailable":
            status, reason = "degraded", "; ".join(filter(None, (reason, problem)))
        if status == "unavailable":
            self._watermark.polled(self.spool.next_seq, ts_ns)  # it holds nothing back
        if stopped:
            status, reason = "stopped", reason or "the agent was stopped"
        return heartbeats_of(self.spool, self.name, self._host, status, reason, ts_ns, self._watermark)

    def _take(self, poll: Poll, clock: ClockReading) -> tuple[list[Packed], int, int, int] | None:
        """The poll as packed frames; None when it brought nothing, which moves the watermark all the same."""
        self._failures = 0
        if self.status.reason.startswith("failed:"):
            self.status = Availability("running")
        if isinstance(self.source, TellsState):
            self.status = self.source.state()
        self._positions.update(poll.positions)
        columns = [part for whole in poll.columns if len(whole) for part in split(whole, _FRAME_ROWS)]
        drops = {reason: n for reason, n in poll.drops.items() if n}
        if not columns and not drops:
            self._watermark.polled(self.spool.next_seq, clock.realtime_ns)
            return None
        packed: list[Packed] = []
        for i, (reason, n) in enumerate(drops.items()):
            last = not columns and i + 1 == len(drops)
            packed.append(pack_drop(reason, n, self._positions if last else None))
        for i, part in enumerate(columns):
            packed += _pack(part, self._positions if i + 1 == len(columns) else None)
        return packed, clock.realtime_ns, clock.monotonic_ns, clock.realtime_ns

    def _append(self, packed: list[Packed], created_ns: int, mono_ns: int, started_ns: int) -> None:
        try:
            end = self.spool.append(
                packed,
                created_ns=created_ns,
                created_mono_ns=mono_ns,
                watermark_ns=started_ns,
                positions=self._positions,
            )
        except SpoolFullError:
            return  # held; the source is not polled, and counts what it cannot keep
        self._held = None
        self._watermark.polled(end, started_ns)
        if isinstance(self.source, TellsDurable):
            self._waiting.append((end, dict(self._positions)))

    def tell_durable(self) -> None:
        """Tell the source what is safe by now."""
        safe: dict[str, int] | None = None
        while self._waiting and self._waiting[0][0] <= self.spool.durable_seq:
            safe = self._waiting.popleft()[1]
        if safe is None and not self._waiting and self._safe:
            safe = self._safe  # nothing new, but a program may have ended since, and its rings can go
        if safe is not None and isinstance(self.source, TellsDurable):
            self._safe = safe
            for gone in self.source.durable(safe) or ():
                self._positions.pop(gone, None)

    def _failed(self, error: Exception, now: float) -> None:
        self._failures += 1
        pause = min(_RESTART_S[1], _RESTART_S[0] * 2.0 ** min(self._failures - 1, 6))
        self.status = Availability("degraded", f"failed: {type(error).__name__}: {error}; next try in {pause:.0f} s")
        log.exception("collector failed", name=self.name, next_try_s=pause)
        if self._started:
            self._started = False
            self.source.close()
        self.due = now + pause


def _pack(columns: Columns, positions: Mapping[str, int] | None) -> list[Packed]:
    """Frames of some rows; rows that are too large for one frame are halved, a single row too large is `oversize`."""
    try:
        return [pack_columns(columns, positions)]
    except ValueError:
        columns.check()  # a source that makes wrong columns is a fault of its own
        if len(columns) == 1:
            return [pack_drop(DropReason.OVERSIZE, 1, positions)]
        halves: list[Any] = split(columns, (len(columns) + 1) // 2)
        return [*_pack(halves[0], None), *_pack(halves[1], positions)]
