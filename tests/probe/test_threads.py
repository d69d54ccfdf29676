"""Rings and threads: nothing lost, nothing twice, and as many files as threads at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tailsight_probe import Probe

from collector.keys import hash64, hash64_ints
from collector.sources.probe import ProbeSource

from .conftest import NO_OFFSET

Make = Callable[..., Probe]


def test_a_million_stamps_from_four_threads_are_all_read(make_probe: Make, rings: Path) -> None:
    each = 250_000
    probe = make_probe(capacity=1 << 18)
    point = probe.point("app_ingress")
    tids: dict[int, int] = {}
    ready = threading.Barrier(4)

    def work(n: int) -> None:
        tids[n] = threading.get_native_id()
        ready.wait()
        stamp = probe.stamp
        for key in range(n * each, (n + 1) * each):
            stamp(point, key)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    source = ProbeSource(rings, "h1")
    source.start({})
    keys, owners, drops = [], [], 0
    while columns := (poll := source.poll(NO_OFFSET)).columns:
        (stamps,) = columns
        assert len(stamps) <= 200_000
        keys.append(stamps.values["key"])
        owners.append(stamps.values["thread"])
        drops += sum(poll.drops.values())
    source.close()
    assert drops == 0
    got, by = np.concatenate(keys), np.concatenate(owners)
    expected = hash64_ints("order", np.arange(4 * each, dtype=np.uint64))
    assert np.array_equal(np.sort(got), np.sort(expected))
    for n, tid in tids.items():
        # A thread's stamps come in the order in which it made them.
        assert np.array_equal(got[by == tid], expected[n * each : (n + 1) * each])
    assert probe.stats()["recorded"] == 4 * each


def test_what_was_overwritten_is_counted_exactly(make_probe: Make, read_all: Any) -> None:
    probe = make_probe(capacity=64)
    point = probe.point("app_ingress")
    for key in range(64 * 7 + 5):
        probe.stamp(point, key)
    reading = read_all()
    assert reading.drops == {"ring_overwritten": 64 * 6 + 5}
    assert [row["key"] for row in reading.stamps] == [hash64("order", key) for key in range(64 * 6 + 5, 64 * 7 + 5)]


def test_rings_of_ended_threads_are_used_again_and_name_their_writers(
    make_probe: Make, read_all: Any, rings: Path
) -> None:
    probe = make_probe(spare_rings=2)
    point = probe.point("app_ingress")
    written: list[tuple[int, int]] = []

    def work(key: int) -> None:
        for _ in range(3):
            probe.stamp(point, key)
            written.append((threading.get_native_id(), hash64("order", key)))

    for key in range(40):
        thread = threading.Thread(target=work, args=(key,))
        thread.start()
        thread.join()
    assert len(list(rings.glob("*.ring"))) == 3
    reading = read_all()
    assert sorted((row["thread"], row["key"]) for row in reading.stamps) == sorted(written)
    assert probe.stats()["recorded"] == 120
    assert reading.drops == {}


def test_writers_are_named_after_an_overwritten_hand_over(make_probe: Make, read_all: Any) -> None:
    probe = make_probe(capacity=16, spare_rings=0, max_rings=1)
    point = probe.point("app_ingress")
    tids = []

    def work(count: int) -> None:
        tids.append(threading.get_native_id())
        for key in range(count):
            probe.stamp(point, key)

    for count in (5, 20, 4):
        thread = threading.Thread(target=work, args=(count,))
        thread.start()
        thread.join()
    reading = read_all()
    # 5 + hand-over + 20 + hand-over + 4 = 31 records in 16 slots.
    assert [row["thread"] for row in reading.stamps] == [tids[1]] * 11 + [tids[2]] * 4
    assert reading.drops == {"ring_overwritten": 15}


def test_more_threads_than_rings_lose_stamps_and_say_so(make_probe: Make, read_all: Any) -> None:
    probe = make_probe(max_rings=1)
    point = probe.point("app_ingress")
    probe.stamp(point, 1)
    other = threading.Thread(target=lambda: [probe.stamp(point, n) for n in range(10)])
    other.start()
    other.join()
    stats = probe.stats()
    assert (stats["recorded"], stats["lost"]) == (1, 10)
    assert "raise max_rings" in stats["reason"]
    assert len(read_all().stamps) == 1
