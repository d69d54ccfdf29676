"""Delays that were paired in user space, counted per group as the kernel programs count them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from collector.sched.delay_buckets import BUCKETS, bucket_index
from collector.sched.layout import GROUP


class Tally:
    """`groups` is layout.GROUP[n], cumulative; `max_ns[0]` is taken and cleared by `taken`."""

    def __init__(self, groups: int) -> None:
        self.groups: NDArray[np.void] = np.zeros(groups, dtype=GROUP)
        self._tids = np.zeros(0, dtype=np.int64)
        self._group_of = np.zeros(1, dtype=np.int64)

    def observe(self, threads: Mapping[int, int]) -> None:
        """From now on `group_of` answers with these groups."""
        self._tids = np.array(sorted(threads), dtype=np.int64)
        self._group_of = np.array([*(threads[tid] for tid in sorted(threads)), 0], dtype=np.int64)

    def group_of(self, tids: NDArray[np.integer]) -> NDArray[np.int64]:
        """The group of every thread, 0 for those that are not observed."""
        place = np.searchsorted(self._tids, tids)
        known = np.append(self._tids, -1)[place] == tids
        return np.where(known, self._group_of[place], 0)

    def count(
        self, groups: NDArray[np.int64], preempted: NDArray[np.bool_], delay_ns: NDArray[np.int64], threshold_ns: int
    ) -> None:
        """Add delays: their groups, kinds and lengths."""
        n = len(self.groups)
        place = groups * 2 + preempted
        self.groups["delays"] += np.bincount(place, minlength=2 * n).reshape(n, 2).astype(np.uint64)
        total, longest = np.zeros(2 * n, dtype=np.uint64), np.zeros(2 * n, dtype=np.uint64)
        np.add.at(total, place, delay_ns.astype(np.uint64))
        np.maximum.at(longest, place, delay_ns.astype(np.uint64))
        self.groups["delay_ns"] += total.reshape(n, 2)
        self.groups["max_ns"][:, 0] = np.maximum(self.groups["max_ns"][:, 0], longest.reshape(n, 2))
        cells = np.bincount(place * BUCKETS + bucket_index(delay_ns), minlength=2 * n * BUCKETS)
        self.groups["histogram"] += cells.reshape(n, 2, BUCKETS).astype(np.uint32)
        self.groups["long"] += np.bincount(groups[delay_ns >= threshold_ns], minlength=n).astype(np.uint64)

    def taken(self) -> NDArray[np.void]:
        """A copy of the counters; the maxima start anew."""
        copy: NDArray[np.void] = self.groups.copy()
        self.groups["max_ns"] = 0
        return copy
