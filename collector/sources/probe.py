"""What the programs on this host stamped: their rings, drained into stamps and links.

A stamp lies where the program put it: between the line before `stamp()` and the line after it. Every record that a
program began is, in the end, delivered, or counted as overwritten, torn or rejected.

Cost: about 0.15-0.3 us of one core per stamp (most of it hashing keys), 1 us per idle ring and poll.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tailsight_probe.rings import boot_id

from collector.clock import ClockReading
from collector.record import LABEL_SETS, Columns, DropReason
from collector.sources import Availability, Poll
from collector.sources.probe_columns import RecordColumns
from collector.sources.ring import Drained, RingReader
from collector.sources.ring_processes import RingDirectory, RingProcess

_SHARE = 4096  # the least one ring may take in a turn
_ALIVE_NS = 200_000_000  # how often a program is asked whether it lives
_IDLE_PERIOD_S = 0.2


class ProbeSource:
    """Drains the rings of every program that uses the probe.

    Args:
        ring_dir: one directory of rings or several.
        host: this host's name in the columns.
        period_s: how often to poll. A ring must not fill within it: 65,536 slots last 130 ms at 500,000 stamps/s.
        max_rows: records per poll, so that memory is bounded (about 200 bytes per record while it is converted).
        patience_s: how long an unfinished record of a living program is waited for once later ones are finished.
    """

    name = "probe"

    def __init__(
        self,
        ring_dir: Path | Sequence[Path],
        host: str,
        *,
        period_s: float = 0.05,
        max_rows: int = 200_000,
        patience_s: float = 1.0,
    ) -> None:
        self.period_s = self._busy_period_s = period_s
        self._directories = [RingDirectory(p) for p in ([ring_dir] if isinstance(ring_dir, Path) else ring_dir)]
        self._host = host
        self._max_rows = max_rows
        self._patience_ns = round(patience_s * 1e9)
        self._positions: dict[str, int] = {}
        self._durable: dict[str, int] = {}
        self._turn = 0
        self._asked_ns = 0
        self._shipped: set[int] = set()  # label sets
        self._boot_id = boot_id()

    def start(self, positions: Mapping[str, int]) -> Availability:
        """Map the rings that are there, going on from `positions`."""
        self._positions = dict(positions)
        self._durable = dict(positions)
        self._scan()
        return self.availability()

    def availability(self) -> Availability:
        """Degraded when a directory cannot be read or a ring file is refused; both say why."""
        reasons = [reason for directory in self._directories for reason in directory.refused.values()]
        for directory in self._directories:
            try:
                if directory.path.exists():
                    next(directory.path.iterdir(), None)
            except OSError as error:
                reasons.append(f"{directory.path}: {error.strerror}; run the agent as the programs' user or as root")
        return Availability("degraded", "; ".join(reasons)) if reasons else Availability("running")

    def poll(self, clock: ClockReading) -> Poll:
        """Up to `max_rows` new records of all rings, a share each."""
        self._scan()
        self._ask_alive()
        drained = self._drain()
        poll = Poll()
        columns = RecordColumns(self._host, clock)
        new_labels: list[tuple[int, str]] = []
        for process in self._processes():
            # After the drain: a code's line was written before the slot that uses it.
            process.dictionary.refresh()
            new_labels += process.dictionary.take_labels()
            service = process.dictionary.service or f"pid {process.pid}"
            for ring in process.rings.values():
                parts = drained.get(id(ring), ())
                offset = self._own_offset(ring)
                for part in parts:
                    for rows, threads in zip(part.rows, part.threads, strict=True):
                        columns.add(rows, threads, process.dictionary, service, offset)
                    _count(poll.drops, DropReason.RING_OVERWRITTEN, part.overwritten)
                    _count(poll.drops, DropReason.TORN, part.torn)
                    _count(poll.drops, DropReason.REJECTED, part.void)
                name = ring.position_name()
                if self._positions.get(name, 0) != ring.next:
                    poll.positions[name] = self._positions[name] = ring.next
        _count(poll.drops, DropReason.REJECTED, columns.refused)
        tables = (columns.links.columns(), columns.intervals.columns(), columns.stamps.columns())
        poll.columns = [made for made in (self._label_rows(new_labels), *tables) if made]
        # Programs that do not stamp are asked less often: a ring of the default size holds a second of 65,536 stamps.
        self.period_s = self._busy_period_s if poll.columns else min(_IDLE_PERIOD_S, 1.5 * self.period_s)
        return poll

    def durable(self, positions: Mapping[str, int]) -> list[str]:
        """What was read up to `positions` is safe: files of ended programs that were read to the end are deleted.

        Returns the positions that need not be remembered any more, because their files are gone.
        """
        self._durable.update(positions)
        gone: list[str] = []
        for directory in self._directories:
            for identity, process in list(directory.processes.items()):
                if not process.dead:
                    continue
                for ring in process.remove_read(self._durable):
                    self._positions.pop(ring, None)
                    self._durable.pop(ring, None)
                    gone.append(ring)
                if not process.rings:
                    del directory.processes[identity]
        return gone

    def pids(self) -> dict[int, str]:
        """Process numbers and services of the living programs with rings."""
        return {p.pid: p.dictionary.service for p in self._processes() if not p.dead}

    def close(self) -> None:
        """Unmap everything."""
        for directory in self._directories:
            for process in directory.processes.values():
                process.close()
            directory.processes.clear()

    def _processes(self) -> Iterator[RingProcess]:
        for directory in self._directories:
            yield from directory.processes.values()

    def _scan(self) -> None:
        for directory in self._directories:
            directory.scan(self._positions)

    def _ask_alive(self) -> None:
        now = time.monotonic_ns()
        if now - self._asked_ns < _ALIVE_NS:
            return
        self._asked_ns = now
        for process in self._processes():
            process.dead = process.dead or not process.alive()

    def _drain(self) -> dict[int, list[Drained]]:
        """Give every ring an equal share of the rows, and what is left over to those that have more."""
        hungry = [(ring, process) for process in self._processes() for ring in process.rings.values()]
        out: dict[int, list[Drained]] = {}
        left = self._max_rows
        now = time.monotonic_ns()
        self._turn += 1
        while hungry and left > 0:
            share = max(_SHARE, left // len(hungry))
            start = self._turn % len(hungry)  # so that no ring is always the last
            still = []
            for ring, process in hungry[start:] + hungry[:start]:
                limit = min(share, left)
                if limit <= 0:
                    break
                part = ring.drain(limit, dead=process.dead, now_ns=now, patience_ns=self._patience_ns)
                out.setdefault(id(ring), []).append(part)
                left -= len(part)
                if len(part) >= limit:
                    still.append((ring, process))
            hungry = still
        return out

    def _own_offset(self, ring: RingReader) -> int | None:
        """REALTIME - MONOTONIC from the header of a ring of an earlier boot; None for one of this boot."""
        header = ring.header
        if header.boot_id == self._boot_id:
            return None
        return header.created_realtime_ns - header.created_monotonic_ns

    def _label_rows(self, labels: list[tuple[int, str]]) -> Columns | None:
        new = [(name, text) for name, text in dict(labels).items() if name not in self._shipped]
        if not new:
            return None
        self._shipped.update(name for name, _ in new)
        return Columns.from_rows(LABEL_SETS, ({"label_set": name, "labels": text} for name, text in new))


def _count(drops: dict[DropReason, int], reason: DropReason, n: int) -> None:
    if n:
        drops[reason] = drops.get(reason, 0) + n
