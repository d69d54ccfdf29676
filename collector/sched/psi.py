"""Pressure stall information and steal: what every Linux user may read about waiting for CPUs, machine-wide.

Question: for what share of the time did at least one runnable thread wait? Between two readings of the `total` of
/proc/pressure/cpu (microseconds), and of `steal` in /proc/stat (time a virtual CPU wanted to run and the hypervisor
ran something else; ticks). Neither names a thread. Cost: 2 to 6 us per reading.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

_TOTAL = re.compile(r"^(some|full) .*total=(\d+)$", re.MULTILINE)
_STEAL_COLUMN = 8


@dataclass(frozen=True, slots=True)
class Pressure:
    """Time stalled since boot, in ns: `stalled["cpu some"]`; None where the kernel does not say."""

    stalled_ns: dict[str, int]
    steal_ns: int | None


def read(proc: Path = Path("/proc")) -> Pressure:
    """The readings now; a missing file (PSI off) leaves its keys out."""
    stalled: dict[str, int] = {}
    for resource in ("cpu", "io", "memory"):
        try:
            text = (proc / "pressure" / resource).read_text()
        except OSError:  # absent, or EOPNOTSUPP with psi=0
            continue
        for which, total in _TOTAL.findall(text):
            stalled[f"{resource} {which}"] = int(total) * 1000
    try:
        first = (proc / "stat").read_text().split("\n", 1)[0].split()
        steal = int(first[_STEAL_COLUMN]) * (1_000_000_000 // os.sysconf("SC_CLK_TCK"))
    except (OSError, IndexError):
        steal = None
    return Pressure(stalled, steal)
