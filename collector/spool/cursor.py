"""What the spool remembers beside its segments: who it is, what is acknowledged, what is on the way.

Both files are one line `crc32c <JSON>`; a damaged one is told from a good one and never half believed. A lost cursor
means that everything still on disk is sent again, in the same batches; the server knows those it has.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TypeVar

import google_crc32c
import msgspec

from collector.spool.fs import SpoolFS

T = TypeVar("T")


class Identity(msgspec.Struct, frozen=True):
    """Who the collector is, for ever, and how often its agent has started."""

    collector: uuid.UUID
    boot: int


class BootState(msgspec.Struct):
    """The books of one boot, in sequence numbers. `acked` are disjoint, sorted, half-open ranges."""

    boot: int
    produced: int = 0  # everything below is durable, acknowledged, or booked as lost
    acked: list[tuple[int, int]] = []

    @property
    def acked_end(self) -> int:
        """Every smaller sequence number is acknowledged."""
        return self.acked[0][1] if self.acked and self.acked[0][0] == 0 else 0

    @property
    def acked_events(self) -> int:
        """How many events are acknowledged, in whatever order."""
        return sum(end - first for first, end in self.acked)

    def add(self, first: int, end: int) -> None:
        """Acknowledge `first..end-1`; ranges that touch or overlap become one."""
        merged: list[tuple[int, int]] = []
        for a, b in sorted([*self.acked, (first, end)]):
            if merged and a <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(b, merged[-1][1]))
            else:
                merged.append((a, b))
        self.acked = merged

    def covers(self, first: int, end: int) -> bool:
        """Whether all of `first..end-1` is acknowledged."""
        return any(a <= first and end <= b for a, b in self.acked)


class InFlight(msgspec.Struct):
    """A batch whose outcome is unknown: it may have reached the server `attempt` times already."""

    boot: int
    first: int
    end: int
    attempt: int = 0
    rejected: bool = False  # refused for good: its drop frame is on the way in its place


class Cursor(msgspec.Struct):
    """All of the spool's memory. `positions` hold at `positions_seq` of boot `positions_boot`."""

    version: int = 1
    boots: list[BootState] = []
    in_flight: list[InFlight] = []
    positions: dict[str, int] = {}
    positions_boot: int = -1
    positions_seq: int = 0
    watermark_ns: int = 0
    counters: dict[str, int] = {}  # dropped and quarantined events by reason, over all boots

    def boot(self, number: int) -> BootState:
        """The books of a boot, opened when there are none."""
        for state in self.boots:
            if state.boot == number:
                return state
        state = BootState(number)
        self.boots.append(state)
        self.boots.sort(key=lambda s: s.boot)
        return state

    def count(self, name: str, events: int) -> None:
        """Add to a counter."""
        self.counters[name] = self.counters.get(name, 0) + events


def save(fs: SpoolFS, path: Path, value: msgspec.Struct) -> None:
    """Replace the file durably. Raises OSError."""
    body = msgspec.json.encode(value)
    fs.replace(path, b"%08x %s\n" % (google_crc32c.value(body), body))


def load(fs: SpoolFS, path: Path, kind: type[T]) -> T | None:
    """What `save` wrote, or None when the file is absent or damaged."""
    try:
        raw = fs.read_all(path)
    except FileNotFoundError:
        return None
    checksum, _, body = raw.rstrip(b"\n").partition(b" ")
    if checksum != b"%08x" % google_crc32c.value(body):
        return None
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, ValueError):
        return None
