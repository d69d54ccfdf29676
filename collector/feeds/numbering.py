"""Sessions of a line, or of all lines together: each session numbers its messages anew.

A new session takes over at its first number heard. A datagram of a session before the present one is a straggler; its
messages are `old`. Where the protocol has no sessions on the wire, number 1 with a later send time than any before
starts over: a copy of the first datagram has its send time.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from collector.feeds.tracker import Tracker

Ints = NDArray[np.int64]

_PAST = 8  # sessions whose stragglers are known
STRAGGLER = -1


class Numbering:
    """Follows one line's sessions and numbers.

    Args:
        tracker: counts the numbers.
        bits: of a number on the wire; narrower ones than 64 wrap around.
    """

    def __init__(self, tracker: Tracker, bits: int = 64) -> None:
        self.tracker = tracker
        self.session: int | None = None
        self.changes = 0  # sessions after the first
        self.wraps = 0
        self.epoch = 0  # grows when numbers start over
        self._bits = bits
        self._past: deque[int] = deque(maxlen=_PAST)
        self._sent_ns = -1

    def apply(
        self, session: NDArray[np.uint64], low: Ints, count: Ints, time_ns: Ints, sent_ns: Ints | None
    ) -> tuple[Ints, Ints, Ints]:
        """Take datagrams in their order of arrival.

        Returns:
            Per datagram: how many of its messages are new, its first number unwrapped, and the epoch it belongs to
            (`STRAGGLER` for one of a past session).
        """
        fresh = np.zeros(len(low), dtype=np.int64)
        number = low.copy()
        epoch = np.full(len(low), STRAGGLER, dtype=np.int64)
        if not len(low):
            return fresh, number, epoch
        edges = np.flatnonzero(session[1:] != session[:-1]) + 1
        for start, stop in zip([0, *edges.tolist()], [*edges.tolist(), len(low)], strict=True):
            part = slice(start, stop)
            name = int(session[start])
            if name != self.session:
                if name in self._past:
                    self.tracker.counts.old += int(count[part].sum())
                    continue
                self._change(name)
            sent = None if sent_ns is None else sent_ns[part]
            self._run(low[part], count[part], time_ns[part], sent, (fresh[part], number[part], epoch[part]))
        return fresh, number, epoch

    def _change(self, name: int) -> None:
        if self.session is not None:
            self._past.append(self.session)
            self.changes += 1
            self.epoch += 1
            self.tracker.restart()
        self.session = name

    def _run(self, low: Ints, count: Ints, time_ns: Ints, sent_ns: Ints | None, out: tuple[Ints, Ints, Ints]) -> None:
        """Take datagrams of one session."""
        for start, stop, over in self._starts_over(low, count, sent_ns):
            if over:
                self.tracker.restart()
                self.tracker.counts.resets += 1
                self.epoch += 1
            part = slice(start, stop)
            number = self._unwrapped(low[part])
            before = int(number[0]) if self.tracker.next is None else self.tracker.next
            resets = self.tracker.counts.resets
            out[0][part] = self.tracker.apply(number, number + count[part], time_ns[part])
            out[1][part] = number
            out[2][part] = self.epoch
            after = self.tracker.next
            if self._bits < 64 and after is not None and resets == self.tracker.counts.resets:
                self.wraps += (after >> self._bits) - (before >> self._bits)

    def _starts_over(self, low: Ints, count: Ints, sent_ns: Ints | None) -> list[tuple[int, int, bool]]:
        """Pieces (start, stop, whether numbers start over there)."""
        if self.session != 0 or sent_ns is None:
            return [(0, len(low), False)]
        latest = np.maximum.accumulate(np.append(self._sent_ns, sent_ns))
        first = np.flatnonzero((low <= 1) & (count > 0) & (sent_ns > latest[:-1]) & (latest[:-1] >= 0))
        self._sent_ns = int(latest[-1])
        cuts = [i for i in first.tolist() if (i or self.tracker.next is not None) and not self._wrapped(low, i)]
        edges = sorted({0, *cuts})
        return [(a, b, a in cuts) for a, b in zip(edges, [*edges[1:], len(low)], strict=True)]

    def _wrapped(self, low: Ints, i: int) -> bool:
        """Whether number i goes on from the one before, past the largest."""
        before = int(low[i - 1]) if i else self.tracker.next or 0
        return self._bits < 64 and (int(low[i]) - before) % (1 << self._bits) <= self.tracker.reset and before > low[i]

    def _unwrapped(self, low: Ints) -> Ints:
        """Numbers as if they had no end: those nearest to the expected one."""
        if self._bits >= 64:
            return low
        expected = int(low[0]) if self.tracker.next is None else self.tracker.next
        half, mask = 1 << (self._bits - 1), (1 << self._bits) - 1
        return expected + ((low - expected + half) & mask) - half
