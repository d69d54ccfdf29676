"""Good and total of objectives on business measures, from the values of `[kpis]` in their newest versions.

A ratio counts its own events: the denominators are all, the numerators those that are good (of a measure whose good
direction is down: those that are bad). With `op` and `value` each value is one event, good when it holds.

The events of an interval are spread evenly over its windows, in whole numbers that add up to the interval's; those of
a message lie in the window of its time. A fraction of an event may be good or bad: it counts as uncertain.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analytics.kpis import DIMENSIONS, KpiDefinition
from analytics.slo.indicators import Combined, Indicator, Kpi
from analytics.slo.objectives import Objective
from collector.store import Store

NS = 1_000_000_000
Cells = dict[int, tuple[int, int, int]]  # good, total and uncertain by window (start, epoch seconds)
MAX_INTERVAL_S = 86_400  # a value of a longer interval says nothing about any hour: it is not counted
_PER_STATEMENT = 100  # indicators; each is two sums of one pass
_TINY = 1e-6  # value = numerator / denominator has lost the last digits of its numerator
_SIGN = {"lte": "<=", "lt": "<", "gte": ">=", "gt": ">"}

_VALUES = """
SELECT at, length, $sums FROM (
    SELECT toUnixTimestamp64Nano(ts) AS at, duration_ns AS length, name, cohort, channel, region, offer, value, weight
    FROM kpis FINAL
    WHERE name IN {names:Array(String)} AND duration_ns <= {longest_ns:Int64}
        AND ts >= fromUnixTimestamp64Nano({from_ns:Int64} - {longest_ns:Int64}, 'UTC')
        AND ts < fromUnixTimestamp64Nano({to_ns:Int64}, 'UTC')
        AND toUnixTimestamp64Nano(ts) + greatest(duration_ns, 1) > {from_ns:Int64}
    UNION ALL
    SELECT intDiv(toUnixTimestamp64Nano(ts), 10000000000) * 10000000000 AS at, toInt64(0) AS length, name, cohort,
        channel, region, offer, value, toFloat64(1) AS weight
    FROM message_kpis FINAL
    WHERE name IN {names:Array(String)} AND ts >= fromUnixTimestamp64Nano({from_ns:Int64}, 'UTC')
        AND ts < fromUnixTimestamp64Nano({to_ns:Int64}, 'UTC')
)
GROUP BY at, length ORDER BY at, length
"""

_TOUCHED = """
SELECT DISTINCT first, last FROM (
    SELECT intDiv(toUnixTimestamp64Nano(ts), 3600000000000) AS first,
        intDiv(toUnixTimestamp64Nano(ts) + greatest(duration_ns - 1, 0), 3600000000000) AS last, name, ts, recorded
    FROM kpis
    UNION ALL
    SELECT intDiv(toUnixTimestamp64Nano(ts), 3600000000000) AS first, first AS last, name, ts, recorded
    FROM message_kpis
)
WHERE name IN {names:Array(String)} AND recorded >= toDateTime({since:UInt32}, 'UTC')
    AND ts >= fromUnixTimestamp64Nano({from_ns:Int64}, 'UTC') AND ts < fromUnixTimestamp64Nano({to_ns:Int64}, 'UTC')
"""


@dataclass(frozen=True, slots=True)
class Spread:
    """Events of [at_ns, at_ns + length_ns), not yet whole: `good` of `total`. Of no length: of a moment."""

    at_ns: int
    length_ns: int
    good: float
    total: float


def leaves(objectives: Iterable[Objective]) -> list[Kpi]:
    """The measures that objectives count, alone or as a side; each once."""
    found: dict[Kpi, None] = {}
    for one in objectives:
        for side in _sides(one.indicator):
            if isinstance(side, Kpi):
                found[side] = None
    return list(found)


def _sides(one: Indicator) -> Sequence[Indicator]:
    return one.sides if isinstance(one, Combined) else (one,)


def read(
    store: Store, some: Sequence[Kpi], known: Mapping[str, KpiDefinition], from_s: int, to_s: int, cell_s: int = 10
) -> dict[Kpi, Cells]:
    """What each of `some` counts in windows of `cell_s` in [from_s, to_s). Undeclared measures count nothing.

    Raises StoreError.
    """
    asked = [one for one in some if one.name in known]
    found: dict[Kpi, Cells] = {one: {} for one in some}
    for start in range(0, len(asked), _PER_STATEMENT):
        part = asked[start : start + _PER_STATEMENT]
        params: dict[str, Any] = {
            "names": sorted({one.name for one in part}), "from_ns": from_s * NS, "to_ns": to_s * NS,
            "longest_ns": MAX_INTERVAL_S * NS,
        }  # fmt: skip
        sums = []
        for number, one in enumerate(part):
            conditions = [f"name = {{k{number}_name:String}}"]
            params[f"k{number}_name"] = one.name
            for name in DIMENSIONS:
                if wanted := getattr(one, name):
                    conditions.append(f"{name} = {{k{number}_{name}:String}}")
                    params[f"k{number}_{name}"] = wanted
            above, below = "value * weight", "weight"
            if one.op is not None:
                params[f"k{number}_value"] = one.value
                above, below = f"value {_SIGN[one.op]} {{k{number}_value:Float64}}", "weight > 0"
            where = " AND ".join(conditions)
            sums.append(f"sumIf(toFloat64({above}), {where}) AS a{number}")
            sums.append(f"sumIf(toFloat64({below}), {where}) AS b{number}")
        frame = store.query(_VALUES.replace("$sums", ", ".join(sums)), params)
        rows = list(frame.iter_rows(named=True))
        for number, one in enumerate(part):
            spread = [
                _events(one, known[one.name], row["at"], row["length"], row[f"a{number}"], row[f"b{number}"])
                for row in rows
                if row[f"b{number}"] > 0
            ]
            found[one] = fold(spread, from_s, to_s, cell_s)
    return found


def _events(one: Kpi, definition: KpiDefinition, at: int, length: int, above: float, below: float) -> Spread:
    down = one.op is None and definition.good == "down"
    return Spread(at, length, below - above if down else above, below)


def events_of(one: Kpi, definition: KpiDefinition, at_ns: int, length_ns: int, value: float, weight: float) -> Spread:
    """The events of a single value; the same as the statement counts."""
    if one.op is not None:
        holds = {
            "lte": value <= (one.value or 0), "lt": value < (one.value or 0), "gte": value >= (one.value or 0),
            "gt": value > (one.value or 0),
        }[one.op]  # fmt: skip
        return _events(one, definition, at_ns, length_ns, float(holds and weight > 0), float(weight > 0))
    return _events(one, definition, at_ns, length_ns, value * weight, weight)


def fold(values: Iterable[Spread], from_s: int, to_s: int, cell_s: int = 10) -> Cells:
    """Whole events per window of `cell_s` in [from_s, to_s); a value's add up over all of its windows."""
    found: Cells = {}
    for one in values:
        good, bad, total = whole(one.good, one.total)
        if not total:
            continue
        for window, cumulative, before in _steps(one, total, cell_s):
            if not from_s <= window < to_s:
                continue
            # Nested, so that in no window more are bad than there are.
            doubtful = [n * (total - good) // total for n in (before, cumulative)]
            surely = [n * bad // (total - good) if total > good else 0 for n in doubtful]
            count, unsure = cumulative - before, doubtful[1] - doubtful[0]
            certain = surely[1] - surely[0]
            g, t, u = found.get(window, (0, 0, 0))
            found[window] = (g + count - unsure, t + count, u + unsure - certain)
    return {window: cell for window, cell in found.items() if cell[1]}


def whole(good: float, total: float) -> tuple[int, int, int]:
    """Events that are surely good, surely bad, and all of them, rounded up; the rest may be either."""
    total = max(total, 0.0)
    good = min(max(good, 0.0), total)
    slack = _TINY * max(1.0, total * 1e-6)
    every = math.ceil(total - slack)
    surely = min(every, math.floor(good + slack))
    return surely, min(every - surely, math.floor(total - good + slack)), every


def _steps(one: Spread, total: int, cell_s: int) -> Iterable[tuple[int, int, int]]:
    """Of each window that gets some: its start, and how many events there are up to its end and up to its begin."""
    cell_ns = cell_s * NS
    if one.length_ns <= 0:
        yield one.at_ns // cell_ns * cell_s, total, 0
        return
    end = one.at_ns + one.length_ns
    before, at = 0, one.at_ns // cell_ns * cell_ns
    while at < end:
        cumulative = total * (min(at + cell_ns, end) - one.at_ns) // one.length_ns
        if cumulative > before:
            yield at // NS, cumulative, before
        before, at = cumulative, at + cell_ns


def touched_hours(store: Store, names: Iterable[str], since_s: int, from_s: int, to_s: int) -> set[int]:
    """Hours (starts, epoch seconds) in [from_s, to_s) of which values came in since `since_s`. Raises StoreError."""
    wanted = sorted(set(names))
    if not wanted:
        return set()
    params = {
        "names": wanted, "since": max(0, since_s), "from_ns": (from_s - MAX_INTERVAL_S) * NS, "to_ns": to_s * NS,
    }  # fmt: skip
    found: set[int] = set()
    for first, last in store.query(_TOUCHED, params).iter_rows():
        # Intervals of more than a day are not counted.
        if last - first <= MAX_INTERVAL_S // 3_600:
            found |= {hour * 3_600 for hour in range(first, last + 1)}
    return {hour for hour in found if from_s - 3_600 < hour < to_s}
