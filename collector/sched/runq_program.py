# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause OR Apache-2.0
"""Kernel programs that pair "became runnable" with "was given a CPU" where both happen, and count every pair.

Question: how long did a thread wait for a CPU, and who had it? Between sched_wakeup, sched_wakeup_new or a sched_switch
that leaves the thread runnable, and the sched_switch that gives it a CPU. Pairs are matched in a table of one cache
line per thread; each delay goes into a log-linear histogram that its CPU alone writes; those of observed threads above
the threshold also go into the ring with who ran instead. A wakeup also ends a sleep, which is counted by what the
thread slept for; who woke it is in the record of those that did not sleep of their own will. That is taken from
sched_waking, which is raised where the wakeup is asked for: one CPU may hand the wakeup itself to another, where
somebody else, or nobody, is current.

A program on a tracepoint must return 1: 0 would hide the event from every other perf user of the machine.

The programs that this module assembles are licensed to the kernel as "Dual BSD/GPL" (docs/decisions).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from collector.sched.bpf_asm import R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10, Assembler
from collector.sched.delay_buckets import BUCKETS, MAX_EXPONENT, SUB_BUCKETS
from collector.sched.event_fields import Fields, Numbers
from collector.sched.layout import (
    BLOCKED_STATES,
    CPU_HEADER,
    GROUP,
    RECORD,
    SLOT,
    THREAD,
    UNKNOWN_PID,
    WATCH,
    State,
    cpu_dtype,
    offset,
)

_KTIME_GET_NS, _GET_CPU, _RINGBUF_OUTPUT = 5, 8, 130
_GET_CURRENT_PID_TGID, _GET_CURRENT_COMM = 14, 16
_RINGBUF_NO_WAKEUP = 1  # the collector polls, so the kernel need not send itself an interrupt per record
_SLOT_SHIFT, _WATCH_SHIFT = SLOT.itemsize.bit_length() - 1, WATCH.itemsize.bit_length() - 1  # both powers of two
_UNKNOWN = UNKNOWN_PID - (1 << 32)  # as an immediate, which has a sign
_RECORD_AT = -RECORD.itemsize
_GROUP_AT = _RECORD_AT + offset(RECORD, "group")
_PLACE_AT = _RECORD_AT - 8  # on the stack, beside the record


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
    threads_fd: int
    threads: int  # how many observed threads have histograms of their own
    interrupts: bool  # whether the programs on interrupts run beside these
    wakers: bool  # whether the program on sched_waking does

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
    asm.mov32(R2, R3).jump("==", R2, pid, known).mov(R3, 0).store(4, R10, _PLACE_AT, 0).goto(done)
    asm.label(known).alu(">>", R3, 32).mov(R2, R3).alu(">>", R2, 16).store(4, R10, _PLACE_AT, R2).alu("&", R3, 0xFFFF)
    asm.label(done).store(4, R10, _GROUP_AT, R3)
    inside = asm.fresh("inside")
    asm.jump("<", R3, shared.groups, inside).mov(R3, 0).store(4, R10, _GROUP_AT, R3).label(inside)
    asm.alu("*", R3, GROUP.itemsize).alu("+", R3, R7)


def count_in_histogram(asm: Assembler, shared: Shared) -> None:
    """Count the delay in r5 for the group at r3 and the thread's place, kind r4 (0 or 1); uses r0, r1, r2.

    Index as in `delay_buckets.bucket_index`.
    """
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
    asm.alu("<<", R0, 2).mov(R1, R4).alu("*", R1, 4 * BUCKETS).alu("+", R1, R0)
    asm.mov(R2, R1).alu("+", R2, R3).add_to(4, R2, _group("histogram"), 1, R0)
    done = asm.fresh("counted")
    asm.load(4, R2, R10, _PLACE_AT).jump("==", R2, 0, done).alu("-", R2, 1).jump(">=", R2, shared.threads, done)
    asm.alu("*", R2, THREAD.itemsize).load_value(R0, shared.threads_fd).alu("+", R0, R2).alu("+", R0, R1)
    asm.add_to(4, R0, offset(THREAD, "histogram"), 1, R2).label(done)


def send_record(asm: Assembler, shared: Shared) -> None:
    """Hand the record on the stack to the ring; a full ring is counted. r0 to r5 are lost."""
    lost, done = asm.fresh("lost"), asm.fresh("sent")
    asm.load_map(R1, shared.ring_fd).mov(R2, R10).alu("+", R2, _RECORD_AT)
    asm.mov(R3, RECORD.itemsize).mov(R4, _RINGBUF_NO_WAKEUP).call(_RINGBUF_OUTPUT)
    asm.jump("!=", R0, 0, lost).add_to(8, R7, _header("sent"), 1, R1).goto(done)
    asm.label(lost).add_to(8, R7, _header("lost"), 1, R1).label(done)


def wakeup_program(fields: Fields, shared: Shared, *, new: bool) -> bytes:
    """A thread became runnable; `new` threads start with an empty slot."""
    asm = Assembler()
    begin(asm, shared)
    asm.add_to(8, R7, _header("wakeups"), 1, R1)
    fields.load(asm, R1, "pid")
    find_slot(asm, shared, R1)
    if not new:
        asm.load(4, R2, R9, _slot("pid")).jump("==", R2, R1, "mine")
    claim_slot(asm, R1, new=new)
    if not new:
        asm.label("mine").load(2, R4, R9, _slot("state")).jump("==", R4, State.NONE, "woken")
        # Already runnable: it has been waiting since the first time. Running: it was woken before it slept.
        asm.jump("<", R4, State.BLOCKED_INTERRUPTIBLE, "out").jump(">=", R4, State.RUNNING, "out")
        _count_blocked(asm, fields, shared)
    asm.label("woken").store(2, R9, _slot("state"), State.WOKEN).store(8, R9, _slot("t_ns"), R8)
    return finish(asm)


def _count_blocked(asm: Assembler, fields: Fields, shared: Shared) -> None:
    """The thread r1, blocked in state r4 since the slot's time, was woken."""
    asm.alu("-", R4, State.BLOCKED_INTERRUPTIBLE).jump(">=", R4, BLOCKED_STATES, "woken").alu("<<", R4, 3)
    asm.mov(R5, R8).load(8, R2, R9, _slot("t_ns")).alu("-", R5, R2).jump("s<", R5, 0, "woken")
    asm.add_to(4, R9, _slot("blocked"), 1, R2)
    find_group(asm, shared, R1)
    asm.mov(R0, R3).alu("+", R0, R4)
    asm.add_to(8, R0, _group("blocked"), 1, R2).add_to(8, R0, _group("blocked_ns"), R5, R2)
    # Who slept of its own will, or died, has no record.
    asm.jump("==", R4, 0, "woken").alu(">>", R4, 3).alu("+", R4, State.BLOCKED_INTERRUPTIBLE)
    asm.jump("==", R4, State.BLOCKED_OTHER, "woken")
    if not shared.record_all:
        asm.load(4, R2, R10, _GROUP_AT).jump("==", R2, 0, "woken")
    asm.load_number(R2, shared.threshold_ns).jump("<", R5, R2, "woken")
    asm.add_to(8, R3, _group("long"), 1, R2)
    asm.store(8, R10, _record("end_ns"), R8).store(8, R10, _record("duration_ns"), R5)
    asm.store(4, R10, _record("pid"), R1).store(2, R10, _record("kind"), R4)
    for half in (0, 8):
        fields.load_comm(asm, R0, "comm", half)
        asm.store(8, R10, _record("comm") + half, R0)
    asm.load(4, R0, R9, _slot("by_pid")).store(4, R10, _record("by_pid"), R0)
    for half in (0, 8):
        asm.load(8, R0, R9, _slot("by_comm") + half).store(8, R10, _record("by_comm") + half, R0)
    send_record(asm, shared)


def waking_program(fields: Numbers, shared: Shared) -> bytes:
    """Somebody asks that a thread be woken: remember who, for sleeps that become records. All others cost nothing."""
    asm = Assembler()
    asm.mov(R6, R1)
    fields.load(asm, R1, "pid")
    find_slot(asm, shared, R1)
    asm.load(4, R2, R9, _slot("pid")).jump("!=", R2, R1, "out")
    asm.load(2, R8, R9, _slot("state")).mov(R2, R8).alu("-", R2, State.BLOCKED_UNINTERRUPTIBLE)
    asm.jump(">=", R2, State.BLOCKED_OTHER - State.BLOCKED_UNINTERRUPTIBLE, "out")
    asm.call(_GET_CPU).jump(">=", R0, shared.cpus, "out")
    asm.alu("*", R0, shared.cpu_bytes).load_value(R7, shared.cpus_fd).alu("+", R7, R0)
    # A wakeup from an interrupt is nobody's: whoever was running has nothing to do with it.
    asm.load(8, R1, R7, _header("irq_t_ns")).load(8, R2, R7, _header("softirq_t_ns")).alu("|", R1, R2)
    asm.jump("==", R1, 0, "thread").store(4, R9, _slot("by_pid"), 0).goto("out").label("thread")
    if not shared.interrupts:
        # Nobody says whether this is an interrupt, as the end of I/O mostly is: better no name than a wrong one.
        asm.jump("==", R8, State.BLOCKED_IO, "out")
    asm.mov(R1, R10).alu("+", R1, _record("by_comm")).mov(R2, 16).call(_GET_CURRENT_COMM)
    for half in (0, 8):
        asm.load(8, R0, R10, _record("by_comm") + half).store(8, R9, _slot("by_comm") + half, R0)
    asm.call(_GET_CURRENT_PID_TGID).store(4, R9, _slot("by_pid"), R0)
    return finish(asm)


def switch_program(fields: Fields, shared: Shared) -> bytes:
    """One thread leaves the CPU and another gets it: ends the second's wait, begins the first's."""
    asm = Assembler()
    begin(asm, shared)
    fields.load(asm, R1, "next_pid")
    asm.jump("==", R1, 0, "leave")
    _end_wait(asm, shared, fields)
    asm.label("leave")
    fields.load(asm, R1, "prev_pid")
    asm.jump("==", R1, 0, "out")
    _begin_wait(asm, shared, fields)
    return finish(asm)


def _end_wait(asm: Assembler, shared: Shared, fields: Fields) -> None:
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
    count_in_histogram(asm, shared)

    asm.load_number(R1, shared.threshold_ns).jump("<", R5, R1, "running")
    asm.add_to(8, R3, _group("long"), 1, R2)
    if not shared.record_all:
        asm.load(4, R2, R10, _GROUP_AT).jump("==", R2, 0, "running")
    _fill_wait_record(asm, fields)
    send_record(asm, shared)
    asm.label("running").load(2, R0, R10, _record("cpu")).store(2, R9, _slot("cpu"), R0)
    asm.mov(R0, State.OBSERVED)
    if not shared.record_all:
        asm.load(4, R1, R10, _GROUP_AT).jump("!=", R1, 0, "observed").mov(R0, State.RUNNING).label("observed")
    asm.store(2, R9, _slot("state"), R0)


def _fill_wait_record(asm: Assembler, fields: Fields) -> None:
    """The record of a wait of kind r4 (0 woken, 1 preempted) and r5 ns; the culprit is the preemptor, or prev."""
    comm, by_comm = _record("comm"), _record("by_comm")
    asm.store(8, R10, _record("end_ns"), R8).store(8, R10, _record("duration_ns"), R5)
    fields.load(asm, R0, "next_pid")
    asm.store(4, R10, _record("pid"), R0)
    for half in (0, 8):
        fields.load_comm(asm, R0, "next_comm", half)
        asm.store(8, R10, comm + half, R0)
    asm.jump("==", R4, 1, "by preemptor")
    fields.load(asm, R0, "prev_pid")
    asm.store(4, R10, _record("by_pid"), R0)
    for half in (0, 8):
        fields.load_comm(asm, R0, "prev_comm", half)
        asm.store(8, R10, by_comm + half, R0)
    asm.goto("has culprit").label("by preemptor")
    asm.load(4, R0, R9, _slot("by_pid")).store(4, R10, _record("by_pid"), R0)
    for half in (0, 8):
        asm.load(8, R0, R9, _slot("by_comm") + half).store(8, R10, by_comm + half, R0)
    asm.label("has culprit").alu("+", R4, State.WOKEN).store(2, R10, _record("kind"), R4)


def _begin_wait(asm: Assembler, shared: Shared, fields: Fields) -> None:
    """The thread r1 left this CPU, runnable or blocked."""
    find_slot(asm, shared, R1)
    asm.load(4, R2, R9, _slot("pid")).jump("==", R2, R1, "own")
    claim_slot(asm, R1)
    asm.label("own").load(2, R4, R9, _slot("state")).jump(">=", R4, State.RUNNING, "seen")
    asm.jump("==", R4, State.NONE, "seen").add_to(8, R7, _header("unseen"), 1, R2)
    asm.label("seen").load(2, R0, R10, _record("cpu")).store(2, R9, _slot("cpu"), R0)
    asm.store(8, R9, _slot("t_ns"), R8)
    fields.sleep_state(asm, R3, runnable="preempted", done="blocked")
    asm.label("preempted")
    fields.load(asm, R0, "next_pid")
    asm.store(4, R9, _slot("by_pid"), R0)
    for half in (0, 8):
        fields.load_comm(asm, R0, "next_comm", half)
        asm.store(8, R9, _slot("by_comm") + half, R0)
    asm.store(2, R9, _slot("state"), State.PREEMPTED)
    if fields.sees_limits:
        asm.jump("!=", R4, State.OBSERVED, "out")
        fields.jump_unthrottled(asm, "out")
        asm.store(4, R9, _slot("by_pid"), 0)  # by nobody: a limit took the CPU
    asm.goto("out")
    asm.label("blocked").store(4, R9, _slot("by_pid"), _UNKNOWN).store(2, R9, _slot("state"), R3)
    if fields.splits_sleep:
        asm.jump("!=", R4, State.OBSERVED, "out").jump("==", R3, State.BLOCKED_OTHER, "out")
        fields.classify(asm, R9, _slot("state"), "out")


def fork_program(fields: Fields, shared: Shared) -> bytes:
    """A new thread or process of an observed one is observed from its first instruction, without a place of its own."""
    asm = Assembler()
    asm.mov(R6, R1)
    fields.load(asm, R3, "parent_pid")
    fields.load(asm, R4, "child_pid")
    entry: Callable[[str, str], Assembler] = lambda to, pid: (  # noqa: E731  (two uses, four instructions)
        asm.mov(to, pid).alu("&", to, shared.slots - 1).alu("<<", to, _WATCH_SHIFT)
    )
    entry(R2, R3).load_value(R5, shared.watch_fd).alu("+", R2, R5)
    asm.load(8, R0, R2, 0).mov32(R2, R0).jump("!=", R2, R3, "out")
    asm.alu(">>", R0, 32).alu("&", R0, 0xFFFF).jump("==", R0, 0, "out").alu("<<", R0, 32).alu("|", R0, R4)
    entry(R2, R4).alu("+", R2, R5).store(8, R2, 0, R0)
    return finish(asm)
