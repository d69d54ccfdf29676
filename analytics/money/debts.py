"""The ledger of technical debt in revenue: what is known to be slow, whose it is, since when, and what that costs.

A debt is `[debts.NAME]`: the milliseconds that it adds to a stage, priced by the measured effect as far as the stage
takes that long at all, with the alerts that its objective has had since.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import msgspec

from analytics.cover import widen
from analytics.money import losing
from analytics.money.burned import NS, Pricer
from analytics.money.losing import Cost
from analytics.money.scenario_files import Amount, as_range
from analytics.money.value import tables
from analytics.money.worth import HOURS_PER_MONTH
from analytics.paths import END_TO_END, Path
from analytics.slo.episodes import Episode
from collector.settings import ConfigError, Section, section

_MOST = 500


class Debt(Section, frozen=True, kw_only=True):
    """`[debts.NAME]`: `what` is slow, its `owner`, the `stage` of `path`, and the `costs_ms` it adds to each message.

    `costs_ms` is a number or {low, likely, high}. `objective` is the one whose alerts belong to it; `fix_cost` what it
    would take to mend it.
    """

    what: str
    owner: str
    path: str
    stage: str
    costs_ms: Amount
    since: date
    objective: str = ""
    fix_cost: float = 0.0
    url: str = ""

    def validate(self) -> None:
        """Raise ConfigError naming what is wrong."""
        for name in ("what", "owner"):
            text = getattr(self, name)
            if not text.strip() or len(text) > 300:
                raise ConfigError(name, "must be 1 to 300 characters")
        ms = as_range(self.costs_ms)
        try:
            ms.validate()
        except ConfigError as error:
            raise ConfigError(f"costs_ms.{error.field}", error.problem) from error
        if not (math.isfinite(ms.high) and ms.low >= 0):
            raise ConfigError("costs_ms", "must be 0 or more")
        if not 0 <= self.fix_cost < math.inf:
            raise ConfigError("fix_cost", "must be 0 or more")


class DebtEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One debt with its price. `per_month` at today's revenue, `so_far` the same since it began.

    `counted_ms` is what of `costs_ms` the stage takes at all on average. `payback_months` is `fix_cost` by `per_month`.
    `episodes` are the newest alerts of its objective since then, `alerts` and `firing_s` count all that are kept.
    """

    debt: str
    what: str
    owner: str
    path: str
    stage: str
    since: date
    url: str
    costs_ms: float
    counted_ms: float | None
    stage_mean_ms: float | None
    per_month: Cost
    so_far: Cost
    fix_cost: float | None
    payback_months: float | None
    objective: str
    alerts: int
    firing_s: float
    episodes: list[Episode]


def debts_from(document: Mapping[str, Any], paths: Mapping[str, Path], source: str = "") -> dict[str, Debt]:
    """The declared debts by name. Raises ConfigError."""
    found = {}
    for name, fields in tables(document, "debts", source, _MOST).items():
        one = section(fields, Debt, f"debts.{name}", source)
        path = paths.get(one.path)
        if path is None:
            known = ", ".join(sorted(paths)) or "none"
            raise ConfigError(f"debts.{name}.path", f"there is no path {one.path[:80]!r}; there are {known}", source)
        if one.stage not in path.stage_names:
            stages = ", ".join(path.stage_names)
            raise ConfigError(
                f"debts.{name}.stage", f"path {path.name} has no stage {one.stage[:80]!r}; it has {stages}", source
            )
        found[name] = one
    return found


def ledger(
    pricer: Pricer, debts: Mapping[str, Debt], episodes: Sequence[Episode], *, from_ns: int, to_ns: int
) -> list[DebtEntry]:
    """Every debt priced on the latencies of [from_ns, to_ns), the dearest first. Raises StoreError."""
    entries = [_entry(pricer, name, one, episodes, from_ns, to_ns) for name, one in debts.items()]
    return sorted(entries, key=lambda e: (e.per_month.value is None, -(e.per_month.value or 0.0), e.debt))


def _entry(
    pricer: Pricer, name: str, one: Debt, episodes: Sequence[Episode], from_ns: int, to_ns: int
) -> DebtEntry:  # fmt: skip
    began_ns = int(datetime.combine(one.since, datetime.min.time(), UTC).timestamp()) * NS
    mine = [e for e in episodes if one.objective and e.objective == one.objective and e.breach_ns >= began_ns]
    fired = sum(((e.resolved_ns or pricer.now_ns) - e.fired_ns) / NS for e in mine)
    mean, per_month, so_far, counted = _priced(pricer, one, began_ns, from_ns, to_ns)
    value = per_month.value
    return DebtEntry(
        debt=name, what=one.what, owner=one.owner, path=one.path, stage=one.stage, since=one.since, url=one.url,
        costs_ms=as_range(one.costs_ms).likely, counted_ms=counted, stage_mean_ms=mean, per_month=per_month,
        so_far=so_far, fix_cost=one.fix_cost or None,
        payback_months=one.fix_cost / value if one.fix_cost and value and value > 0 else None,
        objective=one.objective, alerts=len(mine), firing_s=max(0.0, fired),
        episodes=sorted(mine, key=lambda e: -e.breach_ns)[:20],
    )  # fmt: skip


def _priced(
    pricer: Pricer, one: Debt, began_ns: int, from_ns: int, to_ns: int
) -> tuple[float | None, Cost, Cost, float | None]:
    """The stage's mean, the cost per month and so far, and the milliseconds that were counted."""
    currency = pricer.settings.currency
    effect, reason = pricer.effect(one.path)
    if effect is not None:
        revenue = pricer.revenue(one.path)
        reason = revenue.reason
    first, last = widen(from_ns, to_ns)
    found = {name: t for (_, name), t in pricer.tallies(one.path, "", first, last).items()}
    whole, stage = found.get(END_TO_END), found.get(one.stage)
    mean = None
    if whole is None or not whole.counts.count:
        reason = reason or f"path {one.path} has no finished message in that time"
    else:
        mean = stage.counts.sum_ns / whole.counts.count / 1e6 if stage else 0.0
    if effect is None or reason or mean is None or whole is None:
        none = losing.refused(currency, reason)
        return mean, none, none, None
    ms = as_range(one.costs_ms)
    total = whole.counts.sum_ns / whole.counts.count / 1e6
    held = [min(end, mean) for end in (ms.low, ms.likely, ms.high)]
    corners = [losing.per_ms(1.0, effect, total, end) for end in held]
    parts = (
        corners[1][0],
        min(low for _, low, _, _ in corners),
        max(high for _, _, high, _ in corners),
        any(more for *_, more in corners) or held[1] < ms.likely,
    )

    def priced(scale: float, unit: str) -> Cost:
        scaled = (parts[0] * scale, parts[1] * scale, parts[2] * scale, parts[3])
        return losing.cost(scaled, currency, effect, unit)

    per_hour = pricer.revenue(one.path).per_clock_hour
    hours = max(0.0, (pricer.now_ns - began_ns) / NS / 3_600)
    return mean, priced(per_hour * HOURS_PER_MONTH, " a month"), priced(per_hour * hours, ""), held[1]
