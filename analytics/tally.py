"""Reading counts: from stored windows of every level, or stitched anew from raw stamps, into one and the same form."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from analytics import asking, counts
from analytics.cover import Span, cover, widen
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
    spans, headless_of = tiles(store, path, from_s, to_s, levels) if level is None else ({level: ((from_s, to_s),)}, {})
    step = step_s or (to_s - from_s)
    origin = from_s if step_s is None else 0
    lost: dict[int, int] = defaultdict(int)
    # One step needs no arithmetic per row: a month of hours has millions of them.
    buckets_sql, days_sql, summaries_sql, headless_sql = (
        text.replace(_SECOND, "{origin:UInt32}").replace(_SECOND_OF_DAY, "{origin:UInt32}") if step_s is None else text
        for text in (_BUCKETS, _DAYS, _SUMMARIES, _HEADLESS)
    )
    pieces = [
        {
            "path": path, "level": at, "from_s": begin, "to_s": end, "step": step, "origin": origin,
            "stage": stage or "", "rollup": rollup, **_whole_days(at, begin, end, step_s),
        }
        for at, some in spans.items() for begin, end in some
    ]  # fmt: skip

    def all_generations(piece: dict[str, Any]) -> str:
        if piece["level"] == 10:
            return buckets_sql
        hours = buckets_sql.replace(_ONLY_CURRENT, "")
        if piece["day_from_s"] == piece["day_to_s"]:
            return hours
        whole = (piece["day_from_s"], piece["day_to_s"]) == (piece["from_s"], piece["to_s"])
        return days_sql if whole else f"{days_sql} UNION ALL {hours.replace(_STAGE, _STAGE + _OUTSIDE_DAYS)}"

    # Coarse windows rarely have a second generation, and filtering costs half of the query: count all rows first, then
    # see from the summaries, which are written before the counts, whether all were current.
    first = [_begin(store, all_generations(p), p) for p in pieces]
    unknown = [None if p["level"] in headless_of else _begin(store, headless_sql, p) for p in pieces]
    wait(first)
    told = [_begin(store, summaries_sql, p) for p in pieces]
    for params, counting, summing, missing in zip(pieces, first, told, unknown, strict=True):
        counted, summaries = counting.result(), summing.result()
        if params["level"] != 10 and 0 in summaries["good"].to_list():
            counted = store.query(buckets_sql, params)
        names = dict(summaries.select("stage_hash", "stage").iter_rows())
        for second, stage_hash, bucket, n in counted.iter_rows():
            tallies[(second, names[stage_hash])].buckets[bucket] += n
        for row in summaries.iter_rows(named=True):
            if row["good"]:
                tallies[(row["second"], row["stage"])].add_summary(row)
        for second, n in missing.result().iter_rows() if missing else ():
            lost[second] += n
    for of_windows in headless_of.values():
        for window, n in of_windows.items():
            lost[origin + (window - origin) // step * step] += n
    return _with_headless(tallies, lost, stage)


def _whole_days(level: int, begin: int, end: int, step_s: int | None) -> dict[str, int]:
    """The days of UTC that lie in a span of hours whole, where steps do not cut them; an empty range for none."""
    first, last = -(-begin // _DAY_S) * _DAY_S, end // _DAY_S * _DAY_S
    if level != 3600 or first >= last or (step_s or _DAY_S) % _DAY_S:
        first = last = begin
    return {"day_from_s": first, "day_to_s": last}


def _begin(store: Store, sql: str, params: dict[str, Any]) -> Future[pl.DataFrame]:
    return asking.begin(lambda: store.query(sql, params))


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
    buckets_sql = counts.bucket_counts_sql(path, _MESSAGES, where, uneven=True)
    for name, _, bucket, n in store.query(buckets_sql, params).iter_rows():
        tallies[(from_s, name)].buckets[bucket] += n
    for row in store.query(counts.summary_sql(path, _MESSAGES, where, uneven=True), params).iter_rows(named=True):
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


def tiles(
    store: Store, path: str, from_s: int, to_s: int, levels: tuple[int, ...]
) -> tuple[Mapping[int, tuple[Span, ...]], dict[int, dict[int, int]]]:
    """Per level the spans to sum: the coarsest level is asked first, a finer one only about what that leaves.

    And per coarse level the headless messages of the windows in its spans.
    """
    usable: dict[int, list[int]] = {}
    headless_of: dict[int, dict[int, int]] = {}
    begin, end = from_s, to_s
    for level in levels[:-1]:
        if -(-begin // level) * level < end // level * level:
            fresh = store.query(_FRESH, {"path": path, "level": level, "from_s": begin, "to_s": end})
            usable[level] = fresh["w"].to_list()
            headless_of[level] = dict(fresh.iter_rows())
        left = cover(from_s, to_s, usable, levels).spans[levels[-1]]
        if not left:
            break
        begin, end = left[0][0], left[-1][1]
    spans = cover(from_s, to_s, usable, levels).spans
    return spans, {
        level: {w: n for w, n in found.items() if any(a <= w < b for a, b in spans[level])}
        for level, found in headless_of.items()
    }


_CURRENT = f"generation IN ({CURRENT})"

# Coarse windows that include every generation of their fine ones; where no fine one is kept any more, they stand.
_FRESH = """
SELECT toUInt32(toStartOfInterval(window, toIntervalSecond({level:UInt16}))) AS w,
    argMaxIf(headless, generation, level != 10) AS lost
FROM windows
WHERE path = {path:String} AND level IN (10, {level:UInt16})
    AND window >= toDateTime(intDiv({from_s:UInt32} + {level:UInt16} - 1, {level:UInt16}) * {level:UInt16}, 'UTC')
    AND window < toDateTime(intDiv({to_s:UInt32}, {level:UInt16}) * {level:UInt16}, 'UTC')
GROUP BY w
HAVING countIf(level != 10) > 0 AND argMaxIf(basis, generation, level != 10) >= maxIf(generation, level = 10)
"""

_RANGE = """path = {path:String} AND level = {level:UInt16} AND rollup = {rollup:String}
    AND window >= toDateTime({from_s:UInt32}, 'UTC') AND window < toDateTime({to_s:UInt32}, 'UTC')
    AND """
_STAGE = "({stage:String} = '' OR stage = {stage:String})"
_RANGE += _STAGE
_ONLY_CURRENT = f" AND {_CURRENT}"
_SECOND = "{origin:UInt32} + intDiv(toUInt32(window) - {origin:UInt32}, {step:UInt32}) * {step:UInt32}"

# One number as the key of stage and bucket halves the cost; the summaries name the stages of the hashes.
_STAGE_HASH = "bitAnd(cityHash64(stage), 281474976710655)"
_BUCKETS = f"""
SELECT second, bitShiftRight(both, 16) AS stage_hash, toInt16(both) AS bucket, count FROM (
    SELECT toInt64({_SECOND}) AS second, bitOr(bitShiftLeft(cityHash64(stage), 16), toUInt16(bucket)) AS both,
        sum(n) AS count
    FROM stage_counts WHERE {_RANGE}{_ONLY_CURRENT} GROUP BY second, both
)
"""  # noqa: S608 - fixed text

# The same of whole days of hours, from the table's projection: its words must be those of the schema.
_DAY_S = 86_400
_DAY = "if(level = 3600, toUInt32(toStartOfDay(window)), 0)"
_DAY_STAGE = "if(level = 3600, cityHash64(stage), 0)"
_DAY_BUCKET = "if(level = 3600, bucket, 0)"
_SECOND_OF_DAY = f"{{origin:UInt32}} + intDiv({_DAY} - {{origin:UInt32}}, {{step:UInt32}}) * {{step:UInt32}}"
_DAYS = f"""
SELECT second, bitShiftRight(both, 16) AS stage_hash, toInt16(both) AS bucket, count FROM (
    SELECT toInt64({_SECOND_OF_DAY}) AS second,
        bitOr(bitShiftLeft({_DAY_STAGE}, 16), toUInt16({_DAY_BUCKET})) AS both, sum(n) AS count
    FROM stage_counts WHERE path = {{path:String}} AND level = 3600 AND rollup = {{rollup:String}}
        AND {_DAY} >= {{day_from_s:UInt32}} AND {_DAY} < {{day_to_s:UInt32}}
        AND ({{stage:String}} = '' OR {_DAY_STAGE} = cityHash64({{stage:String}}))
    GROUP BY second, both
)
"""  # noqa: S608 - fixed text
_OUTSIDE_DAYS = (
    " AND (window < toDateTime({day_from_s:UInt32}, 'UTC') OR window >= toDateTime({day_to_s:UInt32}, 'UTC'))"
)

_SUMMARIES = f"""
SELECT second, stage, {_STAGE_HASH} AS stage_hash, good, {", ".join(f"sum(w.{name}) AS {name}" for name in _SUMS)},
    minIf(w.min_ns, w.n > 0) AS min_ns, maxIf(w.max_ns, w.n > 0) AS max_ns, max(w.max_error_ns) AS max_error_ns
FROM (SELECT *, toInt64({_SECOND}) AS second, {_CURRENT} AS good FROM stage_windows WHERE {_RANGE}) AS w
GROUP BY second, stage, good
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
