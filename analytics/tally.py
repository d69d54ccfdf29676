"""Reading counts: from stored windows of every level, or stitched anew from raw stamps, into one and the same form."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from analytics import counts
from analytics.cover import cover, widen
from analytics.generations import CURRENT
from analytics.paths import END_TO_END, Path
from analytics.percentiles import Counts
from analytics.stitch import STITCH_LIMITS, ClockSettings, headless, stitch
from collector.store import Store

NS = 1_000_000_000
RAW_STEP_S = 60  # raw ranges are stitched a minute at a time: memory stays bounded
_SUMS = ("n", "unfinished", "missing", "negative", "below_resolution", "error_unknown", "repeated", "sum_ns")


@dataclass(slots=True)
class Tally:
    """All that is counted of one stage in one step of time; adding two is exact.

    `headless` messages are the whole path's: without a start they are of no stage and no rollup.
    """

    buckets: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    sums: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_SUMS, 0))
    min_ns: int | None = None
    max_ns: int | None = None
    max_error_ns: int = 0
    headless: int = 0

    def add_summary(self, row: dict[str, Any]) -> None:
        """Add one row of stage_windows."""
        for name in _SUMS:
            self.sums[name] += int(row[name])
        self.max_error_ns = max(self.max_error_ns, int(row["max_error_ns"]))
        if row["n"]:
            low, high = int(row["min_ns"]), int(row["max_ns"])
            self.min_ns = low if self.min_ns is None else min(self.min_ns, low)
            self.max_ns = high if self.max_ns is None else max(self.max_ns, high)

    @property
    def counts(self) -> Counts:
        """For the percentiles."""
        order = sorted(self.buckets)
        return Counts(
            np.array(order, dtype=np.int64),
            np.array([self.buckets[b] for b in order], dtype=np.int64),
            self.min_ns or 0,
            self.max_ns or 0,
            self.sums["sum_ns"],
            self.sums["unfinished"],
        )


Tallies = dict[tuple[int, str], Tally]  # (start of the step in seconds, stage)


def stored(
    store: Store,
    path: str,
    from_s: int,
    to_s: int,
    *,
    stage: str | None = None,
    rollup: str = "",
    step_s: int | None = None,
    level: int | None = None,
) -> Tallies:
    """Counts of [from_s, to_s), multiples of 10 s, per step (None: one) from the coarsest windows that tile it exactly.

    `level` reads that level alone, for `analytics.verify`.
    """
    tallies: Tallies = defaultdict(Tally)
    levels = (3600, 60, 10) if step_s is None or step_s % 3600 == 0 else (60, 10) if step_s % 60 == 0 else (10,)
    spans = (
        cover(from_s, to_s, _usable(store, path, levels[:-1], from_s, to_s), levels).spans
        if level is None
        else {level: ((from_s, to_s),)}
    )
    step = step_s or (to_s - from_s)
    origin = from_s if step_s is None else 0
    lost: dict[int, int] = defaultdict(int)
    # One step needs no arithmetic per row: a month of hours has millions of them.
    buckets_sql, summaries_sql, headless_sql = (
        text.replace(_SECOND, "{origin:UInt32}") if step_s is None else text
        for text in (_BUCKETS, _SUMMARIES, _HEADLESS)
    )
    for at, pieces in spans.items():
        for begin, end in pieces:
            params = {
                "path": path, "level": at, "from_s": begin, "to_s": end, "step": step, "origin": origin,
                "stage": stage or "", "rollup": rollup,
            }  # fmt: skip
            # Coarse windows rarely have a second generation, and filtering costs half of the query: count all rows
            # first, then see from the summaries, which are written before the counts, whether all were current.
            counted = None if at == 10 else store.query(buckets_sql.replace(_ONLY_CURRENT, ""), params)
            summaries = store.query(summaries_sql, params)
            if counted is None or summaries["stray"].sum():
                counted = store.query(buckets_sql, params)
            for second, name, bucket, n in counted.iter_rows():
                tallies[(second, name)].buckets[bucket] += n
            for row in summaries.iter_rows(named=True):
                if row["current"]:
                    tallies[(row["second"], row["stage"])].add_summary(row)
            for second, n in store.query(headless_sql, params).iter_rows():
                lost[second] += n
    return _with_headless(tallies, lost, stage)


def raw(
    store: Store,
    path: Path,
    from_ns: int,
    to_ns: int,
    *,
    stage: str | None = None,
    rollup: str = "",
    step_s: int | None = None,
    clock: ClockSettings | None = None,
) -> Tallies:
    """The same from raw stamps of messages that start in [from_ns, to_ns), stitched now."""
    tallies: Tallies = defaultdict(Tally)
    lost: dict[int, int] = defaultdict(int)
    where, extra = counts.filter_sql(stage, rollup)
    for begin, end, second in _pieces(from_ns, to_ns, step_s):
        found = stitch(store, path, begin, end, clock=clock)
        if found is None:
            continue
        params = {**found.params, **counts.parameters(path), **extra}
        sql = counts.bucket_counts_sql(path, found.sql, where)
        for name, _, bucket, n in store.query(sql, params, limits=STITCH_LIMITS).iter_rows():
            tallies[(second, name)].buckets[bucket] += n
        for row in store.query(counts.summary_sql(path, found.sql, where), params, limits=STITCH_LIMITS).iter_rows(
            named=True
        ):
            tallies[(second, row["stage"])].add_summary(row)
        lost[second] += sum(headless(store, path, begin, end).values())
    return _with_headless(tallies, lost, stage)


def _with_headless(tallies: Tallies, lost: dict[int, int], stage: str | None) -> Tallies:
    """Give each step its headless messages; a step that has nothing else is still told of, by its end to end."""
    for second, n in lost.items():
        if not n:
            continue
        told = [one for (at, _), one in tallies.items() if at == second] or [tallies[(second, stage or END_TO_END)]]
        for one in told:
            one.headless = n
    return tallies


def from_messages(store: Store, path: Path, from_s: int, to_s: int) -> Tallies:
    """The same from stored messages, for `analytics.verify`."""
    tallies: Tallies = defaultdict(Tally)
    params = {**counts.parameters(path), "level": 10, "from_s": from_s, "to_s": to_s, "rollup": ""}
    where = "rollup = {rollup:String}"
    for name, _, bucket, n in store.query(counts.bucket_counts_sql(path, _MESSAGES, where), params).iter_rows():
        tallies[(from_s, name)].buckets[bucket] += n
    for row in store.query(counts.summary_sql(path, _MESSAGES, where), params).iter_rows(named=True):
        tallies[(from_s, row["stage"])].add_summary(row)
    return tallies


def extent(store: Store, path: str) -> tuple[int, int] | None:
    """The range, in seconds, of everything that windows of `path` hold; None when there are none."""
    row = store.query(
        "SELECT count() AS n, toUInt32(min(window)) AS a, max(toUInt32(window) + level) AS b FROM windows"
        " WHERE path = {path:String} AND level > 0",
        {"path": path},
    ).row(0)
    return (row[1], row[2]) if row[0] else None


def _pieces(from_ns: int, to_ns: int, step_s: int | None) -> Iterator[tuple[int, int, int]]:
    at = from_ns
    while at < to_ns:
        end = min(to_ns, (at // (RAW_STEP_S * NS) + 1) * RAW_STEP_S * NS)
        second = from_ns // NS
        if step_s is not None:
            second = at // (step_s * NS) * step_s
            end = min(end, (second + step_s) * NS)
        yield at, end, second
        at = end


def _usable(store: Store, path: str, coarse: tuple[int, ...], from_s: int, to_s: int) -> dict[int, list[int]]:
    """The starts of the coarse windows, per level, that say all that their 10 s windows say."""
    found: dict[int, list[int]] = {level: [] for level in coarse}
    asked = [level for level in coarse if -(-from_s // level) * level < to_s // level * level]
    if asked:
        sql = " UNION ALL ".join(_FRESH.replace("{level:UInt16}", str(level)) for level in asked)
        for level, window in store.query(sql, {"path": path, "from_s": from_s, "to_s": to_s}).iter_rows():
            found[int(level)].append(int(window))
    return found


_CURRENT = f"generation IN ({CURRENT})"

# Coarse windows that include every generation of their fine ones; where no fine one is kept any more, they stand.
_FRESH = """
SELECT {level:UInt16} AS level_s, toUInt32(toStartOfInterval(window, toIntervalSecond({level:UInt16}))) AS w
FROM windows
WHERE path = {path:String} AND level IN (10, {level:UInt16})
    AND window >= toDateTime(intDiv({from_s:UInt32} + {level:UInt16} - 1, {level:UInt16}) * {level:UInt16}, 'UTC')
    AND window < toDateTime(intDiv({to_s:UInt32}, {level:UInt16}) * {level:UInt16}, 'UTC')
GROUP BY w
HAVING countIf(level != 10) > 0 AND argMaxIf(basis, generation, level != 10) >= maxIf(generation, level = 10)
"""

_RANGE = """path = {path:String} AND level = {level:UInt16} AND rollup = {rollup:String}
    AND window >= toDateTime({from_s:UInt32}, 'UTC') AND window < toDateTime({to_s:UInt32}, 'UTC')
    AND ({stage:String} = '' OR stage = {stage:String})"""
_ONLY_CURRENT = f" AND {_CURRENT}"
_SECOND = "{origin:UInt32} + intDiv(toUInt32(window) - {origin:UInt32}, {step:UInt32}) * {step:UInt32}"

_BUCKETS = f"""
SELECT toInt64({_SECOND}) AS second, stage, bucket, sum(n) AS count FROM stage_counts WHERE {_RANGE}{_ONLY_CURRENT}
GROUP BY second, stage, bucket
"""  # noqa: S608 - fixed text

_SUMMARIES = f"""
SELECT toInt64({_SECOND}) AS second, stage, countIf(good) AS current, countIf(NOT good) AS stray,
    {", ".join(f"sumIf(w.{name}, good) AS {name}" for name in _SUMS)},
    minIf(w.min_ns, good AND w.n > 0) AS min_ns, maxIf(w.max_ns, good AND w.n > 0) AS max_ns,
    maxIf(w.max_error_ns, good) AS max_error_ns
FROM (SELECT *, {_CURRENT} AS good FROM stage_windows WHERE {_RANGE}) AS w
GROUP BY second, stage
"""  # noqa: S608 - fixed text

# A provisional and a final row of one generation say the same.
_HEADLESS = f"""
SELECT toInt64({_SECOND}) AS second, sum(n) AS headless FROM (
    SELECT window, argMax(headless, generation) AS n FROM windows
    WHERE path = {{path:String}} AND level = {{level:UInt16}}
        AND window >= toDateTime({{from_s:UInt32}}, 'UTC') AND window < toDateTime({{to_s:UInt32}}, 'UTC')
    GROUP BY window
) GROUP BY second HAVING headless > 0
"""  # noqa: S608 - fixed text

_MESSAGES = f"""SELECT * FROM messages WHERE path = {{path:String}}
    AND window >= toDateTime({{from_s:UInt32}}, 'UTC') AND window < toDateTime({{to_s:UInt32}}, 'UTC') AND {_CURRENT}"""  # noqa: S608 - fixed text, values are bound

__all__ = ["Tallies", "Tally", "extent", "from_messages", "raw", "stored", "widen"]
