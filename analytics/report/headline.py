"""The few sentences that a reader takes away if nothing else is read."""

from __future__ import annotations

from collections.abc import Sequence

from analytics.report.value import BudgetLine, Cost, Funding, PathLine, Quantile, Reliability
from analytics.report.words import clean, duration, latency, listed, many, percent, signed


def headline(
    paths: Sequence[PathLine], costs: Sequence[Cost], budgets: Sequence[BudgetLine], dependable: Reliability,
    funded: Funding,
) -> tuple[str, ...]:  # fmt: skip
    """Latency, cost, budgets and reliability, and what to fund: a sentence or two each."""
    said = [_latency(paths), _cost(costs), _budget(budgets, dependable)]
    said.append(funded.sentence or funded.unknown)
    return tuple(said)


def tail(line: PathLine) -> Quantile | None:
    """The highest percentile of a path of which a change can be told."""
    return next((q for q in reversed(line.quantiles) if q.name == "p99" and q.value_ns is not None), None)


def _latency(paths: Sequence[PathLine]) -> str:
    seen = [(one, q) for one in paths if (q := tail(one)) is not None]
    if not seen:
        return "Too few messages were seen to say how long they took."
    slower = sorted((pair for pair in seen if pair[1].verdict == "slower"), key=lambda pair: -_ratio(pair[1]))
    faster = [one.name for one, q in seen if q.verdict == "faster"]
    if slower:
        line, q = slower[0]
        said = (
            f"The slowest 1 % of {listed([one.name for one, _ in slower])} became slower;"
            f" most of all {line.name}: {signed(latency(q.change_ns))}, to {latency(q.value_ns)}."
        )
    elif all(q.verdict == "not known" for _, q in seen):
        return "Whether latency changed cannot be said: there is too little in this period, or in the one before."
    else:
        said = "No path became clearly slower than in the period before."
    return said + (f" Faster: {listed(faster)}." if faster else "")


def _ratio(q: Quantile) -> float:
    return (q.value_ns or 0) / q.before_ns if q.before_ns else 0.0


def _cost(costs: Sequence[Cost]) -> str:
    if not costs:
        return "What that cost is not known: no path names a revenue node that has a business measure."
    ranked = sorted(costs, key=_worth)
    first = ranked[0]
    rest = len(costs) - 1
    return first.sentence + (f" {many(rest, 'other estimate')} follow." if rest > 1 else "")


def _worth(one: Cost) -> int:
    if one.effect is None or one.effect.verdict == "refused":
        return 3
    if not one.may_claim:
        return 2
    return 0 if one.effect.verdict == "effect" else 1


def _budget(budgets: Sequence[BudgetLine], dependable: Reliability) -> str:
    known = [one for one in budgets if one.burned is not None]
    if not known:
        return dependable.unknown or "No objective had events in this period."
    worst = known[0]
    said = f"{clean(worst.name, 80)} burned {percent(worst.burned)} of its budget"
    missed = [clean(one.name, 60) for one in known if one.left is not None and one.left < 0]
    said += f"; missed: {listed(missed)}." if missed else ", and no objective is missed."
    if dependable.episodes:
        said += f" {many(len(dependable.episodes), 'alert')}, {duration(dependable.in_breach_ns)} in breach."
    return said
