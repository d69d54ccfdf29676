"""How the load of a day goes: sessions, halts, a market spike, a backup job, drawn from one seed. Pure.

Times are seconds of the profile's own day, 0 to `DAY_S`; time compression lives in whoever reads it. Rates are factors
of the mean rate of continuous trading.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

DAY_S = 86_400.0
_HOUR = 3_600.0
OPEN_S = 8 * _HOUR  # the first session's begin, where a run begins its day


@dataclass(frozen=True, slots=True)
class Session:
    """A time of trading whose rate goes straight from one factor to another."""

    name: str
    begin_s: float
    end_s: float
    first: float
    last: float


@dataclass(frozen=True, slots=True)
class Event:
    """Something that begins and ends: a halt of `instrument`, a spike that multiplies rate and volatility, a job."""

    begin_s: float
    end_s: float
    instrument: int = -1
    factor: float = 1.0

    def covers(self, at_s: float) -> bool:
        """Whether it is going on."""
        return self.begin_s <= at_s < self.end_s


@dataclass(frozen=True, slots=True)
class Profile:
    """One day's load. Without sessions it never changes and never ends."""

    sessions: tuple[Session, ...] = ()
    halts: tuple[Event, ...] = ()
    spikes: tuple[Event, ...] = ()
    backup: Event | None = None
    burst_share: float = 0.03  # of the sends; a burst is several quotes in one datagram

    def factor(self, at_s: float) -> float:
        """The rate at that time, in units of the mean rate; 0 when the market is closed."""
        at_s %= DAY_S
        now = self.session(at_s)
        if self.sessions and now is None:
            return 0.0
        level = 1.0
        if now is not None:
            level = now.first + (now.last - now.first) * (at_s - now.begin_s) / (now.end_s - now.begin_s)
        return level * self.volatility(at_s)

    def volatility(self, at_s: float) -> float:
        """How much more than usual prices move."""
        factor, at_s = 1.0, at_s % DAY_S
        for spike in self.spikes:
            factor *= spike.factor if spike.covers(at_s) else 1.0
        return factor

    def session(self, at_s: float) -> Session | None:
        """The session that is on, None when the market is closed or knows no sessions."""
        at_s %= DAY_S
        for one in self.sessions:  # a loop: a history asks this several times for each quote
            if one.begin_s <= at_s < one.end_s:
                return one
        return None

    def halted(self, instrument: int, at_s: float) -> bool:
        """Whether trading in the instrument is suspended."""
        return instrument in self.halted_at(at_s)

    def halted_at(self, at_s: float) -> frozenset[int]:
        """The instruments in which trading is suspended."""
        at_s %= DAY_S
        return frozenset([halt.instrument for halt in self.halts if halt.covers(at_s)])

    def peak(self) -> float:
        """A factor that is never exceeded."""
        level = max((max(s.first, s.last) for s in self.sessions), default=1.0)
        for spike in self.spikes:
            level *= max(1.0, spike.factor)
        return level

    def opens_s(self, at_s: float) -> float:
        """The first moment from `at_s` on at which the market is open; counts on over midnight."""
        if not self.sessions or self.session(at_s) is not None:
            return at_s
        day = at_s - at_s % DAY_S
        begins = (day + plus + s.begin_s for plus in (0.0, DAY_S) for s in self.sessions)
        return min(begin for begin in begins if begin >= at_s)


FLAT = Profile()
PROFILES = ("flat", "day")


def profile(name: str, seed: int, instruments: int) -> Profile:
    """The profile of that name. Raises KeyError for another name."""
    return {"flat": lambda: FLAT, "day": lambda: trading_day(seed, instruments)}[name]()


def trading_day(seed: int, instruments: int) -> Profile:
    """A day: an auction, a busy opening, a quiet noon, a busy close; two halts, a spike and a backup at drawn times."""
    rng = random.Random(seed)  # noqa: S311 - the same seed must give the same day
    knots = [(8, 0.1), (9, 0.3), (9.05, 2.5), (10, 1.2), (12, 0.7), (13.5, 0.6), (14.5, 1.2), (17, 1.4), (17.5, 2.2)]
    names = ("auction", "uncross", "opening", "morning", "noon", "early", "afternoon", "closing")
    sessions = tuple(
        Session(name, a * _HOUR, b * _HOUR, first, last)
        for name, ((a, first), (b, last)) in zip(names, itertools.pairwise(knots), strict=True)
    )
    spike_s = rng.uniform(10 * _HOUR, 16 * _HOUR)
    halts = []
    for _ in range(2):
        begin_s = rng.uniform(9.5 * _HOUR, 16 * _HOUR)
        halts.append(Event(begin_s, begin_s + rng.uniform(300, 900), rng.randrange(instruments)))
    backup_s = rng.uniform(11 * _HOUR, 13 * _HOUR)
    return Profile(
        sessions,
        tuple(halts),
        (Event(spike_s, spike_s + rng.uniform(120, 300), factor=rng.uniform(2.0, 3.0)),),
        Event(backup_s, backup_s + 1_200),
    )
