"""The eBPF mechanism as one object: maps, programs, attachment, and what a drain and a snapshot yield."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from collector.sched import irq_program, runq_program
from collector.sched.bpf_syscall import ArrayMap, RingBuffer, load_program, missed_runs
from collector.sched.layout import GROUP, RECORD, SLOT, WATCH, cpu_dtype
from collector.sched.mechanism import ALL_SIGHTS, Totals
from collector.sched.perf_event import attach_program, cpus
from collector.sched.tracefs import TracefsError, tracepoint

MAX_SLOTS = 1 << 18


class KernelPairs:
    """Loaded and attached programs. Close it: the programs run as long as its file descriptors are open.

    Args:
        groups: how many groups of threads are counted apart, the unobserved (group 0) included.
        threshold_ns: run-queue delays from here on become records.
        irq_threshold_ns: the same for interrupts.
        record_all: records for threads that nobody observes, too.
        ring_bytes: a power of two; 72 bytes per record.
        interrupts: whether to measure interrupts as well.

    Raises:
        TracefsError: tracefs is missing or differs. BpfError, VerifierError: the kernel refused.
    """

    name = "eBPF"
    cost = "see docs/scheduler.md: about a sixth of a bare switch and wakeup; nothing of ours below the threshold"
    blind = ""
    sees = ALL_SIGHTS

    def __init__(
        self,
        *,
        groups: int = 8,
        threshold_ns: int = 10_000,
        irq_threshold_ns: int = 10_000,
        record_all: bool = False,
        ring_bytes: int = 8 << 20,
        interrupts: bool = True,
    ) -> None:
        self._fds: list[int] = []
        self._programs: list[int] = []
        self._maps: list[ArrayMap | RingBuffer] = []
        slots = _slots()
        try:
            n_cpus = max(cpus("possible")) + 1
            cpu_type = cpu_dtype(groups)
            slot_map = self._map(ArrayMap.create("ts_slots", slots * SLOT.itemsize))
            watch_map = self._map(ArrayMap.create("ts_watch", slots * WATCH.itemsize))
            cpu_map = self._map(ArrayMap.create("ts_cpus", n_cpus * cpu_type.itemsize))
            self._ring = RingBuffer("ts_ring", ring_bytes, RECORD)
            self._maps.append(self._ring)
            self._slots: NDArray[np.void] = slot_map.bytes.view(SLOT)
            self._watch: NDArray[np.uint64] = watch_map.bytes.view(np.uint64)
            self._cpus: NDArray[np.void] = cpu_map.bytes.view(cpu_type)
            self._epoch = 0
            self._attach(
                runq_program.Shared(
                    slot_map.fd,
                    watch_map.fd,
                    cpu_map.fd,
                    self._ring.fd,
                    slots,
                    n_cpus,
                    groups,
                    threshold_ns,
                    irq_threshold_ns,
                    record_all,
                ),
                interrupts,
            )
        except BaseException:
            self.close()
            raise

    def observe(self, threads: Mapping[int, int]) -> Mapping[int, str]:
        """Observe exactly `threads` (tid -> group) and what they fork from now on."""
        mask = len(self._watch) - 1
        wanted: dict[int, int] = {}
        refused = {}
        for tid, group in threads.items():
            if wanted.setdefault(tid & mask, group << 32 | tid) & 0xFFFFFFFF != tid:
                refused[tid] = "another observed thread holds its place in the table"
        for at in np.flatnonzero(self._watch).tolist():
            if at not in wanted:
                self._watch[at] = 0
        for at, entry in wanted.items():
            self._watch[at] = entry
        return refused

    def thread(self, tid: int) -> NDArray[np.void] | None:
        """What the kernel knows of one thread (a copy of its SLOT), None when it was never seen."""
        slot: NDArray[np.void] = self._slots[tid & (len(self._slots) - 1)].copy()
        return slot if int(slot["pid"]) == tid else None

    def drain(self) -> NDArray[np.void]:
        """The delays and interrupts above their thresholds: RECORD[n]."""
        return self._ring.drain()

    def totals(self) -> Totals:
        """The counters now, summed over CPUs; one header row per CPU."""
        old = self._epoch
        self._epoch ^= 1
        self._cpus["header"]["epoch"] = self._epoch
        groups = np.zeros(self._cpus["groups"].shape[1], dtype=GROUP)
        for name in GROUP.names or ():
            column = self._cpus["groups"][name]
            if name == "max_ns":
                groups[name][:, 0] = column[:, :, old].max(axis=0)
                column[:, :, old] = 0
            else:
                groups[name] = column.sum(axis=0, dtype=column.dtype)
        header: NDArray[np.void] = self._cpus["header"].copy()
        runs, unpaired = int(groups["runs"].sum()), int(header["unpaired"].sum())
        unseen = int(header["unseen"].sum())
        by_cpu: NDArray[np.uint32] = self._cpus["groups"]["histogram"].sum(axis=1, dtype=np.uint32)
        waits = {"waits": (runs - unpaired, runs + unseen)}
        return Totals(groups, waits, int(header["lost"].sum()), header, by_cpu)

    def missed(self) -> int:
        """How often the kernel skipped one of the programs because another one was running on that CPU."""
        return sum(missed_runs(program) for program in self._programs)

    def close(self) -> None:
        """Detach and release everything."""
        for fd in (*self._fds, *self._programs):
            os.close(fd)
        for shared in self._maps:
            shared.close()
        self._fds, self._programs, self._maps = [], [], []

    def _map(self, created: ArrayMap) -> ArrayMap:
        self._maps.append(created)
        return created

    def _attach(self, shared: runq_program.Shared, interrupts: bool) -> None:
        switch, wakeup = tracepoint("sched", "sched_switch"), tracepoint("sched", "sched_wakeup")
        new, fork = tracepoint("sched", "sched_wakeup_new"), tracepoint("sched", "sched_process_fork")
        programs = [
            (fork.id, "ts_fork", runq_program.fork_program(fork, shared)),
            (wakeup.id, "ts_wakeup", runq_program.wakeup_program(wakeup, shared, new=False)),
            (new.id, "ts_wakeup_new", runq_program.wakeup_program(new, shared, new=True)),
            (switch.id, "ts_switch", runq_program.switch_program(switch, shared)),
        ]
        if interrupts:
            programs += _interrupt_programs(shared)
        first_cpu = cpus("online")[0]
        loaded = []
        for number, name, code in programs:
            program = load_program(name, code)
            self._programs.append(program)
            loaded.append((number, program))
        for number, program in loaded:
            self._fds.append(attach_program(number, program, first_cpu))


def _interrupt_programs(shared: runq_program.Shared) -> Iterable[tuple[int, str, bytes]]:
    entry, leave = tracepoint("irq", "irq_handler_entry"), tracepoint("irq", "irq_handler_exit")
    soft_entry, soft_leave = tracepoint("irq", "softirq_entry"), tracepoint("irq", "softirq_exit")
    programs = [
        (entry.id, "ts_irq_entry", irq_program.irq_entry_program(shared)),
        (leave.id, "ts_irq_exit", irq_program.irq_exit_program(leave, shared)),
        (soft_entry.id, "ts_soft_entry", irq_program.softirq_entry_program(shared)),
        (soft_leave.id, "ts_soft_exit", irq_program.softirq_exit_program(soft_leave, shared)),
    ]
    try:
        tick, tock = tracepoint("irq_vectors", "local_timer_entry"), tracepoint("irq_vectors", "local_timer_exit")
    except TracefsError:
        return programs  # only x86 names its tick
    return [
        *programs,
        (tick.id, "ts_tick_entry", irq_program.irq_entry_program(shared)),
        (tock.id, "ts_tick_exit", irq_program.irq_exit_program(None, shared)),
    ]


def _slots(pid_max: Path = Path("/proc/sys/kernel/pid_max")) -> int:
    """One slot per possible pid, at most MAX_SLOTS (16 MiB): beyond that, sharing is possible and counted."""
    return min(1 << (int(pid_max.read_text()) - 1).bit_length(), MAX_SLOTS)
