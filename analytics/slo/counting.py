"""Good and total of objectives whose events are messages of one path, exact at any threshold, as SQL over messages.

The window job runs it on what it has just stitched, under the same generation; a recount runs it on what is stored. One
statement counts all objectives of a path: each is two conditional counts of one pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analytics.paths import Path
from analytics.slo.indicators import Combined, Errors, Indicator, Latency, Maximum, path_of
from analytics.slo.objectives import Objective

COLUMNS = ("objective", "version", "level", "window", "generation", "good", "total", "uncertain")
USERS = "mode NOT IN ('shadow', 'synthetic')"
_OWN = {"host", "service", "mode", "outcome", "cache"}
_PER_STATEMENT = 250  # objectives; more conditions in one pass cost the engine more to plan than to run


@dataclass(frozen=True, slots=True)
class Statement:
    """A SELECT of rows of objective_counts and what it binds."""

    sql: str
    params: Mapping[str, Any]


def counted_path(one: Indicator) -> str | None:
    """The path whose window job counts it; None for what is counted elsewhere."""
    return one.path if isinstance(one, Maximum) else path_of(one)


def by_path(objectives: Sequence[Objective]) -> dict[str, list[Objective]]:
    """Objectives by the path whose messages they count."""
    found: dict[str, list[Objective]] = {}
    for one in objectives:
        path = counted_path(one.indicator)
        if path is not None:
            found.setdefault(path, []).append(one)
    return found


def statements(
    path: Path, objectives: Sequence[Objective], source: str, closed: Mapping[str, Sequence[int]] | None = None
) -> list[Statement]:
    """SELECTs of COLUMNS from the messages of `source`, which has window and generation; level is 10.

    `closed` has, per calendar, the 10 s windows (epoch seconds) in which it is closed: they count nothing.
    """
    usable = [one for one in objectives if knows(path, one.indicator)]
    return [
        _statement(path, usable[i : i + _PER_STATEMENT], source, closed or {})
        for i in range(0, len(usable), _PER_STATEMENT)
    ]


def knows(path: Path, one: Indicator) -> bool:
    """Whether the path has the stages that an indicator asks for: a learned path may not have them yet."""
    if isinstance(one, Combined):
        return all(knows(path, side) for side in one.sides)
    return not isinstance(one, Latency | Maximum) or one.stage in path.stage_names


def conditions(path: Path, indicators: Sequence[Indicator]) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """Of one message, per indicator: whether it is good and whether it counts, and what both bind.

    Raises TypeError for an indicator that does not count messages of a path one by one.
    """
    binds = _Binds()
    return [_conditions(path, one, binds) for one in indicators], binds.params


def _statement(
    path: Path, objectives: Sequence[Objective], source: str, closed: Mapping[str, Sequence[int]]
) -> Statement:
    binds = _Binds()
    good, total, shut = [], [], []
    for one in objectives:
        g, t = _pair(path, one.indicator, binds)
        good.append(g)
        total.append(t)
        windows = closed.get(one.hours, ())
        shut.append(f"has({binds.bind(list(windows), 'Array(UInt32)')}, w)" if windows else "0")
    names = binds.bind([one.name for one in objectives], "Array(String)")
    versions = binds.bind([one.version for one in objectives], "Array(UInt32)")
    sql = f"""
SELECT objective, version, toUInt16(10) AS level, window, generation, if(shut, 0, good) AS good,
    if(shut, 0, total) AS total, toUInt64(0) AS uncertain
FROM (
    SELECT window, generation, toUInt32(window) AS w, [{", ".join(good)}] AS goods, [{", ".join(total)}] AS totals
    FROM ({source}) GROUP BY window, generation
)
ARRAY JOIN {names} AS objective, {versions} AS version, goods AS good, totals AS total, [{", ".join(shut)}] AS shut"""  # noqa: S608 - built from fixed text and the path's shape; values are bound
    return Statement(sql, binds.params)


class _Binds:
    """Values that a statement binds, named as they come; the same value once."""

    def __init__(self) -> None:
        self.params: dict[str, Any] = {}
        self._known: dict[tuple[str, str], str] = {}

    def bind(self, value: Any, kind: str) -> str:
        key = (repr(value), kind)
        if key not in self._known:
            name = f"slo{len(self.params)}"
            self.params[name] = value
            self._known[key] = f"{{{name}:{kind}}}"
        return self._known[key]


def _pair(path: Path, one: Indicator, binds: _Binds) -> tuple[str, str]:
    """Two aggregates: how many are good, and how many there are."""
    if isinstance(one, Maximum):
        value, counted = _value(path, one.stage), _of(one.rollup, binds)
        limit = binds.bind(one.threshold_ns, "Int64")
        there = f"({counted}) AND {value} IS NOT NULL"
        total = f"toUInt64(countIf({there}) > 0)"
        return f"toUInt64(countIf({there}) > 0 AND countIf({there} AND {value} > {limit}) = 0)", total
    good, counts = _conditions(path, one, binds)
    return f"countIf(({counts}) AND ({good}))", f"countIf({counts})"


def _conditions(path: Path, one: Indicator, binds: _Binds) -> tuple[str, str]:
    """Of one message: whether it is good, and whether it counts."""
    match one:
        case Latency():
            value = _value(path, one.stage)
            good = f"ifNull({value} <= {binds.bind(one.threshold_ns, 'Int64')}, 0)"
            there = f"({value} IS NOT NULL" + (" OR e2e_ns IS NULL)" if one.unfinished_bad else ")")
            return good, f"({_of(one.rollup, binds)}) AND {there}"
        case Errors():
            bad = f"has({binds.bind(list(one.bad), 'Array(String)')}, toString(outcome))"
            if one.unfinished:
                bad = f"({bad} OR e2e_ns IS NULL)"
            return f"NOT {bad}", _of(one.rollup, binds)
        case Combined():
            sides = [_conditions(path, side, binds) for side in one.sides]
            counts = " OR ".join(f"({c})" for _, c in sides)
            if one.every:
                return " AND ".join(f"(NOT ({c}) OR ({g}))" for g, c in sides), counts
            return " OR ".join(f"(({c}) AND ({g}))" for g, c in sides), counts
    raise TypeError(f"{type(one).__name__} is not about messages")  # pragma: no cover - by_path keeps them out


def _value(path: Path, stage: str) -> str:
    if stage == "end_to_end":
        return "e2e_ns"
    if stage == "unattributed":
        return "(e2e_ns - arraySum(v -> ifNull(v, 0), stage_ns))"
    return f"stage_ns[{path.stage_names.index(stage) + 1}]"


def _of(rollup: str, binds: _Binds) -> str:
    if not rollup:
        return USERS
    name, _, value = rollup.partition("=")
    text = binds.bind(value, "String")
    if name in _OWN:
        return f"toString({name}) = {text}" if name == "mode" else f"{USERS} AND toString({name}) = {text}"
    label = binds.bind(name, "String")
    sets = f"SELECT label_set FROM label_sets WHERE JSONExtractString(labels, {label}) = {text}"  # noqa: S608 - values are bound
    return f"{USERS} AND label_set IN ({sets})"
