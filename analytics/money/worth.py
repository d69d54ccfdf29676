"""Expected Revenue Velocity from the store: what changes of a path's stages are worth per month, and which first."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from analytics.cover import widen
from analytics.money.burned import NS, Pricer
from analytics.money.velocity import StageTime, velocity
from analytics.paths import END_TO_END, Path

HOURS_PER_MONTH = 730.5


class WorthError(ValueError):
    """A velocity that cannot be computed: what is missing, and what to do."""


class StageWorth(msgspec.Struct, frozen=True, kw_only=True):
    """One stage's change by itself. `per_ms` and `per_dollar` are money per month, for a millisecond and per dollar.

    `low` to `high` is the 95 % interval of `per_month`; `seen`: it leaves out zero. `cost_per_month` is as given.
    """

    stage: str
    kind: str
    mean_ms: float
    weight: float
    change_ms: float
    per_month: float
    low: float
    high: float
    seen: bool
    per_ms: float
    cost_per_month: float | None
    per_dollar: float | None
    clamped: bool


class PathWorth(msgspec.Struct, frozen=True, kw_only=True):
    """Revenue per month after all changes together, the stages ranked, and the weights by class.

    Where all changes have a cost the ranking is by money per dollar, else by money; what is not seen comes last.
    """

    path: str
    from_ns: int
    to_ns: int
    messages: int
    total_ms: float
    revenue_per_month: float
    revenue: str
    currency: str
    design: str
    measured: str
    erv: float
    low: float
    high: float
    gain: float
    clamped: bool
    ranked: list[StageWorth]
    weights: dict[str, float]
    sentence: str


def worth(
    pricer: Pricer,
    path: Path,
    changes_ms: Mapping[str, float],
    costs_per_month: Mapping[str, float] | None = None,
    *,
    from_ns: int,
    to_ns: int,
) -> PathWorth:
    """Value changes (ms by stage, negative is faster) against the mean latencies of [from_ns, to_ns).

    Without changes, every stage is valued one millisecond faster, or as much of it as there is. Raises WorthError where
    nothing may become money, SensitivityError naming a wrong change, and StoreError.
    """
    effect, reason = pricer.effect(path.name)
    if effect is None:
        raise WorthError(reason)
    revenue = pricer.revenue(path.name)
    if revenue.reason:
        raise WorthError(revenue.reason)
    first, last = widen(from_ns, to_ns)
    found = {name: one for (_, name), one in pricer.tallies(path.name, "", first, last).items()}
    whole = found.get(END_TO_END)
    if whole is None or not whole.counts.count:
        raise WorthError(f"path {path.name} has no finished message in that time")
    n = whole.counts.count
    stages = [
        StageTime(one.name, one.kind, found[one.name].counts.sum_ns / n / 1e6 if one.name in found else 0.0)
        for one in path.stages
    ]
    means = {one.name: one.mean_ms for one in stages}
    changes = dict(changes_ms) or {one.name: -min(1.0, one.mean_ms) for one in stages if one.mean_ms > 0}
    total = whole.counts.sum_ns / n / 1e6
    per_month = revenue.per_clock_hour * HOURS_PER_MONTH
    made = velocity(stages, total, changes, per_month, effect.per_ms, costs_per_month)
    costs = costs_per_month or {}
    return PathWorth(
        path=path.name,
        from_ns=first * NS,
        to_ns=last * NS,
        messages=n,
        total_ms=total,
        revenue_per_month=per_month,
        revenue=revenue.sentence,
        currency=pricer.settings.currency,
        design=effect.design,
        measured=effect.measured.isoformat(),
        erv=made.erv,
        low=made.low,
        high=made.high,
        gain=made.gain,
        clamped=made.clamped,
        ranked=[
            StageWorth(
                stage=one.stage, kind=one.kind, mean_ms=means[one.stage], weight=one.weight, change_ms=one.change_ms,
                per_month=one.per_month, low=one.low, high=one.high, seen=one.seen, per_ms=one.per_ms,
                cost_per_month=costs.get(one.stage), per_dollar=one.per_dollar, clamped=one.clamped,
            )
            for one in made.ranked
        ],
        weights=dict(made.weights),
        sentence=made.sentence,
    )  # fmt: skip
