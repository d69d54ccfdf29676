"""The recorded counts of objectives, in force or not: stored ones where there are any, else counted without storing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from analytics.completeness import completeness
from analytics.kpis import KpiDefinition
from analytics.paths import Path
from analytics.slo import sources, stored
from analytics.slo.backtest import NS
from analytics.slo.calendars import SloCalendar
from analytics.slo.counting import by_path, counted_path
from analytics.slo.evaluate import ARRIVAL
from analytics.slo.indicators import Combined, Gauge, Indicator, Kpi, Latency, Maximum
from analytics.slo.objectives import Objective
from analytics.slo.recorded import LEVELS, Levels, Recorded, filled
from analytics.slo.sums import HOUR_S
from collector.store import Store

_CHUNK_S = 6 * HOUR_S


@dataclass(frozen=True, slots=True)
class World:
    """What counting needs beside the objectives."""

    store: Store
    paths: Mapping[str, Path]
    calendars: Mapping[str, SloCalendar]
    kpis: Mapping[str, KpiDefinition]
    now_ns: int


@dataclass(frozen=True, slots=True)
class History:
    """Recorded counts, ready to be replayed. `rough_s`: how many seconds are known by the minute or hour only;
    `stored`: which objectives' counts are those that the server judged."""

    sums: Recorded
    rough_s: int
    stored: frozenset[str]


def history(
    world: World, objectives: Sequence[Objective], from_s: int, to_s: int, *, back_s: int, fresh: bool = False
) -> History:
    """Counts of [from_s - back_s, to_s) of some objectives. `fresh`: without those that are stored.

    Raises StoreError, and ConfigError for a calendar that is not declared.
    """
    first_s = (from_s - back_s) // HOUR_S * HOUR_S
    reach_s = to_s - first_s
    levels: dict[str, Levels] = {}
    kept: set[str] = set()
    for one in objectives:
        found = {} if fresh else _stored(world.store, one, first_s, to_s)
        if found:
            levels[one.name] = found
            kept.add(one.name)
    levels |= _counted(world, [one for one in objectives if one.name not in kept], first_s, to_s)
    arrays, rough_s = [], 0
    for one in objectives:
        cells, rough = filled(levels.get(one.name, {}), first_s, to_s)
        arrays.append(cells)
        rough_s = max(rough_s, rough)
    arrays.append(_arrival(world, from_s, first_s, to_s))
    names = [*(one.name for one in objectives), ARRIVAL]
    return History(Recorded(names, first_s, np.stack(arrays), reach_s), rough_s, frozenset(kept))


def _stored(store: Store, one: Objective, first_s: int, to_s: int) -> Levels:
    found = {}
    for level in LEVELS:
        _, versions, starts, values = stored.rows_of(store, level, first_s, to_s, name=one.name)
        mine = versions == one.version
        if mine.any():
            found[level] = (starts[mine], values[mine])
    return found


def _counted(world: World, some: Sequence[Objective], first_s: int, to_s: int) -> dict[str, Levels]:
    rows: list[stored.Row] = []
    if not some:
        return {}
    for name, mine in by_path(some).items():
        if name in world.paths:
            rows += stored.message_rows(world.store, world.paths[name], mine, world.calendars, first_s, to_s)
        for one in mine:
            for level in (60, 3_600):
                rows += stored.bucket_rows(world.store, one, world.calendars, level, first_s, to_s)
    rest = [one for one in some if counted_path(one.indicator) is None]
    # Business values are few, and each statement reads through all of them.
    values = [one for one in rest if isinstance(one.indicator, Kpi)]
    for part, chunk_s in ((values, 10 * 86_400), ([one for one in rest if one not in values], 86_400)):
        for start in range(first_s, to_s, chunk_s) if part else ():
            end = min(to_s, start + chunk_s)
            rows += sources.count(world.store, part, world.calendars, start, end, world.now_ns, world.kpis)
    found: dict[str, dict[int, tuple[list[int], list[tuple[int, int, int]]]]] = {}
    for row in rows:
        windows, cells = found.setdefault(row.objective, {}).setdefault(row.level, ([], []))
        windows.append(row.window)
        cells.append((row.good, row.total, row.uncertain))
    return {
        name: {
            level: (np.array(starts, np.int64), np.array(values, np.int64)) for level, (starts, values) in by.items()
        }
        for name, by in found.items()
    }


def _arrival(world: World, from_s: int, first_s: int, to_s: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Events arrived of those produced: as far back as a server looks that starts at `from_s`."""
    cells = np.zeros(((to_s - first_s) // 10, 3), np.int64)
    for start in range(max(first_s, from_s - _CHUNK_S), to_s, 86_400):
        end = min(to_s, start + 86_400)
        for one in completeness(world.store, start * NS, end * NS, 10, now_ns=world.now_ns):
            if one.produced:
                cells[(one.from_ns // NS - first_s) // 10] = (one.produced - one.missing, one.produced, 0)
    return cells


def threshold_of(one: Indicator) -> float | None:
    """The value that events are compared with, None where there is none."""
    if isinstance(one, Latency | Maximum):
        return float(one.threshold_ns)
    if isinstance(one, Gauge) or (isinstance(one, Kpi) and one.op is not None):
        return one.value
    return None


def with_threshold(one: Objective, value: float, number: int) -> Objective:
    """The objective with another threshold, under a name of its own."""
    indicator = one.indicator
    if isinstance(indicator, Latency | Maximum):
        indicator = replace(indicator, threshold_ns=round(value))
    elif isinstance(indicator, Gauge | Kpi):
        indicator = replace(indicator, value=value)
    rules = tuple(rule for rule in one.rules if all(not over.objective for over in rule.overs))
    return replace(one, name=f"{one.name}#{number}", indicator=indicator, rules=rules)


_RANGES = {
    "messages": "SELECT min(v) AS low, max(v) AS high FROM (SELECT {value} AS v FROM messages WHERE path = "
    "{{name:String}} AND window >= toDateTime({{from_s:UInt32}}, 'UTC') "
    "AND window < toDateTime({{to_s:UInt32}}, 'UTC') AND {value} > 0)",
    "gauges": "SELECT min(value) AS low, max(value) AS high FROM gauges WHERE name = {{name:String}} "
    "AND ts >= toDateTime({{from_s:UInt32}}, 'UTC') AND ts < toDateTime({{to_s:UInt32}}, 'UTC')",
    "kpis": "SELECT min(value) AS low, max(value) AS high FROM (SELECT name, ts, value FROM kpis UNION ALL "
    "SELECT name, ts, value FROM message_kpis) WHERE name = {{name:String}} "
    "AND ts >= toDateTime({{from_s:UInt32}}, 'UTC') AND ts < toDateTime({{to_s:UInt32}}, 'UTC')",
}


def candidates(world: World, one: Objective, from_s: int, to_s: int, count: int) -> list[float]:
    """Thresholds to try: over the range that was recorded, evenly, for latencies in their logarithm. Empty: none."""
    indicator = one.indicator
    params = {"from_s": from_s, "to_s": to_s}
    if isinstance(indicator, Latency | Maximum):
        path = world.paths.get(indicator.path)
        if path is None or (indicator.stage not in path.stage_names and indicator.stage != "end_to_end"):
            return []
        number = path.stage_names.index(indicator.stage) + 1 if indicator.stage != "end_to_end" else 0
        sql = _RANGES["messages"].format(value=f"stage_ns[{number}]" if number else "e2e_ns")
        name = indicator.path
    elif isinstance(indicator, Gauge | Kpi):
        sql, name = _RANGES["gauges" if isinstance(indicator, Gauge) else "kpis"].format(), indicator.name
    else:
        return []
    low, high = world.store.query(sql, {**params, "name": name}).row(0)
    if low is None or high is None or not high > low:
        return []
    if isinstance(indicator, Latency | Maximum):
        return sorted({float(round(v)) for v in np.geomspace(max(1.0, low), high, count)})
    return [float(v) for v in np.linspace(low, high, count)]


def unrecorded(one: Objective) -> bool:
    """Whether it cannot be counted before it is in force: it joins sides of messages with others, window by window."""
    indicator = one.indicator
    return (
        isinstance(indicator, Combined)
        and counted_path(indicator) is None
        and any(counted_path(side) is not None for side in indicator.sides)
    )
