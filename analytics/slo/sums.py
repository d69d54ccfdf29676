"""The counts of many objectives in memory: what every window of every rule holds, from cells that are set as they come.

Cells lie in three rings: of 10 s for 6 h and a bit, of 1 min for 4 d, of 1 h for the longest period. A window is looked
up in the finest ring that reaches back far enough: up to 6 h it is exact to 10 s, up to 4 d its beginning is rounded
down to the minute, beyond to the hour. Nothing is kept that could drift: a window is the sum of its cells, and a late
correction sets its cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
CELL_S = 10
HOUR_S = 3_600
# Length of a cell, how far its ring reaches back (some more than the windows that it serves), and its cells' width.
_FINE = ((10, 6 * HOUR_S + 900, np.int32), (60, 4 * 86_400 + 7_200, np.int32))
MONTH_S = 31 * 86_400
COLUMNS = 3  # good, total, uncertain


@dataclass(frozen=True, slots=True)
class Named:
    """Many rows' names: the different ones, and of each row which of them it has."""

    names: Sequence[str]
    codes: Ints

    def take(self, places: Ints) -> Named:
        """Some of the rows."""
        return Named(self.names, self.codes[places])


class _Ring:
    """Cells of one length, `cells[name, column, cell]`; `used` columns of them are in use, the newest last."""

    def __init__(self, names: int, cell_s: int, span_s: int, width: Any, end_s: int) -> None:
        self.cell_s = cell_s
        self.length = -(-span_s // cell_s)
        # A quarter more than needed: the cells move only when that is full, not at every tick.
        self.cells = np.zeros((names, COLUMNS, self.length + self.length // 4 + 1), width)
        self.used = self.length
        self.end_s = -(-end_s // cell_s) * cell_s

    @property
    def start_s(self) -> int:
        return self.end_s - self.cell_s * self.length

    def advance(self, end_s: int) -> None:
        new = -(-end_s // self.cell_s) - self.end_s // self.cell_s
        if new <= 0:
            return
        self.end_s += new * self.cell_s
        if self.used + new > self.cells.shape[2]:
            kept = max(0, self.length - new)
            self.cells[:, :, :kept] = self.cells[:, :, self.used - kept : self.used].copy()
            self.cells[:, :, kept:] = 0
            self.used = self.length
        else:
            self.used += new

    def columns(self, starts_s: Ints) -> Ints:
        """The column of each start; -1 outside the ring."""
        at = (starts_s - self.start_s) // self.cell_s
        return np.where((at >= 0) & (at < self.length), at + self.used - self.length, -1)

    def slice(self, start_s: int, end_s: int) -> slice:
        base = self.used - self.length
        first = min(max((start_s - self.start_s) // self.cell_s, 0), self.length)
        last = min(max(-(-(end_s - self.start_s) // self.cell_s), first), self.length)
        return slice(base + first, base + last)


class Sums:
    """The counts of `names`, one row each, up to `end_s` (epoch seconds, whole cells)."""

    def __init__(self, names: Sequence[str], end_s: int, reach_s: int = MONTH_S) -> None:
        self.names = list(names)
        self._row = {name: i for i, name in enumerate(self.names)}
        rings = (*_FINE, (HOUR_S, reach_s + 2 * HOUR_S, np.int64))
        self._rings = [_Ring(len(self.names), cell_s, span_s, width, end_s) for cell_s, span_s, width in rings]

    @property
    def end_s(self) -> int:
        """Exclusive end of the newest 10 s cell."""
        return self._rings[0].end_s

    def reach(self, cell_s: int) -> tuple[int, int]:
        """Start and end of what the ring of `cell_s` holds, epoch seconds."""
        ring = next(r for r in self._rings if r.cell_s == cell_s)
        return ring.start_s, ring.end_s

    def advance(self, end_s: int) -> None:
        """Move on to `end_s`: new cells are empty, the oldest are forgotten. Moving back does nothing."""
        for ring in self._rings:
            ring.advance(end_s)

    def load(self, cell_s: int, names: Sequence[str] | Named, starts_s: Ints, values: Ints) -> None:
        """Set cells of one ring to `values[i]` = (good, total, uncertain), and no others; for start-up."""
        ring = next(r for r in self._rings if r.cell_s == cell_s)
        rows, at = self._rows(names), ring.columns(starts_s)
        fits = (rows >= 0) & (at >= 0)
        ring.cells[rows[fits], :, at[fits]] = values[fits]

    def put(self, names: Sequence[str] | Named, starts_s: Ints, values: Ints) -> None:
        """Set 10 s cells to `values[i]` = (good, total, uncertain); the coarser cells change by the difference.

        Cells before the ring of 10 s are left out: they come with `load`. Of the same cell twice the last counts.
        """
        fine = self._rings[0]
        rows, at = self._rows(names), fine.columns(starts_s)
        fits = np.flatnonzero((rows >= 0) & (at >= 0))
        # The last of each cell: the first from behind.
        _, last = np.unique((rows[fits] * fine.cells.shape[2] + at[fits])[::-1], return_index=True)
        chosen = fits[len(fits) - 1 - last]
        rows, at = rows[chosen], at[chosen]
        change = values[chosen] - fine.cells[rows, :, at]
        fine.cells[rows, :, at] = values[chosen]
        for ring in self._rings[1:]:
            coarse = ring.columns(starts_s[chosen])
            inside = coarse >= 0
            where = (rows[inside, None], np.arange(COLUMNS), coarse[inside, None])
            np.add.at(ring.cells, where, change[inside])

    def window(self, seconds: int, end_s: int | None = None) -> Ints:
        """(good, total, uncertain) of every name in the last `seconds` before `end_s`, by default the newest end."""
        end = self.end_s if end_s is None else min(end_s, self.end_s)
        return self.between(end - seconds, end)

    def between(self, start_s: int, end_s: int) -> Ints:
        """The same of [start_s, end_s), the start rounded down to a cell of the ring that reaches back so far."""
        ring = next((r for r in self._rings if r.start_s <= start_s), self._rings[-1])
        found: Ints = ring.cells[:, :, ring.slice(start_s, end_s)].sum(axis=2, dtype=np.int64)
        return found

    def cells(self, name: str, cell_s: int, start_s: int, end_s: int) -> tuple[Ints, Ints]:
        """Starts and values of one name's cells in [start_s, end_s), of the ring of `cell_s`."""
        ring = next(r for r in self._rings if r.cell_s == cell_s)
        part = ring.slice(start_s, end_s)
        first = ring.start_s + (part.start - ring.used + ring.length) * cell_s
        starts = first + cell_s * np.arange(part.stop - part.start, dtype=np.int64)
        return starts, ring.cells[self._row[name], :, part].T.astype(np.int64)

    def sliced(self, name: str, slice_s: int, share: float, start_s: int, end_s: int) -> tuple[int, int, int]:
        """Time slices of one name in [start_s, end_s): good, all with events, and those that cannot be decided.

        A slice is good when at least `share` of its events are; the one that is not over is left out, and slices
        without events count neither way. Where only cells are held that are longer than a slice, they stand for slices.
        """
        good, total, uncertain = self._slices(name, slice_s, start_s, end_s)
        edge = total * share - 1e-9 * total
        seen = total > 0
        surely, perhaps = seen & (good >= edge), seen & (good + uncertain >= edge)
        return int(surely.sum()), int(seen.sum()), int((perhaps & ~surely).sum())

    def averaged(self, name: str, slice_s: int, start_s: int, end_s: int) -> tuple[float, int, float]:
        """The same slices by their shares: the sum, how many there are, and the sum of what is undecided."""
        good, total, uncertain = self._slices(name, slice_s, start_s, end_s)
        seen = total > 0
        shares, doubt = good[seen] / total[seen], uncertain[seen] / total[seen]
        return float(shares.sum()), int(seen.sum()), float(doubt.sum())

    def _slices(self, name: str, slice_s: int, start_s: int, end_s: int) -> Ints:
        """Good, total and uncertain of each slice in [start_s, end_s) that is over, as rows."""
        end_s -= end_s % slice_s
        for ring in self._rings:
            if ring.start_s <= start_s:
                break
        _, values = self.cells(name, ring.cell_s, start_s - start_s % max(slice_s, ring.cell_s), end_s)
        per = max(1, slice_s // ring.cell_s)
        if len(values) % per:
            values = np.concatenate([values, np.zeros((per - len(values) % per, COLUMNS), np.int64)])
        slices = values.reshape(-1, per, COLUMNS).sum(axis=1)
        return np.ascontiguousarray(slices.T)

    def first_s(self, name: str) -> int | None:
        """Start of the first hour with events of one name that is still held, epoch seconds; None without any."""
        ring = self._rings[-1]
        totals = ring.cells[self._row[name], 1, ring.used - ring.length : ring.used]
        found = np.flatnonzero(totals)
        return ring.start_s + int(found[0]) * ring.cell_s if len(found) else None

    def _rows(self, names: Sequence[str] | Named) -> Ints:
        if isinstance(names, Named):
            return self._rows(names.names)[names.codes] if len(names.codes) else np.zeros(0, np.int64)
        return np.fromiter((self._row.get(name, -1) for name in names), np.int64, len(names))
