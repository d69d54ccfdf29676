"""The tracker counts what the reference state machine counts, whatever the stream and however it is cut."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.feeds.tracker import Counts, Tracker
from tests.collector.feeds.reference import Reference

STEP = st.tuples(
    st.one_of(st.just(0), st.integers(-30, 30), st.sampled_from([-300, 300])),  # from the number that is due
    st.integers(0, 8),
    st.integers(1, 40),
)


def stream(steps: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    lows, highs, times, due, now = [], [], [], 1000, 0
    for offset, count, wait in steps:
        now += wait
        low = due + offset
        lows.append(low)
        highs.append(low + count)
        times.append(now)
        due = max(due, low + count) if abs(offset) < 200 else low + count
    return np.array(lows, np.int64), np.array(highs, np.int64), np.array(times, np.int64)


@settings(max_examples=400)
@given(st.lists(STEP, max_size=60), st.lists(st.integers(0, 60), max_size=3), st.sampled_from([1, 2, 4096]))
def test_the_tracker_is_the_reference_in_whatever_pieces(
    steps: list[tuple[int, int, int]], cuts: list[int], holes: int
) -> None:
    low, high, time_ns = stream(steps)
    reference = Reference(50, 200, 250, holes)
    expected = [reference.take(*one) for one in zip(low.tolist(), high.tolist(), time_ns.tolist(), strict=True)]
    tracker = Tracker(window_ns=50, reset=200, ahead=250, holes=holes)
    places = sorted({0, len(low), *(c % (len(low) + 1) for c in cuts)})
    fresh: list[int] = []
    total = Counts()
    for start, stop in pairwise(places):
        fresh += tracker.apply(low[start:stop], high[start:stop], time_ns[start:stop]).tolist()
        total.add(tracker.take())
    assert fresh == expected
    assert total == reference.counts
    assert (tracker.next, total.missing) == (reference.next, total.skipped - total.out_of_order - total.late)
    held = {n for lo, hi, _ in tracker.open_holes() for n in range(lo, hi)}
    assert held == set(reference.missing)


def run(tracker: Tracker, *datagrams: tuple[int, int, int]) -> list[int]:
    low, count, at = (np.array(column, dtype=np.int64) for column in zip(*datagrams, strict=True))
    return tracker.apply(low, low + count, at).tolist()  # type: ignore[no-any-return]


def test_the_transitions_one_by_one() -> None:
    tracker = Tracker(window_ns=10)
    assert run(tracker, (10, 2, 0), (12, 3, 1)) == [2, 3]
    assert run(tracker, (20, 1, 5)) == [1]  # 15..19 are missing
    assert (tracker.counts.gaps, tracker.counts.missing) == (1, 5)
    assert run(tracker, (15, 2, 9), (17, 1, 40)) == [2, 1]
    assert (tracker.counts.out_of_order, tracker.counts.late, tracker.counts.missing) == (2, 1, 2)
    assert run(tracker, (12, 3, 41), (16, 3, 42)) == [0, 1]  # 18 fills, 16 and 17 are there
    assert (tracker.counts.duplicates, tracker.counts.missing) == (5, 1)
    assert run(tracker, (3, 2, 43)) == [0]
    assert tracker.counts.old == 2
    assert run(tracker, (25, 0, 44)) == [0]  # a heartbeat: 21..24 were sent
    assert (tracker.counts.gaps, tracker.counts.missing) == (2, 5)
    assert run(tracker, (5_000_000, 1, 50), (1, 1, 51)) == [1, 1]
    assert (tracker.counts.resets, tracker.counts.missing) == (2, 5)
    assert tracker.counts.recovered_max_ns == 37


def test_the_window_includes_its_end() -> None:
    tracker = Tracker(window_ns=10)
    run(tracker, (1, 1, 0), (4, 1, 100), (2, 1, 110), (3, 1, 111))
    assert (tracker.counts.out_of_order, tracker.counts.late) == (1, 1)


def test_a_stream_that_keeps_starting_over_is_not_quadratic() -> None:
    count = 20_000
    low = np.where(np.arange(count) % 2, 1, 1 << 40).astype(np.int64)
    tracker = Tracker()
    tracker.apply(low, low + 1, np.arange(count))
    assert tracker.counts.resets == count - 1
    assert tracker.counts.fresh == count


def test_holes_are_bounded_and_what_is_forgotten_stays_missing() -> None:
    tracker = Tracker(holes=8)
    low = np.arange(1, 2001, 2, dtype=np.int64)
    tracker.apply(low, low + 1, low)
    assert len(tracker.open_holes()) == 8
    assert tracker.counts.missing == 999
    assert len(tracker.closed) <= 8
    run(tracker, (2, 1, 9999))
    assert tracker.counts.old == 1
    assert tracker.counts.missing == 999


@pytest.mark.parametrize("seed", range(4))
def test_drops_by_seed_are_counted_exactly(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = rng.integers(1, 40, 50_000)
    low = np.cumsum(count) - count + 1
    keep = rng.random(len(low)) > 0.03
    keep[[0, -1]] = True
    tracker = Tracker()
    tracker.apply(low[keep], (low + count)[keep], np.arange(int(keep.sum())))
    assert tracker.counts.missing == int(count[~keep].sum())
    assert tracker.counts.fresh == int(count[keep].sum())
    assert tracker.counts.duplicates == tracker.counts.old == 0
