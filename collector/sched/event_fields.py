# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause OR Apache-2.0
"""How a kernel program reads its event: from a classic tracepoint's record, or from the kernel's own structures.

A classic tracepoint writes a record with everything in it, and the program reads that. A typed raw tracepoint
(`tp_btf`) passes pointers to the two `task_struct`s; nothing is written that nobody reads, and fields that the record
lacks can be read too: whether a sleeping thread waits for I/O, and in which system call it sleeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from collector.sched.bpf_asm import R0, R1, R2, R6, Assembler
from collector.sched.btf import Btf, BtfError
from collector.sched.layout import State
from collector.sched.tracefs import Tracepoint

_RUNNABLE_PREEMPTED = 0x100  # TASK_REPORT_MAX: "R+" in sched_switch's print format (Linux 4.14 and later)
_REPORTED_STATES = 0xFF
_INTERRUPTIBLE, _UNINTERRUPTIBLE = 1, 2
_IDLE = 0x402  # TASK_IDLE: uninterruptible, but neither loaded nor stuck
_RTLOCK_OR_FROZEN = 0x1000 | 0x8000  # reported as uninterruptible
_TASK_PT_REGS = 175
# futex, futex_waitv and futex_wait on x86-64 (arch/x86/entry/syscalls/syscall_64.tbl).
_FUTEX_CALLS = (202, 449, 455)
_NO_CALL = -1  # orig_ax while an exception is handled: the thread sleeps inside a page fault


class Numbers(Protocol):
    """Reads numbers of one event; r6 holds the program's context."""

    def load(self, asm: Assembler, dst: str, name: str) -> None:
        """`dst` = the integer called `name`."""


class Fields(Numbers, Protocol):
    """Reads what an event of the scheduler says about threads."""

    @property
    def splits_sleep(self) -> bool:
        """Whether `classify` says more than the state."""

    @property
    def sees_limits(self) -> bool:
        """Whether `jump_unthrottled` can be used."""

    def load_comm(self, asm: Assembler, dst: str, name: str, half: int) -> None:
        """`dst` = 8 bytes of the command name called `name`, from byte `half` (0 or 8)."""

    def sleep_state(self, asm: Assembler, dst: str, *, runnable: str, done: str) -> None:
        """Of sched_switch: go to `runnable` if the leaving thread can run, else `dst` = its State, go to `done`."""

    def classify(self, asm: Assembler, slot: str, state_at: int, done: str) -> None:
        """Of sched_switch: make the State at `slot` + `state_at` say what the thread sleeps for; r0 to r5 are lost."""

    def jump_unthrottled(self, asm: Assembler, target: str) -> None:
        """Of sched_switch: go to `target` unless a bandwidth limit takes the CPU; r0 is lost."""


@dataclass(frozen=True, slots=True)
class RecordFields:
    """A classic tracepoint's record."""

    tracepoint: Tracepoint

    @property
    def splits_sleep(self) -> bool:
        """The record does not say."""
        return False

    def load(self, asm: Assembler, dst: str, name: str) -> None:
        """As in Fields."""
        asm.load(4, dst, R6, self.tracepoint.offset(name, 4))

    def load_comm(self, asm: Assembler, dst: str, name: str, half: int) -> None:
        """As in Fields."""
        asm.load(8, dst, R6, self.tracepoint.offset(name, 16) + half)

    def sleep_state(self, asm: Assembler, dst: str, *, runnable: str, done: str) -> None:
        """As in Fields."""
        asm.load(8, R2, R6, self.tracepoint.offset("prev_state", 8)).jump("&", R2, _RUNNABLE_PREEMPTED, runnable)
        asm.alu("&", R2, _REPORTED_STATES).jump("==", R2, 0, runnable)
        asm.mov(dst, State.BLOCKED_INTERRUPTIBLE).jump("&", R2, _INTERRUPTIBLE, done)
        asm.mov(dst, State.BLOCKED_UNINTERRUPTIBLE).jump("&", R2, _UNINTERRUPTIBLE, done)
        asm.mov(dst, State.BLOCKED_OTHER).goto(done)

    def classify(self, asm: Assembler, slot: str, state_at: int, done: str) -> None:  # noqa: ARG002
        """The record does not say."""
        asm.goto(done)

    @property
    def sees_limits(self) -> bool:
        """The record does not say."""
        return False

    def jump_unthrottled(self, asm: Assembler, target: str) -> None:
        """The record does not say."""
        asm.goto(target)


@dataclass(frozen=True, slots=True)
class Offsets:
    """Where the kernel keeps what is read, in bytes; `in_iowait` is a bit of a byte, `orig_ax` is x86's.

    `cfs_rq` is the task's pointer to its group's queue, and `throttle_count` the field there that says whether it or a
    group above it is over its limit; None in a kernel without such limits.
    """

    pid: int
    comm: int
    iowait_byte: int
    iowait_bit: int
    orig_ax: int | None
    cfs_rq: int | None
    throttle_count: int | None

    @classmethod
    def of(cls, btf: Btf) -> Offsets:
        """From the kernel's type information. Raises BtfError."""
        iowait = btf.member("task_struct", "in_iowait")
        if iowait.bits != 1:
            raise BtfError("task_struct.in_iowait is not a bit here")
        try:
            call: int | None = btf.member("pt_regs", "orig_ax").offset
        except BtfError:  # not x86: sleeps are not told apart by system call
            call = None
        try:
            entity = btf.member("task_struct", "se").offset
            queue: int | None = entity + btf.member("sched_entity", "cfs_rq").offset
            limit: int | None = btf.member("cfs_rq", "throttle_count").offset
        except BtfError:
            queue = limit = None
        return cls(
            btf.member("task_struct", "pid").offset,
            btf.member("task_struct", "comm").offset,
            iowait.offset,
            iowait.bit % 8,
            call,
            queue,
            limit,
        )


@dataclass(frozen=True, slots=True)
class TaskFields:
    """The values a raw tracepoint passes: `tasks` says which argument is the task of a field's prefix.

    `{"prev": 1, "next": 2}` makes prev_pid the pid of the second argument; "" is the prefix of a plain `pid`.
    """

    offsets: Offsets
    tasks: Mapping[str, int]

    @property
    def splits_sleep(self) -> bool:
        """Whether the system call can be read."""
        return self.offsets.orig_ax is not None

    @property
    def sees_limits(self) -> bool:
        """Whether this kernel has limits."""
        return self.offsets.cfs_rq is not None and self.offsets.throttle_count is not None

    def load(self, asm: Assembler, dst: str, name: str) -> None:
        """As in Fields."""
        prefix, _, field = name.rpartition("_")
        if field != "pid":
            raise ValueError(f"{name} is not read from a task")
        asm.load(8, dst, R6, 8 * self.tasks[prefix]).load(4, dst, dst, self.offsets.pid)

    def load_comm(self, asm: Assembler, dst: str, name: str, half: int) -> None:
        """As in Fields."""
        asm.load(8, dst, R6, 8 * self.tasks[name.rpartition("_")[0]]).load(8, dst, dst, self.offsets.comm + half)

    def sleep_state(self, asm: Assembler, dst: str, *, runnable: str, done: str) -> None:
        """As in Fields: the rules of __trace_sched_switch_state (include/trace/events/sched.h)."""
        asm.load(8, R0, R6, 0).mov32(R0, R0).alu("&", R0, 0xFF).jump("!=", R0, 0, runnable)
        asm.load(8, R2, R6, 24).mov32(R2, R2).jump("==", R2, 0, runnable)
        asm.mov(dst, State.BLOCKED_INTERRUPTIBLE).jump("&", R2, _INTERRUPTIBLE, done)
        asm.mov(dst, State.BLOCKED_OTHER).mov(R0, R2).alu("&", R0, _IDLE).jump("==", R0, _IDLE, done)
        deep = asm.fresh("uninterruptible")
        asm.jump("&", R2, _UNINTERRUPTIBLE | _RTLOCK_OR_FROZEN, deep).goto(done)
        asm.label(deep).mov(dst, State.BLOCKED_UNINTERRUPTIBLE)
        asm.load(8, R0, R6, 8 * self.tasks["prev"]).load(1, R0, R0, self.offsets.iowait_byte)
        asm.jump("&", R0, 1 << self.offsets.iowait_bit, waits := asm.fresh("io")).goto(done)
        asm.label(waits).mov(dst, State.BLOCKED_IO).goto(done)

    def classify(self, asm: Assembler, slot: str, state_at: int, done: str) -> None:
        """As in Fields: by the system call that the thread is in."""
        if self.offsets.orig_ax is None:
            asm.goto(done)
            return
        lock, fault = asm.fresh("lock"), asm.fresh("fault")
        asm.load(8, R1, R6, 8 * self.tasks["prev"]).call(_TASK_PT_REGS)
        asm.load(8, R2, R0, self.offsets.orig_ax).jump("==", R2, _NO_CALL, fault)
        for number in _FUTEX_CALLS:
            asm.jump("==", R2, number, lock)
        asm.goto(done)
        asm.label(lock).store(2, slot, state_at, State.BLOCKED_LOCK).goto(done)
        asm.label(fault).store(2, slot, state_at, State.PAGE_FAULT).goto(done)

    def jump_unthrottled(self, asm: Assembler, target: str) -> None:
        """As in Fields: throttled_hierarchy (kernel/sched/fair.c)."""
        if self.offsets.cfs_rq is None or self.offsets.throttle_count is None:
            raise ValueError("this kernel has no limits")
        asm.load(8, R0, R6, 8 * self.tasks["prev"]).load(8, R0, R0, self.offsets.cfs_rq)
        asm.load(4, R0, R0, self.offsets.throttle_count).jump("==", R0, 0, target)


@dataclass(frozen=True, slots=True)
class PlainFields:
    """A raw tracepoint that passes numbers: `arguments` says which is which."""

    arguments: Mapping[str, int]

    def load(self, asm: Assembler, dst: str, name: str) -> None:
        """As in Numbers."""
        asm.load(8, dst, R6, 8 * self.arguments[name]).mov32(dst, dst)
