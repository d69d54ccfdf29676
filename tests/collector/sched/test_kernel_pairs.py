"""The programs in the real kernel, on workloads whose switches are counted elsewhere."""

from __future__ import annotations

import errno
import os
import platform
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from collector.sched import perf_event
from collector.sched.bpf_asm import R0, R1, Assembler
from collector.sched.bpf_syscall import VerifierError, load_program
from collector.sched.delay_buckets import BUCKETS, bucket_index
from collector.sched.kernel_pairs import KernelPairs
from collector.sched.layout import UNKNOWN_PID, RecordKind, State
from collector.sched.mechanism import Totals
from collector.sched.routes import RECORD, TYPED
from collector.sched.tracefs import tracepoint
from tests.collector.sched.workloads import FAIR_SPIN, PING_PONG, SLEEPER, SPIN, go, line, script

Make = Callable[..., KernelPairs]


def accounts_when_asleep(tid: int) -> list[int]:
    """The thread's schedstat (ns run, ns waited, times given a CPU), read while it sleeps: none is under way."""
    folder = Path(f"/proc/{tid}")
    while folder.joinpath("stat").read_text().rpartition(")")[2].split()[0] != "S":
        time.sleep(0.001)
    return [int(word) for word in folder.joinpath("schedstat").read_text().split()]


def missed(totals: Totals) -> int:
    """Runs that the programs know they did not see: some kernels trace nothing while certain tasks are current."""
    measured, happened = totals.events["waits"]
    return happened - measured


def observed_sleeper(pairs: KernelPairs, naps: int) -> tuple[int, list[int]]:
    """Let a thread nap; its tid and what its accounts grew by while observed."""
    with script(SLEEPER, naps) as process:
        tid = int(line(process))
        time.sleep(0.02)
        before = accounts_when_asleep(tid)
        pairs.observe({tid: 1})
        go(process)
        line(process)
        after = accounts_when_asleep(tid)
        pairs.observe({})
    return tid, [new - old for new, old in zip(after, before, strict=True)]


def test_every_run_of_an_observed_thread_is_counted(kernel_pairs: Make) -> None:
    pairs = kernel_pairs()
    _, (_, _, runs) = observed_sleeper(pairs, 100)
    totals = pairs.totals()
    group, missing = totals.groups[1], missed(totals)
    assert runs >= 100
    assert runs - 1 - missing <= int(group["runs"]) <= runs + 1
    assert runs - 1 - missing <= int(group["delays"].sum()) <= runs + 1
    assert int(group["delays"][0]) >= 100 - missing  # woken from each nap
    assert int(group["blocked"][0]) >= 100 - missing  # naps are interruptible sleep
    assert int(group["blocked_ns"][0]) >= (100 - missing) * 1_000_000


def test_the_sum_of_delays_is_what_the_kernel_accounts(kernel_pairs: Make) -> None:
    pairs = kernel_pairs()
    with script(FAIR_SPIN, 0.6) as one, script(FAIR_SPIN, 0.6) as other:
        before = accounts_when_asleep(one.pid)
        pairs.observe({one.pid: 1})
        go(one)
        go(other)
        line(one)
        _, delay_ns, runs = (new - old for new, old in zip(accounts_when_asleep(one.pid), before, strict=True))
        pairs.observe({})
    totals = pairs.totals()
    measured = int(totals.groups[1]["delay_ns"].sum())
    assert delay_ns > 50_000_000  # they shared one CPU
    # The kernel's account ends at the scheduler's last clock update, ours at the switch.
    assert abs(measured - delay_ns) <= 0.02 * delay_ns + 30_000 * runs + missed(totals) * delay_ns / runs


def test_the_histogram_in_the_kernel_is_that_of_the_records(kernel_pairs: Make) -> None:
    pairs = kernel_pairs(threshold_ns=0, irq_threshold_ns=10**9)
    with script(PING_PONG, 2000) as process:
        pairs.observe({process.pid: 1})
        go(process)
        process.wait(timeout=60)
        pairs.observe({})
    records, group = pairs.drain(), pairs.totals().groups[1]
    assert pairs.totals().lost == 0
    assert len(records) >= 4000  # the child is observed too, from its fork on
    assert len(set(records["pid"].tolist())) == 2
    for kind in (RecordKind.WOKEN, RecordKind.PREEMPTED):
        delays = records["duration_ns"][records["kind"] == kind].astype(np.int64)
        expected = np.bincount(bucket_index(delays), minlength=BUCKETS)
        assert (group["histogram"][kind - 1] == expected).all()
        assert int(group["delays"][kind - 1]) == len(delays)
        assert int(group["delay_ns"][kind - 1]) == delays.sum()
    assert (records["group"] == 1).all()


def test_the_culprit_of_a_preemption_is_who_took_the_cpu(kernel_pairs: Make) -> None:
    pairs = kernel_pairs(threshold_ns=100_000)
    with script(SPIN, "victim", 0.6) as victim, script(SPIN, "thief", 0.6) as thief:
        assert line(victim) == line(thief) == "ready\n"
        pairs.observe({victim.pid: 1})
        go(victim)
        go(thief)
        victim.wait(timeout=30)
        thief.wait(timeout=30)
    records = pairs.drain()
    robbed = records[(records["kind"] == RecordKind.PREEMPTED) & (records["by_pid"] == thief.pid)]
    assert len(robbed) >= 1
    assert set(robbed["by_comm"].tolist()) == {b"thief"}
    assert set(robbed["comm"].tolist()) == {b"victim"}
    assert set(robbed["pid"].tolist()) == {victim.pid}


def test_interrupts_are_charged_to_the_thread_they_hit(kernel_pairs: Make) -> None:
    pairs = kernel_pairs(irq_threshold_ns=0)
    pairs.observe({threading.get_native_id(): 1})
    before = pairs.totals()
    cpu_ns = time.thread_time_ns()
    while time.thread_time_ns() - cpu_ns < 300_000_000:
        pass
    totals = pairs.totals()
    pairs.observe({})
    if platform.machine() != "x86_64":
        pytest.skip("this machine does not name its tick")
    stolen = totals.groups[1]["stolen"][0] - before.groups[1]["stolen"][0]
    assert int(stolen) >= 20  # 300 ms of running see at least 30 ticks at 100 Hz
    assert totals.header is not None
    assert int(totals.header["irq_ns"].sum()) > 0
    records = pairs.drain()
    interrupts = records[records["kind"] == RecordKind.IRQ]
    assert len(interrupts) >= 20
    assert set(interrupts["pid"].tolist()) == {threading.get_native_id()}


def test_interrupts_of_everybody_are_recorded_when_all_are_observed(kernel_pairs: Make) -> None:
    pairs = kernel_pairs(irq_threshold_ns=0, threshold_ns=10**9, record_all=True)
    me, cpu_ns = threading.get_native_id(), time.thread_time_ns()
    while time.thread_time_ns() - cpu_ns < 100_000_000:
        pass
    records = pairs.drain()
    if platform.machine() != "x86_64":
        pytest.skip("this machine does not name its tick")
    assert me in records["pid"].tolist()
    assert int(pairs.totals().groups[0]["stolen"][0]) >= 10


def test_a_full_ring_is_counted_and_nothing_else_is_missing(kernel_pairs: Make) -> None:
    pairs = kernel_pairs(threshold_ns=0, ring_bytes=4096, record_all=True, interrupts=False)
    with script(PING_PONG, 500) as process:
        go(process)
        process.wait(timeout=60)
    totals = pairs.totals()
    assert totals.header is not None
    assert totals.lost > 0
    sent = int(totals.header["sent"].sum())
    assert len(pairs.drain()) >= sent > 0
    after = pairs.totals()
    # The box runs on while the counters are read, so the second reading bounds the first.
    accounted, in_flight = sent + totals.lost, len(perf_event.cpus("possible"))
    assert int(totals.groups["long"].sum()) <= accounted + in_flight
    assert accounted <= int(after.groups["long"].sum()) + in_flight


def test_the_maximum_is_that_of_the_period(kernel_pairs: Make) -> None:
    pairs = kernel_pairs()
    tid, _ = observed_sleeper(pairs, 20)
    assert int(pairs.totals().groups[1]["max_ns"][0].max()) > 0
    assert int(pairs.totals().groups[1]["max_ns"][0].max()) == 0  # that thread is no longer observed
    assert pairs.thread(tid) is not None


def test_nearly_every_wait_on_the_machine_is_measured(kernel_pairs: Make) -> None:
    pairs = kernel_pairs()
    with script(PING_PONG, 5000) as process:
        time.sleep(0.3)
        before = pairs.totals()
        go(process)
        process.wait(timeout=60)
        after = pairs.totals()
    measured, happened = (a - b for a, b in zip(after.events["waits"], before.events["waits"], strict=True))
    assert happened >= 10_000
    # What was waiting when the programs were attached is seen without its beginning: some threads, more on a busy box.
    assert measured >= happened * 0.999 - 10 - 3 * os.getloadavg()[0]
    assert pairs.missed() <= 0.001 * happened


def test_another_perf_user_still_gets_every_event(kernel_pairs: Make) -> None:
    switch = tracepoint_or_skip()
    pairs = kernel_pairs()
    fds = [
        perf_event.open_event(perf_event.Event(switch), pid=-1, cpu=cpu, doing="counting switches")
        for cpu in perf_event.cpus("online")
    ]
    try:
        for fd in fds:
            perf_event.enable(fd)
        before = pairs.totals()
        with script(PING_PONG, 2000) as process:
            go(process)
            process.wait(timeout=60)
        after = pairs.totals()
        for fd in fds:
            perf_event.disable(fd)
        counted = sum(perf_event.read_count(fd)[0] for fd in fds)
    finally:
        for fd in fds:
            os.close(fd)
    runs = int(after.groups["runs"].sum()) - int(before.groups["runs"].sum())
    assert runs >= 4000
    assert counted >= runs  # switches to idle are counted there too


def tracepoint_or_skip() -> int:
    try:
        return tracepoint("sched", "sched_switch").id
    except Exception as error:  # noqa: BLE001  (the skip quotes it)
        pytest.skip(str(error))


def test_a_program_that_the_verifier_refuses_is_quoted(kernel_pairs: Make) -> None:
    kernel_pairs()  # skips where programs cannot be loaded at all
    reads_past_the_context = Assembler().load(8, R0, R1, 8192).mov(R0, 1).exit().assemble()
    with pytest.raises(VerifierError) as refused:
        load_program("wild", reads_past_the_context)
    assert refused.value.errno in (errno.EACCES, errno.EINVAL)
    assert "the verifier refused the program wild" in str(refused.value)
    assert "invalid bpf_context access" in str(refused.value)
    with pytest.raises(VerifierError, match="R0 !read_ok"):
        load_program("empty", Assembler().exit().assemble())


# Sleeps in a known way for a known time and says its tid first.
SLEEPS = """
import mmap, os, sys, tempfile, threading, time
print(threading.get_native_id(), flush=True)
sys.stdin.readline()
if sys.argv[1] == "lock":
    # On two CPUs the one who lets go mostly hands the wakeup to the CPU of the one who waits, where nobody runs.
    mine, others = min(os.sched_getaffinity(0)), max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {mine})
    lock = threading.Lock()
    def hold():
        os.sched_setaffinity(0, {others if sys.argv[2] == "far" else mine})
        open(f"/proc/self/task/{threading.get_native_id()}/comm", "w").write("holder")
        for _ in range(10):
            lock.acquire(); held.set(); time.sleep(0.02); lock.release(); taken.wait(); taken.clear()
    held, taken = threading.Event(), threading.Event()
    threading.Thread(target=hold).start()
    for _ in range(10):
        held.wait(); held.clear(); lock.acquire(); lock.release(); taken.set()
elif sys.argv[1] == "sleep":
    time.sleep(0.05)
elif sys.argv[1] == "io":
    with open(sys.argv[2], "r+b", buffering=0) as file:
        for _ in range(50):
            file.write(os.urandom(1 << 16)); os.fsync(file.fileno())
elif sys.argv[1] == "fault":
    with open(sys.argv[2], "r+b") as file:
        memory = mmap.mmap(file.fileno(), 0)
        memory.madvise(mmap.MADV_RANDOM)
        for at in range(0, len(memory), 1 << 16): memory[at]
print("done", flush=True)
sys.stdin.readline()
"""


def slept(pairs: KernelPairs, how: str, *arguments: object) -> tuple[np.ndarray, np.ndarray]:
    """The records and blocked times (layout.State from BLOCKED_INTERRUPTIBLE on) of a thread that sleeps so."""
    with script(SLEEPS, how, *arguments) as process:
        tid = int(line(process))
        time.sleep(0.02)
        pairs.observe({tid: 1})
        pairs.drain()
        before = pairs.totals().groups[1]
        go(process)
        assert line(process) == "done\n"
        records, after = pairs.drain(), pairs.totals().groups[1]
        pairs.observe({})
    return records[records["pid"] == tid], after["blocked_ns"] - before["blocked_ns"]


@pytest.fixture
def typed(kernel_pairs: Make) -> KernelPairs:
    """Programs that read the kernel's own structures, or a skip."""
    pairs = kernel_pairs(threshold_ns=1_000_000)
    if pairs.route != TYPED:
        pytest.skip("this kernel has no type information: sleeps are not told apart")
    if platform.machine() != "x86_64":
        pytest.skip("system calls are read on x86-64 only")
    return pairs


def of_kind(records: np.ndarray, kind: RecordKind) -> np.ndarray:
    return records[records["kind"] == kind]


@pytest.mark.parametrize("where", ["near", "far"])
def test_a_wait_for_a_lock_names_who_let_go(typed: KernelPairs, where: str) -> None:
    if where == "far" and len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one CPU: nobody can be woken from another")
    records, blocked = slept(typed, "lock", where)
    waits = [r for r in of_kind(records, RecordKind.BLOCKED_LOCK) if r["duration_ns"] >= 15_000_000]
    assert len(waits) >= 9  # one may have found the lock free on a machine that was busy
    assert {bytes(wait["by_comm"]) for wait in waits} == {b"holder"}
    assert 0 not in {int(wait["by_pid"]) for wait in waits}
    assert sum(int(w["duration_ns"]) for w in waits) <= blocked[State.BLOCKED_LOCK - State.BLOCKED_INTERRUPTIBLE]


def test_without_wakers_nobody_is_named(kernel_pairs: Make) -> None:
    pairs = kernel_pairs(threshold_ns=1_000_000, wakers=False)
    if pairs.route != TYPED or platform.machine() != "x86_64":
        pytest.skip("sleeps are not told apart here")
    records, _ = slept(pairs, "lock", "near")
    waits = of_kind(records, RecordKind.BLOCKED_LOCK)
    assert len(waits) >= 9
    assert set(waits["by_pid"].tolist()) == {UNKNOWN_PID}


def test_a_sleep_of_ones_own_will_is_counted_and_no_interval(typed: KernelPairs) -> None:
    records, blocked = slept(typed, "sleep")
    assert not np.isin(records["kind"], [RecordKind.BLOCKED_LOCK, RecordKind.BLOCKED_IO, RecordKind.PAGE_FAULT]).any()
    assert blocked[0] >= 50_000_000


def on_disk(tmp_path: Path) -> Path:
    """A file of 8 MiB on a disk that makes its readers wait."""
    path = tmp_path / "file"
    path.write_bytes(os.urandom(8 << 20))
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    return path


def test_waits_for_the_disk_are_io(typed: KernelPairs, tmp_path: Path) -> None:
    _, blocked = slept(typed, "io", on_disk(tmp_path))
    waited = int(blocked[State.BLOCKED_IO - State.BLOCKED_INTERRUPTIBLE])
    if not blocked[1:3].any():
        pytest.skip("this file system never makes a writer wait")
    assert waited > 0


def test_waits_inside_a_page_fault_are_page_faults(typed: KernelPairs, tmp_path: Path) -> None:
    _, blocked = slept(typed, "fault", on_disk(tmp_path))
    faults = int(blocked[State.PAGE_FAULT - State.BLOCKED_INTERRUPTIBLE])
    if not blocked[1:].any():
        pytest.skip("this file system keeps the file in memory: no fault had to wait")
    assert faults > 0
    assert int(blocked[State.BLOCKED_LOCK - State.BLOCKED_INTERRUPTIBLE]) == 0


@pytest.mark.parametrize("route", [TYPED, RECORD])
def test_both_routes_count_the_same_runs_and_threads_have_histograms(kernel_pairs: Make, route: str) -> None:
    pairs = kernel_pairs(route=route, threads=1)
    tid, (_, _, runs) = observed_sleeper(pairs, 100)
    del tid
    totals = pairs.totals()
    assert runs - 1 - missed(totals) <= int(totals.groups[1]["runs"]) <= runs + 1
    me, other = threading.get_native_id(), os.getppid()
    pairs.observe({me: 1, other: 1})
    for _ in range(30):
        time.sleep(0.0005)
    now = pairs.totals()
    (counted,) = now.by_thread.values()  # there is room for one
    assert list(now.by_thread) == [me]
    assert int(counted.sum()) >= 29 - missed(now)
    pairs.observe({other: 1})
    assert list(pairs.totals().by_thread) == [other]
    assert now.by_cpu is not None
    per_cpu = now.by_cpu.sum(axis=0)
    # Read one after the other while the box runs on.
    assert int(per_cpu.sum()) >= int(now.groups["histogram"].sum(dtype=np.uint64))
