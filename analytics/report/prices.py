"""Money for what is declared to have a price: burned budgets, episodes, provider agreements and technical debts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from analytics.money.agreements import agreement
from analytics.money.burned import Pricer
from analytics.money.debts import ledger
from analytics.money.declared import Money
from analytics.money.losing import Cost
from analytics.report.period import Period
from analytics.report.value import AgreementLine, BudgetLine, DebtLine, EpisodeLine
from analytics.slo.episodes import Episode
from analytics.slo.objectives import Objective
from collector.store import Store

MOST_EPISODES = 50
_LINES = 50


def priced_budgets(
    pricer: Pricer, lines: Sequence[BudgetLine], objectives: Sequence[Objective], time: Period
) -> tuple[BudgetLine, ...]:
    """The lines with what the period's bad events cost, or why that is not known. Raises StoreError."""
    known = {one.name: one for one in objectives}
    found = []
    for line in lines:
        cost = pricer.objective(known[line.objective], time.from_ns, time.to_ns).cost
        said = cost.sentence if cost.value is not None else cost.reason or cost.sentence
        found.append(
            replace(line, cost=cost.value, cost_low=cost.low, cost_high=cost.high, cost_sentence=f"{line.name}: {said}")
        )
    return tuple(found)


def priced_episodes(
    pricer: Pricer, lines: Sequence[EpisodeLine], objectives: Sequence[Objective], time: Period
) -> tuple[EpisodeLine, ...]:
    """The episodes with what they cost within the period; at most 50 are priced."""
    known = {one.name: one for one in objectives}
    found = []
    for place, line in enumerate(lines):
        begin, end = max(line.breach_ns, time.from_ns), min(line.resolved_ns or time.to_ns, time.to_ns)
        objective = known.get(line.objective)
        if objective is None or place >= MOST_EPISODES or end <= begin:
            found.append(line)
            continue
        found.append(replace(line, cost=pricer.objective(objective, begin, end).cost.value))
    return tuple(found)


def agreements(store: Store, money: Money, time: Period, now_ns: int) -> tuple[AgreementLine, ...]:
    """Each agreement in the calendar period that holds the report's last moment."""
    found = []
    for name, one in list(money.agreements.items())[:_LINES]:
        judged = agreement(store, name, one, money.settings.currency, at_ns=time.to_ns - 1, now_ns=now_ns)
        found.append(
            AgreementLine(
                name=name, provider=judged.provider, path=judged.path, stage=judged.stage,
                percentile=judged.percentile, limit_ns=judged.limit_ns, value_ns=judged.value_ns,
                near_ns=judged.near_ns, far_ns=judged.far_ns, verdict=judged.verdict, over=judged.over,
                credit=judged.credit, sentence=judged.sentence,
            )
        )  # fmt: skip
    return tuple(found)


def debts(pricer: Pricer, money: Money, episodes: Sequence[EpisodeLine], time: Period) -> tuple[DebtLine, ...]:
    """The declared debts, the dearest first, priced on the period's latencies."""
    fired = [
        Episode(
            episode=e.episode, objective=e.objective, rule=e.rule, severity="", breach_ns=e.breach_ns,
            fired_ns=e.fired_ns, resolved_ns=e.resolved_ns or 0,
        )
        for e in episodes
    ]  # fmt: skip
    rows = ledger(pricer, money.debts, fired, from_ns=time.from_ns, to_ns=time.to_ns)[:_LINES]
    return tuple(
        DebtLine(
            name=one.debt, what=one.what, owner=one.owner, stage=f"{one.path}, {one.stage}",
            per_month=one.per_month.value, low=one.per_month.low, high=one.per_month.high, fix_cost=one.fix_cost,
            payback_months=one.payback_months, sentence=_reason(one.per_month),
        )
        for one in rows
    )  # fmt: skip


def _reason(cost: Cost) -> str:
    return cost.sentence if cost.value is not None else cost.reason or cost.sentence
