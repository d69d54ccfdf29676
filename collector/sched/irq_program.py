# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause OR Apache-2.0
"""Kernel programs that measure the time interrupts take, and from whom.

Question: how much of a thread's time on the CPU went to interrupts? Between irq_handler_entry and irq_handler_exit,
softirq_entry and softirq_exit (less the hard interrupts inside), and on x86 local_timer_entry and local_timer_exit.
The victim is the thread that was current; ksoftirqd is current when softirqs run deferred, so those rob nobody here.
Cost: one clock read and a few loads per event.
"""

from __future__ import annotations

from collector.sched.bpf_asm import R0, R1, R2, R3, R4, R5, R7, R8, R9, R10, Assembler
from collector.sched.event_fields import Numbers
from collector.sched.layout import CPU_HEADER, GROUP, RECORD, SOFTIRQS, RecordKind, offset
from collector.sched.runq_program import Shared, begin, find_group, finish, send_record

_GET_CURRENT_PID_TGID, _GET_CURRENT_COMM = 14, 16
# The tick has no IRQ number; the record says this one.
LOCAL_TIMER = 0xFFFF_FFFF
_RECORD_AT = -RECORD.itemsize


def _header(name: str) -> int:
    return offset(CPU_HEADER, name)


def _group(name: str) -> int:
    return CPU_HEADER.itemsize + offset(GROUP, name)


def irq_entry_program(shared: Shared) -> bytes:
    """A hard interrupt (or the tick) begins."""
    asm = Assembler()
    begin(asm, shared)
    asm.store(8, R7, _header("irq_t_ns"), R8)
    return finish(asm)


def irq_exit_program(fields: Numbers | None, shared: Shared) -> bytes:
    """A hard interrupt ends; `fields` are of irq_handler_exit, or None for the tick."""
    asm = Assembler()
    begin(asm, shared)
    asm.load(8, R9, R7, _header("irq_t_ns")).jump("==", R9, 0, "out").store(8, R7, _header("irq_t_ns"), 0)
    _duration(asm)
    asm.add_to(8, R7, _header("irqs"), 1, R1).add_to(8, R7, _header("irq_ns"), R9, R1)
    asm.add_to(8, R7, _header("nested_ns"), R9, R1)
    if fields is None:
        asm.load_number(R1, LOCAL_TIMER)
    else:
        fields.load(asm, R1, "irq")
    asm.store(4, R10, _RECORD_AT + offset(RECORD, "by_pid"), R1)
    _charge(asm, shared, RecordKind.IRQ)
    return finish(asm)


def softirq_entry_program(shared: Shared) -> bytes:
    """A softirq begins."""
    asm = Assembler()
    begin(asm, shared)
    asm.store(8, R7, _header("softirq_t_ns"), R8).store(8, R7, _header("nested_ns"), 0)
    return finish(asm)


def softirq_exit_program(fields: Numbers, shared: Shared) -> bytes:
    """A softirq ends."""
    asm = Assembler()
    begin(asm, shared)
    asm.load(8, R9, R7, _header("softirq_t_ns")).jump("==", R9, 0, "out").store(8, R7, _header("softirq_t_ns"), 0)
    # Hard interrupts inside are counted as their own.
    asm.load(8, R1, R7, _header("nested_ns")).alu("+", R9, R1)
    _duration(asm)
    fields.load(asm, R1, "vec")
    asm.store(4, R10, _RECORD_AT + offset(RECORD, "by_pid"), R1)
    asm.jump(">=", R1, SOFTIRQS, "out").alu("<<", R1, 3).alu("+", R1, R7)
    asm.add_to(8, R1, _header("softirqs"), 1, R2).add_to(8, R1, _header("softirq_ns"), R9, R2)
    _charge(asm, shared, RecordKind.SOFTIRQ)
    return finish(asm)


def _duration(asm: Assembler) -> None:
    """r9 = now - r9, or out when that is negative."""
    asm.mov(R1, R8).alu("-", R1, R9).mov(R9, R1).jump("s<", R9, 0, "out")


def _charge(asm: Assembler, shared: Shared, kind: RecordKind) -> None:
    """Charge r9 ns to the group of the current thread, with a record above the threshold."""
    asm.call(_GET_CURRENT_PID_TGID).mov32(R1, R0).jump("==", R1, 0, "out")
    asm.store(4, R10, _RECORD_AT + offset(RECORD, "pid"), R1)
    find_group(asm, shared, R1)
    at = 0 if kind is RecordKind.IRQ else 8
    asm.add_to(8, R3, _group("stolen") + at, 1, R2).add_to(8, R3, _group("stolen_ns") + at, R9, R2)
    if not shared.record_all:
        asm.load(4, R4, R10, _RECORD_AT + offset(RECORD, "group")).jump("==", R4, 0, "out")
    asm.load_number(R5, shared.irq_threshold_ns).jump("<", R9, R5, "out")
    asm.store(8, R10, _RECORD_AT + offset(RECORD, "end_ns"), R8)
    asm.store(8, R10, _RECORD_AT + offset(RECORD, "duration_ns"), R9)
    asm.store(2, R10, _RECORD_AT + offset(RECORD, "kind"), kind)
    for half in (0, 8):
        asm.store(8, R10, _RECORD_AT + offset(RECORD, "by_comm") + half, 0)
    asm.mov(R1, R10).alu("+", R1, _RECORD_AT + offset(RECORD, "comm")).mov(R2, 16).call(_GET_CURRENT_COMM)
    send_record(asm, shared)
