"""A path's messages from the store for questions about the tail: all of them, a bounded number at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from analytics.generations import CURRENT
from analytics.paths import Path
from analytics.population import NOT_USERS, population
from analytics.tail import clusters
from analytics.tail.tailset import Apart, took
from collector.record import Mode
from collector.store import Store

NS = 1_000_000_000
AT_ONCE = 1_000_000  # messages in memory
MOST = 20_000_000  # messages of one answer; beyond, a share of them by a hash of the key
Modes = tuple[Mode, ...] | None

_PER_MINUTE = f"""
SELECT toInt64(intDiv(toUnixTimestamp(window), 60)) AS minute, count() AS n FROM messages
WHERE path = {{path:String}} AND window >= toDateTime({{from_s:UInt32}}, 'UTC') AND window <
    toDateTime({{to_s:UInt32}}, 'UTC') AND generation IN ({CURRENT}) AND has({{modes:Array(Int8)}}, toInt8(mode))
GROUP BY minute ORDER BY minute
"""  # noqa: S608 - fixed text, values are bound


@dataclass(frozen=True, slots=True)
class Reach:
    """Which messages: users' where `modes` is None; what starts in [from_ns, to_ns)."""

    from_ns: int
    to_ns: int
    modes: Modes = None
    known_to_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Slices:
    """Spans of time with at most about `AT_ONCE` messages each, how many there are, and the share that is read."""

    spans: list[tuple[int, int]]
    messages: int
    share: float


def slices(store: Store, path: Path, reach: Reach, at_once: int = AT_ONCE) -> Slices:
    """Cut a reach at whole minutes, so that a cluster lies in one slice."""
    wanted = tuple(mode for mode in Mode if mode not in NOT_USERS) if reach.modes is None else reach.modes
    rows = store.query(
        _PER_MINUTE,
        {
            "path": path.name, "level": 10, "modes": [int(mode) for mode in wanted],
            "from_s": reach.from_ns // NS // 10 * 10, "to_s": -(-reach.to_ns // (10 * NS)) * 10,
        },
    )  # fmt: skip
    total = int(rows["n"].sum())
    share = min(1.0, MOST / max(total, 1))
    length = max(1, clusters.cluster_ns(reach.from_ns, reach.to_ns) // (60 * NS))
    spans: list[tuple[int, int]] = []
    begin, held = reach.from_ns, 0.0
    for minute, n in rows.iter_rows():
        at = minute // length * length * 60 * NS
        if held and held + n * share > at_once and at > begin:
            spans.append((begin, at))
            begin, held = at, 0.0
        held += n * share
    return Slices([*spans, (begin, reach.to_ns)], total, share)


def frames(
    store: Store, path: Path, reach: Reach, cut: Slices, *, details: bool
) -> Iterator[tuple[pl.DataFrame, Apart]]:
    """The messages of each slice, as `tailset.took` gives them."""
    for first, last in cut.spans:
        found = population(store, path, from_ns=first, to_ns=last, modes=reach.modes, share=cut.share, details=details)
        yield took(found.frame, path, reach.known_to_ns)
