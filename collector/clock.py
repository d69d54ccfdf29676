"""The clock that binds stamps: MONOTONIC to UTC, and how wrong UTC may be at this moment.

REALTIME and MONOTONIC are slewed together by the kernel, so REALTIME - MONOTONIC is one constant between steps
(settimeofday, a leap second, `chronyc makestep`). It is measured once, held, and changed only when a step is seen:
two stamps of one host convert with the same offset, and their difference is exactly what the clock counted.

Cost: one reading is some 16 clock reads and one adjtimex, about 3 us.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from collector.record import CLOCK, Columns

_SAMPLES_FIRST = 200
_SAMPLES = 5
_STA_UNSYNC = 0x0040
_STA_NANO = 0x2000
_TIME_ERROR = 5


@dataclass(frozen=True, slots=True)
class ClockReading:
    """One reading of the host's clocks.

    `offset_ns` is REALTIME - MONOTONIC, `bracket_ns` how uncertain that pair is. `error_ns` bounds the distance of
    REALTIME to UTC, None when nothing states a bound. `source` says who states it.
    """

    realtime_ns: int
    monotonic_ns: int
    offset_ns: int
    bracket_ns: int
    error_ns: int | None
    source: str


@dataclass(frozen=True, slots=True)
class Pair:
    """REALTIME read between two MONOTONIC reads: offset = realtime - middle, wrong by at most `bracket_ns`."""

    realtime_ns: int
    monotonic_ns: int
    bracket_ns: int

    @property
    def offset_ns(self) -> int:
        """REALTIME - MONOTONIC."""
        return self.realtime_ns - self.monotonic_ns


@dataclass(frozen=True, slots=True)
class Bound:
    """What some authority says of REALTIME: how far from UTC at most (None = it cannot say), and its frequency."""

    error_ns: int | None
    source: str
    frequency_ppb: float | None = None
    correction_ns: int | None = None  # what the authority believes REALTIME is off by, where it says
    drift_ppm: float = 0.0  # how fast the bound may grow until it is asked again
    reason: str = ""  # why there is no bound


@dataclass(frozen=True, slots=True)
class ClockEvent:
    """One row for the CLOCK table.

    `event` is sample (the bound in use), stated (what another authority says), step, sync_lost or sync_gained; the
    last two are of one authority, the reading's `source`.
    """

    event: str
    reading: ClockReading
    frequency_ppb: float | None = None
    correction_ns: int | None = None
    step_ns: int | None = None


class BoundSource(Protocol):
    """Who states the bound: the kernel here; chrony or a PTP hardware clock in its place where there is one."""

    def bound(self) -> Bound:
        """The bound at this moment. Never raises: what is not known is None."""


@runtime_checkable
class ManyBounds(Protocol):
    """A bound source that has heard several authorities."""

    def all_bounds(self) -> Sequence[Bound]:
        """What each of them says at this moment; `bound` is the smallest."""


class _Timeval(ctypes.Structure):
    _fields_ = (("sec", ctypes.c_long), ("usec", ctypes.c_long))


class _Timex(ctypes.Structure):
    """`struct timex` of <sys/timex.h>."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("constant", ctypes.c_long),
        ("precision", ctypes.c_long),
        ("tolerance", ctypes.c_long),
        ("time", _Timeval),
        ("tick", ctypes.c_long),
        ("ppsfreq", ctypes.c_long),
        ("jitter", ctypes.c_long),
        ("shift", ctypes.c_int),
        ("stabil", ctypes.c_long),
        ("jitcnt", ctypes.c_long),
        ("calcnt", ctypes.c_long),
        ("errcnt", ctypes.c_long),
        ("stbcnt", ctypes.c_long),
        ("tai", ctypes.c_int),
        ("reserved", ctypes.c_int * 11),
    )


class Adjtimex:
    """The kernel's own bound, kept by whoever disciplines it (chronyd, ntpd, ptp4l with phc2sys).

    `maxerror` grows by 500 us/s from the last update on, so a daemon that died shows as a growing bound and then as
    "not synchronised". Needs no privilege.
    """

    def __init__(self) -> None:
        self._call: Callable[..., int] = ctypes.CDLL(None, use_errno=True).adjtimex

    def bound(self) -> Bound:
        """The kernel's bound; error None when it says that it is not synchronised."""
        timex = _Timex()
        state = self._call(ctypes.byref(timex))
        if state < 0:
            return Bound(None, "adjtimex", reason=os.strerror(ctypes.get_errno()))
        return bound_of(state, timex.status, timex.maxerror, timex.offset, timex.freq)


def bound_of(state: int, status: int, maxerror_us: int, offset: int, freq: int) -> Bound:
    """The bound that one adjtimex(2) answer states.

    `state` is its return value, `offset` in microseconds (nanoseconds with STA_NANO), `freq` in 2^-16 ppm.
    """
    unit = 1 if status & _STA_NANO else 1_000
    known = state != _TIME_ERROR and not status & _STA_UNSYNC
    reason = "" if known else "not synchronised"
    error_ns = maxerror_us * 1_000 if known else None
    return Bound(error_ns, "adjtimex", freq * 1_000 / 65_536, offset * unit, reason=reason)


def read_pair(samples: int = _SAMPLES) -> Pair:
    """The tightest of `samples` bracketed pairs. Half the bracket bounds the error, whatever preempted the reads."""
    best: tuple[int, int, int] | None = None
    for _ in range(samples):
        before = time.monotonic_ns()
        realtime = time.time_ns()
        after = time.monotonic_ns()
        if best is None or after - before < best[0]:
            best = (after - before, realtime, before)
    if best is None:
        raise ValueError(f"samples must be at least 1, got {samples}")
    width, realtime, before = best
    return Pair(realtime, before + width // 2, width // 2 + 1)


class HostClock:
    """The host's clock as all sources of one agent see it.

    Args:
        bounds: who states the bound.
        pair: reads a bracketed pair; given by tests.
        threshold_ns: a change of the offset beyond this and both brackets is a step. A smaller one is not followed,
            and is part of `bracket_ns`.
        sample_s: how often a CLOCK row is made when nothing happens.
    """

    def __init__(
        self,
        bounds: BoundSource | None = None,
        *,
        pair: Callable[[int], Pair] = read_pair,
        threshold_ns: int = 1_000,
        sample_s: float = 10.0,
    ) -> None:
        self._bounds = Adjtimex() if bounds is None else bounds
        self._pair = pair
        self._threshold_ns = threshold_ns
        self._sample_ns = round(sample_s * 1e9)
        self._held = pair(_SAMPLES_FIRST)
        self._sampled_ns: int | None = None
        self._synchronised: dict[str, bool] = {}
        self._reason = ""
        self._events: list[ClockEvent] = []

    def read(self) -> ClockReading:
        """The clocks now, converted with the held offset; steps and losses of synchronisation are noted as events."""
        fresh = self._pair(_SAMPLES)
        moved = fresh.offset_ns - self._held.offset_ns
        step_ns = None
        if abs(moved) > self._threshold_ns + fresh.bracket_ns + self._held.bracket_ns:
            tight = self._pair(_SAMPLES_FIRST)
            step_ns = tight.offset_ns - self._held.offset_ns
            self._held = fresh = tight
            moved = 0
        bounds = self._bounds
        stated = list(bounds.all_bounds()) if isinstance(bounds, ManyBounds) else [bounds.bound()]
        bound = smallest(stated)
        self._reason = bound.reason if bound.error_ns is None else ""
        reading = ClockReading(
            realtime_ns=fresh.realtime_ns,
            monotonic_ns=fresh.monotonic_ns,
            offset_ns=self._held.offset_ns,
            # The held offset against what was just seen: the worse of its own bracket and the visible distance, less
            # what the new pair cannot tell.
            bracket_ns=max(self._held.bracket_ns, abs(moved) - fresh.bracket_ns),
            error_ns=bound.error_ns,
            source=bound.source,
        )
        self._note(reading, bound, stated, step_ns)
        return reading

    @property
    def no_bound_because(self) -> str:
        """Why the last reading has no bound, in each authority's words; empty when it has one."""
        return self._reason

    def events(self) -> list[ClockEvent]:
        """What happened since the last call, oldest first."""
        events, self._events = self._events, []
        return events

    def _note(self, reading: ClockReading, bound: Bound, stated: Sequence[Bound], step_ns: int | None) -> None:
        def event(name: str, by: Bound, step: int | None = None) -> None:
            told = replace(reading, error_ns=by.error_ns, source=by.source)
            self._events.append(ClockEvent(name, told, by.frequency_ppb, by.correction_ns, step))

        if step_ns is not None:
            event("step", bound, step_ns)
        for one in stated:
            synchronised = one.error_ns is not None
            if self._synchronised.setdefault(one.source, synchronised) != synchronised:
                event("sync_gained" if synchronised else "sync_lost", one)
                self._synchronised[one.source] = synchronised
        if self._sampled_ns is None or reading.monotonic_ns - self._sampled_ns >= self._sample_ns:
            event("sample", bound)
            for one in stated:
                if one.source != bound.source:
                    event("stated", one)
            self._sampled_ns = reading.monotonic_ns


def smallest(bounds: Sequence[Bound]) -> Bound:
    """The smallest bound, which is the one to use; where nobody states any, the first with everyone's reasons."""
    known = [b for b in bounds if b.error_ns is not None]
    if known:
        return min(known, key=lambda b: b.error_ns or 0)
    reasons = "; ".join(f"{b.source}: {b.reason or 'states no bound'}" for b in bounds)
    return replace(bounds[0], reason=reasons)


def clock_columns(host: str, events: Sequence[ClockEvent]) -> Columns:
    """CLOCK rows. `offset_ns` is what the authority says REALTIME is off by, `step_ns` how far it jumped."""
    return Columns.from_rows(
        CLOCK,
        (
            {
                "ts_ns": e.reading.realtime_ns,
                "host": host,
                "clock": "realtime",
                "source": e.reading.source,
                "event": e.event,
                "offset_ns": e.correction_ns,
                "error_ns": e.reading.error_ns,
                "frequency_ppb": e.frequency_ppb,
                "step_ns": e.step_ns,
            }
            for e in events
        ),
    )
