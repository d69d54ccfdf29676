"""The mechanism that needs no privilege: preemptions of one's own user's threads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from collector.sched.layout import RECORD, UNKNOWN_PID, RecordKind
from collector.sched.mechanism import Totals
from collector.sched.switch_records import SwitchRecords
from collector.sched.tally import Tally


class SwitchPairs:
    """Raises BpfError where even threads of the own user may not be followed (kernel.perf_event_paranoid > 2)."""

    name = "switch records"
    cost = "about 0.3 us per switch of an observed thread"
    blind = "delays after a wakeup (they are inside the time asleep), who ran instead, interrupts, other users' threads"

    sees = frozenset({"preempted"})

    def __init__(self, *, groups: int, threshold_ns: int) -> None:
        self._records = SwitchRecords()
        self._tally = Tally(groups)
        self._threshold_ns = threshold_ns
        self._records.probe()

    def observe(self, threads: Mapping[int, int]) -> Mapping[int, str]:
        """Observe exactly these threads; returns those of other users and those beyond the limit."""
        self._tally.observe(threads)
        self._records.follow(threads)
        return self._records.refused

    def drain(self) -> NDArray[np.void]:
        """Preemptions above the threshold: RECORD[n]; the culprit is not known."""
        phases = self._records.drain()
        preempted = phases[phases["preempted"]]
        groups = self._tally.group_of(preempted["tid"])
        self._tally.count(groups, preempted["preempted"], preempted["off_ns"], self._threshold_ns)
        keep = preempted["off_ns"] >= self._threshold_ns
        kept = preempted[keep]
        records = np.zeros(len(kept), dtype=RECORD)
        records["end_ns"], records["duration_ns"], records["group"] = kept["end_ns"], kept["off_ns"], groups[keep]
        records["pid"], records["cpu"], records["kind"] = kept["tid"], kept["cpu"], RecordKind.PREEMPTED
        for tid in np.unique(kept["tid"]).tolist():
            records["comm"][kept["tid"] == tid] = _comm(tid)
        records["by_pid"] = UNKNOWN_PID
        return records

    def totals(self) -> Totals:
        """The counters now; what it missed is unknown."""
        return Totals(self._tally.taken(), {}, self._records.lost)

    def close(self) -> None:
        """Stop following."""
        self._records.close()


def _comm(tid: int) -> bytes:
    try:
        return Path(f"/proc/{tid}/comm").read_bytes().strip()
    except OSError:
        return b""
