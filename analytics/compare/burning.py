"""How fast a canary burns the error budgets of objectives in force, and which of them alert already.

An objective counts good and bad messages by its own definition (`analytics.slo.counting`), here those of each side
alone. The burn that must not be exceeded is that of the objective's fastest page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from analytics.compare.reading import NS, Choice, in_reach_sql, reach, where_sql
from analytics.compare.rollout import Burn
from analytics.paths import Path
from analytics.slo.calendars import SloCalendar, closed_windows
from analytics.slo.counting import conditions, knows
from analytics.slo.episodes import OPEN, Alert
from analytics.slo.indicators import Maximum, path_of
from analytics.slo.objectives import Objective
from analytics.slo.rules import unreachable
from collector.store import Store

BLOCK_NS = 10 * NS
FACTOR = 14.4  # of an objective without a rule that can fire: the Workbook's page for one hour
MOST = 20  # objectives of one rollout


@dataclass(frozen=True, slots=True)
class Budgets:
    """Objectives that a canary is held to, their alerts, and the calendars that they name."""

    objectives: Sequence[Objective] = ()
    alerts: Sequence[Alert] = ()
    calendars: Mapping[str, SloCalendar] = field(default_factory=dict)

    def firing(self) -> list[str]:
        """Each alert of these objectives that fires now, in words."""
        names = {one.name for one in self.objectives}
        return [f"{a.objective} ({a.rule})" for a in self.alerts if a.objective in names and a.state in OPEN]


def chosen(objectives: Sequence[Objective], names: Sequence[str], path: Path) -> list[Objective]:
    """The named objectives; `all` stands for those that count messages of `path`. Raises ValueError."""
    if "all" in names:
        return [one for one in objectives if not why_not(one, path)][:MOST]
    known = {one.name: one for one in objectives}
    for name in names:
        if name not in known:
            there = ", ".join(sorted(known)[:20]) or "none"
            raise ValueError(f"no objective in force is called {name[:80]!r}; there are {there}")
    if len(names) > MOST:
        raise ValueError(f"at most {MOST} objectives can be asked for at once, got {len(names)}")
    return [known[name] for name in dict.fromkeys(names)]


def why_not(one: Objective, path: Path) -> str:
    """Why an objective says nothing about single messages of a path, or ''."""
    if one.slice_s:
        return "it counts slices of time, not messages"
    if isinstance(one.indicator, Maximum) or path_of(one.indicator) is None:
        return "it does not count messages"
    if path_of(one.indicator) != path.name:
        return f"it is about path {path_of(one.indicator)}"
    return "" if knows(path, one.indicator) else "it is about a stage that the path does not have"


def limit(one: Objective) -> float:
    """The burn rate that must not be exceeded: that of the fastest page that can fire, else of the fastest rule."""
    rules = [rule for rule in one.rules if not unreachable(rule, one.target)]
    factors = {
        page: [
            over.factor
            for rule in rules
            if (rule.severity == "page") == page
            for over in rule.overs
            if not over.objective
        ]
        for page in (True, False)
    }
    return max(factors[True] or factors[False] or [FACTOR])


def burns(
    store: Store,
    path: Path,
    budgets: Budgets,
    baseline: Mapping[str, str],
    canary: Mapping[str, str],
    from_ns: int,
    to_ns: int,
) -> list[Burn]:
    """The burn of each objective by blocks of 10 s in [from_ns, to_ns), of both sides. Raises ConfigError for a
    calendar that is not declared."""
    apart = {one.name: why_not(one, path) for one in budgets.objectives}
    asked = [one for one in budgets.objectives if not apart[one.name]]
    sides = [_counted(store, path, asked, Choice(labels, from_ns, to_ns)) for labels in (baseline, canary)]
    out = []
    for one in budgets.objectives:
        if apart[one.name]:
            nothing = np.zeros(0, dtype=np.int64)
            out.append(Burn(one.name, nothing, nothing, one.target, absent=apart[one.name]))
            continue
        number = asked.index(one)
        shut = {second // 10 for second in closed_windows(budgets.calendars, one.calendar, from_ns // NS, to_ns // NS)}
        before, now = (side.filter(~pl.col("block").is_in(shut)) for side in sides)
        out.append(
            Burn(
                one.name,
                now[f"bad_{number}"].cast(pl.Int64).to_numpy(),
                now[f"total_{number}"].cast(pl.Int64).to_numpy(),
                one.target,
                limit(one),
                (int(before[f"bad_{number}"].sum()), int(before[f"total_{number}"].sum())),
            )
        )
    return out


def _counted(store: Store, path: Path, objectives: Sequence[Objective], choice: Choice) -> pl.DataFrame:
    """Rows of `block`, and of each objective `bad_i` and `total_i`, in time order."""
    if not objectives:
        return pl.DataFrame({"block": []}, schema={"block": pl.Int64})
    pairs, params = conditions(path, [one.indicator for one in objectives])
    each = ", ".join(
        f"countIf(({counts}) AND NOT ({good})) AS bad_{i}, countIf({counts}) AS total_{i}"
        for i, (good, counts) in enumerate(pairs)
    )
    where, labels = where_sql(choice.labels)
    sql = f"""
SELECT toInt64(intDiv(toUnixTimestamp64Nano(start), {{block_ns:Int64}})) AS block, {each}
FROM messages WHERE {in_reach_sql()} AND {where} GROUP BY block ORDER BY block
"""  # noqa: S608 - fixed text and the path's shape, values are bound
    return store.query(sql, {**reach(path, choice), **labels, **params, "block_ns": BLOCK_NS})
