"""Levels 60 and 3600: sums of the current generations of level 10, with generations of their own.

A coarse window says which generation of its 10 s windows it was computed up to (`basis`): while a finer one is newer it
is stale, and readers sum the finer ones instead, so that every level gives the same answer at any moment.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analytics.due import NS, Touched
from analytics.generations import CURRENT, Generations
from analytics.runs import WindowDone
from analytics.window_settings import WindowSettings
from collector.store import Store

if TYPE_CHECKING:
    from analytics.paths import Path

COARSE = (60, 3600)
SPAN_S = 6 * 3600  # how much of level 10 one statement sums


@dataclass(frozen=True, slots=True)
class Sum:
    """A coarse window to sum: its start in seconds, its newest fine generation, whether all fine ones are final."""

    start: int
    newest: int
    final: bool


# Per coarse window of a level: newest fine generation, whether all fine ones are final; its own basis, state and age.
STATE = """
SELECT toUInt32(toStartOfInterval(window, toIntervalSecond({level:UInt16}))) AS w,
    maxIf(generation, level = 10) AS newest,
    uniqExactIf(window, level = 10) = uniqExactIf(window, level = 10 AND state = 'final') AS all_final,
    argMaxIf(basis, (generation, state), level != 10) AS known,
    argMaxIf(state, (generation, state), level != 10) = 'final' AS final,
    toUnixTimestamp64Nano(argMaxIf(computed, (generation, state), level != 10)) AS at
FROM windows
WHERE path = {path:String} AND level IN (10, {level:UInt16})
    AND window >= toDateTime({from_s:UInt32}, 'UTC') AND window < toDateTime({to_s:UInt32}, 'UTC')
GROUP BY w ORDER BY w
"""


def run_due(
    store: Store,
    path: Path,
    windows: list[Touched],
    waiting: Iterable[int],
    generations: Generations,
    settings: WindowSettings,
    now_ns: int,
    span_s: int = SPAN_S,
) -> list[WindowDone]:
    """Sum the coarse windows that are over and whose fine `windows` have changed; none may be `waiting`.

    A statement sums `span_s` of them.
    """
    done: list[WindowDone] = []
    open_windows = set(waiting)
    for level in COARSE:
        blocked = {w - w % level for w in open_windows}
        least_age = settings.rerun_after_ns * level // 60
        todo = []
        for start, newest, all_final, known, final, at in _states(store, path.name, level, windows):
            if start in blocked or now_ns < (start + level) * NS + path.reach_ns or newest == 0:
                continue
            stale = known < newest
            if (stale and now_ns >= at + least_age) or (all_final and not final):
                todo.append(Sum(start, newest, bool(all_final)))
        done += sum_windows(store, path.name, level, todo, generations, now_ns, span_s)
    return done


def fresh(store: Store, path: str, windows: list[Touched]) -> set[int]:
    """The 10 s windows whose coarse windows all include their current generation."""
    found = {w.window for w in windows}
    for level in COARSE:
        good = {w for w, newest, _, known, _, _ in _states(store, path, level, windows) if known >= newest > 0}
        found = {w for w in found if w - w % level in good}
    return found


def sum_windows(
    store: Store,
    path: str,
    level: int,
    todo: Sequence[Sum],
    generations: Generations,
    now_ns: int,
    span_s: int = SPAN_S,
) -> list[WindowDone]:
    """Write coarse windows, in order, from the current generations of their 10 s windows, and commit them."""
    done: list[WindowDone] = []
    while todo:
        some = [one for one in todo if one.start + level <= todo[0].start + max(level, span_s)]
        done += _sum(store, path, level, some, generations.take(len(some)), now_ns)
        todo = todo[len(some) :]
    return done


def _sum(
    store: Store, path: str, level: int, todo: Sequence[Sum], generations: list[int], now_ns: int
) -> list[WindowDone]:
    started = time.perf_counter()
    params = {
        "path": path, "level": 10, "coarse": level, "now": now_ns,
        "from_s": todo[0].start, "to_s": todo[-1].start + level, "starts": [one.start for one in todo],
        "generations": generations, "bases": [one.newest for one in todo], "finals": [int(one.final) for one in todo],
    }  # fmt: skip
    for statement in (_SUM_WINDOWS, _SUM_COUNTS, _COMMIT):
        store.execute(statement, params)
    rows = store.query(_READ, params)
    found = {row.pop("generation"): row for row in rows.iter_rows(named=True)}
    seconds = (time.perf_counter() - started) / len(todo)
    return [
        WindowDone(
            path=path, level=level, window_ns=one.start * NS, generation=generation,
            state="final" if one.final else "provisional", why="level", **found[generation], seconds=seconds,
        )
        for one, generation in zip(todo, generations, strict=True)
    ]  # fmt: skip


def _states(store: Store, path: str, level: int, windows: list[Touched]) -> list[tuple[int, int, int, int, int, int]]:
    first, last = windows[0].window, windows[-1].window
    return store.query(
        STATE,
        {"path": path, "level": level, "from_s": first - first % level, "to_s": last - last % level + level},
    ).rows()


_READ = """
SELECT generation, messages, finished, unfinished, headless, stamps FROM windows
WHERE path = {path:String} AND level = {coarse:UInt16} AND generation IN {generations:Array(UInt64)}
LIMIT 1 BY generation
"""
_START = "intDiv(toUInt32(window), {coarse:UInt16}) * {coarse:UInt16}"
_HEAD = """{path:String}, {coarse:UInt16}, toDateTime(w, 'UTC'),
    transform(w, {starts:Array(UInt32)}, {generations:Array(UInt64)}, toUInt64(0))"""
_FINE = f"""path = {{path:String}} AND level = 10
    AND window >= toDateTime({{from_s:UInt32}}, 'UTC') AND window < toDateTime({{to_s:UInt32}}, 'UTC')
    AND {_START} IN {{starts:Array(UInt32)}} AND generation IN ({CURRENT})"""

_SUM_COUNTS = f"""
INSERT INTO stage_counts (path, level, window, generation, stage, rollup, bucket, n)
SELECT {_HEAD}, stage, rollup, bucket, sum(n) FROM (
    SELECT toUInt32({_START}) AS w, stage, rollup, bucket, n FROM stage_counts WHERE {_FINE}
) GROUP BY w, stage, rollup, bucket
"""  # noqa: S608 - fixed text

_SUM_WINDOWS = f"""
INSERT INTO stage_windows (path, level, window, generation, stage, rollup, n, unfinished, missing, negative,
    below_resolution, error_unknown, repeated, sum_ns, min_ns, max_ns, max_error_ns)
SELECT {_HEAD}, stage, rollup, sum(f.n), sum(f.unfinished), sum(f.missing), sum(f.negative), sum(f.below_resolution),
    sum(f.error_unknown), sum(f.repeated), sum(f.sum_ns), minIf(f.min_ns, f.n > 0), maxIf(f.max_ns, f.n > 0),
    max(f.max_error_ns)
FROM (SELECT toUInt32({_START}) AS w, * FROM stage_windows WHERE {_FINE}) AS f GROUP BY w, stage, rollup
"""  # noqa: S608 - fixed text

_COMMIT = f"""
INSERT INTO windows (path, level, window, generation, state, messages, finished, unfinished, headless, stamps,
    completeness, basis, computed)
SELECT {_HEAD},
    if(transform(w, {{starts:Array(UInt32)}}, {{finals:Array(UInt8)}}, toUInt8(0)) = 1, 'final', 'provisional'),
    sum(f.messages), sum(f.finished), sum(f.unfinished), sum(f.headless), sum(f.stamps),
    if(countIf(f.completeness IS NULL) > 0, NULL,
       if(sum(f.stamps) = 0, 1., sum(f.completeness * f.stamps) / sum(f.stamps))),
    transform(w, {{starts:Array(UInt32)}}, {{bases:Array(UInt64)}}, toUInt64(0)),
    fromUnixTimestamp64Nano({{now:Int64}}, 'UTC')
FROM (SELECT toUInt32({_START}) AS w, * FROM windows WHERE {_FINE} ORDER BY generation LIMIT 1 BY window) AS f
GROUP BY w
"""  # noqa: S608 - fixed text
