"""Costs per team and region: what is declared under `[showback.NAME]`, divided by each one's share of decisions.

Shares are of exact counts, so that they add up to the whole cost: what carries no label is shown as such and never
spread over the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from analytics.cover import widen
from analytics.kpis import DIMENSIONS
from analytics.money.burned import NS, Pricer
from analytics.money.value import tables
from analytics.money.worth import HOURS_PER_MONTH
from analytics.paths import END_TO_END, Path
from analytics.tally import tiles
from collector.settings import ConfigError, Section, section
from collector.store import Store

_MOST = 100
UNLABELLED = "(without)"

_ROLLUPS = """
SELECT substring(rollup, length({label:String}) + 2) AS who, sum(n) AS decisions FROM stage_windows
WHERE path = {path:String} AND level = {level:UInt16} AND stage = {stage:String}
    AND startsWith(rollup, concat({label:String}, '='))
    AND window >= toDateTime({from_s:UInt32}, 'UTC') AND window < toDateTime({to_s:UInt32}, 'UTC')
    AND (window, generation) IN (
        SELECT window, max(generation) FROM windows WHERE path = {path:String} AND level = {level:UInt16}
            AND window >= toDateTime({from_s:UInt32}, 'UTC') AND window < toDateTime({to_s:UInt32}, 'UTC')
        GROUP BY window
    )
GROUP BY who ORDER BY decisions DESC, who LIMIT 10000
"""
_KPI = """
SELECT toString($dimension) AS who, sum(weight) AS decisions FROM kpis FINAL
WHERE name = {name:String} AND ts >= fromUnixTimestamp64Nano({a:Int64}, 'UTC')
    AND ts < fromUnixTimestamp64Nano({b:Int64}, 'UTC')
GROUP BY who ORDER BY decisions DESC, who LIMIT 10000
"""


class ShowbackCost(Section, frozen=True, kw_only=True):
    """`[showback.NAME]`: money per month, and by what it is divided.

    `by` are labels that `path` counts (`team`, `region`, ...). With `kpi`, a measure of kind ratio, `by` are its
    dimensions (cohort, channel, region, offer) and decisions are its denominators.
    """

    per_month: float
    by: tuple[str, ...]
    path: str = ""
    kpi: str = ""
    description: str = ""

    def validate(self) -> None:
        """Raise ConfigError naming what is wrong."""
        if not (math.isfinite(self.per_month) and self.per_month >= 0):
            raise ConfigError("per_month", "must be 0 or more")
        if bool(self.path) == bool(self.kpi):
            raise ConfigError("path", "give path or kpi, one of them: whose decisions are counted")
        if not 1 <= len(self.by) <= 10 or len(set(self.by)) < len(self.by):
            raise ConfigError("by", "must name 1 to 10 different labels")
        wrong = [one for one in self.by if one not in DIMENSIONS] if self.kpi else []
        if wrong:
            raise ConfigError("by", f"{wrong[0]!r} is no dimension of a measure; there are {', '.join(DIMENSIONS)}")


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """One team's or region's part: decisions, share of all, and money in the time asked for."""

    who: str
    decisions: float
    share: float
    cost: float


class Showback(msgspec.Struct, frozen=True, kw_only=True):
    """A cost divided by one label. `per_decision` is the blended cost of a decision; null: there were none."""

    name: str
    by: str
    source: Literal["path", "kpi"]
    of: str
    currency: str
    from_ns: int
    to_ns: int
    cost: float
    decisions: float
    per_decision: float | None
    shares: list[Share]
    sentence: str


def showback_from(
    document: Mapping[str, Any], paths: Mapping[str, Path], kpis: Mapping[str, str], source: str = ""
) -> dict[str, ShowbackCost]:
    """The declared costs by name. Raises ConfigError."""
    found = {}
    for name, fields in tables(document, "showback", source, _MOST).items():
        one = section(fields, ShowbackCost, f"showback.{name}", source)
        where = f"showback.{name}"
        if one.kpi and kpis.get(one.kpi) != "ratio":
            raise ConfigError(f"{where}.kpi", f"{one.kpi[:80]!r} must be a measure of kind ratio under [kpis]", source)
        if one.path:
            path = paths.get(one.path)
            if path is None:
                known = ", ".join(sorted(paths)) or "none"
                raise ConfigError(f"{where}.path", f"there is no path {one.path[:80]!r}; there are {known}", source)
            for label in one.by:
                if label not in path.rollup:
                    raise ConfigError(
                        f"{where}.by", f"{label!r} is not counted: add it to rollup of [paths.{path.name}]", source
                    )
        found[name] = one
    return found


def divided(cost: float, decisions: Mapping[str, float], total: float) -> list[Share]:
    """A cost by shares of `total`, the largest first; the uncovered rest is `(without)`. Adds up to `cost`."""
    if total <= 0:
        return []
    some = {who or UNLABELLED: n for who, n in decisions.items() if n > 0}
    rest = total - sum(some.values())
    if rest > 1e-9 * total:
        some[UNLABELLED] = some.get(UNLABELLED, 0.0) + rest
    return [
        Share(who=who, decisions=n, share=n / total, cost=cost * n / total)
        for who, n in sorted(some.items(), key=lambda item: (-item[1], item[0]))
    ]


def showback(pricer: Pricer, name: str, one: ShowbackCost, *, from_ns: int, to_ns: int) -> list[Showback]:
    """One declared cost for [from_ns, to_ns), by each of its labels. Raises StoreError."""
    currency = pricer.settings.currency
    first, last = widen(from_ns, to_ns)
    cost = one.per_month * (last - first) / 3_600 / HOURS_PER_MONTH
    found = []
    for label in one.by:
        if one.kpi:
            params = {"name": one.kpi, "a": first * NS, "b": last * NS}
            rows = dict(pricer.store.query(_KPI.replace("$dimension", label), params).iter_rows())
            total = float(sum(rows.values()))
        else:
            rows = _decisions(pricer.store, one.path, label, first, last)
            total = float(pricer.messages(one.path, first, last))
        shares = divided(cost, {who: float(n) for who, n in rows.items()}, max(total, float(sum(rows.values()))))
        per = cost / total if total else None
        said = (
            f"{cost:,.2f} {currency} for {total:,.0f} decisions: {per:.6g} {currency} each"
            if per is not None
            else f"{cost:,.2f} {currency}, and no decisions to divide it by"
        )
        found.append(
            Showback(
                name=name, by=label, source="kpi" if one.kpi else "path", of=one.kpi or one.path, currency=currency,
                from_ns=first * NS, to_ns=last * NS, cost=cost, decisions=total, per_decision=per, shares=shares,
                sentence=said + ".",
            )
        )  # fmt: skip
    return found


def _decisions(store: Store, path: str, label: str, first: int, last: int) -> dict[str, int]:
    """Finished messages by a label's value, from the same windows as the whole, so that shares add up."""
    spans, _ = tiles(store, path, first, last, (3600, 60, 10))
    found: dict[str, int] = {}
    for level, some in spans.items():
        for begin, end in some:
            params = {"path": path, "label": label, "stage": END_TO_END, "level": level, "from_s": begin, "to_s": end}
            for who, n in store.query(_ROLLUPS, params).iter_rows():
                found[who] = found.get(who, 0) + int(n)
    return found
