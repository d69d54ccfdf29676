"""Sources: each takes timestamps from one place and hands them over as columns, with what it lost.

A source asks one question, names the two events between which it measures, states its cost, and says what it cannot
do and what would let it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from collector.clock import ClockReading
from collector.record import Columns, DropReason


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether a source can work here. `status` is running, degraded or unavailable.

    `reason` says what is missing and the one command or setting that would grant it; empty when nothing is.
    """

    status: str
    reason: str = ""


@dataclass(slots=True)
class Poll:
    """What one poll of a source yields.

    `positions` says how far each of its inputs has been read once these columns are durable; the agent stores them in
    the same frame and gives them back to `start` after a restart.
    """

    columns: list[Columns] = field(default_factory=list)
    drops: dict[DropReason, int] = field(default_factory=dict)
    positions: dict[str, int] = field(default_factory=dict)


class Source(Protocol):
    """One collector. Not thread-safe: the agent polls each source from one thread."""

    name: str
    period_s: float  # how often the agent polls it

    def start(self, positions: Mapping[str, int]) -> Availability:
        """Open what it reads, resuming from `positions`. Never raises for missing permissions: it says so."""

    def poll(self, clock: ClockReading) -> Poll:
        """Everything new since the last poll, times converted with `clock`."""

    def close(self) -> None:
        """Release what `start` opened."""
