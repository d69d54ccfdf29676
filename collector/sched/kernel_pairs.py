"""The eBPF mechanism as one object: maps, programs, attachment, and what a drain and a snapshot yield."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from collector.sched import routes, runq_program
from collector.sched.bpf_syscall import ArrayMap, BpfError, RingBuffer, missed_runs
from collector.sched.btf import BtfError
from collector.sched.layout import GROUP, RECORD, SLOT, THREAD, WATCH, cpu_dtype
from collector.sched.mechanism import ALL_SIGHTS, Totals
from collector.sched.perf_event import cpus
from collector.sched.tracefs import TracefsError

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
        wakers: whether to see who ends blocked times.
        threads: how many observed threads have histograms of their own, 30 kB each.
        route: how the programs hang on the kernel, by name (`routes.ROUTES`); the first that works when None.

    Raises:
        TracefsError: tracefs is missing or differs. BpfError, VerifierError: the kernel refused.
    """

    name = "eBPF"
    cost = "see docs/scheduler.md: about a tenth of a bare switch and wakeup; nothing of ours below the threshold"
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
        wakers: bool = True,
        threads: int = 128,
        route: str | None = None,
    ) -> None:
        self._fds: list[int] = []
        self._programs: list[int] = []
        self._maps: list[ArrayMap | RingBuffer] = []
        slots = _slots()
        self._places: dict[int, int] = {}  # observed thread -> its histogram, from 1
        try:
            n_cpus = max(cpus("possible")) + 1
            cpu_type = cpu_dtype(groups)
            slot_map = self._map(ArrayMap.create("ts_slots", slots * SLOT.itemsize))
            watch_map = self._map(ArrayMap.create("ts_watch", slots * WATCH.itemsize))
            cpu_map = self._map(ArrayMap.create("ts_cpus", n_cpus * cpu_type.itemsize))
            thread_map = self._map(ArrayMap.create("ts_threads", threads * THREAD.itemsize))
            self._ring = RingBuffer("ts_ring", ring_bytes, RECORD)
            self._maps.append(self._ring)
            self._slots: NDArray[np.void] = slot_map.bytes.view(SLOT)
            self._watch: NDArray[np.uint64] = watch_map.bytes.view(np.uint64)
            self._cpus: NDArray[np.void] = cpu_map.bytes.view(cpu_type)
            self._threads: NDArray[np.uint32] = thread_map.bytes.view(THREAD)["histogram"]
            self._epoch = 0
            shared = runq_program.Shared(
                slots_fd=slot_map.fd,
                watch_fd=watch_map.fd,
                cpus_fd=cpu_map.fd,
                ring_fd=self._ring.fd,
                slots=slots,
                cpus=n_cpus,
                groups=groups,
                threshold_ns=threshold_ns,
                irq_threshold_ns=irq_threshold_ns,
                record_all=record_all,
                threads_fd=thread_map.fd,
                threads=threads,
                interrupts=interrupts,
                wakers=wakers,
            )
            self.route = self._attach(shared, interrupts, route)
            if self.route != routes.TYPED:
                self.sees = ALL_SIGHTS - {"blocked_kinds"}
                self.blind = "what a thread slept for: I/O, locks and page faults are not told apart"
        except BaseException:
            self.close()
            raise

    def observe(self, threads: Mapping[int, int]) -> Mapping[int, str]:
        """Observe exactly `threads` (tid -> group) and what they fork from now on."""
        mask = len(self._watch) - 1
        wanted: dict[int, int] = {}
        refused = {}
        self._give_places(threads)
        for tid, group in threads.items():
            entry = self._places.get(tid, 0) << 48 | group << 32 | tid
            if wanted.setdefault(tid & mask, entry) & 0xFFFFFFFF != tid:
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
        return Totals(groups, waits, int(header["lost"].sum()), header, by_cpu, self._by_thread())

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

    def _give_places(self, threads: Mapping[int, int]) -> None:
        """A histogram of its own for every observed thread, as long as there are any; who leaves gives it back."""
        for tid in self._places.keys() - threads.keys():
            # Off the list before the place can be another's, so that the kernel counts for the right one.
            at = tid & (len(self._watch) - 1)
            if int(self._watch[at]) & 0xFFFFFFFF == tid:
                self._watch[at] = 0
            del self._places[tid]
        free = iter(sorted(set(range(1, len(self._threads) + 1)) - set(self._places.values())))
        for tid in threads:
            if tid not in self._places and (place := next(free, None)) is not None:
                self._threads[place - 1] = 0
                self._places[tid] = place

    def _by_thread(self) -> dict[int, NDArray[np.uint32]]:
        return {tid: self._threads[place - 1].copy() for tid, place in self._places.items()}

    def _attach(self, shared: runq_program.Shared, interrupts: bool, wanted: str | None) -> str:
        """Load and attach by the first route that works; the reasons of the others are lost when one does."""
        failed: list[Exception] = []
        for name, route in routes.ROUTES.items():
            if wanted not in (None, name):
                continue
            try:
                self._programs, self._fds = route(shared, interrupts)
            except (BtfError, BpfError, TracefsError) as error:
                failed.append(error)
            else:
                return name
        # The plain route needs the least; what keeps it away keeps all away.
        if isinstance(failed[-1], BtfError):
            raise TracefsError(str(failed[-1])) from failed[-1]
        raise failed[-1]


def _slots(pid_max: Path = Path("/proc/sys/kernel/pid_max")) -> int:
    """One slot per possible pid, at most MAX_SLOTS (16 MiB): beyond that, sharing is possible and counted."""
    return min(1 << (int(pid_max.read_text()) - 1).bit_length(), MAX_SLOTS)
