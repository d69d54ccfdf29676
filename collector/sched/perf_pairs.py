"""The perf mechanism: rings of every CPU, paired in user space, counted like the kernel programs do."""

from __future__ import annotations

import errno
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from collector.sched.bpf_syscall import BpfError
from collector.sched.layout import RECORD, RecordKind
from collector.sched.mechanism import Totals
from collector.sched.perf_ring import PerfRings
from collector.sched.tally import Tally

# 4 MB, 1 MB, 256 kB per ring; two rings per CPU. 4 MB hold 47,000 switches.
_RING_PAGES = (1024, 256, 64)


class PerfPairs:
    """Raises TracefsError or BpfError where perf_event_open or the memory for its rings is not granted."""

    name = "perf"
    cost = "310-380 ns per switch and wakeup of the workload; 0.3-0.7 us of ours per event"
    blind = "interrupts and blocked time; wakeups that some kernels do not write (see coverage)"

    sees = frozenset({"machine", "run_queue", "preempted"})

    def __init__(self, *, groups: int, threshold_ns: int, record_all: bool) -> None:
        self._rings = _largest_rings()
        self._tally = Tally(groups)
        self._threshold_ns = threshold_ns
        self._record_all = record_all

    def observe(self, threads: Mapping[int, int]) -> Mapping[int, str]:
        """Observe exactly these threads; all can be."""
        self._tally.observe(threads)
        return {}

    def drain(self) -> NDArray[np.void]:
        """Delays above the threshold of observed threads: RECORD[n]."""
        pairing = self._rings.delays()
        delays = pairing.delays
        groups = self._tally.group_of(delays["pid"])
        self._tally.count(groups, delays["preempted"], delays["delay_ns"], self._threshold_ns)
        self._tally.groups["runs"][0] += pairing.runs
        keep = (delays["delay_ns"] >= self._threshold_ns) & ((groups > 0) | self._record_all)
        kept = delays[keep]
        records = np.zeros(len(kept), dtype=RECORD)
        records["end_ns"], records["duration_ns"], records["group"] = kept["end_ns"], kept["delay_ns"], groups[keep]
        records["kind"] = np.where(kept["preempted"], RecordKind.PREEMPTED, RecordKind.WOKEN)
        for name in ("pid", "cpu", "by_pid", "comm", "by_comm"):
            records[name] = kept[name]
        return records

    def totals(self) -> Totals:
        """The counters now; events written and counted."""
        return Totals(self._tally.taken(), self._rings.events_seen(), self._rings.lost)

    def close(self) -> None:
        """Close the rings."""
        self._rings.close()


def _largest_rings() -> PerfRings:
    """Rings as large as the limit on locked memory allows: without CAP_IPC_LOCK the smaller sizes may still fit."""
    for pages in _RING_PAGES[:-1]:
        try:
            return PerfRings(pages)
        except BpfError as error:
            if error.errno not in (errno.EPERM, errno.ENOMEM):
                raise
    return PerfRings(_RING_PAGES[-1])
