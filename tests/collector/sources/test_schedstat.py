from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.clock import ClockReading
from collector.keys import hash64
from collector.record import Columns
from collector.sources import Poll
from collector.sources.procfs import Sched, parse_pressure, parse_schedstat, parse_steal
from collector.sources.schedstat import SchedstatSource

OFFSET = 1_700_000_000_000_000_000


def at(seconds: float) -> ClockReading:
    monotonic = round(seconds * 1e9)
    return ClockReading(OFFSET + monotonic, monotonic, OFFSET, 40, None, "test")


class Proc:
    """A proc tree in real files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("self/schedstat", "1 2 3\n")
        self.write("pressure/cpu", "some avg10=0.00 avg60=0.00 avg300=0.00 total=100\n")
        self.steal(0)

    def write(self, name: str, text: str) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text)

    def thread(self, pid: int, tid: int, name: str, run: int, delay: int, slices: int) -> None:
        self.write(f"{pid}/comm", f"prog{pid}\n")
        self.write(f"{pid}/task/{tid}/comm", f"{name}\n")
        self.write(f"{pid}/task/{tid}/schedstat", f"{run} {delay} {slices}\n")

    def steal(self, jiffies: int) -> None:
        self.write("stat", f"cpu  1 2 3 4 5 6 7 {jiffies} 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n")


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    return Proc(tmp_path / "proc")


def table(poll: Poll, name: str) -> Columns:
    (columns,) = (c for c in poll.columns if c.table.name == name)
    columns.check()
    return columns


def test_rates_per_thread_name_and_intervals_per_thread(proc: Proc) -> None:
    proc.thread(10, 10, "main", 1_000, 500, 5)
    proc.thread(10, 11, "worker", 0, 0, 0)
    proc.thread(10, 12, "worker", 0, 0, 0)
    source = SchedstatSource("h1", pids=[10], services=lambda: {10: "engine"}, proc=proc.root)
    assert source.start({}).status == "running"
    assert source.poll(at(100)).columns == []
    proc.thread(10, 10, "main", 2_001_000, 1_000_500, 9)
    proc.thread(10, 11, "worker", 4_000_000, 3_000_000, 20)
    proc.thread(10, 12, "worker", 2_000_000, 999_999, 10)
    poll = source.poll(at(102))
    gauges = table(poll, "gauges")
    labels = dict(
        zip(
            table(poll, "label_sets").values["label_set"].tolist(),
            table(poll, "label_sets").text("labels"),
            strict=True,
        )
    )
    found = {
        (name, labels[label]): value
        for name, label, value, host_wide in zip(
            gauges.text("name"),
            gauges.values["label_set"].tolist(),
            gauges.values["value"].tolist(),
            gauges.text("service"),
            strict=True,
        )
        if host_wide
    }
    main, worker = '{"pid":"10","thread":"main"}', '{"pid":"10","thread":"worker"}'
    assert found == {
        ("sched.run_delay_ns", main): 500_000.0,
        ("sched.run_ns", main): 1_000_000.0,
        ("sched.slices", main): 2.0,
        ("sched.run_delay_ns", worker): 1_999_999.5,
        ("sched.run_ns", worker): 3_000_000.0,
        ("sched.slices", worker): 15.0,
    }
    assert set(gauges.text("service")) == {"engine", ""}
    intervals = table(poll, "intervals")
    # More than 1 ms in this poll: thread 11 only (10 waited exactly 1 ms, 12 a nanosecond less).
    assert intervals.values["thread"].tolist() == [11]
    assert intervals.values["duration_ns"].tolist() == [3_000_000]
    assert intervals.values["ts_ns"].tolist() == [OFFSET + 100_000_000_000]
    assert intervals.text("kind") == ["run_queue_sum"]
    assert intervals.values["label_set"].tolist() == [hash64("labels", worker)]


def test_host_totals(proc: Proc) -> None:
    source = SchedstatSource("h1", proc=proc.root)
    source.start({})
    source.poll(at(0))
    proc.steal(os.sysconf("SC_CLK_TCK"))
    proc.write("pressure/cpu", "some avg10=0.00 total=150\n")
    gauges = table(source.poll(at(0.5)), "gauges")
    assert dict(zip(gauges.text("name"), gauges.values["value"].tolist(), strict=True)) == {
        "cpu.steal_ns": 2e9,
        "pressure.cpu.some_ns": 100_000.0,
    }


def test_a_reused_thread_id_starts_afresh(proc: Proc) -> None:
    proc.thread(10, 10, "old", 5_000_000_000, 5_000_000_000, 500)
    source = SchedstatSource("h1", pids=[10], proc=proc.root)
    source.start({})
    source.poll(at(0))
    proc.thread(10, 10, "new", 10, 10, 1)
    assert all(name != "sched.run_ns" for c in source.poll(at(1)).columns for name in c.text("name"))


def test_programs_with_rings_are_watched(proc: Proc, tmp_path: Path) -> None:
    rings = tmp_path / "rings"
    rings.mkdir()
    (rings / "33.7.0.ring").touch()
    (rings / "33.7.dict").touch()
    (rings / "44.7.dict").touch()
    assert SchedstatSource("h1", ring_dir=rings, pids=[5], proc=proc.root).watched() == {5, 33}
    assert SchedstatSource("h1", ring_dir=tmp_path / "none", proc=proc.root).watched() == set()


@pytest.mark.parametrize(
    ("break_it", "status", "reason"),
    [
        (lambda root: (root / "self/schedstat").unlink(), "unavailable", "CONFIG_SCHED_INFO"),
        (lambda root: (root / "self/schedstat").write_text("0 0\n"), "unavailable", "want three numbers"),
        (lambda root: (root / "pressure/cpu").unlink(), "degraded", "psi=1"),
    ],
)
def test_what_is_missing_is_said(proc: Proc, break_it: object, status: str, reason: str) -> None:
    break_it(proc.root)  # type: ignore[operator]
    available = SchedstatSource("h1", proc=proc.root).start({})
    assert available.status == status
    assert reason in available.reason


def test_a_configured_process_that_is_not_there_is_said(proc: Proc) -> None:
    available = SchedstatSource("h1", pids=[123], proc=proc.root).start({})
    assert (available.status, "123" in available.reason) == ("degraded", True)


@given(st.lists(st.integers(0, 2**63), min_size=3, max_size=3), st.lists(st.integers(0, 2**63), min_size=3, max_size=3))
@settings(max_examples=50)
def test_changes_are_never_negative(before: list[int], after: list[int]) -> None:
    change = parse_schedstat(" ".join(map(str, after))).since(Sched(*before))
    if all(b <= a for b, a in zip(before, after, strict=True)):
        assert change == Sched(*(a - b for b, a in zip(before, after, strict=True)))
    else:
        assert change is None


def test_short_files_say_nothing() -> None:
    assert parse_steal("cpu 1 2 3\n") is None
    assert parse_steal("") is None
    assert parse_pressure("") == {}


def test_this_kernel_counts_two_threads_fighting_for_one_cpu() -> None:
    """Two real busy processes on one CPU: each must be seen waiting while the other runs."""
    cpu = min(os.sched_getaffinity(0))
    script = f"import os, time\nos.sched_setaffinity(0, {{{cpu}}})\nend = time.monotonic() + 10\n"
    script += "while time.monotonic() < end: pass"
    busy = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(2)]
    try:
        source = SchedstatSource("h1", pids=[p.pid for p in busy])
        if source.start({}).status == "unavailable":
            pytest.skip("this kernel has no schedstat (CONFIG_SCHED_INFO)")
        time.sleep(0.3)
        source.poll(ClockReading(0, time.monotonic_ns(), OFFSET, 40, None, "test"))
        time.sleep(0.7)
        poll = source.poll(ClockReading(0, time.monotonic_ns(), OFFSET, 40, None, "test"))
        intervals = table(poll, "intervals")
        assert set(intervals.values["thread"].tolist()) == {p.pid for p in busy}
    finally:
        for process in busy:
            process.kill()
            process.wait()
