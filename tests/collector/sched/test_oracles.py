"""Run-queue delays against other people's tools on the same run: bpftrace, perf, and ftrace."""

from __future__ import annotations

import itertools
import json
import math
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from collector.sched.delay_buckets import bucket_bounds, quantile
from collector.sched.kernel_pairs import KernelPairs
from collector.sched.layout import RecordKind
from collector.sched.perf_ring import MIN_COVERAGE, PerfRings
from collector.sched.runq import DELAY, EVENT, pair, switch_events, wakeup_events
from collector.sched.tracefs import ROOTS
from tests.collector.sched.workloads import BUSY_BOX, PING_PONG, go, script
from tests.needs import program

QUANTILES = (0.5, 0.9, 0.99)
TURNS = 300  # of each of six processes: 1,800 waits at least
# runqlat.bt of bpftrace's tools, with both kinds of wait, for the threads of one program.
RUNQLAT = """
tracepoint:sched:sched_wakeup, tracepoint:sched:sched_wakeup_new { @since[args->pid] = nsecs; }
tracepoint:sched:sched_switch {
  if (args->prev_state == 0 || args->prev_state & 256) { @since[args->prev_pid] = nsecs; }
  else { delete(@since[args->prev_pid]); }
  if (args->next_comm == "busybox" && @since[args->next_pid]) {
    @ns = hist(nsecs - @since[args->next_pid]); delete(@since[args->next_pid]);
  }
}
END { clear(@since); }
"""


def log2_quantile(counts: dict[int, int], p: float) -> int:
    """The exponent of the power-of-two bucket that holds the p-quantile."""
    rank = max(1, math.ceil(p * sum(counts.values())))
    for exponent, running in zip(sorted(counts), itertools.accumulate(counts[e] for e in sorted(counts)), strict=True):
        if running >= rank:
            return exponent
    raise AssertionError("no delays counted")


def powers(histogram: NDArray[np.uint32]) -> dict[int, int]:
    """Our buckets folded to powers of two."""
    used = np.flatnonzero(histogram)
    low, _ = bucket_bounds(used)
    folded: Counter[int] = Counter()
    for value, n in zip(low.tolist(), histogram[used].tolist(), strict=True):
        folded[max(value, 1).bit_length() - 1] += n
    return folded


def test_percentiles_lie_within_one_power_of_two_of_bpftrace(kernel_pairs: Callable[..., KernelPairs]) -> None:
    bpftrace = program("bpftrace", "bpftrace")
    pairs = kernel_pairs(interrupts=False)
    with subprocess.Popen(
        [bpftrace, "-f", "json", "-e", RUNQLAT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        for text in other.stdout:
            if "attached_probes" in text:
                break
        time.sleep(0.5)  # it says so before it has
        with script(BUSY_BOX, TURNS, 6) as box:
            pairs.observe({box.pid: 1})
            before = pairs.totals()
            go(box)
            box.wait(timeout=60)
            after = pairs.totals()
        other.send_signal(signal.SIGINT)  # it prints what it has counted
        output, errors = other.communicate(timeout=60)
    found = [json.loads(text) for text in output.splitlines() if text.startswith("{")]
    histograms = [f["data"]["@ns"] for f in found if f.get("type") == "hist" and "@ns" in f["data"]]
    if not histograms:
        pytest.skip(f"bpftrace measured nothing here: {errors[-300:]}")
    theirs = {max(int(b["min"]), 1).bit_length() - 1: int(b["count"]) for b in histograms[0] if int(b["count"])}
    ours = powers((after.groups[1]["histogram"] - before.groups[1]["histogram"]).sum(axis=0))
    assert sum(ours.values()) > 1000
    assert abs(sum(theirs.values()) - sum(ours.values())) <= 0.02 * sum(ours.values())
    for p in QUANTILES:
        assert abs(log2_quantile(ours, p) - log2_quantile(theirs, p)) <= 1, f"p{100 * p:g}"


# perf prints the kernel's own format, or with libtraceevent's plugin a prettier one.
SWITCH_FIELDS = re.compile(r".* prev_pid=(\d+) .* prev_state=(\S+) ==> .* next_pid=(\d+) ")
SWITCH_PRETTY = re.compile(r".*:(\d+) \[\d+\] (\S+) ==> .*:(\d+) \[\d+\]$")
SAMPLE = re.compile(r"^\s*.*?\s+(\d+)/(\d+)\s+\[(\d+)\]\s+(\d+)\.(\d+):\s+sched:(\w+):\s+(.*)$")


@dataclass(frozen=True)
class Seen:
    """One event of `perf script`; a switch has all, a wakeup only the thread that `entering` is."""

    t_ns: int
    entering: int
    leaving: int = -1
    state: str = ""


@dataclass(frozen=True)
class Wait:
    """One wait by the scalar state machine."""

    pid: int
    end_ns: int
    delay_ns: int
    preempted: bool


def perf_script(perf: str, data: Path) -> list[Seen]:
    """The events of a recording in order of time."""
    text = subprocess.run(
        [perf, "script", "-i", str(data), "--ns", "-F", "comm,pid,tid,cpu,time,event,trace"],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout
    found = []
    for matched in filter(None, map(SAMPLE.match, text.splitlines())):
        t_ns, trace = int(matched[4]) * 10**9 + int(matched[5]), matched[7]
        if matched[6].startswith("sched_wakeup"):
            pid = int(re.findall(r"\bpid=(\d+)|:(\d+) \[", trace)[0][0] or re.findall(r":(\d+) \[", trace)[0])
            found.append(Seen(t_ns, pid))
            continue
        switched = SWITCH_FIELDS.match(trace) or SWITCH_PRETTY.match(trace)
        assert switched is not None, trace
        found.append(Seen(t_ns, int(switched[3]), int(switched[1]), switched[2]))
    found.sort(key=lambda one: one.t_ns)
    return found


def waits_of(events: list[Seen]) -> list[Wait]:
    """A scalar state machine: what it means to wait for a CPU, one event after the other."""
    since: dict[int, tuple[int, bool]] = {}
    running: set[int] = set()
    waits: list[Wait] = []
    for one in events:
        if one.leaving < 0:
            if one.entering not in running:  # woken before it slept: it does not wait
                since.setdefault(one.entering, (one.t_ns, False))
            continue
        since.pop(one.leaving, None)
        running.discard(one.leaving)
        if one.state.startswith("R"):
            since[one.leaving] = (one.t_ns, True)
        running.add(one.entering)
        if one.entering and one.entering in since:
            began_ns, preempted = since.pop(one.entering)
            waits.append(Wait(one.entering, one.t_ns, one.t_ns - began_ns, preempted))
    return waits


@contextmanager
def perf_record(tmp_path: Path) -> Iterator[Path]:
    """`perf record` of the scheduler's events on the whole machine; the file is whole behind the block."""
    perf, data = program("perf", "linux-perf"), tmp_path / "perf.data"
    events = "sched:sched_switch,sched:sched_wakeup,sched:sched_wakeup_new"
    with subprocess.Popen(
        [perf, "record", "-q", "-a", "-k", "mono", "-m", "4096", "-e", events, "-o", str(data)],
        stderr=subprocess.PIPE,
        text=True,
    ) as recorder:
        time.sleep(0.7)
        yield data
        recorder.send_signal(signal.SIGINT)  # it writes what it has and ends
        _, errors = recorder.communicate(timeout=60)
    if recorder.returncode not in (0, -signal.SIGINT, 128 + signal.SIGINT):
        pytest.skip(f"perf record does not work here: {errors[-300:]}")


def paired(seen: list[Seen], size: int = 997) -> Counter[tuple[int, int, int, bool]]:
    """The waits that the collector's own pairing finds in these records, in batches: (pid, end, delay, preempted)."""
    found: Counter[tuple[int, int, int, bool]] = Counter()
    open_ = np.zeros(0, dtype=EVENT)
    for first in range(0, len(seen), size):
        batch = seen[first : first + size]
        switches, wakeups = [one for one in batch if one.leaving >= 0], [one for one in batch if one.leaving < 0]
        blank = np.zeros(len(switches), dtype="S16")
        column = lambda name, of: np.array([getattr(one, name) for one in of], dtype=np.int64)  # noqa: E731
        state = np.array([{"R": 0, "R+": 0x100}.get(one.state, 1) for one in switches], dtype=np.int64)
        leaving, entering = (column("leaving", switches), blank), (column("entering", switches), blank)
        events = [
            open_,
            switch_events(column("t_ns", switches), leaving, state, entering, 0),
            wakeup_events(column("t_ns", wakeups), column("entering", wakeups)),
        ]
        pairing = pair(np.concatenate(events))
        open_ = pairing.open
        names = ("pid", "end_ns", "delay_ns", "preempted")
        found.update(zip(*(pairing.delays[name].tolist() for name in names), strict=True))
    return found


def test_the_perf_path_agrees_with_a_state_machine_over_perf_script(
    perf_rings: Callable[[], PerfRings], tmp_path: Path
) -> None:
    with perf_record(tmp_path) as data:
        rings = perf_rings()
        batches = []
        with script(BUSY_BOX, TURNS, 6) as box:
            go(box)
            while box.poll() is None:
                time.sleep(0.1)
                batches.append(rings.delays())
        time.sleep(0.05)
        batches.append(rings.delays())
    everything = np.concatenate([batch.delays for batch in batches])
    ours = everything[everything["comm"] == b"busybox"]
    assert len(ours) > 1000
    seen = perf_script(program("perf", "linux-perf"), data)
    waits = waits_of(seen)
    # Of the very same records the pairing makes the very same waits; two events of one thread at one nanosecond may be
    # either way round.
    same = Counter((w.pid, w.end_ns, w.delay_ns, w.preempted) for w in waits)
    found_here = paired(seen)
    assert sum(((found_here - same) + (same - found_here)).values()) <= 0.001 * len(waits)
    theirs = of_members(waits, ours)
    # Either side may lose wakeups on its own (docs/scheduler.md); what is compared are the waits that both have: same
    # thread, same end. Switches are not lost: whoever was preempted there was preempted here.
    mine, reference, found = same_waits(ours, theirs)
    assert len(mine) >= 0.9 * len(ours)
    assert np.mean(found[theirs["preempted"]]) >= 0.99
    assert np.mean(np.abs(mine - reference) <= 0.01 * reference + 1000) >= 0.99
    for p in QUANTILES:
        exact = np.quantile(reference, p)
        # Two readers stamp the same moment one after the other: a few 10 ns apart, more when interrupted.
        assert abs(np.quantile(mine, p) - exact) <= 0.01 * exact + 100, f"p{100 * p:g}"


def test_the_kernels_pairs_agree_with_a_state_machine_over_perf_script(
    kernel_pairs: Callable[..., KernelPairs], tmp_path: Path
) -> None:
    with perf_record(tmp_path) as data:
        pairs = kernel_pairs(threshold_ns=0, irq_threshold_ns=10**9)
        drained = []
        with script(BUSY_BOX, TURNS, 6) as box:
            pairs.observe({box.pid: 1})
            before = pairs.totals()
            go(box)
            while box.poll() is None:
                time.sleep(0.1)
                drained.append(pairs.drain())
            after = pairs.totals()
        drained.append(pairs.drain())
    assert after.lost == before.lost
    records = np.concatenate(drained)
    records = records[np.isin(records["kind"], [RecordKind.WOKEN, RecordKind.PREEMPTED])]
    ours = np.zeros(len(records), dtype=DELAY)
    ours["pid"], ours["end_ns"], ours["delay_ns"] = records["pid"], records["end_ns"], records["duration_ns"]
    theirs = of_members(waits_of(perf_script(program("perf", "linux-perf"), data)), ours)
    mine, reference, found = same_waits(ours, theirs)
    # perf is blind to what happens on a CPU that leaves idle on some kernels: the waits that both have are compared.
    # The programs are not blind: they have every wait that perf has.
    assert len(mine) >= 0.5 * len(ours) > 500
    assert np.mean(found) >= 0.995
    for p in QUANTILES:
        exact = np.quantile(reference, p)
        # The programs and perf read the clock one after the other, at either end of a wait.
        assert abs(np.quantile(mine, p) - exact) <= 0.01 * exact + 500, f"p{100 * p:g}"
    # And the percentiles of the complete counts are those of the waits, within the width of a bucket.
    counted = (after.groups[1]["histogram"] - before.groups[1]["histogram"]).sum(axis=0)
    assert abs(int(counted.sum()) - len(ours)) <= 0.01 * len(ours) + 10
    for p in QUANTILES:
        value = quantile(counted, p, 1 << 36).value_ns
        assert value is not None
        near = np.quantile(ours["delay_ns"], [max(0.0, p - 0.01), min(1.0, p + 0.01)])
        assert 0.99 * near[0] <= value <= 1.01 * near[1], f"p{100 * p:g}"


WAIT = np.dtype([("pid", "<i8"), ("end_ns", "<i8"), ("delay_ns", "<i8"), ("preempted", "?")])


def of_members(waits: list[Wait], ours: NDArray[np.void]) -> NDArray[np.void]:
    """Waits of the threads in `ours` that ended between the first and the last of these, as WAIT[n] by thread."""
    members, first, last = set(ours["pid"].tolist()), int(ours["end_ns"].min()), int(ours["end_ns"].max())
    rows = [(w.pid, w.end_ns, w.delay_ns, w.preempted) for w in waits if w.pid in members]
    found = np.array([row for row in rows if first <= row[1] <= last], dtype=WAIT)
    return found[np.lexsort((found["end_ns"], found["pid"]))]


def same_waits(
    ours: NDArray[np.void], theirs: NDArray[np.void], within_ns: int = 5000
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """The delays of waits whose thread and end agree in both lists, and which of `theirs` (by thread, end) they are."""
    mine, reference = [], []
    found = np.zeros(len(theirs), dtype=np.bool_)
    for pid in np.unique(ours["pid"]).tolist():
        here = ours[ours["pid"] == pid]
        (rows,) = np.nonzero(theirs["pid"] == pid)
        if not len(rows):
            continue
        ends = theirs["end_ns"][rows]
        place = np.searchsorted(ends, here["end_ns"].astype(np.int64) - within_ns)
        known = place < len(ends)
        place[~known] = 0
        known &= np.abs(ends[place] - here["end_ns"].astype(np.int64)) <= within_ns
        mine.append(here["delay_ns"][known].astype(np.int64))
        reference.append(theirs["delay_ns"][rows[place[known]]])
        found[rows[place[known]]] = True
    return np.concatenate(mine), np.concatenate(reference), found


@pytest.fixture
def ftrace() -> Iterator[Path]:
    """An ftrace instance of our own with the scheduler's events on, in MONOTONIC time."""
    try:
        roots = [root for root in ROOTS if (root / "instances").is_dir()]
    except PermissionError:
        roots = []
    if not roots:
        pytest.skip("tracefs is not mounted or not readable")
    instance = roots[0] / "instances" / "tailsight-test"
    try:
        instance.mkdir()
    except OSError as error:
        pytest.skip(f"no ftrace instance: {error}")
    try:
        (instance / "trace_clock").write_text("mono")
        (instance / "buffer_size_kb").write_text("16384")
        for event in ("sched_switch", "sched_wakeup", "sched_wakeup_new"):
            (instance / "events/sched" / event / "enable").write_text("1")
        yield instance
    finally:
        instance.rmdir()


def ftrace_delays(trace: list[str]) -> list[tuple[int, float, float]]:
    """The same state machine over ftrace's text: (pid, end, delay), in ns."""
    since: dict[int, float] = {}
    found = []
    for text in trace:
        matched = re.search(r"\s(\d+\.\d+): (sched_\w+): (.*)$", text)
        if matched is None:
            continue
        t = float(matched[1]) * 1e9
        if matched[2].startswith("sched_wakeup"):
            woken = re.search(r"\bpid=(\d+)", matched[3])
            assert woken is not None, text
            since.setdefault(int(woken[1]), t)
            continue
        switched = SWITCH_FIELDS.match(" " + matched[3] + " ")
        assert switched is not None, text
        since.pop(int(switched[1]), None)
        if switched[2].startswith("R"):
            since[int(switched[1])] = t
        if int(switched[3]) in since:
            found.append((int(switched[3]), t, t - since.pop(int(switched[3]))))
    return found


def test_every_wakeup_and_run_on_a_quiet_box_is_also_in_ftrace(
    kernel_pairs: Callable[..., KernelPairs], ftrace: Path
) -> None:
    pairs = kernel_pairs(record_all=True, threshold_ns=0, interrupts=False)
    with script(PING_PONG, 500) as process:
        pairs.drain()
        start_ns = time.monotonic_ns()
        time.sleep(0.5)  # idle, but for what a box does by itself
        go(process)
        process.wait(timeout=30)
        end_ns = time.monotonic_ns()
    (ftrace / "tracing_on").write_text("0")
    records = pairs.drain()
    waits = np.isin(records["kind"], [RecordKind.WOKEN, RecordKind.PREEMPTED])
    mine = records[waits & (records["end_ns"] > start_ns) & (records["end_ns"] <= end_ns)]

    runs: list[tuple[float, int]] = []
    for text in (ftrace / "trace").read_text().splitlines():
        matched = re.search(r"\s(\d+\.\d+): sched_switch: .* next_pid=(\d+) ", text)
        if matched and int(matched[2]):
            runs.append((float(matched[1]) * 1e9, int(matched[2])))
    theirs = Counter(pid for t, pid in runs if start_ns < t <= end_ns)
    ours = Counter(mine["pid"].tolist())
    # ftrace writes microseconds, so that a run at either edge may fall on the other side, and misses some on a CPU that
    # leaves idle.
    assert ours[process.pid] >= 500
    assert abs(ours[process.pid] - theirs[process.pid]) <= 2 + 0.01 * ours[process.pid]
    # What the waits took, too: in ftrace's microseconds.
    trace = (ftrace / "trace").read_text().splitlines()
    waits_there = [d for pid, end, d in ftrace_delays(trace) if pid == process.pid and start_ns < end <= end_ns]
    waits_here = mine["duration_ns"][mine["pid"] == process.pid]
    for p in QUANTILES:
        # Within 1 % in rank, for what ftrace missed, and 1 % and two of its microseconds in value.
        low, high = np.quantile(waits_there, [max(0.0, p - 0.01), min(1.0, p + 0.01)])
        assert 0.99 * low - 2_000 <= np.quantile(waits_here, p) <= 1.01 * high + 2_000, f"p{100 * p:g}"
    # Everybody else: one run each was under way at the start; some kernels trace nothing while certain tasks run.
    assert sum((theirs - ours).values()) <= len(theirs) + 0.01 * sum(theirs.values())


def test_a_perf_ring_says_how_much_it_saw(perf_rings: Callable[[], PerfRings]) -> None:
    rings = perf_rings()
    with script(PING_PONG, 2000) as process:
        go(process)
        process.wait(timeout=60)
    rings.delays()
    time.sleep(0.05)
    rings.delays()
    measured, counted = rings.events_seen()["switch"]
    assert counted >= 4000
    assert measured >= MIN_COVERAGE * counted
