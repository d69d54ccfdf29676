"""Garbage collections as intervals: of the right thread, at the right time, without disturbing stamps."""

from __future__ import annotations

import gc
import json
import threading
import time
from collections.abc import Callable
from typing import Any

from tailsight_probe import Probe


def garbage(n: int) -> None:
    """Make n cycles."""
    for _ in range(n):
        ring: list[Any] = []
        ring.append(ring)


def test_a_collection_is_an_interval_of_the_thread_that_made_it(
    make_probe: Callable[..., Probe], read_all: Callable[[], Any]
) -> None:
    probe = make_probe()
    probe.stamp("app_ingress", 1)
    probe.watch_gc()
    garbage(20_000)
    before = time.monotonic_ns()
    gc.collect(2)
    after = time.monotonic_ns()
    probe.unwatch_gc()
    gc.collect(2)
    probe.stamp("app_egress", 1)
    reading = read_all()
    whole = [row for row in reading.intervals if before <= row["ts_ns"] <= after]
    (row,) = [row for row in whole if row["culprit"] == "generation 2"]
    assert row["kind"] == "gc"
    assert row["thread"] == threading.get_native_id()
    assert 0 < row["duration_ns"] <= after - row["ts_ns"]
    service = probe.stats()["service"]
    assert json.loads(reading.label_sets[row["label_set"]]) == {"generation": "2", "service": service}
    assert [stamp["point"] for stamp in reading.stamps] == ["app_ingress", "app_egress"]
    assert reading.drops == {}
    stats = probe.stats()
    assert stats["recorded"] == 2
    assert stats["intervals"] == len(reading.intervals)


def test_another_threads_collection_is_that_threads(
    make_probe: Callable[..., Probe], read_all: Callable[[], Any]
) -> None:
    probe = make_probe()
    probe.watch_gc()
    seen: list[int] = []

    def collect() -> None:
        seen.append(threading.get_native_id())
        gc.collect(1)

    thread = threading.Thread(target=collect)
    thread.start()
    thread.join()
    probe.unwatch_gc()
    assert ("generation 1", seen[0]) in {(row["culprit"], row["thread"]) for row in read_all().intervals}


def test_short_collections_are_counted_only(make_probe: Callable[..., Probe], read_all: Callable[[], Any]) -> None:
    probe = make_probe()

    def watches() -> int:  # other tests' probes may still have theirs
        return sum(type(callback).__name__ == "GcWatch" for callback in gc.callbacks)

    before = watches()
    probe.watch_gc(min_duration_ns=10**12)
    probe.watch_gc(min_duration_ns=10**12)  # again changes nothing
    assert watches() == before + 1
    gc.collect(0)
    assert probe.stats()["gc_short"] >= 1
    assert read_all().intervals == []


def test_switched_off_nothing_is_recorded(make_probe: Callable[..., Probe], read_all: Callable[[], Any]) -> None:
    probe = make_probe()
    probe.watch_gc()
    probe.switch(False)
    gc.collect()
    assert read_all().intervals == []


FORKS = """
import gc, os, time
import tailsight_probe as probe
probe.watch_gc()
probe.stamp("app_ingress", 1)
child = os.fork()
if child == 0:
    gc.collect(2)
    os._exit(0)
os.waitpid(child, 0)
gc.collect(2)
"""


def test_a_forked_child_records_its_own(run_program: Callable[..., Any], read_all: Callable[[], Any]) -> None:
    done = run_program(FORKS)
    _, errors = done.communicate(timeout=60)
    assert done.returncode == 0, errors
    reading = read_all()
    assert len({row["thread"] for row in reading.intervals if row["culprit"] == "generation 2"}) == 2
    assert reading.drops == {}
