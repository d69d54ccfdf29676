"""What became of numbered messages on one line, or on all lines together: an explicit state machine. Pure.

State: the next number, and the holes below it: ranges that were passed over, with the time when that was noticed. A
datagram carries the numbers [low, high); one with low == high is a heartbeat that says which number comes next.

    high > next, low == next   in order
    low > next                 a gap: [next, low) becomes a hole (`gaps`, `skipped`); then as in order
    part in a hole             the hole shrinks: `out_of_order` within the window, `late` after it
    part below next elsewhere  `duplicates`; below everything remembered: `old`, which cannot be told from a duplicate
    further than `ahead` on, or than `reset` back: the numbering starts over here (`resets`); what was missing stays so

So at any time exactly `skipped - out_of_order - late` messages are missing, and all counts add up over intervals.

Datagrams in order, and repetitions of what was received, cost a few ns each; only those around a hole are looked at one
by one.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

# A jump that is believed where a session is on the wire: within it numbers only grow.
SESSION_AHEAD = 1 << 30

_CHUNK = 65_536
_LEAST_CHUNK = 64


@dataclass(slots=True)
class Counts:
    """What a tracker counts; messages, except `gaps` and `resets`.

    `recovered_ns` is the sum over recovered messages of the time from noticing the hole to the message's arrival.
    """

    fresh: int = 0
    duplicates: int = 0
    gaps: int = 0
    skipped: int = 0
    out_of_order: int = 0
    late: int = 0
    old: int = 0
    resets: int = 0
    recovered_ns: int = 0
    recovered_max_ns: int = 0

    @property
    def missing(self) -> int:
        """Messages that were passed over and have not come since."""
        return self.skipped - self.out_of_order - self.late

    def add(self, other: Counts) -> None:
        """Add another interval's counts."""
        for one in fields(self):
            mine, theirs = getattr(self, one.name), getattr(other, one.name)
            setattr(self, one.name, max(mine, theirs) if one.name.endswith("max_ns") else mine + theirs)


@dataclass(slots=True)
class Gap:
    """A hole that was filled, or (`end_ns` None) was not within the window, or was forgotten."""

    low: int
    high: int
    start_ns: int
    end_ns: int | None


@dataclass(slots=True)
class Tracker:
    """Follows one numbering.

    Attributes:
        window_ns: a message that fills a hole is out of order up to this long after the hole was noticed, then late.
        reset: a jump back by more numbers than this is a new numbering.
        ahead: a jump ahead by more numbers than this is one too.
        holes: how many holes are remembered; the lowest is forgotten first, and stays missing.
        next: the number expected; None before the first datagram.
        floor: numbers below it are not remembered.
        counts: since they were last taken.
        closed: holes that ended since they were last taken, at most `holes`.
    """

    window_ns: int = 10_000_000
    reset: int = 1_000_000
    ahead: int = 1_000_000
    holes: int = 4096
    next: int | None = None
    floor: int = 0
    counts: Counts = field(default_factory=Counts)
    closed: list[Gap] = field(default_factory=list)
    _low: list[int] = field(default_factory=list)
    _high: list[int] = field(default_factory=list)
    _since: list[int] = field(default_factory=list)
    _started: list[int] = field(default_factory=list)  # the low end when the hole was noticed
    _told_ns: int = -1

    def apply(self, low: Ints, high: Ints, time_ns: Ints) -> Ints:
        """Take datagrams in their order of arrival.

        Args:
            low: first number of each.
            high: one past its last number; equal to `low` for a heartbeat.
            time_ns: when each arrived.

        Returns:
            How many of each datagram's messages were not received before.
        """
        fresh = np.empty(len(low), dtype=np.int64)
        at, size = 0, _CHUNK
        while at < len(low):
            if self.next is None:
                self.next = self.floor = int(low[at])
            end = min(at + size, len(low))
            done, whole = self._chunk(low[at:end], high[at:end], time_ns[at:end], fresh[at:end])
            at += done
            # A stream that keeps starting over is taken in small pieces, so that the work stays linear.
            size = min(size * 2, _CHUNK) if whole else max(size // 4, _LEAST_CHUNK)
        return fresh

    def restart(self) -> None:
        """Forget the numbering: the next datagram's is taken as it comes. What was missing stays missing."""
        for i in range(len(self._low)):
            self._close(i, None)
        for held in (self._low, self._high, self._since, self._started):
            held.clear()
        self.next = None

    def take(self) -> Counts:
        """The counts since the last call."""
        taken, self.counts = self.counts, Counts()
        return taken

    def take_closed(self) -> list[Gap]:
        """The holes that ended since the last call."""
        taken, self.closed = self.closed, []
        return taken

    def overdue(self, now_ns: int) -> list[Gap]:
        """The holes that have been open for longer than the window, each once. One that is filled later ends then."""
        limit = now_ns - self.window_ns
        holes = zip(self._low, self._high, self._since, strict=True)
        found = [Gap(low, high, since, None) for low, high, since in holes if self._told_ns < since <= limit]
        self._told_ns = max(self._told_ns, limit)
        return found

    def open_holes(self) -> list[tuple[int, int, int]]:
        """(low, high, noticed) of the remembered holes, ascending."""
        return list(zip(self._low, self._high, self._since, strict=True))

    def _chunk(self, low: Ints, high: Ints, time_ns: Ints, fresh: Ints) -> tuple[int, bool]:
        """Take datagrams up to the first that starts the numbering over; (how many, all of them)."""
        expected = self.next
        assert expected is not None  # noqa: S101 - set by apply
        count = len(low)
        if low[0] == expected and high[-1] >= low[-1] and (low[1:] == high[:-1]).all():
            np.subtract(high, low, out=fresh)  # in order: by far the most
            if (fresh >= 0).all():
                self.counts.fresh += int(high[-1]) - expected
                self.next = int(high[-1])
                return count, True
        before = np.maximum.accumulate(np.append(expected, high))[:-1]
        over = (low - before > self.ahead) | (before - high > self.reset)
        if over.any():
            count = int(over.argmax())
            low, high, time_ns, fresh, before = (x[:count] for x in (low, high, time_ns, fresh, before))
        if count:
            self._take(low, high, time_ns, before, fresh)
        if over.any():
            self.restart()
            self.counts.resets += 1
            return count, False
        return count, True

    def _take(self, low: Ints, high: Ints, time_ns: Ints, before: Ints, fresh: Ints) -> None:
        np.subtract(high, np.maximum(low, before), out=fresh)
        np.maximum(fresh, 0, out=fresh)
        self.counts.fresh += int(fresh.sum())
        jumps = low > before
        behind = low < np.minimum(high, before)
        gaps = np.flatnonzero(jumps)
        near = jumps | self._touches(low, np.minimum(high, before), before, gaps, behind)
        if len(self._low) + int(near.sum()) > self.holes:
            near = jumps | behind  # a hole may be forgotten on the way, which moves the floor for those behind it
        far = behind & ~near
        if far.any():
            start, stop = low[far], np.minimum(high, before)[far]
            old = int(np.maximum(np.minimum(stop, self.floor) - start, 0).sum())
            self.counts.old += old
            self.counts.duplicates += int((stop - start).sum()) - old
        for i in np.flatnonzero(near).tolist():
            begin, passed, now = int(low[i]), int(before[i]), int(time_ns[i])
            if begin > passed:
                self._open(passed, begin, now)
            else:
                filled = self._fill(begin, min(int(high[i]), passed), now)
                fresh[i] += filled
                self.counts.fresh += filled
        self.next = max(int(before[-1]), int(high[-1]))

    def _touches(self, low: Ints, stop: Ints, before: Ints, gaps: Ints, behind: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which datagrams that lie behind may lie in a hole: one that is there, or opens among these."""
        lows = np.concatenate([np.array(self._low, dtype=np.int64), before[gaps]])
        highs = np.concatenate([np.array(self._high, dtype=np.int64), low[gaps]])
        if not len(lows):
            return np.zeros(len(low), dtype=np.bool_)
        first = np.searchsorted(highs, low, side="right")
        inside = first < len(lows)
        return np.asarray(behind & inside & (lows[np.minimum(first, len(lows) - 1)] < stop))

    def _open(self, low: int, high: int, now: int) -> None:
        self.counts.gaps += 1
        self.counts.skipped += high - low
        self._low.append(low)
        self._high.append(high)
        self._since.append(now)
        self._started.append(low)
        self._forget()

    def _fill(self, low: int, high: int, now: int) -> int:
        """Take the numbers [low, high), all below next; how many were missing."""
        filled = 0
        i = bisect_left(self._high, low + 1)
        while i < len(self._low) and self._low[i] < high:
            begin, end, since = self._low[i], self._high[i], self._since[i]
            first, last = max(begin, low), min(end, high)
            self._recovered(last - first, now - since)
            filled += last - first
            if first == begin and last == end:
                self._close(i, now)
                for held in (self._low, self._high, self._since, self._started):
                    del held[i]
                continue
            if first > begin and last < end:  # a hole in two
                self._low.insert(i + 1, last)
                self._high.insert(i + 1, end)
                self._since.insert(i + 1, since)
                self._started.insert(i + 1, last)
                self._high[i] = first
            elif first > begin:
                self._high[i] = first
            else:
                self._low[i] = last
            i += 1
        old = max(0, min(high, self.floor) - low)
        self.counts.old += old
        self.counts.duplicates += high - low - filled - old
        self._forget()
        return filled

    def _recovered(self, messages: int, lag_ns: int) -> None:
        if lag_ns <= self.window_ns:
            self.counts.out_of_order += messages
        else:
            self.counts.late += messages
        self.counts.recovered_ns += messages * lag_ns
        self.counts.recovered_max_ns = max(self.counts.recovered_max_ns, lag_ns)

    def _forget(self) -> None:
        while len(self._low) > self.holes:
            self._close(0, None)
            self.floor = max(self.floor, self._high[0])
            for held in (self._low, self._high, self._since, self._started):
                del held[0]

    def _close(self, i: int, end_ns: int | None) -> None:
        if len(self.closed) < self.holes:
            self.closed.append(Gap(self._started[i], self._high[i], self._since[i], end_ns))
