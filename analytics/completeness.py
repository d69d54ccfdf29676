"""Completeness: the share of produced events that an answer is built on, or that it is not known.

Per second of cutting, over all collectors:

    completeness = (produced - missing) / produced

from the ledger's own numbers: what a batch's events were, and how many of them were dropped for a reason or
quarantined. It is unknown while a collector that lived in the range has not landed everything before the range's end:
its watermark is behind, or what it had produced by its last heartbeat is not all in the ledger.
"""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from analytics.asking import begin
from collector.store import Store

NS = 1_000_000_000
_CELL_NS = 10 * NS
_HOUR_NS = 3_600 * NS
_LIVED_NS = 30 * NS  # a collector lived in a range when a heartbeat lies in it or this close to it

# A batch's row says what it produced per second, from the second of `cut` on and within an hour of it. These are the
# seconds that [from_ns, to_ns) touches, of batches cut in [first_ns, last_ns) or in [again_ns, end_ns).
_SECONDS = """
SELECT {from_s:Int64} + intDiv(second - {from_s:Int64}, {grid:Int64}) * {grid:Int64} AS start,
    sum(p) AS produced, sum(m) AS missing
FROM (
    SELECT toInt64(second) AS second, p, m FROM batches
    ARRAY JOIN seconds AS second, produced_by_second AS p, missing_by_second AS m
    WHERE (cut >= fromUnixTimestamp64Nano({first_ns:Int64}, 'UTC')
            AND cut < fromUnixTimestamp64Nano({last_ns:Int64}, 'UTC'))
        OR (cut >= fromUnixTimestamp64Nano({again_ns:Int64}, 'UTC')
            AND cut < fromUnixTimestamp64Nano({end_ns:Int64}, 'UTC'))
)
WHERE second >= {from_s:Int64} AND second < intDiv({to_ns:Int64} + 999999999, 1000000000)
GROUP BY start ORDER BY start
"""

# Batches of the hours that lie inside the range whole, from the table's projection: a month reads thousands of rows.
_HOURS = """
SELECT sum(e), sum(d) + sum(q) FROM (
    SELECT toStartOfHour(cut) AS hour, collector, boot, sum(events) AS e, sum(dropped) AS d, sum(quarantined) AS q
    FROM batches
    WHERE toStartOfHour(cut) >= toDateTime64({from_s:Int64}, 9, 'UTC')
        AND toStartOfHour(cut) < toDateTime64({to_s:Int64}, 9, 'UTC')
    GROUP BY hour, collector, boot
)
"""

# Per collector and boot that lived in the range: how far it has landed and what it still held, from the table's
# projection, from the hour on that may hold the range's first heartbeat.
_LANDED = """
SELECT toString(collector) AS collector, boot, name, toUnixTimestamp64Nano(last) AS last_ns,
    toUnixTimestamp64Nano(landed) AS landed_ns, produced, acked, toString(status) AS status
FROM (
    SELECT collector, boot, any(of.name) AS name, min(of.first) AS born, max(of.latest) AS last,
        max(of.reached) AS landed, max(of.most) AS produced, max(of.told) AS acked,
        argMax(of.state, of.latest) AS status
    FROM (
        SELECT toStartOfHour(ts) AS hour, collector, boot, any(name) AS name, min(ts) AS first, max(ts) AS latest,
            max(watermark) AS reached, max(produced) AS most, max(acked) AS told, argMax(status, ts) AS state
        FROM heartbeats
        WHERE toStartOfHour(ts) >= toDateTime64({hour:Int64}, 9, 'UTC')
        GROUP BY hour, collector, boot
    ) AS of
    GROUP BY collector, boot
)
WHERE (status != 'unavailable' OR produced > 0)
    AND last >= fromUnixTimestamp64Nano({from_ns:Int64} - {lived:Int64}, 'UTC')
    AND born < fromUnixTimestamp64Nano({to_ns:Int64} + {lived:Int64}, 'UTC')
ORDER BY name, collector, boot
"""

# Up to where a collector's ledger reaches: asked only of those that stopped before they heard that all had arrived.
_STORED = """
SELECT max(to_seq) AS stored FROM (
    SELECT toStartOfHour(cut) AS hour, collector, boot, max(seq_first + events) AS to_seq
    FROM batches WHERE collector = {collector:UUID} AND boot = {boot:UInt32} GROUP BY hour, collector, boot
)
"""

# When each of them lived, as spans of 10 s cells: a step is asked only of the collectors that lived in it. Gaps of a
# minute are closed, because a step looks half a minute to both sides.
_LIVED = """
SELECT toString(collector) AS collector, boot,
    arraySort(groupUniqArray(intDiv(toUnixTimestamp64Nano(ts), 10000000000))) AS cells,
    arrayFilter((c, before) -> c - before > 6, cells, arrayPushFront(arrayPopBack(cells), -7)) AS lived_from,
    arrayFilter((c, after) -> after - c > 6, cells, arrayPushBack(arrayPopFront(cells), cells[-1] + 7)) AS lived_to
FROM heartbeats
WHERE ts >= fromUnixTimestamp64Nano({from_ns:Int64} - {lived:Int64}, 'UTC')
    AND ts < fromUnixTimestamp64Nano({to_ns:Int64} + {lived:Int64}, 'UTC') AND status != 'unavailable'
GROUP BY collector, boot
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
    return asked(store, from_ns, to_ns, step_s, now_ns=now_ns)()


def asked(
    store: Store, from_ns: int, to_ns: int, step_s: int | None = None, *, now_ns: int | None = None
) -> Callable[[], list[Share]]:
    """`completeness` without waiting: the store is asked now, the answer is there when it is called for."""
    if from_ns >= to_ns:
        raise ValueError(f"the range is empty: from {from_ns} to {to_ns}")
    if step_s is not None and step_s <= 0:
        raise ValueError(f"step must be positive, got {step_s}")
    now = time.time_ns() if now_ns is None else now_ns
    params = {
        "from_ns": from_ns, "to_ns": to_ns, "lived": _LIVED_NS, "hour": (from_ns - _LIVED_NS) // _HOUR_NS * 3_600,
    }  # fmt: skip
    landed = begin(lambda: store.query(_LANDED, params))
    if step_s is None:
        whole = _Whole(store, from_ns, to_ns)
        return lambda: [_of(store, whole, list(landed.result().iter_rows(named=True)), from_ns, to_ns, now)]
    lived = begin(lambda: store.query(_LIVED, params))
    steps = _Steps(store, from_ns, to_ns, step_s)

    def answer() -> list[Share]:
        spans = {(row["collector"], row["boot"]): row for row in lived.result().iter_rows(named=True)}
        boots = [
            {**boot, **span}
            for boot in landed.result().iter_rows(named=True)
            if (span := spans.get((boot["collector"], boot["boot"])))
        ]
        cuts = [(start, min(start + step_s * NS, to_ns)) for start in range(from_ns, to_ns, step_s * NS)]
        alive = _alive(boots, cuts)
        return [_of(store, steps, some, start, end, now) for some, (start, end) in zip(alive, cuts, strict=True)]

    return answer


def _of(store: Store, sums: _Whole | _Steps, alive: list[dict[str, Any]], start: int, end: int, now: int) -> Share:
    """The completeness of [start, end), in which the boots `alive` lived."""
    behind, known_to = [], end
    newest = {b["collector"]: b["boot"] for b in sorted(alive, key=lambda b: b["boot"])}
    for boot in alive:
        # An earlier life, or one that said goodbye, has landed when all that it told of is in the ledger.
        over = boot["boot"] < newest[boot["collector"]] or boot["status"] == "stopped"
        if not (_all_landed(store, boot) if over else boot["landed_ns"] >= min(end, now)):
            behind.append(boot["name"])
            known_to = min(known_to, max(start, boot["landed_ns"]))
    produced, missing = sums.between(start, end)
    known = _share(*sums.between(start, known_to)) if alive and known_to > start else None
    return Share(
        start,
        end,
        produced,
        missing,
        known if not behind else None,
        tuple(dict.fromkeys(behind)),
        known_to if alive else None,
        known,
    )


def _all_landed(store: Store, boot: dict[str, Any]) -> bool:
    """Whether all that a boot told of is in the ledger; the boot remembers what was found."""
    if boot["produced"] > boot["acked"] and "stored" not in boot:
        boot["stored"] = store.query(_STORED, {"collector": boot["collector"], "boot": boot["boot"]}).item() or 0
    return bool(boot["produced"] <= max(boot["acked"], boot.get("stored", 0)))


class _Whole:
    """What was produced and what of it is missing in one range: whole hours by the projection, its ends by second."""

    def __init__(self, store: Store, from_ns: int, to_ns: int) -> None:
        self._store = store
        self._range = (from_ns, to_ns)
        # A batch cut in an hour says of that hour and the next: both must lie in the range.
        first, last = -(-from_ns // _HOUR_NS) * _HOUR_NS, to_ns // _HOUR_NS * _HOUR_NS - _HOUR_NS
        hours = {"from_s": first // NS, "to_s": last // NS}
        self._questions = [begin(lambda: store.query(_HOURS, hours))] if first < last else []
        middle = (first, last) if first < last else (to_ns, to_ns)
        ends = {
            "from_ns": from_ns, "to_ns": to_ns, "from_s": from_ns // NS, "grid": to_ns // NS + 1,
            "first_ns": from_ns - _HOUR_NS, "last_ns": middle[0], "again_ns": middle[1], "end_ns": to_ns + NS,
        }  # fmt: skip
        self._questions.append(begin(lambda: store.query(_SECONDS, ends).select("produced", "missing")))

    def between(self, from_ns: int, to_ns: int) -> tuple[int, int]:
        """Produced and missing in the seconds that [from_ns, to_ns) touches; other than the range it asks anew."""
        if (from_ns, to_ns) != self._range:
            return _Whole(self._store, from_ns, to_ns).between(from_ns, to_ns)
        rows = [question.result().sum().row(0) for question in self._questions]
        return sum(int(row[0] or 0) for row in rows), sum(int(row[1] or 0) for row in rows)


class _Steps:
    """The same for every step of a range; sums of steps are differences."""

    def __init__(self, store: Store, from_ns: int, to_ns: int, step_s: int) -> None:
        self._store = store
        self._to_ns = to_ns
        # Steps that begin within a second share that second.
        self._grid_ns = step_s * NS if from_ns % NS == 0 else NS
        self._from_ns = from_ns
        params = {
            "from_ns": from_ns, "to_ns": to_ns, "from_s": from_ns // NS, "grid": self._grid_ns // NS,
            "first_ns": from_ns - _HOUR_NS, "last_ns": to_ns + NS, "again_ns": to_ns, "end_ns": to_ns,
        }  # fmt: skip
        self._rows = begin(lambda: store.query(_SECONDS, params))
        self._starts: list[int] | None = None

    def between(self, from_ns: int, to_ns: int) -> tuple[int, int]:
        """Produced and missing in the seconds that [from_ns, to_ns) touches."""
        if self._starts is None:
            frame = self._rows.result()
            self._starts = frame["start"].to_list()
            self._produced = list(accumulate(frame["produced"].to_list(), initial=0))
            self._missing = list(accumulate(frame["missing"].to_list(), initial=0))
        if self._grid_ns > NS and to_ns != self._to_ns and (to_ns - self._from_ns) % self._grid_ns:
            return _Whole(self._store, from_ns, to_ns).between(from_ns, to_ns)
        a = bisect_left(self._starts, from_ns // NS)
        b = max(a, bisect_left(self._starts, -(-to_ns // NS)))
        return self._produced[b] - self._produced[a], self._missing[b] - self._missing[a]


def _alive(boots: list[dict[str, Any]], cuts: list[tuple[int, int]]) -> list[list[dict[str, Any]]]:
    """Per cut (start, end; ascending) the boots with a heartbeat in it or half a minute around it, to 10 s."""
    first = [(start - _LIVED_NS) // _CELL_NS for start, _ in cuts]
    last = [-(-(end + _LIVED_NS) // _CELL_NS) for _, end in cuts]
    found: list[list[dict[str, Any]]] = [[] for _ in cuts]
    for boot in boots:
        at = 0  # a boot's spans ascend; a cut that two of them touch has the boot once
        for a, b in zip(boot["lived_from"], boot["lived_to"], strict=True):
            end = bisect_right(first, b)
            for number in range(max(at, bisect_right(last, a)), end):
                found[number].append(boot)
            at = max(at, end)
    return found


def _share(produced: int, missing: int) -> float:
    return (produced - missing) / produced if produced else 1.0
