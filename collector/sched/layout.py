"""The memory that the kernel programs and the collector share: one description, read by both.

`SLOT` is what is known of one thread, `CPU` the counters that one CPU alone writes (so no atomics), `RECORD` one
delay above the threshold as it comes through the ring. The programs take every offset from these dtypes.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from collector.sched.delay_buckets import BUCKETS

SOFTIRQS = 16
UNKNOWN_PID = 0xFFFF_FFFF  # in `by_pid`: nobody knows who


class State(IntEnum):
    """What a thread does since `t_ns`; `NONE` before anything was seen of it."""

    NONE = 0
    WOKEN = 1
    PREEMPTED = 2
    BLOCKED_INTERRUPTIBLE = 3  # asleep until something happens, or until a time
    BLOCKED_UNINTERRUPTIBLE = 4  # inside the kernel: its locks and memory; I/O too, where that cannot be told apart
    BLOCKED_IO = 5  # uninterruptible, and accounted as waiting for I/O (task_struct.in_iowait)
    BLOCKED_LOCK = 6  # in a futex call: a lock, a condition, an empty queue; observed threads only
    PAGE_FAULT = 7  # inside a page fault, for whatever; observed threads only
    BLOCKED_OTHER = 8  # stopped, idle kernel thread, or dead
    RUNNING = 9
    OBSERVED = 10  # running, and observed


class RecordKind(IntEnum):
    """What a record is about; all but the interrupts are `State` values."""

    WOKEN = 1
    PREEMPTED = 2
    BLOCKED_UNINTERRUPTIBLE = 4
    BLOCKED_IO = 5
    BLOCKED_LOCK = 6
    PAGE_FAULT = 7
    IRQ = 16
    SOFTIRQ = 17


BLOCKED_STATES = State.BLOCKED_OTHER - State.BLOCKED_INTERRUPTIBLE + 1


# One cache line per thread, found at pid modulo the number of slots.
SLOT = np.dtype(
    [
        ("t_ns", "<u8"),
        ("pid", "<u4"),
        ("state", "<u2"),
        ("cpu", "<u2"),  # where it last ran
        ("by_pid", "<u4"),  # who took the CPU, for PREEMPTED; who asked for the wakeup, for BLOCKED_*
        ("blocked", "<u4"),  # blocked phases that ended
        ("by_comm", "<u8", (2,)),
        ("delays", "<u4", (2,)),  # runnable phases that ended: woken, preempted
        ("delay_ns", "<u8", (2,)),  # their sum
    ]
)

# Who is observed: at pid modulo the number of slots. `place` is that of its own histogram, from 1; 0: it has none.
WATCH = np.dtype([("pid", "<u4"), ("group", "<u2"), ("place", "<u2")])

# The histogram of one observed thread. A thread runs on one CPU at a time, so nobody else writes it.
THREAD = np.dtype([("histogram", "<u4", (2, BUCKETS))])

GROUP = np.dtype(
    [
        ("runs", "<u8"),  # times a thread of the group was given a CPU
        ("migrations", "<u8"),  # of these on another CPU than before
        ("long", "<u8"),  # delays and blocked times above the threshold
        ("delays", "<u8", (2,)),
        ("delay_ns", "<u8", (2,)),
        ("max_ns", "<u8", (2, 2)),  # [epoch][kind]: the collector reads one epoch while the kernel fills the other
        ("blocked", "<u8", (BLOCKED_STATES,)),  # from State.BLOCKED_INTERRUPTIBLE on
        ("blocked_ns", "<u8", (BLOCKED_STATES,)),
        ("stolen", "<u8", (2,)),  # interrupts that hit the group's threads: hard, soft
        ("stolen_ns", "<u8", (2,)),
        ("histogram", "<u4", (2, BUCKETS)),
    ]
)

CPU_HEADER = np.dtype(
    [
        ("epoch", "<u8"),
        ("unpaired", "<u8"),  # given a CPU though nobody had seen it become runnable
        ("unseen", "<u8"),  # left a CPU though nobody had seen it get one
        ("collisions", "<u8"),  # two live threads shared a slot
        ("sent", "<u8"),
        ("lost", "<u8"),  # records that found the ring full
        ("wakeups", "<u8"),
        ("irq_t_ns", "<u8"),
        ("softirq_t_ns", "<u8"),
        ("nested_ns", "<u8"),  # hard interrupts inside the present soft one
        ("irqs", "<u8"),
        ("irq_ns", "<u8"),
        ("softirqs", "<u8", (SOFTIRQS,)),
        ("softirq_ns", "<u8", (SOFTIRQS,)),
    ]
)

RECORD = np.dtype(
    [
        ("end_ns", "<u8"),  # MONOTONIC
        ("duration_ns", "<u8"),
        ("pid", "<u4"),
        ("cpu", "<u2"),
        ("kind", "<u2"),
        ("by_pid", "<u4"),  # thread, IRQ number or softirq vector
        ("group", "<u4"),
        ("comm", "S16"),
        ("by_comm", "S16"),
    ]
)


def cpu_dtype(groups: int) -> np.dtype[np.void]:
    """What one CPU writes: its header, then `groups` groups; group 0 is everybody who is not observed."""
    return np.dtype([("header", CPU_HEADER), ("groups", GROUP, (groups,))])


def offset(dtype: np.dtype[np.void], name: str) -> int:
    """The byte offset of a field."""
    if dtype.fields is None:
        raise TypeError(f"{dtype} has no fields")
    return int(dtype.fields[name][1])
