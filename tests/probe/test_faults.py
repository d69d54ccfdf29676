"""Killed, forked, interrupted, refused: what the rings hold afterwards."""

from __future__ import annotations

import gc
import itertools
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tailsight_probe import Probe, layout
from tailsight_probe import rings as module

from collector.keys import hash64, hash64_ints
from collector.sources.probe import ProbeSource

from .conftest import NO_OFFSET, Reading

Make = Callable[..., Probe]

FLAT_OUT = """
import itertools, sys
import tailsight_probe as p
p.init(capacity=int(sys.argv[1]))
point = p.point("app_ingress")
p.stamp(point, 0)
print("ready", flush=True)
for key in itertools.count(1):
    p.stamp(point, key)
"""


def read_until_gone(rings: Path, reading: Reading, source: ProbeSource) -> None:
    deadline = time.monotonic() + 20
    while any(rings.iterdir()):
        reading.add(source)
        source.durable(reading.positions)
        assert time.monotonic() < deadline, list(rings.iterdir())


def test_a_killed_programs_last_stamps_are_read_and_its_files_deleted(run_program: Any, rings: Path) -> None:
    program = run_program(FLAT_OUT, str(1 << 14))
    assert program.stdout.readline() == "ready\n"
    source, reading = ProbeSource(rings, "h1"), Reading()
    assert source.start({}).status == "running"
    time.sleep(0.05)
    program.kill()
    program.wait()
    read_until_gone(rings, reading, source)
    torn, overwritten = reading.drops.pop("torn", 0), reading.drops.pop("ring_overwritten", 0)
    assert reading.drops == {}
    assert torn <= 1
    (position,) = reading.positions.values()
    assert position > 1
    assert len(reading.stamps) == min(position, 1 << 14) - torn == position - torn - overwritten
    assert [row["key"] for row in reading.stamps] == [
        hash64("order", key) for key in range(overwritten, position - torn)
    ]


def test_nothing_is_deleted_before_it_is_durable(run_program: Any, rings: Path) -> None:
    program = run_program("import tailsight_probe as p; [p.stamp('app_ingress', n) for n in range(9)]")
    program.wait()
    source, reading = ProbeSource(rings, "h1"), Reading()
    source.start({})
    assert reading.add(source) == 9
    assert reading.add(source) == 0
    source.durable({})
    source.durable({name: next_ - 1 for name, next_ in reading.positions.items()})
    assert len(list(rings.iterdir())) == 2
    # A new agent that knows the positions neither reads again nor forgets to delete.
    source.close()
    later = ProbeSource(rings, "h1")
    later.start(reading.positions)
    assert Reading().add(later) == 0
    later.durable(reading.positions)
    assert list(rings.iterdir()) == []


@pytest.mark.parametrize("where", ["last", "middle"])
def test_a_write_cut_by_a_kill_is_torn(run_program: Any, rings: Path, where: str) -> None:
    run_program("import tailsight_probe as p; [p.stamp('app_ingress', n) for n in range(9)]").wait()
    (ring,) = rings.glob("*.ring")
    # What a kill between the first and the last store of a slot leaves behind.
    at = layout.HEADER_BYTES + (8 if where == "last" else 4) * layout.SLOT_BYTES + 56
    with ring.open("r+b") as file:
        file.seek(at)
        file.write(bytes(8))
    source, reading = ProbeSource(rings, "h1"), Reading()
    source.start({})
    read_until_gone(rings, reading, source)
    assert reading.drops == {"torn": 1}
    assert len(reading.stamps) == 8


def test_an_unfinished_record_of_a_living_program_is_waited_for(make_probe: Make, rings: Path) -> None:
    probe = make_probe()
    for key in range(5):
        probe.stamp("app_ingress", key)
    (ring,) = rings.glob("*.ring")
    end = layout.HEADER_BYTES + 2 * layout.SLOT_BYTES + 56
    with ring.open("r+b") as file:
        file.seek(end)
        file.write(bytes(8))
        file.flush()
        source, reading = ProbeSource(rings, "h1"), Reading()
        source.start({})
        assert [reading.add(source) for _ in range(3)] == [2, 0, 0]
        file.seek(end)
        file.write((3).to_bytes(8, "little"))
        file.flush()
        assert reading.add(source) == 3
        assert reading.drops == {}
        file.seek(end + 64)
        file.write(bytes(8))
    # Its patience over, a source counts it and goes on.
    impatient, late = ProbeSource(rings, "h1", patience_s=0), Reading()
    impatient.start({})
    assert late.add(impatient) == 4
    assert late.drops == {"torn": 1}


FORKING = """
import os, sys, threading
import tailsight_probe as p
point = p.point("app_ingress")
idle = threading.Thread(target=lambda: (p.stamp(point, 900), stop.wait()))
stop = threading.Event()
p.stamp(point, 0)
idle.start()
children = []
for child in range(1, 4):
    pid = os.fork()
    if pid == 0:
        for n in range(5):
            p.stamp(point, child * 10 + n)
        p.stamp("only_in_%d" % child, 1)
        os._exit(0 if p.stats()["recorded"] == 6 and p.stats()["rings"] == 1 else 1)
    p.stamp(point, child)
    children.append(pid)
codes = [os.waitpid(pid, 0)[1] for pid in children]
stop.set()
idle.join()
print(codes, p.stats()["recorded"], p.stats()["rings"])
"""


def test_forked_children_write_their_own_files(run_program: Any, rings: Path) -> None:
    out, err = run_program(FORKING).communicate(timeout=30)
    assert out == "[0, 0, 0] 5 2\n", err
    assert len(list(rings.glob("*.ring"))) == 5
    assert len(list(rings.glob("*.dict"))) == 4
    source, reading = ProbeSource(rings, "h1"), Reading()
    source.start({})
    read_until_gone(rings, reading, source)
    keys = (0, 1, 2, 3, 900, *(c * 10 + n for c in (1, 2, 3) for n in range(5)))
    got = sorted(row["key"] for row in reading.stamps if row["point"] == "app_ingress")
    assert got == sorted(hash64("order", key) for key in keys)
    assert {row["point"] for row in reading.stamps} == {"app_ingress", "only_in_1", "only_in_2", "only_in_3"}
    assert reading.drops == {}


def test_a_stamp_may_interrupt_a_stamp(make_probe: Make, read_all: Any) -> None:
    probe = make_probe(capacity=1 << 18)
    point = probe.point("app_ingress")
    # Handlers nest, so each takes its number in one step.
    signals, collections = itertools.count(1_000_000), itertools.count(2_000_000)

    def on_signal(*_: Any) -> None:
        probe.stamp(point, next(signals))

    def on_gc(_phase: str, _info: Any) -> None:
        probe.stamp(point, next(collections), depth=1)

    before = signal.signal(signal.SIGALRM, on_signal)
    gc.callbacks.append(on_gc)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
        for n in range(100_000):
            probe.stamp(point, n)
            if n % 100 == 0:
                gc.collect(0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.callbacks.remove(on_gc)
    reading = read_all()
    assert reading.drops == {}
    keys = [*range(100_000), *range(1_000_000, first := next(signals)), *range(2_000_000, second := next(collections))]
    assert first > 1_000_010
    assert second > 2_001_000
    assert sorted(row["key"] for row in reading.stamps) == sorted(
        hash64_ints("order", np.array(keys, dtype=np.uint64)).tolist()
    )


def test_an_exception_of_the_programs_signal_handler_reaches_the_program(make_probe: Make) -> None:
    probe = make_probe()
    point = probe.point("app_ingress")

    def on_signal(*_: Any) -> None:
        raise TimeoutError("the program's own")

    before = signal.signal(signal.SIGALRM, on_signal)
    gc.disable()  # what a garbage collection callback of a test library raises, Python drops
    try:
        for attempt in range(20):
            # The first attempts fall into the opening of the ring.
            with pytest.raises(TimeoutError, match="the program's own"):
                signal.setitimer(signal.ITIMER_REAL, 0.0002 * (attempt + 1))
                end = time.monotonic() + 5
                while time.monotonic() < end:
                    probe.stamp(point, 1)
                    probe.stamp("app_egress", "text")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        gc.enable()
        signal.signal(signal.SIGALRM, before)


def test_a_full_disk_makes_a_no_op_that_says_so(run_program: Any, rings: Path) -> None:
    script = """
import resource, signal
import tailsight_probe as p
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))  # the ring does not fit, as on a full disk
for n in range(100):
    p.stamp("app_ingress", n)
print(p.stats()["lost"], p.stats()["recorded"], p.stats()["reason"])
"""
    program = run_program(script)
    out, err = program.communicate(timeout=30)
    assert program.returncode == 0, err
    assert out.startswith("100 0 "), out
    assert "File too large" in out
    assert list(rings.glob("*.ring*")) == []


def test_a_ring_directory_that_cannot_be_made_is_a_no_op_that_says_so(make_probe: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    probe = make_probe(ring_dir=tmp_path / "file" / "rings")
    probe.stamp("app_ingress", 1)
    probe.link(1, 2)
    stats = probe.stats()
    assert (stats["recorded"], stats["lost"]) == (0, 2)
    assert "Not a directory" in stats["reason"]


def test_a_foreign_default_directory_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its parent is open to everybody: a directory that others may write could be a trap."""
    open_to_all = tmp_path / "tailsight-0"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    monkeypatch.setattr(module, "default_directory", lambda: str(open_to_all))
    probe = Probe("engine", open_to_all, 64, compiled=False)
    probe.stamp("app_ingress", 1)
    assert "set TAILSIGHT_PROBE_DIR" in probe.stats()["reason"]
    assert list(open_to_all.iterdir()) == []


def test_closing_every_descriptor_does_not_stop_the_probe(run_program: Any, rings: Path) -> None:
    script = """
import os
import tailsight_probe as p
p.stamp("app_ingress", 1)
keep = os.dup(1)
os.closerange(3, keep); os.closerange(keep + 1, 1024)
pipe = os.pipe()  # takes the numbers that the probe had
p.stamp("app_egress", "two", labels={"new": "label"})
if os.fork() == 0:
    p.stamp("app_ingress", 3)
    os.write(pipe[1], b"x")
    os._exit(0)
os.wait()
os.set_blocking(pipe[0], False)
os.write(keep, os.read(pipe[0], 100) + b"\\n")
"""
    out, err = run_program(script).communicate(timeout=30)
    assert out == "x\n", err
    source, reading = ProbeSource(rings, "h1"), Reading()
    source.start({})
    read_until_gone(rings, reading, source)
    assert sorted(row["point"] for row in reading.stamps) == ["app_egress", "app_ingress", "app_ingress"]


def test_a_reader_never_delivers_a_lapped_or_half_written_slot(run_program: Any, rings: Path) -> None:
    """A real writer laps a small ring while it is read; every field of a record depends on its key."""
    script = """
import sys, time
import tailsight_probe as p
p.init(capacity=256)
points = [p.point("p%d" % n) for n in range(4)]
stop = time.monotonic() + 1.5
key = 0
while time.monotonic() < stop:
    for _ in range(500):
        p.stamp(points[key & 3], key, key & 0xFFFFF, key % 6, key % 5, key % 4, key * 3 + 1)
        key += 1
print(key, flush=True)
"""
    program = run_program(script)
    source = ProbeSource(rings, "h1")
    source.start({})
    delivered = lost = 0
    seen: list[Any] = []
    while True:
        ended = program.poll() is not None
        poll = source.poll(NO_OFFSET)
        lost += sum(poll.drops.values())
        assert {reason.value for reason in poll.drops} <= {"ring_overwritten"}
        for columns in poll.columns:
            delivered += len(columns)
            key = (columns.values["data_age_ns"] - 1) // 3
            assert ((columns.values["data_age_ns"] - 1) % 3 == 0).all()
            assert (columns.values["depth"] == (key & 0xFFFFF)).all()
            assert (columns.values["outcome"] == key % 6).all()
            assert (columns.values["mode"] == key % 5).all()
            assert (columns.values["cache"] == key % 4).all()
            assert columns.text("point") == [f"p{n & 3}" for n in key.tolist()]
            assert (key[1:] > key[:-1]).all()
            seen.append((key, columns.values["key"]))
        if ended and not poll.columns:
            break
    total = int(program.communicate()[0])
    assert delivered + lost == total
    assert lost > 0 < delivered
    for key, hashed in seen[:: max(1, len(seen) // 50)]:
        assert (hash64_ints("order", key.astype("u8")) == hashed).all()
