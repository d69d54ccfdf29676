from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from collector.sched import runq
from collector.sched.runq import EVENT, EventKind

Row = tuple[int, int, EventKind]


def scalar(rows: Sequence[Row]) -> tuple[list[tuple[int, int, int, bool]], int]:
    """The state machine of the module's docstring, event by event: (pid, end, delay, preempted) and unpaired."""
    state: dict[int, tuple[EventKind, int]] = {}
    delays, unpaired = [], 0
    for t, pid, kind in sorted(rows, key=lambda row: (row[0], row[2])):
        known = state.get(pid, (EventKind.BLOCKED, 0))
        waiting = known[0] in (EventKind.WOKEN, EventKind.RUNNABLE)
        if kind is EventKind.IN:
            if waiting:
                delays.append((pid, t, t - known[1], known[0] is EventKind.RUNNABLE))
            else:
                unpaired += 1
        if kind is not EventKind.WOKEN or known[0] is EventKind.BLOCKED:
            state[pid] = (kind, t)
    return sorted(delays), unpaired


def events(rows: Sequence[Row]) -> NDArray[np.void]:
    out = np.zeros(len(rows), dtype=EVENT)
    for n, (t, pid, kind) in enumerate(rows):
        out[n]["t_ns"], out[n]["pid"], out[n]["kind"] = t, pid, kind
    return out


def found(pairing: runq.Pairing) -> list[tuple[int, int, int, bool]]:
    d = pairing.delays
    return sorted(zip(*(d[n].tolist() for n in ("pid", "end_ns", "delay_ns", "preempted")), strict=True))


ROWS = st.lists(
    st.tuples(
        st.integers(0, 10**6),
        st.integers(1, 4),
        st.sampled_from([kind for kind in EventKind if kind is not EventKind.RUNNING]),
    ),
    max_size=120,
    unique_by=lambda row: row[:2],
)


@given(ROWS)
@settings(max_examples=50)
def test_arrays_give_what_the_state_machine_gives(rows: list[Row]) -> None:
    pairing = runq.pair(events(rows))
    assert (found(pairing), pairing.unpaired) == scalar(rows)


@given(ROWS, st.lists(st.integers(0, 10**6), max_size=5))
@settings(max_examples=50)
def test_batches_cut_anywhere_give_the_same_delays(rows: list[Row], cuts: list[int]) -> None:
    bounds = [-1, *sorted(cuts), 10**6 + 1]
    carried = events([])
    together = []
    for start, end in itertools.pairwise(bounds):
        batch = events([row for row in rows if start < row[0] <= end])
        pairing = runq.pair(np.concatenate([carried, batch]))
        carried = pairing.open
        together += found(pairing)
    assert sorted(together) == scalar(rows)[0]


def test_a_wait_that_touches_a_loss_is_dropped_and_counted() -> None:
    rows = [(100, 1, EventKind.WOKEN), (200, 1, EventKind.IN), (900, 2, EventKind.WOKEN), (950, 2, EventKind.IN)]
    pairing = runq.pair(events(rows), gaps=[(150, 800)])
    assert found(pairing) == [(2, 950, 50, False)]
    assert pairing.spoiled == 1


def test_a_switch_is_an_end_for_one_thread_and_a_beginning_for_the_other() -> None:
    t = np.array([10, 20, 30], dtype=np.int64)
    names = np.array([b"a", b"b", b"idle"], dtype="S16")
    out = runq.switch_events(
        t,
        (np.array([1, 2, 0]), names),
        np.array([0, 0x100 | 1, 0]),  # ran out of its slice; preempted on the way to sleep; idle
        (np.array([2, 0, 1]), names[[1, 2, 0]]),
        cpu=3,
    )
    rows = sorted(zip(out["t_ns"].tolist(), out["pid"].tolist(), out["kind"].tolist(), strict=True))
    assert rows == [
        (10, 1, EventKind.RUNNABLE),
        (10, 2, EventKind.IN),
        (20, 2, EventKind.RUNNABLE),
        (30, 1, EventKind.IN),
    ]
    pairing = runq.pair(out)
    assert found(pairing) == [(1, 30, 20, True)]
    assert pairing.delays["by_comm"].tolist() == [b"b"]  # who took the CPU from it
    assert pairing.delays["cpu"].tolist() == [3]
