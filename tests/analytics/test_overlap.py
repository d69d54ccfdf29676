"""Parts of spans against a count of every single nanosecond."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from analytics import overlap

KINDS = (*overlap.ORDER, "something else")
INTERVALS = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 25), st.integers(0, len(KINDS) - 1)), max_size=12
)  # fmt: skip
SPANS = st.lists(st.tuples(st.integers(-5, 70), st.integers(0, 40)), min_size=1, max_size=6)


def brute(span: tuple[int, int], intervals: list[tuple[int, int, int]]) -> list[int]:
    """Moment by moment: the innermost interval that covers it, of equals the one that began last."""
    took = [0] * len(KINDS)
    for moment in range(span[0], span[0] + span[1]):
        covering = [
            (overlap.rank(KINDS[kind]), -start, kind) for start, n, kind in intervals if start <= moment < start + n
        ]
        if covering:
            took[min(covering)[2]] += 1
    return took


def measured(spans: list[tuple[int, int]], intervals: list[tuple[int, int, int]]) -> np.ndarray:
    table = np.array(intervals, dtype=np.int64).reshape(-1, 3)
    start, end, kind = table[:, 0], table[:, 0] + table[:, 1], table[:, 2]
    ranks = np.array([overlap.rank(name) for name in KINDS], dtype=np.int64)
    cut = overlap.segments(start, end, ranks[kind])
    asked = np.array(spans, dtype=np.int64)
    return overlap.parts(asked[:, 0], asked.sum(axis=1), cut, kind, len(KINDS))


@given(SPANS, INTERVALS)
def test_parts_are_those_of_every_single_moment(
    spans: list[tuple[int, int]], intervals: list[tuple[int, int, int]]
) -> None:
    took = measured(spans, intervals)
    assert took.tolist() == [brute(span, intervals) for span in spans]
    # What is left is never negative, and the parts never exceed the span.
    assert (took.sum(axis=1) <= [length for _, length in spans]).all()


@given(SPANS, INTERVALS, st.integers(1, 30))
def test_a_span_is_the_sum_of_its_halves(
    spans: list[tuple[int, int]], intervals: list[tuple[int, int, int]], at: int
) -> None:
    left = [(start, min(at, length)) for start, length in spans]
    right = [(start + min(at, length), length - min(at, length)) for start, length in spans]
    assert (measured(left, intervals) + measured(right, intervals) == measured(spans, intervals)).all()


def test_what_is_inside_counts_and_what_is_around_it_does_not() -> None:
    names = ("gc", "preempted", "irq")
    ranks = np.array([overlap.rank(name) for name in names])
    cut = overlap.segments(np.array([0, 20, 25]), np.array([100, 60, 30]), ranks)
    took = overlap.parts(np.array([10]), np.array([110]), cut, np.arange(3), 3)
    assert took.tolist() == [[90 - 40, 40 - 5, 5]]


def test_nothing_overlaps_nothing() -> None:
    none = np.zeros(0, dtype=np.int64)
    cut = overlap.segments(none, none, none)
    assert overlap.parts(np.array([1]), np.array([5]), cut, none, 2).tolist() == [[0, 0]]
