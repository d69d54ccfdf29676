"""The market the feed tells of: seeded random walks, and when each quote is meant to be sent.

The times form an open loop: they do not wait for anybody, so a slow system cannot slow its own load down.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

from api.demo.market_data import Quote
from api.demo.profile import DAY_S, FLAT, OPEN_S, Profile

SYMBOLS = ("ALFA", "BETA", "GAMA", "DELT", "EPSI", "ZETA", "ETAQ", "THET")
PAIRS = {number: number ^ 1 for number in range(len(SYMBOLS))}
PRIORITIES = ("high", "normal", "low")
PRIORITY_OF = ("high", "high", "normal", "normal", "normal", "normal", "low", "low")
SITES = ("east", "west")
SITE_OF = tuple(SITES[number % 2] for number in range(len(SYMBOLS)))  # a hedge goes to the other site
_BURST_MEAN = 6.0


@dataclass(slots=True)
class Market:
    """Quotes of `SYMBOLS` at `rate` a second on average, times what the profile says, from one seed.

    The profile's day goes by `compression` times as fast as the sends, and stands at `at_s` when they begin; the rate
    is not compressed.
    """

    rate: float
    seed: int
    profile: Profile = FLAT
    compression: float = 1.0
    at_s: float = OPEN_S

    def sends(self) -> Iterator[tuple[int, list[Quote]]]:
        """Yield (nanoseconds after the start, the quotes of one datagram), for ever."""
        # Not for secrets: the same seed must give the same market.
        rng = random.Random(self.seed)  # noqa: S311
        prices = _Prices(rng)
        for at in self._times(rng):
            day_s = self._day_s(at)
            halted = self.profile.halted_at(day_s)
            open_now = [n for n in range(len(SYMBOLS)) if n not in halted]
            count = 1
            if rng.random() < self.profile.burst_share:
                count = max(1, min(16, round(rng.expovariate(1 / _BURST_MEAN))))
            intended, volatility = round(at * 1e9), self.profile.volatility(day_s)
            yield intended, [prices.quote(rng.choice(open_now), intended, volatility) for _ in range(count)]

    def actions(self) -> Iterator[tuple[int, int, bool, int]]:
        """Yield (nanoseconds after the start, instrument, whether it is halted from then on, since when), for ever.

        What is halted when the sends begin is said at once; its "since" is negative.
        """
        halts = self.profile.halts
        state = self.profile.halted_at(self.at_s)
        for number in sorted(state):
            begun = max(h.begin_s for h in halts if h.instrument == number and h.covers(self.at_s % DAY_S))
            yield 0, number, True, self._after_ns(self.at_s - self.at_s % DAY_S + begun)
        cuts = sorted({at_s for halt in halts for at_s in (halt.begin_s, halt.end_s)})
        for day in itertools.count(int(self.at_s // DAY_S)) if cuts else ():
            for cut_s in cuts:
                at_s = day * DAY_S + cut_s
                if at_s > self.at_s:
                    now, after_ns = self.profile.halted_at(cut_s), self._after_ns(at_s)
                    for number in sorted(state ^ now):
                        yield after_ns, number, number in now, after_ns
                    state = now

    def _after_ns(self, day_s: float) -> int:
        return round((day_s - self.at_s) / self.compression * 1e9)

    def _day_s(self, at: float) -> float:
        return self.at_s + at * self.compression

    def _times(self, rng: random.Random) -> Iterator[float]:
        """A Poisson process whose rate follows the profile: thinning (Lewis and Shedler, 1979)."""
        per_s = self.rate / (1 + self.profile.burst_share * (_BURST_MEAN - 1))
        peak = self.profile.peak()
        at = 0.0
        while True:
            at += rng.expovariate(per_s * peak)
            day_s = self._day_s(at)
            opens_s = self.profile.opens_s(day_s)
            if opens_s > day_s:  # closed: nothing happens until the market opens
                at += (opens_s - day_s) / self.compression
            elif rng.random() * peak < self.profile.factor(day_s):
                yield at


class _Prices:
    """A random walk with drift per instrument."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._mids = [10_000.0 + 250 * number for number in range(len(SYMBOLS))]
        self._drifts = [0.0] * len(SYMBOLS)

    def quote(self, number: int, intended_ns: int, volatility: float) -> Quote:
        """The instrument's next quote."""
        rng = self._rng
        self._drifts[number] = 0.8 * self._drifts[number] + volatility * rng.gauss(0, 0.3)
        moved = self._mids[number] + self._drifts[number] + volatility * rng.gauss(0, 0.8)
        self._mids[number] = max(1_000.0, moved)
        half = 1 + rng.randrange(2)
        mid = round(self._mids[number])
        sizes = rng.randrange(1, 10) * 100, rng.randrange(1, 10) * 100
        return Quote(number, intended_ns, mid - half, sizes[0], mid + half, sizes[1])
