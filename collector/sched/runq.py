"""Pairs "became runnable" with "was given a CPU" on arrays of events: pure arithmetic, no kernel.

The same state machine as `runq_program`, for mechanisms that hand over single events. Per thread, in order of time:

    woken       opens a wait, unless one is open already (who is woken twice, or while preempted, waits since the
                first time) or the thread runs (it was woken before it slept)
    runnable    switched out although it could run: opens a wait (PREEMPTED), whatever was open before
    blocked     switched out to sleep: closes without a result
    in          was given a CPU: ends the open wait; without one it is counted as unpaired

Cost: 210-630 ns per event (the sort is most of it).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

EVENT = np.dtype(
    [
        ("t_ns", "<i8"),
        ("pid", "<u4"),
        ("kind", "<u2"),
        ("cpu", "<u2"),
        ("by_pid", "<u4"),  # for RUNNABLE and IN: the thread on the other side of the switch
        ("comm", "S16"),
        ("by_comm", "S16"),
    ]
)
DELAY = np.dtype(
    [
        ("end_ns", "<i8"),
        ("delay_ns", "<i8"),
        ("pid", "<u4"),
        ("preempted", "?"),
        ("cpu", "<u2"),
        ("by_pid", "<u4"),
        ("comm", "S16"),
        ("by_comm", "S16"),
    ]
)


class EventKind(IntEnum):
    """What happened to the thread; the order decides between events of one thread at the same nanosecond."""

    BLOCKED = 0
    RUNNABLE = 1
    WOKEN = 2
    IN = 3
    RUNNING = 4  # only in `Pairing.open`: it was given a CPU in an earlier batch


@dataclass(slots=True)
class Pairing:
    """What one batch of events yields; `open` are the states to put before the next batch."""

    delays: NDArray[np.void]
    unpaired: int
    open: NDArray[np.void]
    spoiled: int = 0
    runs: int = 0


def switch_events(
    t_ns: NDArray[np.int64],
    prev: tuple[NDArray[np.integer], NDArray[np.bytes_]],
    prev_state: NDArray[np.integer],
    following: tuple[NDArray[np.integer], NDArray[np.bytes_]],
    cpu: int,
) -> NDArray[np.void]:
    """The two events of every sched_switch; the idle task (pid 0) has none.

    `prev` and `following` are (pid, comm) of the threads that leave and enter; `prev_state` as the tracepoint
    reports it: runnable when its lowest 8 bits are 0 or bit 8 says preempted.
    """
    out, into = np.zeros(len(t_ns), dtype=EVENT), np.zeros(len(t_ns), dtype=EVENT)
    runnable = ((prev_state & 0xFF) == 0) | ((prev_state & 0x100) != 0)
    for events, (pid, comm), (by_pid, by_comm), kind in (
        (out, prev, following, np.where(runnable, EventKind.RUNNABLE, EventKind.BLOCKED)),
        (into, following, prev, EventKind.IN),
    ):
        events["t_ns"], events["kind"], events["cpu"] = t_ns, kind, cpu
        events["pid"], events["comm"], events["by_pid"], events["by_comm"] = pid, comm, by_pid, by_comm
    both: NDArray[np.void] = np.concatenate([out, into])
    named: NDArray[np.void] = both[both["pid"] != 0]
    return named


def wakeup_events(t_ns: NDArray[np.int64], pid: NDArray[np.integer]) -> NDArray[np.void]:
    """The events of sched_wakeup and sched_wakeup_new."""
    events = np.zeros(len(t_ns), dtype=EVENT)
    events["t_ns"], events["pid"], events["kind"] = t_ns, pid, EventKind.WOKEN
    return events


def pair(events: NDArray[np.void], gaps: Sequence[tuple[int, int]] = ()) -> Pairing:
    """All waits that end in `events` (any order; put the last batch's `open` in front).

    `gaps` are (from, to) in ns during which records were lost: a wait that touches one may be two, so it is dropped
    and counted in `spoiled`.
    """
    ordered = events[np.lexsort((events["kind"], events["t_ns"], events["pid"]))]
    n = len(ordered)
    if n == 0:
        return Pairing(np.zeros(0, dtype=DELAY), 0, ordered)
    pid, kind = ordered["pid"], ordered["kind"]
    first = np.concatenate([[True], pid[1:] != pid[:-1]])
    before = np.concatenate([[np.uint16(EventKind.IN)], kind[:-1]])
    before[first] = EventKind.BLOCKED  # before its first event a thread counts as asleep
    woken = kind == EventKind.WOKEN
    effective = woken & (before == EventKind.BLOCKED)
    opening = effective | (kind == EventKind.RUNNABLE)
    closing = (kind == EventKind.BLOCKED) | (kind == EventKind.IN) | (kind == EventKind.RUNNING)
    place = np.arange(n)
    segment = np.maximum.accumulate(np.where(first, place, 0))
    last_open = np.maximum.accumulate(np.where(opening, place, -1))
    last_close = np.maximum.accumulate(np.where(closing, place, -1))

    entered = np.flatnonzero(kind == EventKind.IN)
    begun = last_open[entered]
    closed = np.concatenate([[-1], last_close[:-1]])[entered]
    paired = (begun >= segment[entered]) & (begun > closed)
    ends, begins = ordered[entered[paired]], ordered[begun[paired]]
    delays = np.zeros(len(ends), dtype=DELAY)
    delays["end_ns"], delays["delay_ns"] = ends["t_ns"], ends["t_ns"] - begins["t_ns"]
    for name in ("pid", "cpu", "comm", "by_pid", "by_comm"):
        delays[name] = ends[name]
    delays["preempted"] = begins["kind"] == EventKind.RUNNABLE
    for name in ("by_pid", "by_comm"):
        delays[name][delays["preempted"]] = begins[name][delays["preempted"]]
    good = np.ones(len(ends), dtype=np.bool_)
    for start, end in gaps:
        good &= (begins["t_ns"] >= end) | (ends["t_ns"] <= start)

    last = np.concatenate([first[1:], [True]])
    state = np.maximum(last_open, last_close)
    known = last & (state >= segment) & (kind[state] != EventKind.BLOCKED)  # asleep is what is assumed of the others
    carried = ordered[state[known]]
    carried["kind"][carried["kind"] == EventKind.IN] = EventKind.RUNNING
    return Pairing(
        delays[good],
        unpaired=int(len(entered) - paired.sum()),
        open=carried,
        spoiled=int((~good).sum()),
        runs=len(entered),
    )
