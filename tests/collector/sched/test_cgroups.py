"""Bandwidth limits: what the files say, and a real group that is throttled."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.sched import cgroups
from collector.sched.kernel_pairs import KernelPairs
from collector.sched.layout import RecordKind
from collector.sched.routes import TYPED
from collector.sched.settings import SchedulerSettings
from collector.sched.source import SchedulerSource
from tests.collector.sched.workloads import clock_now

MOUNTS = """\
25 1 0:22 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate
30 23 0:27 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro,nosuid master:11 - cgroup cgroup rw,cpu,cpuacct
31 23 0:28 / /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory
malformed
"""


def test_groups_are_found_under_either_version_with_those_above_them() -> None:
    mounted = cgroups.mounts(MOUNTS)
    assert mounted == {2: ("/sys/fs/cgroup", "/"), 1: ("/sys/fs/cgroup/cpu,cpuacct", "/docker/abc")}
    assert cgroups.groups_of("0::/system.slice/engine.service\n", mounted) == [
        Path("/sys/fs/cgroup/system.slice"),
        Path("/sys/fs/cgroup/system.slice/engine.service"),
    ]
    assert cgroups.groups_of("4:cpu,cpuacct:/docker/abc/inner\n3:memory:/x\n", mounted) == [
        Path("/sys/fs/cgroup/cpu,cpuacct/inner")
    ]
    assert cgroups.groups_of("0::/../../etc\n", mounted) == [Path("/sys/fs/cgroup/etc")]
    assert cgroups.groups_of("nonsense\n1:name=systemd:/\n", mounted) == []


def test_both_versions_count_in_nanoseconds() -> None:
    two = "usage_usec 5\nnr_periods 10\nnr_throttled 3\nthrottled_usec 1500\n"
    one = "nr_periods 10\nnr_throttled 3\nthrottled_time 1500000\n"
    assert cgroups.parse(one) == cgroups.parse(two) == cgroups.Throttling(10, 3, 1_500_000)
    assert cgroups.parse("usage_usec 5\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\n") == cgroups.Throttling(
        0, 0, 0
    )
    assert cgroups.parse("usage_usec 5\n") is None


@given(st.text(max_size=200))
def test_any_text_is_read_without_a_crash(text: str) -> None:
    cgroups.parse(text)
    cgroups.groups_of(text, cgroups.mounts(text) or {1: ("/c", "/"), 2: ("/u", "/")})


@pytest.fixture
def limited() -> Iterator[Path]:
    """A group of our own that may use a 25th of a CPU: little enough to be stopped on a busy machine too."""
    mounted = cgroups.mounts(Path("/proc/self/mountinfo").read_text())
    made = None
    for version, (mount, _) in sorted(mounted.items()):
        folder = Path(mount) / f"tailsight-test-{os.getpid()}"
        try:
            folder.mkdir()
            made = folder
            if version == 1:
                (folder / "cpu.cfs_period_us").write_text("50000")
                (folder / "cpu.cfs_quota_us").write_text("2000")
            else:
                (folder / "cpu.max").write_text("2000 50000")
            break
        except OSError:
            if made is not None:
                made.rmdir()
                made = None
    if made is None:
        pytest.skip("no control group with a CPU limit can be made here; it takes root and the cpu controller")
    yield made
    made.rmdir()


SPIN_IN = """
import sys, time
open(sys.argv[1] + "/cgroup.procs", "w").write("0")
print("in", flush=True)
sys.stdin.readline()
begun = time.thread_time()
end = time.monotonic() + 20
while time.thread_time() < begun + 0.03 and time.monotonic() < end: pass
print("done", flush=True)
sys.stdin.readline()
"""


def test_a_limit_shows_as_gauges_and_as_intervals_of_the_thread_it_stops(
    limited: Path, kernel_pairs: Callable[..., KernelPairs]
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SPIN_IN, str(limited)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"
        pairs = kernel_pairs(threshold_ns=1_000_000)
        pairs.observe({process.pid: 1})
        settings = SchedulerSettings(mechanism="psi", report="1ms", observe="pids", pids=(process.pid,))
        source = SchedulerSource("here", dict, settings)
        source.start({})
        source.poll(clock_now())
        assert cgroups.read([process.pid]).innermost == {process.pid: str(limited)}
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "done\n"
        (gauges,) = [c for c in source.poll(clock_now()).columns if c.table.name == "gauges"]
        source.close()
        process.stdin.write("\n")
    values = dict(zip(gauges.text("name"), gauges.values["value"].tolist(), strict=True))
    assert values["scheduler_throttled"] >= 3
    assert values["scheduler_throttled_ns"] > 50_000_000
    if pairs.route != TYPED:
        pytest.skip("without type information a limit is seen only when nobody else wants the CPU")
    records = pairs.drain()
    stopped = records[(records["kind"] == RecordKind.PREEMPTED) & (records["by_pid"] == 0)]
    assert set(stopped["pid"].tolist()) == {process.pid}
    assert len(stopped) >= 3
    # A thread that is stopped waits for its limit and then for its turn.
    assert stopped["duration_ns"].sum() >= 0.4 * values["scheduler_throttled_ns"]
