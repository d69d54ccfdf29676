"""What works with which capabilities, as user 65534: each level in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from collector.sched.kernel_pairs import KernelPairs
from tests.needs import program

ROOT = Path(__file__).parents[3]
# Starts the source on itself and its hog, lets two threads fight for one CPU, and says what came of it.
FIGHT = """
import json, os, sys, time
from collector.clock import ClockReading
from collector.sched.settings import SchedulerSettings
from collector.sched.source import SchedulerSource
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
source = SchedulerSource("h", dict, SchedulerSettings(observe="pids", pids=(os.getpid(),), threshold="100us"))
found = source.start({})
def poll():
    m, r = time.monotonic_ns(), time.time_ns()
    return source.poll(ClockReading(r, m, r - m, 100, None, "none"))
poll()
child = os.fork()
if child == 0:
    end = time.monotonic() + 0.4
    while time.monotonic() < end: pass
    os._exit(0)
end = time.monotonic() + 0.3
while time.monotonic() < end: pass
os.waitpid(child, 0)
kinds = [k for c in poll().columns if c.table.name == "intervals" for k in c.text("kind")]
mechanism = source._mechanism.name if source._mechanism else "psi"
source.close()
print(json.dumps([found.status, found.reason, mechanism, sorted(set(kinds))]))
"""


def level(*capabilities: str) -> tuple[str, str, str, list[str]]:
    """Run FIGHT as nobody with these ambient capabilities: status, reason, mechanism, kinds of intervals seen."""
    setpriv = program("setpriv", "util-linux")
    if os.geteuid() != 0:
        pytest.skip("only root can choose the capabilities of a test process")
    given = ",".join(f"+{name}" for name in capabilities)
    command = [setpriv, "--reuid=65534", "--regid=65534", "--clear-groups"]
    if given:
        command += [f"--inh-caps={given}", f"--ambient-caps={given}"]
    imports = subprocess.run([*command, sys.executable, "-c", "import numpy, msgspec, xxhash"], capture_output=True)
    if imports.returncode != 0:
        pytest.skip(f"nobody cannot run this interpreter: {imports.stderr.decode().strip()[-200:]}")
    done = subprocess.run([*command, sys.executable, "-c", FIGHT], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    status, reason, mechanism, kinds = json.loads(done.stdout)
    return status, reason, mechanism, kinds


@pytest.fixture(autouse=True)
def _root_can_trace(kernel_pairs: Callable[..., object], perf_rings: Callable[[], object]) -> None:
    """These levels mean something only where the kernel offers all of it to root."""
    kernel_pairs()
    perf_rings()


def paranoid() -> int:
    return int(Path("/proc/sys/kernel/perf_event_paranoid").read_text())


def test_with_nothing_own_preemptions_are_seen_and_the_reason_names_the_command() -> None:
    if paranoid() > 2:
        pytest.skip("this kernel refuses perf_event_open to everybody without capabilities")
    status, reason, mechanism, kinds = level()
    assert (status, mechanism) == ("degraded", "switch records")
    assert kinds == ["preempted"]
    assert "does not see delays after a wakeup" in reason
    assert "run `setcap cap_bpf,cap_perfmon+ep " in reason


def test_with_perfmon_the_rings_fit_into_what_may_be_locked() -> None:
    status, reason, mechanism, kinds = level("perfmon", "dac_read_search")
    assert (status, mechanism) == ("degraded", "perf")
    assert "preempted" in kinds
    assert "ebpf: creating the map ts_slots" in reason
    assert "setcap cap_bpf" in reason


def test_with_bpf_and_perfmon_nothing_is_missing_and_tracefs_is_not_needed() -> None:
    status, reason, mechanism, kinds = level("perfmon", "bpf")
    if mechanism != "eBPF":
        pytest.skip(f"no type information in this kernel: {reason}")
    assert (status, reason) == ("running", "")
    assert "preempted" in kinds


def test_without_type_information_what_is_not_told_apart_is_said(kernel_pairs: Callable[..., KernelPairs]) -> None:
    pairs = kernel_pairs(route="record")
    assert "blocked_kinds" not in pairs.sees
    assert "page faults are not told apart" in pairs.blind
