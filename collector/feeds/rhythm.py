"""Which instruments are stale, each against its own rhythm: the 99th percentile of the time between its updates.

Times between updates are counted per instrument in logarithmic buckets, four to an octave, so the percentile is at most
19 % too high, never too low. Old counts are halved, so that the rhythm follows the day.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

_BUCKETS = 160  # from 1 us up, four to an octave: to 13 days
_OCTAVE = 4
_LEAST_NS = 1000
_HALVE_AT = 4096
_ROWS = 4096  # whose percentiles are computed at once
NEVER = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True)
class Halt:
    """An instrument that is not traded; `end_ns` None while it goes on."""

    instrument: int
    start_ns: int
    end_ns: int | None


class Rhythm:
    """The updates of a channel's instruments.

    Args:
        instruments: how many are followed; updates of further ones are counted in `untracked`.
        factor: an instrument is stale after this many times its 99th percentile.
        updates: times between updates that must be known before anything is said.
        least_ns: nothing younger is stale.
    """

    def __init__(
        self, instruments: int = 65_536, factor: float = 5.0, updates: int = 100, least_ns: int = 1_000_000
    ) -> None:
        self._most, self._factor, self._updates, self._least_ns = instruments, factor, updates, least_ns
        self.untracked = 0
        self._sorted = np.empty(0, dtype=np.uint64)
        self._place = np.empty(0, dtype=np.int64)
        self._names = np.empty(0, dtype=np.uint64)
        self._last = np.empty(0, dtype=np.int64)
        self._counts = np.empty((0, _BUCKETS), dtype=np.uint32)
        self._total = np.empty(0, dtype=np.int64)
        self._usual = np.empty(0, dtype=np.int64)
        self._changed = np.empty(0, dtype=np.bool_)  # since `_usual` was computed
        self._halted = np.empty(0, dtype=np.uint8)  # a bit for each reason
        self._halted_ns = np.empty(0, dtype=np.int64)  # since when, where halted
        self._resumed: set[int] = set()  # rows whose halt ended since the last update

    def __len__(self) -> int:
        return len(self._names)

    def update(self, instrument: NDArray[np.uint64], time_ns: Ints) -> None:
        """Take updates, in their order of arrival."""
        if not len(instrument):
            return
        place = self._places(instrument)
        known = place >= 0
        if not known.all():
            self.untracked += int((~known).sum())
            place, time_ns = place[known], time_ns[known]
        if self._resumed or self._halted.any():
            # What comes in a halt is no rhythm, and nor is the time from it to the next update.
            usual = self._halted[place] == 0
            usual &= ~np.isin(place, np.fromiter(self._resumed, np.int64, len(self._resumed)))
            self._resumed.clear()
            place, time_ns = place[usual], time_ns[usual]
        if not len(place):
            return
        order = np.argsort(place, kind="stable")
        place, time_ns = place[order], time_ns[order]
        first = np.append(True, place[1:] != place[:-1])
        before = np.append(0, time_ns[:-1])
        before[first] = self._last[place[first]]
        gap = time_ns - np.where(before == NEVER, time_ns, before)
        counted = before != NEVER
        bucket = np.clip(np.log2(np.maximum(gap, _LEAST_NS) / _LEAST_NS) * _OCTAVE, 0, _BUCKETS - 1).astype(np.int64)
        flat = place[counted] * _BUCKETS + bucket[counted]
        cells, counts = np.unique(flat, return_counts=True)
        self._counts.reshape(-1)[cells] += counts.astype(np.uint32)
        rows, added = np.unique(place[counted], return_counts=True)
        self._total[rows] += added
        self._changed[rows] = True
        last = np.append(place[1:] != place[:-1], True)
        self._last[place[last]] = np.maximum(self._last[place[last]], time_ns[last])
        full = rows[self._total[rows] > _HALVE_AT]
        if len(full):
            self._counts[full] //= 2
            self._total[full] = self._counts[full].sum(axis=1)

    def halts(
        self, instrument: NDArray[np.uint64], reason: NDArray[np.uint8], halted: NDArray[np.bool_], time_ns: Ints
    ) -> list[Halt]:
        """Take what was said of halts, in its order. Returns the halts that began or ended.

        Of the updates that are taken next, none of an instrument concerned counts.
        """
        changed: list[Halt] = []
        # Feeds repeat the state of every instrument; only what may change something is looked at one by one.
        place = self._places(instrument)
        self.untracked += int((place < 0).sum())
        known = place >= 0
        begins = np.unique(place[known & halted])
        some = known & (halted | np.isin(place, begins) | (self._halted[np.maximum(place, 0)] != 0))
        for i in np.flatnonzero(some).tolist():
            row, bit, now = int(place[i]), np.uint8(1 << int(reason[i])), int(time_ns[i])
            before = self._halted[row]
            after = before | bit if halted[i] else before & ~bit
            self._halted[row] = after
            if (before != 0) == (after != 0):
                continue
            if after:
                self._halted_ns[row], self._last[row] = now, NEVER
                changed.append(Halt(int(self._names[row]), now, None))
            else:
                self._resumed.add(row)
                changed.append(Halt(int(self._names[row]), int(self._halted_ns[row]), now))
        return changed

    def halted(self) -> list[Halt]:
        """The halts that go on."""
        rows = np.flatnonzero(self._halted)
        pairs = zip(self._names[rows].tolist(), self._halted_ns[rows].tolist(), strict=True)
        return [Halt(name, since, None) for name, since in pairs]

    def trade_all(self, now_ns: int) -> list[Halt]:
        """End all halts: a session that begins says anew what is halted. Returns those that ended."""
        ended = [Halt(one.instrument, one.start_ns, now_ns) for one in self.halted()]
        self._halted[:] = 0
        return ended

    def pause(self) -> None:
        """The market is closed: the time until the next update is nobody's rhythm, and nothing is stale."""
        self._last[:] = NEVER

    def usual_ns(self) -> Ints:
        """The 99th percentile of the time between updates, its bucket's upper end; 0 where too few are known."""
        rows = np.flatnonzero(self._changed)
        for part in np.array_split(rows, max(1, len(rows) // _ROWS)):
            total = self._total[part]
            rank = np.maximum(1, np.ceil(0.99 * total))
            bucket = (np.cumsum(self._counts[part], axis=1, dtype=np.uint32) >= rank[:, None]).argmax(axis=1)
            usual = np.ceil(_LEAST_NS * 2.0 ** ((bucket + 1) / _OCTAVE)).astype(np.int64)
            self._usual[part] = np.where(total >= self._updates, usual, 0)
        self._changed[:] = False
        return self._usual

    def stale(self, now_ns: int, error_ns: int = 0) -> tuple[NDArray[np.uint64], Ints, Ints]:
        """(instrument, since when, its 99th percentile) of the stale ones.

        `error_ns` is the bound of the clock between the updates' times and now: only what is stale in spite of it is.
        """
        usual = self.usual_ns()
        age = now_ns - error_ns - np.where(self._last == NEVER, now_ns, self._last)
        limit = np.maximum(usual * self._factor, self._least_ns)
        found = np.flatnonzero((usual > 0) & (age > limit))
        return self._names[found], self._last[found], usual[found]

    def _places(self, instrument: NDArray[np.uint64]) -> Ints:
        """The row of each instrument; new ones get one while there is room, -1 otherwise."""
        place = self._find(instrument)
        new = np.unique(instrument[place < 0])
        room = self._most - len(self)
        if not len(new) or not room:
            return place
        new = new[:room]
        self._names = np.concatenate([self._names, new])
        order = np.argsort(self._names, kind="stable")
        self._sorted, self._place = self._names[order], order
        added = len(new)
        self._last = np.concatenate([self._last, np.full(added, NEVER, dtype=np.int64)])
        self._total = np.concatenate([self._total, np.zeros(added, dtype=np.int64)])
        self._usual = np.concatenate([self._usual, np.zeros(added, dtype=np.int64)])
        self._changed = np.concatenate([self._changed, np.zeros(added, dtype=np.bool_)])
        self._halted = np.concatenate([self._halted, np.zeros(added, dtype=np.uint8)])
        self._halted_ns = np.concatenate([self._halted_ns, np.zeros(added, dtype=np.int64)])
        self._counts = np.concatenate([self._counts, np.zeros((added, _BUCKETS), dtype=np.uint32)])
        return self._find(instrument)

    def _find(self, instrument: NDArray[np.uint64]) -> Ints:
        if not len(self._sorted):
            return np.full(len(instrument), -1, dtype=np.int64)
        at = np.minimum(np.searchsorted(self._sorted, instrument), len(self._sorted) - 1)
        return np.where(self._sorted[at] == instrument, self._place[at], -1)
