"""Answers about costs, the same for the command line and for REST: plain values from the store and the declarations."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from analytics.kpis import KpiDefinition
from analytics.money.actions import budget_of
from analytics.money.agreements import agreement
from analytics.money.burned import NS, Pricer
from analytics.money.debts import ledger
from analytics.money.declared import Money
from analytics.money.modes import modes
from analytics.money.showback import showback
from analytics.money.worth import worth
from analytics.paths import Path
from analytics.slo.episodes import Episode
from analytics.slo.objectives import Objective
from collector.settings import ConfigError, duration_ns
from collector.store import Store

NOW_NS = 300 * NS  # what burns now is what burned in the last five minutes
_BEHIND_NS = 30 * NS
MOST_OBJECTIVES = 500


def objectives(
    store: Store, money: Money, some: Sequence[Objective], episodes: Sequence[Episode], now_ns: int | None = None
) -> dict[str, Any]:
    """What each objective has cost in its period and costs per hour now, the dearest first; and each episode.

    Raises StoreError.
    """
    now = time.time_ns() if now_ns is None else now_ns
    pricer = money.pricer(store, now)
    to_ns = (now - _BEHIND_NS) // (10 * NS) * 10 * NS
    found: list[tuple[float, dict[str, Any]]] = []
    for one in some[:MOST_OBJECTIVES]:
        start, end = one.period(to_ns // NS)
        period = pricer.objective(one, start * NS, min(end * NS, to_ns))
        hourly = pricer.objective(one, to_ns - NOW_NS, to_ns, hourly=True)
        row = {"objective": one.name, "period": plain(period), "now": plain(hourly)}
        found.append((-(period.cost.value or 0.0), row))
    found.sort(key=lambda ranked: (ranked[0], ranked[1]["objective"]))
    return {
        "currency": money.settings.currency,
        "at_ns": now,
        "objectives": [row for _, row in found],
        "episodes": _episodes(pricer, {one.name: one for one in some}, episodes, to_ns),
    }


def _episodes(
    pricer: Pricer, some: Mapping[str, Objective], episodes: Sequence[Episode], to_ns: int
) -> list[dict[str, Any]]:
    found = []
    for one in episodes:
        objective = some.get(one.objective)
        if objective is None:  # it is no longer in force: nobody knows what it counted
            continue
        end = one.resolved_ns or max(to_ns, one.breach_ns + 10 * NS)
        burned = pricer.objective(objective, one.breach_ns, end)
        found.append(
            {
                **plain(one), "over": one.resolved_ns > 0, "length_ns": end - one.breach_ns,
                "burned": plain(burned),
            }
        )  # fmt: skip
    return found


def velocity(
    store: Store, money: Money, path: Path, changes: Mapping[str, float], costs: Mapping[str, float],
    span: tuple[int, int],
) -> dict[str, Any]:  # fmt: skip
    """Expected Revenue Velocity. Raises WorthError, SensitivityError and StoreError."""
    pricer = money.pricer(store, time.time_ns())
    return plain(worth(pricer, path, changes, costs or None, from_ns=span[0], to_ns=span[1]))


def budgets(store: Store, money: Money, span: tuple[int, int]) -> dict[str, Any]:
    """Latency budgets of market actions. Raises StoreError."""
    pricer = money.pricer(store, time.time_ns())
    rows = [plain(budget_of(pricer, name, a, from_ns=span[0], to_ns=span[1])) for name, a in money.actions.items()]
    return {"currency": money.settings.currency, "from_ns": span[0], "to_ns": span[1], "actions": rows}


def shown_back(store: Store, money: Money, span: tuple[int, int]) -> dict[str, Any]:
    """Costs per team and region. Raises StoreError."""
    pricer = money.pricer(store, time.time_ns())
    rows = [
        plain(part)
        for name, one in money.showback.items()
        for part in showback(pricer, name, one, from_ns=span[0], to_ns=span[1])
    ]
    return {"currency": money.settings.currency, "from_ns": span[0], "to_ns": span[1], "showback": rows}


def debts(store: Store, money: Money, episodes: Sequence[Episode], span: tuple[int, int]) -> dict[str, Any]:
    """The debt ledger. Raises StoreError."""
    pricer = money.pricer(store, time.time_ns())
    rows = [plain(one) for one in ledger(pricer, money.debts, episodes, from_ns=span[0], to_ns=span[1])]
    return {"currency": money.settings.currency, "from_ns": span[0], "to_ns": span[1], "debts": rows}


def degraded(
    store: Store, path: Path, kpi: str, known: Mapping[str, KpiDefinition], span: tuple[int, int]
) -> dict[str, Any]:
    """What degraded modes cost in a measure. Raises ValueError and StoreError."""
    rows = [plain(one) for one in modes(store, path, kpi, known, from_ns=span[0], to_ns=span[1])]
    return {"path": path.name, "kpi": kpi, "from_ns": span[0], "to_ns": span[1], "modes": rows}


def agreements(store: Store, money: Money, at_ns: int) -> dict[str, Any]:
    """Provider agreements in the periods that hold a moment. Raises StoreError."""
    currency = money.settings.currency
    rows = [plain(agreement(store, name, one, currency, at_ns=at_ns)) for name, one in money.agreements.items()]
    return {"currency": currency, "at_ns": at_ns, "agreements": rows}


def changes_of(texts: list[str]) -> dict[str, float]:
    """`stage=-0.2ms` as milliseconds by stage. Raises ValueError."""
    found = {}
    for text in texts:
        stage, equals, length = text.partition("=")
        sign = -1 if length.startswith("-") else 1
        try:
            ns = duration_ns(length.lstrip("+-"), "change")
        except ConfigError as error:
            raise ValueError(f"change {text[:80]!r}: {error.problem}") from None
        if not equals or not stage or stage in found:
            raise ValueError(f"change {text[:80]!r} must be STAGE=DURATION, each stage once, such as decide=-0.2ms")
        found[stage] = sign * ns / 1e6
    return found


def costs_of(texts: list[str], changes: dict[str, float]) -> dict[str, float]:
    """`stage=4000` as money per month by stage, each of a stage that changes. Raises ValueError."""
    found = {}
    for text in texts:
        stage, _, number = text.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if not 0 < value < 1e15:
            raise ValueError(f"cost {text[:80]!r} must be STAGE=MONEY per month, above 0")
        if changes and stage not in changes:
            raise ValueError(f"cost {text[:80]!r}: no change of that stage is given")
        found[stage] = value
    return found


def plain(value: Any) -> dict[str, Any]:
    """A struct as plain values."""
    built: dict[str, Any] = msgspec.to_builtins(value)
    return built
