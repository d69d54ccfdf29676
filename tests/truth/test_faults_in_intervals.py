"""Faults in the collectors' own intervals: the right kind, on the right threads, in the messages they slowed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from analytics import budget
from tests.truth.conftest import World

pytestmark = pytest.mark.fault  # it compares times, which other work on the machine can spoil
MS = 1_000_000


@dataclass(frozen=True)
class Interval:
    """One interval and the program whose thread it hit."""

    place: str
    thread: int
    kind: str
    culprit: str
    start_ns: int
    duration_ns: int


def intervals(world: World, span: tuple[int, int]) -> list[Interval]:
    """All intervals that begin in the span."""
    sql = """
    SELECT thread, toString(kind) AS kind, toString(culprit) AS culprit, toUnixTimestamp64Nano(ts) AS start_ns,
        duration_ns
    FROM intervals WHERE start_ns >= {from_ns:Int64} AND start_ns < {to_ns:Int64}
    """
    rows = world.query(sql, {"from_ns": span[0], "to_ns": span[1]})
    return [Interval(world.place_of.get(row["thread"], "?"), **row) for row in rows]


@pytest.fixture
def seen(world: World) -> World:
    """The order path with what the scheduler collector sees, or a skip."""
    if world.scheduler.status != "running":
        pytest.skip(f"the scheduler cannot be observed here: {world.scheduler.reason}")
    return world


def test_collections_are_intervals_of_the_program_that_collects(world: World) -> None:
    (fault,), span = world.strike(("fault", "start", "gc_pauses", "--at", "venue-east", "--size", "20%"), seconds=3.0)
    found = [i for i in intervals(world, span) if i.kind == "gc" and i.duration_ns >= 5 * MS]
    pulses = (span[1] - span[0]) // fault.period_ns
    assert len([i for i in found if i.place == "venue-east"]) >= max(2, pulses // 3)
    assert {i.place for i in found} == {"venue-east"}
    assert {i.culprit for i in found} == {"generation 2"}


def test_a_hog_makes_the_threads_of_its_neighbour_wait_for_a_cpu(seen: World) -> None:
    _, span = seen.strike(("fault", "start", "cpu_hog", "--at", "gateway-west", "--size", "60%"), seconds=3.0)
    found = [i for i in intervals(seen, span) if i.kind in ("run_queue", "preempted") and i.culprit != "idle"]

    def waited(place: str) -> int:
        """How long the program's threads waited for somebody else to leave the CPU."""
        return sum(i.duration_ns for i in found if i.place == place)

    # Other work on the machine makes both gateways wait; the hogs only one.
    assert waited("gateway-west") > 2 * waited("gateway-east")
    assert waited("gateway-west") > 0.05 * (span[1] - span[0])


def test_who_waits_for_the_held_lock_is_blocked_by_it_in_that_message(seen: World) -> None:
    seen.strike(("fault", "start", "lock_contention", "--at", "engine", "--size", "10%"), seconds=2.0)
    (fault,), span = seen.strike(("fault", "start", "lock_contention", "--at", "engine", "--size", "10%"), seconds=2.5)
    del fault
    sql = """
    SELECT key, minIf((toUnixTimestamp64Nano(ts), thread), point = 'app_ingress') AS a,
        minIf((toUnixTimestamp64Nano(ts), thread), point = 'app_transform') AS b
    FROM stamps WHERE service = 'engine' AND point IN ('app_ingress', 'app_transform')
    GROUP BY key HAVING countIf(point = 'app_ingress') > 0 AND countIf(point = 'app_transform') > 0
        AND a.1 >= {from_ns:Int64} AND a.1 < {to_ns:Int64} AND b.1 - a.1 >= 8000000 AND a.2 = b.2
    """
    rows = seen.query(
        "SELECT a.1 AS start_ns, b.1 AS end_ns, a.2 AS thread FROM (" + sql + ")",  # noqa: S608 - fixed text
        {"from_ns": span[0], "to_ns": span[1]},
    )
    assert len(rows) >= 2
    places = sorted({("here", int(row["thread"])) for row in rows})
    found = budget.intervals(seen.store, places, span[0], span[1] + 1_000 * MS)
    start, end = (np.array([row[name] for row in rows], dtype=np.int64) for name in ("start_ns", "end_ns"))
    place = np.array([places.index(("here", int(row["thread"]))) for row in rows], dtype=np.int64)
    nothing = np.zeros(len(rows), dtype=np.int64)
    spans = budget.Spans(nothing, nothing, start, end, place, np.zeros(len(rows), dtype=np.bool_), places)
    took = budget.parts_of(spans, found)
    lock = np.array([kind == "blocked_lock" for kind, _ in found.names], dtype=np.bool_)
    shares = took[:, lock].sum(axis=1) / (end - start)
    assert np.median(shares) > 0.7
    assert (took.sum(axis=1) <= end - start).all()
