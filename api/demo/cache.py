"""A cache that says how old its answer is: fresh is a hit, older is stale, too old or absent is a miss. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from tailsight_probe import Cache

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Found(Generic[V]):
    """What the cache answered; `value` and `age_ns` are None on a miss."""

    state: Cache
    value: V | None = None
    age_ns: int | None = None


@dataclass(slots=True)
class AgedCache(Generic[V]):
    """The newest value per instrument, and when it came."""

    fresh_ns: int
    usable_ns: int
    _entries: dict[int, tuple[V, int]] = field(default_factory=dict)

    def put(self, instrument: int, value: V, now_ns: int) -> None:
        """Replace the instrument's value."""
        self._entries[instrument] = (value, now_ns)

    def get(self, instrument: int, now_ns: int, *, older_by_ns: int = 0) -> Found[V]:
        """Look it up; `older_by_ns` is how far behind the replica is that answers."""
        entry = self._entries.get(instrument)
        if entry is None:
            return Found(Cache.MISS)
        age_ns = now_ns - entry[1] + older_by_ns
        if age_ns > self.usable_ns:
            return Found(Cache.MISS)
        return Found(Cache.HIT if age_ns <= self.fresh_ns else Cache.STALE, entry[0], age_ns)
