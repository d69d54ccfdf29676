"""Recorded counts at any moment of the past: what the live sums held then, by cumulative sums over 10 s cells.

`Recorded` answers as `Sums` does, with the same rounding of long windows; moving it to another moment costs nothing, so
that weeks can be replayed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analytics.slo.sums import _FINE, CELL_S, COLUMNS, HOUR_S, Ints, Sums

LEVELS = (10, 60, 3_600)
Levels = Mapping[int, tuple[Ints, Ints]]  # per level the starts of its windows, and their good, total and uncertain


@dataclass(frozen=True, slots=True)
class _Ring:
    cell_s: int
    start_s: int


class Recorded(Sums):
    """The counts of `names` from `first_s` on (a whole hour), as they stood at the moment given to `move`."""

    def __init__(self, names: Sequence[str], first_s: int, cells: NDArray[np.int64], reach_s: int) -> None:
        self.names = list(names)
        self._row = {name: i for i, name in enumerate(self.names)}
        self._first_s, self._cells, self._reach_s = first_s, cells, reach_s
        zero = np.zeros((len(self.names), 1, COLUMNS), np.int64)
        self._sums = np.concatenate([zero, np.cumsum(cells, axis=1)], axis=1)
        self._at_s = first_s
        self.move(first_s)

    def move(self, end_s: int) -> None:
        """Look from `end_s`, the exclusive end of the newest cell."""
        self._at_s = end_s
        spans: tuple[tuple[int, int, Any], ...] = (*_FINE, (HOUR_S, self._reach_s + 2 * HOUR_S, None))
        self._rings = [
            _Ring(cell_s, -(-end_s // cell_s) * cell_s - -(-span // cell_s) * cell_s)  # type: ignore[misc]
            for cell_s, span, _ in spans
        ]

    @property
    def end_s(self) -> int:
        """Exclusive end of the newest 10 s cell."""
        return self._at_s

    def cumulative(self, name: str) -> Ints:
        """Good, total and uncertain up to the begin of each cell, and of all."""
        found: Ints = self._sums[self._row[name]]
        return found

    def between(self, start_s: int, end_s: int) -> Ints:
        """As `Sums.between`."""
        ring = next((r for r in self._rings if r.start_s <= start_s), self._rings[-1])
        low = max(start_s - start_s % ring.cell_s, ring.start_s)
        found: Ints = self._sums[:, self._index(end_s)] - self._sums[:, self._index(low)]
        return found

    def cells(self, name: str, cell_s: int, start_s: int, end_s: int) -> tuple[Ints, Ints]:
        """As `Sums.cells`."""
        ring = next(r for r in self._rings if r.cell_s == cell_s)
        low = max(start_s - start_s % cell_s, ring.start_s)
        edges = np.arange(low, max(low, -(-end_s // cell_s) * cell_s) + 1, cell_s, dtype=np.int64)
        sums = self._sums[self._row[name]]
        at = np.clip((np.minimum(edges, self._at_s) - self._first_s) // CELL_S, 0, len(sums) - 1)
        return edges[:-1], np.diff(sums[at], axis=0)

    def first_s(self, name: str) -> int | None:
        """As `Sums.first_s`."""
        ring = self._rings[-1]
        low = max(ring.start_s, self._first_s)
        sums = self._sums[self._row[name]][self._index(low) : self._index(self._at_s) + 1, 1]
        later = np.flatnonzero(np.diff(sums))
        return (low + int(later[0]) * CELL_S) // HOUR_S * HOUR_S if len(later) else None

    def _index(self, at_s: int) -> int:
        at = (min(at_s, self._at_s) - self._first_s) // CELL_S
        return int(min(max(at, 0), self._sums.shape[1] - 1))


def filled(levels: Levels, first_s: int, to_s: int) -> tuple[NDArray[np.int64], int]:
    """Cells of 10 s of [first_s, to_s) from the finest level that each hour has, and the seconds known less finely.

    Of coarser windows the events are spread evenly, in whole numbers that add up.
    """
    cells = np.zeros(((to_s - first_s) // CELL_S, COLUMNS), np.int64)
    hours = -(-(to_s - first_s) // HOUR_S)
    given: dict[int, tuple[Ints, Ints]] = {}
    totals = np.zeros((len(LEVELS), hours), np.int64)
    for row, level in enumerate(LEVELS):
        if level in levels:
            starts, values = levels[level]
            inside = (starts >= first_s) & (starts + level <= to_s)
            given[level] = starts[inside], values[inside]
            np.add.at(totals[row], (starts[inside] - first_s) // HOUR_S, values[inside][:, 1])
    # The oldest hours of a fine level are half gone: an hour is taken from the finest level that has nearly all of it.
    chosen = np.argmax(totals >= 0.98 * totals.max(axis=0), axis=0)
    for row, level in enumerate(LEVELS):
        if level in given:
            starts, values = given[level]
            mine = chosen[(starts - first_s) // HOUR_S] == row
            at = (starts[mine] - first_s)[:, None] // CELL_S + np.arange(level // CELL_S)
            cells[at] = spread(values[mine], level // CELL_S)
    rough = (chosen > 0) & (totals.max(axis=0) > 0)
    return cells, int(rough.sum()) * HOUR_S


def spread(values: Ints, parts: int) -> Ints:
    """Good, total and uncertain of rows divided evenly into `parts`; shape (rows, parts, 3)."""
    good, total, unsure = (values[:, i, None] for i in range(COLUMNS))
    whole = total * np.arange(parts + 1) // parts
    # Nested, so that in no part more are bad than there are.
    not_good = np.where(total > 0, whole * (total - good) // np.maximum(total, 1), 0)
    doubtful = np.where(total > good, not_good * unsure // np.maximum(total - good, 1), 0)
    every, bad, maybe = (np.diff(one, axis=1) for one in (whole, not_good, doubtful))
    return np.stack([every - bad, every, maybe], axis=2)
