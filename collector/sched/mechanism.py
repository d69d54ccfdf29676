"""What every mechanism of the scheduler collector offers, whether the kernel pairs the events or we do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Totals:
    """Counters since start.

    `groups` is layout.GROUP[groups]; group 0 is everybody who is not observed. Its `max_ns[0]` is that of the time
    since the last call. `events` says for each kind of event how many were measured and how many happened; empty where
    that is not known. `lost` counts records that were not delivered. `header` is layout.CPU_HEADER per CPU where
    interrupts are measured. `by_cpu` (uint32[cpus, 2, buckets]) and `by_thread` (uint32[2, buckets] since the thread is
    observed) are there where the mechanism counts by them.
    """

    groups: NDArray[np.void]
    events: Mapping[str, tuple[int, int]]
    lost: int
    header: NDArray[np.void] | None = None
    by_cpu: NDArray[np.uint32] | None = None
    by_thread: Mapping[int, NDArray[np.uint32]] = field(default_factory=dict)


ALL_SIGHTS = frozenset({"machine", "run_queue", "preempted", "migrations", "blocked", "blocked_kinds", "stolen"})


class Mechanism(Protocol):
    """One way to measure run-queue delays."""

    name: str
    cost: str  # what it costs the observed program, and us
    blind: str  # what it cannot see; empty when nothing
    sees: frozenset[str]  # of ALL_SIGHTS: what its totals mean; the rest is unknown, not zero

    def observe(self, threads: Mapping[int, int]) -> Mapping[int, str]:
        """Observe exactly these threads (tid -> group); returns those that cannot be, with the reason."""

    def drain(self) -> NDArray[np.void]:
        """The delays above the threshold since the last call: layout.RECORD[n]."""

    def totals(self) -> Totals:
        """The counters now."""

    def close(self) -> None:
        """Stop."""
