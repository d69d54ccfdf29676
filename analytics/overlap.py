"""How much of a span a thread was kept from working, and by what: pure arithmetic on arrays of nanoseconds.

Intervals of one thread may nest (an interrupt inside a garbage collection) and overlap. Every moment belongs to one
interval, the innermost by `ORDER`, so that the parts of a span never count a moment twice:

    sum of a span's parts + what remains = the span, exactly
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
# Innermost first: what stops a thread that is itself stopped by what follows. Other kinds come last.
ORDER = (
    "irq", "softirq", "throttled", "preempted", "run_queue",
    "blocked_io", "blocked_lock", "blocked_kernel", "page_fault", "gc",
)  # fmt: skip
# Time asleep. Where a span begins on another thread this one may have slept because there was nothing to do yet.
ASLEEP = frozenset({"blocked_io", "blocked_lock", "blocked_kernel"})


@dataclass(frozen=True, slots=True)
class Segments:
    """Time cut where the owner changes: moments in [edges[i], edges[i + 1]) belong to interval `owner[i]`, -1: none."""

    edges: Ints
    owner: Ints


def rank(kind: str) -> int:
    """How far inside a kind is: 0 is innermost."""
    return ORDER.index(kind) if kind in ORDER else len(ORDER)


def segments(start: Ints, end: Ints, ranks: Ints) -> Segments:
    """The owners of time by intervals [start, end) of one thread, int64[n]; empty intervals own nothing.

    Of equally ranked intervals that overlap the one that begins later owns what they share.
    """
    edges = np.unique(np.concatenate([start, end]))
    owner = np.full(max(len(edges) - 1, 0), -1, dtype=np.int64)
    first, last = np.searchsorted(edges, start), np.searchsorted(edges, end)
    for at in np.lexsort((start, -ranks)).tolist():  # outermost first: what is painted later lies on top
        owner[first[at] : last[at]] = at
    return Segments(edges, owner)


def parts(start: Ints, end: Ints, cut: Segments, code: NDArray[Any], codes: int) -> Ints:
    """How much of each span [start, end), int64[m], belongs to intervals of each code: int64[m, codes].

    `code[i]` is the code of interval i, below `codes`; negative ones are left out.
    """
    out = np.zeros((len(start), codes), dtype=np.int64)
    if not len(cut.owner):
        return out
    owned = np.where(cut.owner >= 0, np.asarray(code, dtype=np.int64)[cut.owner], -1)
    length = np.diff(cut.edges)
    low = np.clip(start, cut.edges[0], cut.edges[-1])
    high = np.clip(np.maximum(end, start), cut.edges[0], cut.edges[-1])
    ends = [np.minimum(np.searchsorted(cut.edges, x, side="right") - 1, len(length) - 1) for x in (low, high)]
    for which in np.unique(owned[owned >= 0]).tolist():
        mine = owned == which
        before = np.concatenate([[0], np.cumsum(np.where(mine, length, 0))])
        upto = [before[at] + np.where(mine[at], x - cut.edges[at], 0) for at, x in zip(ends, (low, high), strict=True)]
        out[:, which] = upto[1] - upto[0]
    return out
