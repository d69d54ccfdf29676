"""Parallel stages reduced to the critical path."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from analytics.tail.critical import on_path, sequential
from tests.analytics.tail.synthetic import three
from tests.analytics.world import path

PARALLEL = """
max_age = "1s"
first = {point = "app_ingress"}
last = {point = "app_egress"}
stages = [
  {name = "left", from = {point = "app_ingress"}, to = {point = "app_transform"}},
  {name = "right", from = {point = "app_ingress"}, to = {point = "app_decision"}},
]
"""


def test_which_paths_can_overlap_at_all() -> None:
    assert sequential(three())
    assert not sequential(path(PARALLEL))


def test_of_parallel_stages_the_one_that_ended_last_was_waited_for() -> None:
    begin = np.array([[0, 0, 80], [0, 40, 0]])
    end = np.array([[50, 80, 100], [30, 70, 90]])
    known = np.array([[True, True, True], [True, True, False]])
    took = on_path(begin, end, known, np.array([110, 100]))
    # 10 ns after the last stage and, in the second message, 10 between the stages and 30 after them are nobody's.
    assert took.tolist() == [[0, 80, 20], [30, 30, 0]]


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(-10, 100)), min_size=1, max_size=6))
def test_what_is_on_the_path_never_overlaps(spans: list[tuple[int, int]]) -> None:
    begin = np.array([[a for a, _ in spans]])
    end = begin + np.array([[d for _, d in spans]])
    took = on_path(begin, end, np.ones_like(begin, dtype=bool), np.array([200]))
    kept = sorted((int(begin[0, i]), int(end[0, i])) for i in np.flatnonzero(took[0]))
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(kept))
    assert 0 <= took.sum() <= 200
    assert took.sum() >= max((d for (a, d) in spans if a + d == max(b + e for b, e in spans)), default=0)
