# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause OR Apache-2.0
"""The ways in which the kernel programs can hang on the kernel, best first.

typed    typed raw tracepoints (`tp_btf`): the kernel passes its task structures and writes no record. Needs the
         kernel's type information, CAP_BPF and CAP_PERFMON; tracefs is not needed.
record   classic tracepoints: the kernel writes a record per event and the program reads it. Needs tracefs as well.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from collector.sched import btf, irq_program, runq_program
from collector.sched.bpf_syscall import (
    PROG_RAW_TRACEPOINT,
    PROG_TRACEPOINT,
    PROG_TRACING,
    attach_raw,
    load_program,
)
from collector.sched.event_fields import Fields, Numbers, Offsets, PlainFields, RecordFields, TaskFields
from collector.sched.perf_event import attach_program, cpus
from collector.sched.runq_program import Shared
from collector.sched.tracefs import TracefsError, tracepoint

TYPED, RECORD = "typed", "record"
_TICK = "local_timer_entry"  # only x86 names its tick
# Loads and attaches everything: (program fds, attachment fds). Raises BtfError, TracefsError or BpfError.
Route = Callable[[Shared, bool], tuple[list[int], list[int]]]


@dataclass(frozen=True, slots=True)
class Program:
    """What is loaded as `kind` (for BTF id `attach_to`) and then attached by `attach`."""

    name: str
    code: bytes
    attach: Callable[[int], int]
    kind: int = PROG_TRACEPOINT
    attach_to: int = 0


def typed(shared: Shared, interrupts: bool) -> tuple[list[int], list[int]]:
    """The route through typed raw tracepoints."""
    tasks: Mapping[str, tuple[int, Mapping[str, int]]] = {
        # The tracepoint's arguments, and which of them is the task of a name's prefix.
        "sched_process_fork": (2, {"parent": 0, "child": 1}),
        "sched_waking": (1, {"": 0}),
        "sched_wakeup": (1, {"": 0}),
        "sched_wakeup_new": (1, {"": 0}),
        "sched_switch": (4, {"prev": 1, "next": 2}),
    }
    known = btf.read((*tasks, _TICK), ("task_struct", "pt_regs", "sched_entity", "cfs_rq"))
    offsets = Offsets.of(known)
    programs = [
        Program(short, code, attach_raw, PROG_TRACING, known.tracepoint(name, tasks[name][0]))
        for short, name, code in _scheduling(shared, lambda name: TaskFields(offsets, tasks[name][1]))
    ]
    if interrupts:
        ends: dict[str, Numbers] = {
            "irq_handler_exit": PlainFields({"irq": 0}),
            "softirq_exit": PlainFields({"vec": 0}),
        }
        programs += [
            Program(short, code, partial(attach_raw, tracepoint=name), PROG_RAW_TRACEPOINT)
            for short, name, code in _interrupts(shared, ends.__getitem__, tick=f"btf_trace_{_TICK}" in known.typedefs)
        ]
    return _start(programs)


def record(shared: Shared, interrupts: bool) -> tuple[list[int], list[int]]:
    """The route through classic tracepoints."""
    first_cpu = cpus("online")[0]

    def program(group: str, short: str, name: str, code: bytes) -> Program:
        number = tracepoint(group, name).id
        return Program(short, code, lambda fd: attach_program(number, fd, first_cpu))

    scheduling = _scheduling(shared, lambda name: RecordFields(tracepoint("sched", name)))
    programs = [program("sched", short, name, code) for short, name, code in scheduling]
    if interrupts:
        ends = lambda name: RecordFields(tracepoint("irq", name))  # noqa: E731  (one use, one line)
        for short, name, code in _interrupts(shared, ends, tick=_tick_is_named()):
            programs.append(program("irq_vectors" if name.startswith("local_") else "irq", short, name, code))
    return _start(programs)


ROUTES: Mapping[str, Route] = {TYPED: typed, RECORD: record}


def _scheduling(shared: Shared, fields: Callable[[str], Fields]) -> Iterable[tuple[str, str, bytes]]:
    """Short name, tracepoint and code; the switch last, so that nothing is paired before wakeups are seen."""
    if shared.wakers:
        yield "ts_waking", "sched_waking", runq_program.waking_program(fields("sched_waking"), shared)
    yield "ts_fork", "sched_process_fork", runq_program.fork_program(fields("sched_process_fork"), shared)
    yield "ts_wakeup", "sched_wakeup", runq_program.wakeup_program(fields("sched_wakeup"), shared, new=False)
    yield "ts_wakeup_new", "sched_wakeup_new", runq_program.wakeup_program(fields("sched_wakeup_new"), shared, new=True)
    yield "ts_switch", "sched_switch", runq_program.switch_program(fields("sched_switch"), shared)


def _tick_is_named() -> bool:
    try:
        tracepoint("irq_vectors", _TICK)
    except TracefsError:
        return False
    return True


def _interrupts(shared: Shared, fields: Callable[[str], Numbers], *, tick: bool) -> Iterable[tuple[str, str, bytes]]:
    entry = irq_program.irq_entry_program(shared)
    yield "ts_irq_entry", "irq_handler_entry", entry
    yield "ts_irq_exit", "irq_handler_exit", irq_program.irq_exit_program(fields("irq_handler_exit"), shared)
    yield "ts_soft_entry", "softirq_entry", irq_program.softirq_entry_program(shared)
    yield "ts_soft_exit", "softirq_exit", irq_program.softirq_exit_program(fields("softirq_exit"), shared)
    if tick:
        yield "ts_tick_entry", "local_timer_entry", entry
        yield "ts_tick_exit", "local_timer_exit", irq_program.irq_exit_program(None, shared)


def _start(programs: Iterable[Program]) -> tuple[list[int], list[int]]:
    """Load all, then attach all; nothing is left behind when one fails."""
    loaded: list[int] = []
    attached: list[int] = []
    chosen = list(programs)
    try:
        for program in chosen:
            loaded.append(load_program(program.name, program.code, program.kind, program.attach_to))
        for program, fd in zip(chosen, loaded, strict=True):
            attached.append(program.attach(fd))
    except BaseException:
        for fd in (*attached, *loaded):
            os.close(fd)
        raise
    return loaded, attached
