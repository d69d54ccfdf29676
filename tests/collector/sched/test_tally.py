from __future__ import annotations

import numpy as np

from collector.sched.delay_buckets import bucket_index
from collector.sched.tally import Tally


def test_delays_are_counted_by_group_and_kind() -> None:
    tally = Tally(3)
    tally.observe({50: 2, 40: 1})
    groups = tally.group_of(np.array([40, 50, 60, 40], dtype=np.uint32))
    assert groups.tolist() == [1, 2, 0, 1]
    delays = np.array([100, 20_000, 300, 500], dtype=np.int64)
    tally.count(groups, np.array([False, True, False, False]), delays, threshold_ns=10_000)
    counted = tally.taken()
    assert counted["delays"].tolist() == [[1, 0], [2, 0], [0, 1]]
    assert counted["delay_ns"].tolist() == [[300, 0], [600, 0], [0, 20_000]]
    assert counted["max_ns"][:, 0].tolist() == [[300, 0], [500, 0], [0, 20_000]]
    assert counted["long"].tolist() == [0, 0, 1]
    assert counted["histogram"][2, 1, bucket_index(np.array([20_000]))[0]] == 1
    assert counted["histogram"].sum() == 4


def test_the_maximum_is_that_of_the_time_since_it_was_taken() -> None:
    tally = Tally(1)
    one = (np.zeros(1, dtype=np.int64), np.array([False]))
    tally.count(*one, np.array([900], dtype=np.int64), 10)
    tally.taken()
    tally.count(*one, np.array([5], dtype=np.int64), 10)
    again = tally.taken()
    assert int(again["max_ns"][0, 0, 0]) == 5
    assert int(again["delays"][0, 0]) == 2
