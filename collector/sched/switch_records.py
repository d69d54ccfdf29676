"""Context switches of single threads by PERF_RECORD_SWITCH: no privilege needed for threads of one's own user.

Question: how long was a thread off the CPU, and was it preempted? Between the record that it was switched out and the
record that it was switched in. After a preemption that is exactly its run-queue delay; after a sleep the run-queue
delay is inside and cannot be told apart, because the wakeup is not recorded: such a phase is no delay here.
Works at kernel.perf_event_paranoid <= 2. Who ran instead is not recorded.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from collector.sched import perf_event
from collector.sched.bpf_syscall import BpfError
from collector.sched.perf_ring import Ring

SWITCH = np.dtype(
    [
        ("type", "<u4"),
        ("misc", "<u2"),
        ("size", "<u2"),
        ("pid", "<u4"),
        ("tid", "<u4"),
        ("t_ns", "<i8"),
        ("cpu", "<u4"),
        ("reserved", "<u4"),
    ]
)
PHASE = np.dtype([("tid", "<u4"), ("cpu", "<u4"), ("end_ns", "<i8"), ("off_ns", "<i8"), ("preempted", "?")])
_RECORD_SWITCH = 14
_MISC_OUT, _MISC_PREEMPT = 1 << 13, 1 << 14
_PAGES = 16  # 64 kB hold 2,048 switches; an unprivileged user may lock 516 kB per CPU plus RLIMIT_MEMLOCK
MAX_THREADS = 64


class SwitchRecords:
    """One small ring per thread. `refused` maps threads that could not be opened to the kernel's reason."""

    def __init__(self) -> None:
        self._rings: dict[int, Ring] = {}
        self._out: dict[int, tuple[int, bool]] = {}
        self.refused: dict[int, str] = {}
        self._lost_before = 0

    def probe(self) -> None:
        """Try it on the calling process. Raises BpfError when the kernel refuses even that."""
        os.close(_open(os.getpid()).fd)

    def follow(self, threads: Iterable[int]) -> None:
        """Follow exactly these threads, at most MAX_THREADS of them."""
        wanted = list(threads)
        self.refused = dict.fromkeys(wanted[MAX_THREADS:], f"only {MAX_THREADS} threads are followed")
        for tid in set(self._rings) - set(wanted):
            ring = self._rings.pop(tid)
            self._lost_before += ring.lost
            os.close(ring.fd)
            self._out.pop(tid, None)
        for tid in wanted[:MAX_THREADS]:
            if tid not in self._rings:
                try:
                    self._rings[tid] = _open(tid)
                except BpfError as error:
                    self.refused[tid] = str(error)

    def drain(self) -> NDArray[np.void]:
        """The phases off the CPU that ended since the last call: PHASE[n]."""
        parts = [np.zeros(0, dtype=PHASE)]
        for tid, ring in self._rings.items():
            records = ring.drain()
            parts.append(self._phases(tid, records))
            if ring.was_full:  # a phase that spans a loss may be two
                self._out.pop(tid, None)
        return np.concatenate(parts)

    def _phases(self, tid: int, records: NDArray[np.void]) -> NDArray[np.void]:
        if not len(records):
            return np.zeros(0, dtype=PHASE)
        out = (records["misc"] & _MISC_OUT) != 0
        preempted = (records["misc"] & _MISC_PREEMPT) != 0
        t_ns = records["t_ns"]
        earlier = self._out.pop(tid, None)
        before_out = np.concatenate([[earlier is not None], out[:-1]])
        before_t = np.concatenate([[earlier[0] if earlier else 0], t_ns[:-1]])
        before_preempted = np.concatenate([[earlier[1] if earlier else False], preempted[:-1]])
        ends = ~out & before_out
        phases = np.zeros(int(ends.sum()), dtype=PHASE)
        phases["tid"], phases["cpu"], phases["end_ns"] = tid, records["cpu"][ends], t_ns[ends]
        phases["off_ns"], phases["preempted"] = (t_ns - before_t)[ends], before_preempted[ends]
        if out[-1]:
            self._out[tid] = (int(t_ns[-1]), bool(preempted[-1]))
        return phases

    @property
    def lost(self) -> int:
        """Records the kernel reported as lost so far."""
        return self._lost_before + sum(ring.lost for ring in self._rings.values())

    def close(self) -> None:
        """Stop following."""
        self.follow(())


def _open(tid: int) -> Ring:
    fd = perf_event.open_event(
        perf_event.Event(
            perf_event.SOFTWARE_DUMMY,
            type=perf_event.TYPE_SOFTWARE,
            sample_type=perf_event.SAMPLE_TID | perf_event.SAMPLE_TIME | perf_event.SAMPLE_CPU,
            flags=perf_event.EXCLUDE_KERNEL
            | perf_event.SAMPLE_ID_ALL
            | perf_event.USE_CLOCKID
            | perf_event.CONTEXT_SWITCH,
        ),
        pid=tid,
        cpu=-1,
        doing=f"following the context switches of thread {tid}",
    )
    try:
        return Ring.open(fd, SWITCH, _PAGES, kind=_RECORD_SWITCH)
    except BpfError:
        os.close(fd)
        raise
