"""The feed state machine as the page states it: one number at a time, sets, no cleverness."""

from __future__ import annotations

from collector.feeds.tracker import Counts


class Reference:
    def __init__(self, window_ns: int, reset: int, ahead: int, holes: int) -> None:
        self.window_ns, self.reset, self.ahead, self.holes = window_ns, reset, ahead, holes
        self.next: int | None = None
        self.floor = 0
        self.missing: dict[int, int] = {}  # number -> when it was passed over
        self.counts = Counts()

    def take(self, low: int, high: int, now: int) -> int:
        c = self.counts
        if self.next is not None and (low - self.next > self.ahead or self.next - high > self.reset):
            self.next = None
            self.missing.clear()
            c.resets += 1
        if self.next is None:
            self.next = self.floor = low
        fresh = 0
        if low > self.next:
            c.gaps += 1
            c.skipped += low - self.next
            for number in range(self.next, low):
                self.missing[number] = now
            self.next = low
            self._forget()
        for number in range(low, high):
            if number >= self.next:
                fresh += 1
                self.next = number + 1
            elif number in self.missing:
                lag = now - self.missing.pop(number)
                c.recovered_ns += lag
                c.recovered_max_ns = max(c.recovered_max_ns, lag)
                if lag <= self.window_ns:
                    c.out_of_order += 1
                else:
                    c.late += 1
                fresh += 1
            elif number < self.floor:
                c.old += 1
            else:
                c.duplicates += 1
        c.fresh += fresh
        self._forget()
        return fresh

    def _forget(self) -> None:
        while len(holes := self._holes()) > self.holes:
            low, high = holes[0]
            for number in range(low, high):
                del self.missing[number]
            self.floor = max(self.floor, high)

    def _holes(self) -> list[tuple[int, int]]:
        """Runs of missing numbers that were noticed at one time."""
        runs: list[tuple[int, int]] = []
        for number in sorted(self.missing):
            if runs and runs[-1][1] == number and self.missing[number] == self.missing[number - 1]:
                runs[-1] = (runs[-1][0], number + 1)
            else:
                runs.append((number, number + 1))
        return runs
