"""One ring file, read while a program writes it: which records are whole, and what became of the others.

Every sequence number from `next` on is, in the end, exactly one of: delivered, overwritten, torn, or void. A record is
delivered only if its commit word was there before the copy and its first word still names it after the copy, so neither
a half-written nor a lapped slot gets through. This relies on loads and stores keeping their order, as x86 does; see
docs/probe.md for other machines.

Cost: about 10 ns per record, 1 us per idle ring and poll.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tailsight_probe import layout

SLOT = np.dtype(
    {
        "names": [name for name, _, _ in layout.FIELDS],
        "formats": [kind for _, kind, _ in layout.FIELDS],
        "offsets": [offset for _, _, offset in layout.FIELDS],
        "itemsize": layout.SLOT_BYTES,
    }
)

# 4096 slots are 256 kB: the copy stays in the L2 cache until it is turned into columns.
_CHUNK = 4096
# How far behind an unfinished record to look for finished ones: deeper than stamps nest in signal handlers.
_NESTED = 64


@dataclass(slots=True)
class Drained:
    """What one drain of one ring took: `rows` (SLOT records, in sequence order) and `threads` (who wrote each)."""

    rows: list[NDArray[np.void]] = field(default_factory=list)
    threads: list[NDArray[np.uint32]] = field(default_factory=list)
    overwritten: int = 0
    torn: int = 0
    void: int = 0

    def __len__(self) -> int:
        return sum(len(part) for part in self.rows)


class RingReader:
    """A ring mapped for reading, and the next sequence number to read.

    Raises `layout.LayoutError` when the file is not a ring of a known version, and OSError.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            size = path.stat().st_size
            if size < layout.HEADER_BYTES:
                raise layout.LayoutError(f"{size} bytes are too short for a ring; the file is damaged")
            self._map = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        try:
            self.header = layout.unpack_header(self._map[: layout.HEADER_BYTES], size)
        except layout.LayoutError:
            self._map.close()
            raise
        self.path = path
        self._slots: NDArray[np.void] = np.frombuffer(self._map, dtype=SLOT, offset=layout.HEADER_BYTES)
        self._begin: NDArray[np.uint64] = self._slots["begin"]
        self._end: NDArray[np.uint64] = self._slots["end"]
        self._capacity = self.header.capacity
        self.finished = False  # nothing more will come: the program had ended before the last drain
        self.next = 0
        self.accounted = 0  # up to where something came of it: what must be durable before the file may go
        self._thread = self._owner_at_next()
        self._hole: tuple[int, int] | None = None  # (sequence, MONOTONIC when first seen)

    def resume(self, position: int) -> None:
        """Go on from an earlier run's position."""
        self.next = self.accounted = position
        self._thread = self._owner_at_next()

    def position_name(self) -> str:
        """The ring's name among the positions: a recycled process number on the next boot is another ring."""
        return f"probe/{self.path.name}@{self.header.created_realtime_ns}"

    def close(self) -> None:
        """Unmap."""
        del self._slots, self._begin, self._end
        self._map.close()

    def drain(self, limit: int, *, dead: bool, now_ns: int, patience_ns: int) -> Drained:
        """Take up to `limit` records.

        `dead` says that the program had ended before this call: then a record that was begun and not finished is torn.
        While it lives, an unfinished record with finished ones behind it is waited for `patience_ns` (MONOTONIC,
        `now_ns`), then counted as torn; the last record is waited for without limit.
        """
        out = self._drain(limit, dead, now_ns, patience_ns)
        if out.rows or out.overwritten or out.torn or out.void:
            self.accounted = self.next
        return out

    def _drain(self, limit: int, dead: bool, now_ns: int, patience_ns: int) -> Drained:
        out = Drained()
        while len(out) < limit:
            if self._take(min(_CHUNK, limit - len(out)), out):
                continue
            begin, end, want = *self._words(self.next), self.next + 1
            if end == want and begin == want:
                continue  # finished meanwhile
            if begin > want or end > want:
                self._skip_lapped(out)
            elif self._finished_behind(dead):
                if not dead and not self._waited(now_ns, patience_ns):
                    return out
                out.torn += 1
                self.next += 1
            elif dead and begin == want:
                out.torn += 1
                self.next += 1
            else:
                self.finished = dead
                return out
        return out

    def _words(self, sequence: int) -> tuple[int, int]:
        at = sequence % self._capacity
        return int(self._begin[at]), int(self._end[at])

    def _take(self, want: int, out: Drained) -> bool:
        """Copy the finished records from `next` on, without wrapping. False when there is none."""
        start = self.next % self._capacity
        stop = min(start + want, self._capacity)
        if self._end[start] != self.next + 1:
            return False
        words = np.arange(self.next + 1, self.next + 1 + stop - start, dtype=np.uint64)
        finished = self._end[start:stop] == words
        n = len(words) if finished.all() else int(np.argmin(finished))
        rows = self._slots[start : start + n].copy()
        # Only now, after the copy: a writer that came round stores `begin` before anything else.
        intact = self._begin[start : start + n] == words[:n]
        self.next += n
        if not intact.all():
            out.overwritten += n - int(np.count_nonzero(intact))
            rows = rows[intact]
        self._deliver(rows, out)
        return True

    def _deliver(self, rows: NDArray[np.void], out: Drained) -> None:
        flagged = np.flatnonzero(rows["flags"])
        if not len(rows):
            return
        if not len(flagged):
            out.rows.append(rows)
            out.threads.append(np.full(len(rows), self._thread, dtype=np.uint32))
            return
        threads = np.empty(len(rows), dtype=np.uint32)
        begun = 0
        for at in flagged.tolist():
            if rows["flags"][at] & layout.FLAG_THREAD:
                threads[begun:at] = int(rows["value"][at])
                self._thread = int(rows["id"][at])
                begun = at
        threads[begun:] = self._thread
        plain = (rows["flags"] == 0) | (rows["flags"] == layout.FLAG_INTERVAL)
        out.void += int(np.count_nonzero(~plain & (rows["flags"] != layout.FLAG_THREAD)))
        if plain.any():
            out.rows.append(rows[plain])
            out.threads.append(threads[plain])

    def _skip_lapped(self, out: Drained) -> None:
        """The writer came round: go to the oldest record that can still be there."""
        head = int(self._begin.max())
        oldest = max(self.next + 1, head - self._capacity)
        out.overwritten += oldest - self.next
        self.next = oldest
        self._thread = self._owner_at_next()

    def _owner_at_next(self) -> int:
        """The thread that wrote record `next`: the old owner in the first hand-over after it, else the current one."""
        marks = np.flatnonzero(self._slots["flags"] & layout.FLAG_THREAD)
        words = self._begin[marks]
        later = words > self.next
        if later.any():
            return int(self._slots["value"][marks[later][np.argmin(words[later])]]) & 0xFFFFFFFF
        at = layout.OWNER_OFFSET
        return int.from_bytes(self._map[at : at + 4], "little")

    def _finished_behind(self, dead: bool) -> bool:
        if not dead and self._end[(self.next + 1) % self._capacity] != self.next + 2:
            return False  # the usual idle ring; records that nest deeper finish from the inside out
        behind = np.arange(self.next + 1, self.next + min(_NESTED, self._capacity - 1) + 1)
        return bool((self._end[behind % self._capacity] == (behind + 1).astype(np.uint64)).any())

    def _waited(self, now_ns: int, patience_ns: int) -> bool:
        if self._hole is None or self._hole[0] != self.next:
            self._hole = (self.next, now_ns)
        return now_ns - self._hole[1] >= patience_ns
