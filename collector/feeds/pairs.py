"""Copies of one message on several lines: how far apart they came, and whether they said the same.

The first copy of each number is remembered in a ring of `memory` numbers; a copy on another line is compared with it.
Of several copies on one line the first counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(slots=True)
class Compared:
    """Second copies found.

    Attributes:
        line: of the later copy.
        lag_ns: its arrival after the first copy's.
        divergent: whether its content differs from the first copy's.
        number: what it is numbered.
    """

    line: Ints
    lag_ns: Ints
    divergent: NDArray[np.bool_]
    number: Ints


class Pairs:
    """Remembers the first copies of one numbering. At most 63 lines."""

    def __init__(self, memory: int = 65_536) -> None:
        self._mask = memory - 1
        self._number = np.full(memory, -1, dtype=np.int64)
        self._time = np.zeros(memory, dtype=np.int64)
        self._digest = np.zeros(memory, dtype=np.uint64)
        self._lines = np.zeros(memory, dtype=np.uint64)  # a bit per line that has brought it

    def restart(self) -> None:
        """The numbers start over: forget them."""
        self._number[:] = -1

    def take(self, number: Ints, line: Ints, time_ns: Ints, digest: NDArray[np.uint64]) -> Compared:
        """Take copies in their order of arrival."""
        # Once per number and line: the stable sort leaves the first arrival first.
        order = np.lexsort((line, number))
        number, line, time_ns, digest = number[order], line[order], time_ns[order], digest[order]
        again = np.append(False, (number[1:] == number[:-1]) & (line[1:] == line[:-1]))
        if again.any():
            number, line, time_ns, digest = number[~again], line[~again], time_ns[~again], digest[~again]
        slot = number & self._mask
        bit = np.uint64(1) << line.astype(np.uint64)
        known = self._number[slot] == number
        seen = known & ((self._lines[slot] & bit) != 0)
        if seen.any():
            number, line, time_ns, digest, slot, bit, known = (
                x[~seen] for x in (number, line, time_ns, digest, slot, bit, known)
            )
        if not len(number):
            return Compared(line, time_ns, np.empty(0, np.bool_), number)
        group = np.append(True, number[1:] != number[:-1])
        which = np.cumsum(group) - 1
        heads = np.flatnonzero(group)
        # The first copy of each number: the remembered one, or the earliest of these.
        earliest = np.minimum.reduceat(time_ns, heads)
        first_time = np.where(known[heads], self._time[slot[heads]], earliest)
        is_first = ~known & (time_ns == earliest[which])
        is_first &= np.append(True, ~(is_first[:-1] & (which[1:] == which[:-1])))  # of two at one time the first line's
        leader = np.zeros(len(heads), dtype=np.int64)
        leader[which[is_first]] = np.flatnonzero(is_first)
        first_digest = np.where(known[heads], self._digest[slot[heads]], digest[leader])
        later = ~is_first
        compared = Compared(
            line[later],
            time_ns[later] - first_time[which[later]],
            digest[later] != first_digest[which[later]],
            number[later],
        )
        bits = np.bitwise_or.reduceat(bit, heads)
        at = slot[heads]
        self._lines[at] = np.where(known[heads], self._lines[at], 0) | bits
        self._number[at], self._time[at], self._digest[at] = number[heads], first_time, first_digest
        return compared
