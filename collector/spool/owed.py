"""Losses that not even a drop frame could be written for: remembered until the disk takes one."""

from __future__ import annotations

from collections.abc import Sequence

from collector.payload import DROP_WIRE_ID, Packed, pack_drop
from collector.record import DropReason

_MAX_ENTRIES = 1_000


class Owed:
    """Drops in memory. They have no sequence numbers yet: they take them when they are written."""

    def __init__(self) -> None:
        self._entries: list[tuple[DropReason, int, int]] = []  # (reason, events, created)

    def __bool__(self) -> bool:
        return bool(self._entries)

    def add(self, packed: Sequence[Packed], lost: int, created_ns: int) -> None:
        """Remember `lost` events, and the drop frames among `packed` with their own reasons."""
        if lost:
            self._entries.append((DropReason.FULL_NEWEST, lost, created_ns))
        for drop in packed:
            if drop.wire_id == DROP_WIRE_ID:
                word = drop.payload[2 : 2 + int.from_bytes(drop.payload[:2], "little")].decode()
                self._entries.append((DropReason(word), drop.events, created_ns))
        if len(self._entries) > _MAX_ENTRIES:
            totals: dict[DropReason, int] = {}
            for reason, events, _ in self._entries:
                totals[reason] = totals.get(reason, 0) + events
            self._entries = [(reason, events, created_ns) for reason, events in totals.items()]

    def packed(self) -> list[tuple[Packed, int]]:
        """Drop frames to write, with their times of cutting."""
        return [(pack_drop(reason, events), created) for reason, events, created in self._entries]

    def clear(self) -> None:
        """They are written."""
        self._entries.clear()
