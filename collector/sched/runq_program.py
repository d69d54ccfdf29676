"""Kernel programs that pair "became runnable" with "was given a CPU" where both happen, and count every pair.

Question: how long did a thread wait for a CPU, and who had it? Between sched_wakeup, sched_wakeup_new or a sched_switch
that leaves the thread runnable, and the sched_switch that gives it a CPU. Pairs are matched in a table of one cache
line per thread; each delay goes into a log-linear histogram that its CPU alone writes; those of observed threads above
the threshold also go into the ring with who ran instead.

A program on a tracepoint must return 1: 0 would hide the event from every other perf user of the machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from collector.sched.bpf_asm import R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10, Assembler
from collector.sched.delay_buckets import BUCKETS, MAX_EXPONENT, SUB_BUCKETS
from collector.sched.layout import CPU_HEADER, GROUP, RECORD, SLOT, WATCH, State, cpu_dtype, offset
from collector.sched.tracefs import Tracepoint

_KTIME_GET_NS, _GET_CPU, _RINGBUF_OUTPUT = 5, 8, 130
_RINGBUF_NO_WAKEUP = 1  # the collector polls, so the kernel need not send itself an interrupt per record
_SLOT_SHIFT, _WATCH_SHIFT = SLOT.itemsize.bit_length() - 1, WATCH.itemsize.bit_length() - 1  # both powers of two
_RUNNABLE_PREEMPTED = 0x100  # TASK_REPORT_MAX: "R+" in sched_switch's print format (Linux 4.14 and later)
_REPORTED_STATES = 0xFF
_INTERRUPTIBLE, _UNINTERRUPTIBLE = 1, 2
_RECORD_AT = -RECORD.itemsize
_GROUP_AT = _RECORD_AT + offset(RECORD, "group")


@dataclass(frozen=True, slots=True)
class Shared:
    """The maps and constants that all programs of one collector are assembled with."""

    slots_fd: int
    watch_fd: int
    cpus_fd: int
    ring_fd: int
    slots: int  # a power of two
    cpus: int
    groups: int
    threshold_ns: int
    irq_threshold_ns: int
    record_all: bool  # records for group 0 too

    @property
    def cpu_bytes(self) -> int:
        """The size of one CPU's share of the counters."""
        return cpu_dtype(self.groups).itemsize


def _slot(name: str) -> int:
    return offset(SLOT, name)


def _header(name: str) -> int:
    return offset(CPU_HEADER, name)


def _group(name: str) -> int:
    return CPU_HEADER.itemsize + offset(GROUP, name)


def _record(name: str) -> int:
    return _RECORD_AT + offset(RECORD, name)


def begin(asm: Assembler, shared: Shared) -> None:
    """r6 = context, r7 = this CPU's counters, r8 = now; goes to "out" on a CPU that was not there at start."""
    asm.mov(R6, R1).call(_GET_CPU).jump(">=", R0, shared.cpus, "out")
    asm.store(2, R10, _record("cpu"), R0)
    asm.alu("*", R0, shared.cpu_bytes).load_value(R7, shared.cpus_fd).alu("+", R7, R0)
    asm.call(_KTIME_GET_NS).mov(R8, R0)


def finish(asm: Assembler) -> bytes:
    """Close the program: whatever happened, the event stays visible to others."""
    return asm.label("out").mov(R0, 1).exit().assemble()


def find_slot(asm: Assembler, shared: Shared, pid: str) -> None:
    """r9 = the slot of `pid`; r2 is used."""
    asm.mov(R2, pid).alu("&", R2, shared.slots - 1).alu("<<", R2, _SLOT_SHIFT)
    asm.load_value(R9, shared.slots_fd).alu("+", R9, R2)


def claim_slot(asm: Assembler, pid: str, *, new: bool = False) -> None:
    """Make the slot at r9 that of `pid`, empty; a live owner's loss is counted. r2 is used.

    A `new` thread may have the number of one that died, which is no loss.
    """
    if not new:
        free = asm.fresh("free")
        asm.load(2, R2, R9, _slot("state")).jump("==", R2, State.NONE, free)
        asm.jump("==", R2, State.BLOCKED_OTHER, free).add_to(8, R7, _header("collisions"), 1, R2)
        asm.label(free)
    for at in range(0, SLOT.itemsize, 8):
        asm.store(8, R9, at, 0)
    asm.store(4, R9, _slot("pid"), pid)


def find_group(asm: Assembler, shared: Shared, pid: str) -> None:
    """r3 = this CPU's counters of the group of `pid`; its number goes into the record. r2 is used."""
    known, done = asm.fresh("watched"), asm.fresh("group")
    asm.mov(R2, pid).alu("&", R2, shared.slots - 1).alu("<<", R2, _WATCH_SHIFT)
    asm.load_value(R3, shared.watch_fd).alu("+", R3, R2).load(8, R3, R3, 0)
    asm.mov32(R2, R3).jump("==", R2, pid, known).mov(R3, 0).goto(done)
    asm.label(known).alu(">>", R3, 32)
    asm.label(done).store(4, R10, _GROUP_AT, R3)
    inside = asm.fresh("inside")
    asm.jump("<", R3, shared.groups, inside).mov(R3, 0).store(4, R10, _GROUP_AT, R3).label(inside)
    asm.alu("*", R3, GROUP.itemsize).alu("+", R3, R7)


def count_in_histogram(asm: Assembler) -> None:
    """Count the delay in r5 at r3 + kind (r4, 0 or 1); uses r0, r1, r2. Index as in `delay_buckets.bucket_index`."""
    small = asm.fresh("clamped")
    asm.mov(R0, R5).load_number(R1, (1 << MAX_EXPONENT) - 1).jump("<=", R0, R1, small).mov(R0, R1).label(small)
    asm.mov(R1, 0)
    for step in (16, 8, 4, 2, 1):
        below = asm.fresh("below")
        # SUB_BUCKETS is 2^7: after all steps 128 <= r0 < 256 unless the delay was below 256 to begin with.
        asm.jump("<", R0, 1 << (step + 7), below).alu(">>", R0, step).alu("+", R1, step * SUB_BUCKETS).label(below)
    asm.alu("+", R0, R1)
    within = asm.fresh("within")
    asm.jump("<", R0, BUCKETS, within).mov(R0, BUCKETS - 1).label(within)
    asm.alu("<<", R0, 2).mov(R2, R4).alu("*", R2, 4 * BUCKETS).alu("+", R2, R0).alu("+", R2, R3)
    asm.add_to(4, R2, _group("histogram"), 1, R0)


def send_record(asm: Assembler, shared: Shared) -> None:
    """Hand the record on the stack to the ring; a full ring is counted. r0 to r5 are lost."""
    lost, done = asm.fresh("lost"), asm.fresh("sent")
    asm.load_map(R1, shared.ring_fd).mov(R2, R10).alu("+", R2, _RECORD_AT)
    asm.mov(R3, RECORD.itemsize).mov(R4, _RINGBUF_NO_WAKEUP).call(_RINGBUF_OUTPUT)
    asm.jump("!=", R0, 0, lost).add_to(8, R7, _header("sent"), 1, R1).goto(done)
    asm.label(lost).add_to(8, R7, _header("lost"), 1, R1).label(done)


def wakeup_program(tracepoint: Tracepoint, shared: Shared, *, new: bool) -> bytes:
    """A thread became runnable; `new` threads start with an empty slot."""
    asm = Assembler()
    begin(asm, shared)
    asm.add_to(8, R7, _header("wakeups"), 1, R1)
    asm.load(4, R1, R6, tracepoint.offset("pid", 4))
    find_slot(asm, shared, R1)
    if not new:
        asm.load(4, R2, R9, _slot("pid")).jump("==", R2, R1, "mine")
    claim_slot(asm, R1, new=new)
    if not new:
        asm.label("mine").load(2, R4, R9, _slot("state")).jump("==", R4, State.NONE, "woken")
        # Already runnable: it has been waiting since the first time. Running: it was woken before it slept.
        asm.jump("<", R4, State.BLOCKED_INTERRUPTIBLE, "out").jump("==", R4, State.RUNNING, "out")
        _count_blocked(asm, shared)
    asm.label("woken").store(2, R9, _slot("state"), State.WOKEN).store(8, R9, _slot("t_ns"), R8)
    return finish(asm)


def _count_blocked(asm: Assembler, shared: Shared) -> None:
    """The thread r1, blocked in state r4 since the slot's time, was woken."""
    asm.alu("-", R4, State.BLOCKED_INTERRUPTIBLE).jump(">=", R4, 3, "woken").alu("<<", R4, 3)
    asm.mov(R5, R8).load(8, R2, R9, _slot("t_ns")).alu("-", R5, R2).jump("s<", R5, 0, "woken")
    asm.add_to(4, R9, _slot("blocked"), 1, R2)
    find_group(asm, shared, R1)
    asm.alu("+", R3, R4)
    asm.add_to(8, R3, _group("blocked"), 1, R2).add_to(8, R3, _group("blocked_ns"), R5, R2)


def switch_program(tracepoint: Tracepoint, shared: Shared) -> bytes:
    """One thread leaves the CPU and another gets it: ends the second's wait, begins the first's."""
    at = {
        name: tracepoint.offset(name, size)
        for name, size in (
            ("prev_pid", 4),
            ("prev_state", 8),
            ("prev_comm", 16),
            ("next_pid", 4),
            ("next_comm", 16),
        )
    }
    asm = Assembler()
    begin(asm, shared)
    asm.load(4, R1, R6, at["next_pid"]).jump("==", R1, 0, "leave")
    _end_wait(asm, shared, at)
    asm.label("leave").load(4, R1, R6, at["prev_pid"]).jump("==", R1, 0, "out")
    _begin_wait(asm, shared, at)
    return finish(asm)


def _end_wait(asm: Assembler, shared: Shared, at: dict[str, int]) -> None:
    """The thread r1 was given this CPU."""
    find_slot(asm, shared, R1)
    find_group(asm, shared, R1)
    asm.add_to(8, R3, _group("runs"), 1, R2)
    asm.load(4, R2, R9, _slot("pid")).jump("==", R2, R1, "known")
    claim_slot(asm, R1)
    asm.label("known").load(2, R4, R9, _slot("state")).alu("-", R4, State.WOKEN).jump("<", R4, 2, "paired")
    asm.add_to(8, R7, _header("unpaired"), 1, R2).goto("running")

    asm.label("paired").mov(R5, R8).load(8, R2, R9, _slot("t_ns")).alu("-", R5, R2)
    asm.jump("s>=", R5, 0, "forward").mov(R5, 0).label("forward")  # clocks of two CPUs may differ by nanoseconds
    asm.load(2, R0, R10, _record("cpu")).load(2, R2, R9, _slot("cpu")).jump("==", R0, R2, "stayed")
    asm.add_to(8, R3, _group("migrations"), 1, R2)
    asm.label("stayed").mov(R2, R4).alu("<<", R2, 2).alu("+", R2, R9).add_to(4, R2, _slot("delays"), 1, R0)
    asm.mov(R1, R4).alu("<<", R1, 3)
    asm.mov(R2, R1).alu("+", R2, R9).add_to(8, R2, _slot("delay_ns"), R5, R0)
    asm.mov(R2, R1).alu("+", R2, R3)
    asm.add_to(8, R2, _group("delays"), 1, R0).add_to(8, R2, _group("delay_ns"), R5, R0)
    asm.load(8, R0, R7, _header("epoch")).alu("&", R0, 1).alu("<<", R0, 4).alu("+", R2, R0)
    asm.load(8, R0, R2, _group("max_ns")).jump("<=", R5, R0, "no maximum").store(8, R2, _group("max_ns"), R5)
    asm.label("no maximum")
    count_in_histogram(asm)

    asm.load_number(R1, shared.threshold_ns).jump("<", R5, R1, "running")
    asm.add_to(8, R3, _group("long"), 1, R2)
    if not shared.record_all:
        asm.load(4, R2, R10, _GROUP_AT).jump("==", R2, 0, "running")
    _fill_wait_record(asm, at)
    send_record(asm, shared)
    asm.label("running").load(2, R0, R10, _record("cpu"))
    asm.store(2, R9, _slot("cpu"), R0).store(2, R9, _slot("state"), State.RUNNING)


def _fill_wait_record(asm: Assembler, at: dict[str, int]) -> None:
    """The record of a wait of kind r4 (0 woken, 1 preempted) and r5 ns; the culprit is the preemptor, or prev."""
    comm, by_comm = _record("comm"), _record("by_comm")
    asm.store(8, R10, _record("end_ns"), R8).store(8, R10, _record("duration_ns"), R5)
    asm.load(4, R0, R6, at["next_pid"]).store(4, R10, _record("pid"), R0)
    for half in (0, 8):
        asm.load(8, R0, R6, at["next_comm"] + half).store(8, R10, comm + half, R0)
    asm.jump("==", R4, 1, "by preemptor")
    asm.load(4, R0, R6, at["prev_pid"]).store(4, R10, _record("by_pid"), R0)
    for half in (0, 8):
        asm.load(8, R0, R6, at["prev_comm"] + half).store(8, R10, by_comm + half, R0)
    asm.goto("has culprit").label("by preemptor")
    asm.load(4, R0, R9, _slot("by_pid")).store(4, R10, _record("by_pid"), R0)
    for half in (0, 8):
        asm.load(8, R0, R9, _slot("by_comm") + half).store(8, R10, by_comm + half, R0)
    asm.label("has culprit").alu("+", R4, State.WOKEN).store(2, R10, _record("kind"), R4)


def _begin_wait(asm: Assembler, shared: Shared, at: dict[str, int]) -> None:
    """The thread r1 left this CPU, runnable or blocked."""
    find_slot(asm, shared, R1)
    asm.load(4, R2, R9, _slot("pid")).jump("==", R2, R1, "own")
    claim_slot(asm, R1)
    asm.label("own").load(2, R2, R9, _slot("state")).jump("==", R2, State.RUNNING, "seen")
    asm.jump("==", R2, State.NONE, "seen").add_to(8, R7, _header("unseen"), 1, R2)
    asm.label("seen").load(2, R0, R10, _record("cpu")).store(2, R9, _slot("cpu"), R0)
    asm.store(8, R9, _slot("t_ns"), R8)
    asm.load(8, R2, R6, at["prev_state"]).jump("&", R2, _RUNNABLE_PREEMPTED, "preempted")
    asm.alu("&", R2, _REPORTED_STATES).jump("==", R2, 0, "preempted")
    asm.mov(R3, State.BLOCKED_INTERRUPTIBLE).jump("&", R2, _INTERRUPTIBLE, "blocked")
    asm.mov(R3, State.BLOCKED_UNINTERRUPTIBLE).jump("&", R2, _UNINTERRUPTIBLE, "blocked")
    asm.mov(R3, State.BLOCKED_OTHER).goto("blocked")
    asm.label("preempted").load(4, R0, R6, at["next_pid"]).store(4, R9, _slot("by_pid"), R0)
    for half in (0, 8):
        asm.load(8, R0, R6, at["next_comm"] + half).store(8, R9, _slot("by_comm") + half, R0)
    asm.mov(R3, State.PREEMPTED)
    asm.label("blocked").store(2, R9, _slot("state"), R3)


def fork_program(tracepoint: Tracepoint, shared: Shared) -> bytes:
    """A new thread or process of an observed one is observed from its first instruction."""
    asm = Assembler()
    asm.load(4, R3, R1, tracepoint.offset("parent_pid", 4)).load(4, R4, R1, tracepoint.offset("child_pid", 4))
    entry: Callable[[str, str], Assembler] = lambda to, pid: (  # noqa: E731  (two uses, four instructions)
        asm.mov(to, pid).alu("&", to, shared.slots - 1).alu("<<", to, _WATCH_SHIFT)
    )
    entry(R2, R3).load_value(R5, shared.watch_fd).alu("+", R2, R5)
    asm.load(8, R0, R2, 0).mov32(R2, R0).jump("!=", R2, R3, "out")
    asm.alu(">>", R0, 32).jump("==", R0, 0, "out").alu("<<", R0, 32).alu("|", R0, R4)
    entry(R2, R4).alu("+", R2, R5).store(8, R2, 0, R0)
    return finish(asm)
