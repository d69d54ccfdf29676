"""Completeness: the share of produced events that an answer is built on, or that it is not known.

Per second of cutting, over all collectors:

    completeness = (produced - missing) / produced

from the ledger's own numbers: what a batch's events were, and how many of them were dropped for a reason or
quarantined.
It is unknown while a collector that lived in the range has not landed everything before the range's end: its
watermark is
behind, or what it had produced by its last heartbeat is not all in the ledger.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from collector.store import Store

NS = 1_000_000_000
_CELL_NS = 10 * NS
_LIVED_NS = 30 * NS  # a collector lived in a range when a heartbeat lies in it or this close to it

_SECONDS = """
SELECT toInt64(second) AS second, sum(p) AS produced, sum(m) AS missing FROM (
    SELECT second, p, m FROM batches
    ARRAY JOIN seconds AS second, produced_by_second AS p, missing_by_second AS m
    WHERE cut >= fromUnixTimestamp64Nano({from_ns:Int64} - 3600000000000, 'UTC')
        AND cut_day >= toDate(fromUnixTimestamp64Nano({from_ns:Int64} - 172800000000000, 'UTC'))
)
WHERE second >= intDiv({from_ns:Int64}, 1000000000) AND second < intDiv({to_ns:Int64} + 999999999, 1000000000)
GROUP BY second ORDER BY second
"""

# Per collector and boot that lived in the range: how far it has landed, what is outstanding of it, and when it lived,
# as spans of 10 s cells: a step is asked only of the collectors that lived in it. Gaps of a minute are closed, because
# a step looks half a minute to both sides.
_LANDED = """
SELECT toString(h.collector) AS collector, h.boot AS boot, any(h.name) AS name,
    max(toUnixTimestamp64Nano(h.ts)) AS last_ns,
    toUnixTimestamp64Nano(max(h.watermark)) AS landed_ns,
    max(h.produced) <= greatest(max(h.acked), any(l.stored)) AS all_landed,
    argMax(toString(h.status), h.ts) AS status,
    arraySort(groupUniqArray(intDiv(toUnixTimestamp64Nano(h.ts), 10000000000))) AS cells,
    arrayFilter((c, before) -> c - before > 6, cells, arrayPushFront(arrayPopBack(cells), -7)) AS lived_from,
    arrayFilter((c, after) -> after - c > 6, cells, arrayPushBack(arrayPopFront(cells), cells[-1] + 7)) AS lived_to
FROM heartbeats AS h
LEFT JOIN (SELECT collector, boot, max(seq_first + events) AS stored FROM batches GROUP BY collector, boot) AS l
    ON h.collector = l.collector AND h.boot = l.boot
WHERE h.ts >= fromUnixTimestamp64Nano({from_ns:Int64} - {lived:Int64}, 'UTC') AND h.status != 'unavailable'
GROUP BY h.collector, h.boot
HAVING min(toUnixTimestamp64Nano(h.ts)) < {to_ns:Int64} + {lived:Int64}
ORDER BY name, collector, boot
"""


@dataclass(frozen=True, slots=True)
class Share:
    """Completeness of a range: `share` is None where it is not known, and `waiting_for` names the collectors behind.

    `known_to_ns` is up to when everything has landed (None: no collector lived in the range), and `known_share` the
    completeness up to there: what can be said of a range that ends now.
    """

    from_ns: int
    to_ns: int
    produced: int
    missing: int
    share: float | None
    waiting_for: tuple[str, ...] = ()
    known_to_ns: int | None = None
    known_share: float | None = None


def share(store: Store, from_ns: int, to_ns: int, *, now_ns: int | None = None) -> Share:
    """The completeness of [from_ns, to_ns) as one number."""
    return completeness(store, from_ns, to_ns, now_ns=now_ns)[0]


def completeness(
    store: Store, from_ns: int, to_ns: int, step_s: int | None = None, *, now_ns: int | None = None
) -> list[Share]:
    """The completeness of [from_ns, to_ns), of each `step_s` seconds of it or of all at once (None).

    Raises ValueError when the range is empty or the step not positive.
    """
    if from_ns >= to_ns:
        raise ValueError(f"the range is empty: from {from_ns} to {to_ns}")
    if step_s is not None and step_s <= 0:
        raise ValueError(f"step must be positive, got {step_s}")
    now = time.time_ns() if now_ns is None else now_ns
    reach = {"from_ns": from_ns, "to_ns": to_ns}
    seconds = _Seconds(store.query(_SECONDS, reach).rows())
    boots = list(store.query(_LANDED, {**reach, "lived": _LIVED_NS}).iter_rows(named=True))
    step = (to_ns - from_ns) if step_s is None else step_s * NS
    answer = []
    for start in range(from_ns, to_ns, step):
        end = min(start + step, to_ns)
        behind, known_to = [], end
        alive = [boot for boot in boots if _lived(boot, start, end)]
        newest = {b["collector"]: b["boot"] for b in sorted(alive, key=lambda b: b["boot"])}
        for boot in alive:
            # An earlier life, or one that said goodbye, has landed when all that it told of is in the ledger.
            over = boot["boot"] < newest[boot["collector"]] or boot["status"] == "stopped"
            if not (boot["all_landed"] if over else boot["landed_ns"] >= min(end, now)):
                behind.append(boot["name"])
                known_to = min(known_to, max(start, boot["landed_ns"]))
        produced, missing = seconds.between(start, end)
        known = _share(*seconds.between(start, known_to)) if alive and known_to > start else None
        answer.append(
            Share(
                start,
                end,
                produced,
                missing,
                known if not behind else None,
                tuple(dict.fromkeys(behind)),
                known_to if alive else None,
                known,
            )
        )
    return answer


class _Seconds:
    """What was produced and what of it is missing, per second in ascending order; sums of ranges are differences."""

    def __init__(self, rows: list[tuple[int, int, int]]) -> None:
        self._seconds = [second for second, _, _ in rows]
        self._produced = list(accumulate((p for _, p, _ in rows), initial=0))
        self._missing = list(accumulate((m for _, _, m in rows), initial=0))

    def between(self, from_ns: int, to_ns: int) -> tuple[int, int]:
        """Produced and missing in the seconds that [from_ns, to_ns) touches."""
        a, b = bisect_left(self._seconds, from_ns // NS), bisect_left(self._seconds, -(-to_ns // NS))
        b = max(a, b)
        return self._produced[b] - self._produced[a], self._missing[b] - self._missing[a]


def _lived(boot: dict[str, Any], start_ns: int, end_ns: int) -> bool:
    """Whether a heartbeat lies in [start_ns, end_ns) or half a minute around it, to 10 s."""
    first, last = (start_ns - _LIVED_NS) // _CELL_NS, -(-(end_ns + _LIVED_NS) // _CELL_NS)
    return any(a < last and b >= first for a, b in zip(boot["lived_from"], boot["lived_to"], strict=True))


def _share(produced: int, missing: int) -> float:
    return (produced - missing) / produced if produced else 1.0
