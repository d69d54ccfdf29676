"""`objective_counts` in the store: recounts for the time before an objective existed, coarse levels, and reading.

Of several rows of a window the one of the largest generation counts; each is a whole answer, so that a killed writer
leaves nothing half.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from analytics import buckets
from analytics.paths import Path
from analytics.slo.calendars import SloCalendar, closed_windows
from analytics.slo.counting import COLUMNS, counted_path, statements
from analytics.slo.indicators import Latency
from analytics.slo.objectives import Objective
from analytics.slo.sums import Ints, Named, Sums
from collector.store import Store
from collector.store.blocks import from_rows
from collector.store.schema import table_types

LEVELS = (60, 3600)
_CHUNK_S = 6 * 3_600
_LOAD_S = {10: 3_600, 60: 86_400, 3_600: 10 * 86_400}  # how much of a level one query loads

_CURRENT_MESSAGES = """SELECT * FROM messages WHERE path = {path:String}
    AND window >= toDateTime({from_s:UInt32}, 'UTC') AND window < toDateTime({to_s:UInt32}, 'UTC')
    AND (window, generation) IN (
        SELECT window, max(generation) FROM windows WHERE path = {path:String} AND level = 10
            AND window >= toDateTime({from_s:UInt32}, 'UTC') AND window < toDateTime({to_s:UInt32}, 'UTC')
        GROUP BY window
    )"""

_LEVEL = """
INSERT INTO objective_counts (objective, version, level, window, generation, good, total, uncertain)
SELECT objective, version, {level:UInt16}, toDateTime(start, 'UTC'), {generation:UInt64}, sum(g), sum(t), sum(u)
FROM (
    SELECT objective, version, toUInt32(window) - toUInt32(window) % {level:UInt16} AS start,
        argMax(good, generation) AS g, argMax(total, generation) AS t, argMax(uncertain, generation) AS u
    FROM objective_counts
    WHERE level = 10 AND window >= toDateTime({from_s:UInt32}, 'UTC') AND window < toDateTime({to_s:UInt32}, 'UTC')
        AND start IN {starts:Array(UInt32)}
    GROUP BY objective, version, window
)
GROUP BY objective, version, start
"""

_ROWS = """
SELECT toString(objective) AS name, version, toUInt32(window) AS start, argMax(good, generation) AS good,
    argMax(total, generation) AS total, argMax(uncertain, generation) AS uncertain
FROM objective_counts
WHERE level = {level:UInt16} AND window >= toDateTime({from_s:UInt32}, 'UTC')
    AND window < toDateTime({to_s:UInt32}, 'UTC') AND written >= toDateTime({written_s:UInt32}, 'UTC')
    AND ({name:String} = '' OR objective = {name:String})
GROUP BY name, version, start
"""

_HELD = """
SELECT toString(objective) AS name, version, toUInt32(window) AS start, argMax(good, generation) AS good,
    argMax(total, generation) AS total, argMax(uncertain, generation) AS uncertain
FROM objective_counts
WHERE level = 10 AND objective IN {names:Array(String)} AND window >= toDateTime({from_s:UInt32}, 'UTC')
    AND window < toDateTime({to_s:UInt32}, 'UTC')
GROUP BY name, version, start
"""

_BUCKETS = """
SELECT toUInt32(window) AS start, sumIf(n, bucket < {cut:Int16}) AS good, sum(n) AS total,
    sumIf(n, bucket = {cut:Int16}) AS cut
FROM stage_counts
WHERE path = {path:String} AND level = {level:UInt16} AND stage = {stage:String} AND rollup = {rollup:String}
    AND window >= toDateTime({from_s:UInt32}, 'UTC') AND window < toDateTime({to_s:UInt32}, 'UTC')
    AND (window, generation) IN (
        SELECT window, max(generation) FROM windows WHERE path = {path:String} AND level = {level:UInt16}
            AND window >= toDateTime({from_s:UInt32}, 'UTC') AND window < toDateTime({to_s:UInt32}, 'UTC')
        GROUP BY window
    )
GROUP BY start
"""

_UNFINISHED = """
SELECT toUInt32(window) AS start, sum(unfinished) AS n FROM stage_windows
WHERE path = {path:String} AND level = {level:UInt16} AND stage = {stage:String} AND rollup = {rollup:String}
    AND window >= toDateTime({from_s:UInt32}, 'UTC') AND window < toDateTime({to_s:UInt32}, 'UTC')
    AND (window, generation) IN (
        SELECT window, max(generation) FROM windows WHERE path = {path:String} AND level = {level:UInt16}
            AND window >= toDateTime({from_s:UInt32}, 'UTC') AND window < toDateTime({to_s:UInt32}, 'UTC')
        GROUP BY window
    )
GROUP BY start HAVING n > 0
"""


@dataclass(frozen=True, slots=True)
class Row:
    """Good and total of an objective in one window (start, epoch seconds)."""

    objective: str
    version: int
    level: int
    window: int
    good: int
    total: int
    uncertain: int = 0


def insert(store: Store, rows: Sequence[Row], generation: int) -> None:
    """Rows that were counted outside the engine, as one insert."""
    if not rows:
        return
    block = from_rows(
        table_types()["objective_counts"],
        [
            {
                "objective": r.objective, "version": r.version, "level": r.level, "window": r.window,
                "generation": generation, "good": r.good, "total": r.total, "uncertain": r.uncertain,
            }
            for r in rows
        ],
    )  # fmt: skip
    first = rows[0]
    store.insert(
        "objective_counts",
        block,
        token=f"objectives#{generation}#{first.objective}#{first.version}#{first.level}#{first.window}",
    )


def different(store: Store, objectives: Sequence[Objective], rows: Sequence[Row], from_s: int, to_s: int) -> list[Row]:
    """Those of `rows`, the whole of [from_s, to_s), that the store does not hold so, and zeros for what is no more."""
    params = {"names": [one.name for one in objectives], "from_s": from_s, "to_s": to_s}
    held = {
        (name, version, start): (good, total, unsure)
        for name, version, start, good, total, unsure in store.query(_HELD, params).iter_rows()
    }
    given = {(row.objective, row.version, row.window): row for row in rows}
    changed = [row for key, row in given.items() if held.get(key, (0, 0, 0)) != (row.good, row.total, row.uncertain)]
    versions = {one.name: one.version for one in objectives}
    gone = [
        Row(name, version, 10, start, 0, 0)
        for (name, version, start), cell in held.items()
        if (name, version, start) not in given and versions[name] == version and any(cell)
    ]
    return changed + gone


def recount(
    store: Store,
    path: Path,
    objectives: Sequence[Objective],
    calendars: Mapping[str, SloCalendar],
    from_s: int,
    to_s: int,
) -> None:
    """Count [from_s, to_s) of a path's objectives again, exactly, from the stored messages of committed windows.

    The rows get their window's own generation, so that the window job's next one replaces them.
    """
    for start in range(from_s - from_s % 10, to_s, _CHUNK_S):
        end = min(to_s, start + _CHUNK_S)
        closed = {name: closed_windows(calendars, name, start, end) for name in {o.hours for o in objectives}}
        for one in statements(path, objectives, _CURRENT_MESSAGES, closed):
            store.execute(
                f"INSERT INTO objective_counts ({', '.join(COLUMNS)}) {one.sql}",
                {"path": path.name, "from_s": start, "to_s": end, **one.params},
            )


def message_rows(
    store: Store,
    path: Path,
    objectives: Sequence[Objective],
    calendars: Mapping[str, SloCalendar],
    from_s: int,
    to_s: int,
) -> list[Row]:
    """What `recount` would store of [from_s, to_s), and nothing is stored."""
    rows: list[Row] = []
    for start in range(from_s - from_s % 10, to_s, _CHUNK_S):
        end = min(to_s, start + _CHUNK_S)
        closed = {name: closed_windows(calendars, name, start, end) for name in {o.calendar for o in objectives}}
        for one in statements(path, objectives, _CURRENT_MESSAGES, closed):
            sql = (
                "SELECT toString(objective), version, toUInt32(window), good, total, uncertain "  # noqa: S608 - text of ours
                f"FROM ({one.sql}) WHERE total > 0"
            )
            params = {"path": path.name, "from_s": start, "to_s": end, **one.params}
            rows += [Row(name, v, 10, w, g, t, u) for name, v, w, g, t, u in store.query(sql, params).iter_rows()]
    return rows


def count_buckets(
    store: Store,
    one: Objective,
    calendars: Mapping[str, SloCalendar],
    level: int,
    from_s: int,
    to_s: int,
    generation: int,
) -> int:
    """Store the windows that `bucket_rows` counts; how many."""
    rows = bucket_rows(store, one, calendars, level, from_s, to_s)
    insert(store, rows, generation)
    return len(rows)


def bucket_rows(
    store: Store, one: Objective, calendars: Mapping[str, SloCalendar], level: int, from_s: int, to_s: int
) -> list[Row]:
    """Count windows of `level` in [from_s, to_s) from stored buckets, for the time whose messages are gone.

    Exact but for the bucket that the threshold cuts, which counts as `uncertain`. Only latencies have
    buckets. Windows that the calendar does not have open from beginning to end are left out.
    """
    indicator = one.indicator
    path = counted_path(indicator)
    if not isinstance(indicator, Latency) or path is None:
        return []
    cut = int(buckets.index(indicator.threshold_ns))
    whole = int(buckets.high(cut)) == indicator.threshold_ns  # the bucket ends at the threshold: all of it is good
    params = {
        "path": path, "level": level, "stage": indicator.stage, "rollup": indicator.rollup, "from_s": from_s,
        "to_s": to_s, "cut": cut,
    }  # fmt: skip
    late = {}
    if indicator.unfinished_bad:
        late = dict(store.query(_UNFINISHED, params).select("start", "n").iter_rows())
    found = {s: (g, t, c) for s, g, t, c in store.query(_BUCKETS, params).iter_rows()}
    rows = []
    for start in sorted(found.keys() | late.keys()):
        if one.hours and closed_windows(calendars, one.hours, start, start + level):
            continue
        good, total, at_cut = found.get(start, (0, 0, 0))
        surely = good + at_cut if whole else good
        total += late.get(start, 0)
        rows.append(Row(one.name, one.version, level, start, surely, total, 0 if whole else at_cut))
    return rows


def touched(store: Store, since_s: int) -> list[int]:
    """The 10 s windows that have rows written from `since_s` on, ascending."""
    rows = store.query(
        "SELECT DISTINCT toUInt32(window) AS w FROM objective_counts "
        "WHERE level = 10 AND written >= toDateTime({since:UInt32}, 'UTC') ORDER BY w",
        {"since": max(0, since_s)},
    )
    return [int(w) for w in rows["w"]]


def sum_levels(store: Store, windows: Iterable[int], now_s: int, generation: int) -> list[tuple[int, int]]:
    """Write the coarse windows that hold some of `windows` and are over; returns (level, start) of each."""
    given = sorted(set(windows))
    done: list[tuple[int, int]] = []
    for level in LEVELS:
        starts = sorted({w - w % level for w in given if w - w % level + level <= now_s})
        while starts:
            some = [s for s in starts if s < starts[0] + 4 * _CHUNK_S]
            params = {
                "level": level, "generation": generation, "starts": some, "from_s": some[0], "to_s": some[-1] + level,
            }  # fmt: skip
            store.execute(_LEVEL, params)
            done += [(level, s) for s in some]
            starts = starts[len(some) :]
    return done


def last_summed_s(store: Store) -> int:
    """When a coarse row was last written, epoch seconds; 0 without any."""
    rows = store.query("SELECT toUInt32(max(written)) AS w FROM objective_counts WHERE level = 3600")
    return int(rows["w"][0] or 0)


def clock_s(store: Store) -> int:
    """The store's clock, epoch seconds: `written` is by it."""
    return int(store.query("SELECT toUInt32(now()) AS n")["n"][0])


def newest_generation(store: Store) -> int:
    """The largest generation of any row; 0 without any."""
    return int(store.query("SELECT max(generation) AS g FROM objective_counts")["g"][0] or 0)


def newest_s(store: Store, names: Sequence[str]) -> int:
    """Start of the newest 10 s window that has a row of one of `names`, epoch seconds; 0 without any."""
    rows = store.query(
        "SELECT toUInt32(max(window)) AS w FROM objective_counts "
        "WHERE level = 10 AND objective IN {names:Array(String)}",
        {"names": list(names)},
    )
    return int(rows["w"][0] or 0) if names else 0


def rows_of(
    store: Store, level: int, from_s: int, to_s: int, *, written_s: int = 0, name: str = ""
) -> tuple[Named, Ints, Ints, Ints]:
    """Names, versions, starts and (good, total, uncertain) of the current rows of a level in [from_s, to_s)."""
    params = {"level": level, "from_s": max(0, from_s), "to_s": to_s, "written_s": max(0, written_s), "name": name}
    frame = store.query(_ROWS, params)
    values = np.stack([frame[c].to_numpy().astype(np.int64) for c in ("good", "total", "uncertain")], axis=1)
    different = frame["name"].unique().sort().to_list()
    codes = frame["name"].cast(pl.Enum(different)).to_physical() if different else pl.Series([], dtype=pl.Int64)
    names = Named(different, codes.to_numpy().astype(np.int64))
    return (
        names,
        frame["version"].to_numpy().astype(np.int64),
        frame["start"].to_numpy().astype(np.int64),
        values,
    )


def load(store: Store, sums: Sums, versions: Mapping[str, int], *, name: str = "") -> None:
    """Fill the rings of `sums` from the store, level by level, in pieces that stay small."""
    for level, step in _LOAD_S.items():
        start, end = sums.reach(level)
        for at in range(start, end, step):
            names, of, starts, values = rows_of(store, level, at, min(at + step, end), name=name)
            keep = _current(names, of, versions)
            sums.load(level, names.take(keep), starts[keep], values[keep])
    _unsummed(store, sums, versions, name)


def refresh(store: Store, sums: Sums, versions: Mapping[str, int], since_s: int) -> None:
    """Put what was written from `since_s` on into the sums: new and corrected windows of 10 s."""
    start, end = sums.reach(10)
    names, of, starts, values = rows_of(store, 10, start, end, written_s=since_s)
    keep = _current(names, of, versions)
    sums.put(names.take(keep), starts[keep], values[keep])


def reload(store: Store, sums: Sums, versions: Mapping[str, int], coarse: Sequence[tuple[int, int]]) -> None:
    """Load coarse windows anew that lie before the ring of 10 s, where corrections do not reach them otherwise."""
    fine = sums.reach(10)[0]
    for level, start in coarse:
        if start + level <= fine:
            names, of, starts, values = rows_of(store, level, start, start + level)
            keep = _current(names, of, versions)
            sums.load(level, names.take(keep), starts[keep], values[keep])


def _unsummed(store: Store, sums: Sums, versions: Mapping[str, int], name: str) -> None:
    """Coarse cells whose windows are not over have no rows yet: sum them from 10 s."""
    _, end = sums.reach(10)
    for level in LEVELS:
        start = end - end % level - level  # the one before may not have been summed yet either
        names, of, starts, values = rows_of(store, 10, start, end, name=name)
        keep = _current(names, of, versions)
        cells = starts[keep] - starts[keep] % level
        keys = names.codes[keep] * (1 << 40) + cells
        different, where = np.unique(keys, return_inverse=True)
        total = np.zeros((len(different), 3), np.int64)
        np.add.at(total, where, values[keep])
        if len(different):
            sums.load(level, Named(names.names, different >> 40), different & ((1 << 40) - 1), total)


def _current(names: Named, of: Ints, versions: Mapping[str, int]) -> Ints:
    """The places of the rows that belong to the objectives' present versions."""
    wanted = np.array([versions.get(name, -1) for name in names.names], np.int64)
    return np.flatnonzero(wanted[names.codes] == of) if len(of) else np.zeros(0, np.int64)


def window_statement(name: str, version: int, start_s: int, end_s: int) -> str:
    """The statement that gives good, total and uncertain events of [start_s, end_s), for people to run.

    As the evaluation, it is exact to 10 s up to 6 h; the beginning of a longer window is rounded down to the minute,
    beyond 4 d to the hour.
    """
    span = end_s - start_s
    coarse = 0 if span <= 6 * 3_600 else 60 if span <= 4 * 86_400 else 3_600
    cut = start_s if not coarse else end_s // coarse * coarse
    parts = [f"level = 10 AND window >= toDateTime({cut}, 'UTC') AND window < toDateTime({end_s}, 'UTC')"]
    if coarse:
        first = start_s // coarse * coarse
        parts.append(f"level = {coarse} AND window >= toDateTime({first}, 'UTC') AND window < toDateTime({cut}, 'UTC')")
    quoted = name.replace("\\", "\\\\").replace("'", "\\'")
    return (
        "SELECT sum(g) AS good, sum(t) AS total, sum(u) AS uncertain FROM ("  # noqa: S608 - quoted above; nobody here runs it
        "SELECT argMax(good, generation) AS g, argMax(total, generation) AS t, argMax(uncertain, generation) AS u "
        f"FROM objective_counts WHERE objective = '{quoted}' AND version = {version} "
        f"AND ({' OR '.join(f'({part})' for part in parts)}) GROUP BY level, window)"
    )
