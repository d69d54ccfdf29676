"""Queues of real stored messages: stamps in, the answer out."""

from __future__ import annotations

import numpy as np
import pytest

from analytics import windows
from analytics.population import population
from analytics.queueing.queues import queues
from analytics.queueing.waits import before, waits_of
from collector.store import Store
from tests.analytics.queueing.simulated import mm1
from tests.analytics.world import HOUR, label_set, path, put, put_rows, stamp

S = 1_000_000_000
MS = 1_000_000
WORK = """
max_age = "5s"
stages = [
  {name = "prepare", class = "compute", from = {point = "app_ingress"}, to = {point = "app_transform"}},
  {name = "wait", class = "queue", budget = "20ms", from = {point = "app_transform"}, to = {point = "app_decision"}},
  {name = "work", class = "compute", from = {point = "app_decision"}, to = {point = "app_egress"}},
]
"""
N = 6_000


@pytest.fixture(scope="module")
def filled(shared_store: Store) -> Store:
    for table in ("stamps", "label_sets", "batches", "heartbeats", "messages", "windows", "stage_counts",
                  "stage_windows", "gauges"):  # fmt: skip
        shared_store.execute(f"TRUNCATE TABLE {table}")
    queue = mm1(np.random.default_rng(11), N, service_ns=5 * MS)
    sets = [label_set(shared_store, {"priority": name}) for name in ("high", "low")]
    stamps = []
    waiting = np.arange(N) - np.searchsorted(queue.taken_ns, queue.arrived_ns, side="right")
    for i in range(N):
        at = HOUR + 10 * S + int(queue.arrived_ns[i])
        stamps += [
            stamp(i + 1, "app_ingress", at - 50, label_set=sets[i % 3 == 0]),
            stamp(i + 1, "app_transform", at, depth=int(waiting[i])),
            stamp(i + 1, "app_decision", HOUR + 10 * S + int(queue.taken_ns[i])),
            stamp(i + 1, "app_egress", HOUR + 10 * S + int(queue.left_ns[i])),
        ]
    put(shared_store, stamps)
    read = np.arange(0, queue.to_ns, 50 * MS)
    level = np.searchsorted(queue.arrived_ns, read, side="right") - np.searchsorted(queue.taken_ns, read, side="right")
    rows = [
        {
            "ts": HOUR + 10 * S + int(t),
            "name": "queue_depth",
            "host": "a",
            "service": "",
            "label_set": 0,
            "value": float(v),
        }
        for t, v in zip(read, level.astype(float), strict=True)
    ]
    put_rows(shared_store, "gauges", rows)
    windows.run_due(shared_store, {"work": path(WORK, "work")}, now_ns=HOUR + 300 * S)
    return shared_store


def test_a_queue_of_stored_messages(filled: Store) -> None:
    found = queues(filled, path(WORK, "work"), from_ns=HOUR, to_ns=HOUR + 60 * S, gauge="queue_depth")
    assert [(q.stage, q.refused, q.count, q.untimed) for q in found] == [("wait", "", N, 0)]
    one = found[0]
    assert (one.little, one.depth_counts) == ("holds", "all")
    assert one.order == [["high", "low"]]  # it serves in order of arrival, whatever the label says
    everything = one.classes[0]
    assert [law.source for law in everything.little] == ["events", "depth on arrival", "gauge"]
    assert everything.little[0].length == pytest.approx(everything.little[0].expected, rel=1e-6)
    assert everything.little[1].length == pytest.approx(everything.little[1].expected, rel=1e-6)
    assert everything.little[2].verdict == "holds"
    assert [c.name for c in one.classes] == ["all", "high", "low"]
    assert sum(c.count for c in one.classes[1:]) == N
    medians = [tail.quantiles[0].value for tail in everything.depths if tail.quantiles[0].value is not None]
    assert len(medians) >= 3 and medians == sorted(medians)
    assert everything.limit is not None and everything.limit.threshold_ns == 20 * MS
    for blocked in one.head_of_line:
        assert blocked.behind_equal_share + blocked.unseen_share == pytest.approx(1)
        assert blocked.unseen_share < 0.01


def test_an_order_that_is_said_and_a_part_of_the_messages(filled: Store) -> None:
    reach = {"from_ns": HOUR, "to_ns": HOUR + 60 * S}
    said = queues(filled, path(WORK, "work"), order=("high", "low"), stage="wait", **reach)[0]
    high, low = said.head_of_line
    assert (high.name, low.name) == ("high", "low")
    assert high.behind_lower_share > 0.2 and high.behind_urgent_share == 0
    assert low.behind_urgent_share > 0.5 and low.behind_lower_share == 0
    part = queues(filled, path(WORK, "work"), share=0.25, **reach)[0]
    assert (part.little, part.head_of_line) == ("undecided", [])
    assert 0.2 * N < part.count < 0.3 * N


def test_what_is_no_queue_or_empty_or_unknown_says_so(filled: Store) -> None:
    with pytest.raises(KeyError, match="no queue 'work'; its stages of class queue are: wait"):
        queues(filled, path(WORK, "work"), from_ns=HOUR, to_ns=HOUR + S, stage="work")
    empty = queues(filled, path(WORK, "work"), from_ns=HOUR + 200 * S, to_ns=HOUR + 210 * S)[0]
    assert (empty.count, empty.refused) == (
        0,
        "no message came to this queue in that time; those of a history are asked for with mode synthetic",
    )
    gap = path(WORK.replace('from = {point = "app_transform"}, to = {point = "app_decision"}',
                            'from = {point = "wakeup"}, to = {point = "app_decision"}'), "work")  # fmt: skip
    assert before(gap, 1) is None
    told = queues(filled, gap, from_ns=HOUR, to_ns=HOUR + 60 * S)[0]
    assert "without a gap" in told.refused
    with pytest.raises(ValueError, match="without a gap"):
        waits_of(population(filled, gap, from_ns=HOUR, to_ns=HOUR + S), 1)
