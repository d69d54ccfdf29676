"""VRAM, the Velocity Response Architecture Model: what a change of latency in a stage is worth per month.

Expected Revenue Velocity after the changes d_s (ms of total latency, negative is faster):

    ERV = R0 (1 + f(T + sum d_s) / f(T) - 1),  linear: R0 (1 + beta sum d_s)

with beta the relative change of revenue per millisecond of TOTAL latency and f the response curve. The weight of a
stage is its share of the mean total latency, w_s = E[X_s] / E[T]; weights add up to 1 with what no stage covers. A
stage that gets r_s relatively slower changes revenue by beta E[T] w_s r_s = beta d_s: weighing d_s once more would
count the share twice. Nothing is extrapolated: the total latency after a change is held inside what was seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analytics.money.effects import ANSWERS, Effect, SensitivityError
from analytics.money.response import Curve

UNATTRIBUTED = "unattributed"


@dataclass(frozen=True, slots=True)
class StageTime:
    """A stage with its class (network, compute, store, queue, scheduler) and its mean latency in the scope, in ms."""

    name: str
    kind: str
    mean_ms: float


@dataclass(frozen=True, slots=True)
class PerMs:
    """The relative change of revenue per millisecond more, with its 95 % interval; -0.0005 is -0.05 % per ms.

    `least_ms` to `most_ms` are the mean total latencies that the measurement covers.
    """

    estimate: float
    low: float
    high: float
    least_ms: float
    most_ms: float

    def __post_init__(self) -> None:
        values = (self.estimate, self.low, self.high, self.least_ms, self.most_ms)
        if not all(math.isfinite(one) for one in values):
            raise SensitivityError("effect: every number must be finite")
        if not self.low <= self.estimate <= self.high:
            raise SensitivityError("effect: the estimate must lie inside its interval")
        if not 0 <= self.least_ms < self.most_ms:
            raise SensitivityError("effect: least_ms must be 0 or more, and less than most_ms")


@dataclass(frozen=True, slots=True)
class Worth:
    """Money per month that one stage's change brings by itself. `seen`: the interval leaves out zero."""

    stage: str
    kind: str
    weight: float
    change_ms: float
    per_month: float
    low: float
    high: float
    per_ms: float
    per_dollar: float | None
    clamped: bool

    @property
    def seen(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, slots=True)
class Velocity:
    """Expected revenue per month after all changes together, the stages ranked, and the weights by class."""

    erv: float
    low: float
    high: float
    gain: float
    clamped: bool
    ranked: tuple[Worth, ...]
    weights: Mapping[str, float]
    sentence: str


def relative(effect: Effect, baseline: float, least_ms: float, most_ms: float) -> PerMs:
    """An estimated effect in parts of the KPI's mean. Raises SensitivityError for a refused one, or no baseline.

    The baseline is taken as known: its own error is small beside the effect's.
    """
    if effect.estimate is None or effect.low is None or effect.high is None:
        raise SensitivityError(f"effect: was refused and is worth nothing that could be said: {effect.reason}")
    if effect.design not in ANSWERS:
        raise SensitivityError(f"effect: a {effect.design} slope is a warning or a check, and must not become money")
    if not (math.isfinite(baseline) and baseline > 0):
        raise SensitivityError(f"baseline: {baseline} must be more than 0")
    ends = (effect.estimate / baseline, effect.low / baseline, effect.high / baseline)
    return PerMs(*ends, least_ms, most_ms)


def _moved(response: PerMs | Curve, total_ms: float, change_ms: float) -> tuple[float, float, float, bool]:
    """The relative change of revenue with its interval, and whether the support ended before."""
    if isinstance(response, Curve):
        level = response.at(total_ms)
        if not level > 0:
            raise SensitivityError("response: its level at today's latency must be more than 0 to be a part of revenue")
        change = response.change(total_ms, total_ms + change_ms)
        return change.estimate / level, change.low / level, change.high / level, change.clamped
    after = min(max(total_ms + change_ms, response.least_ms), response.most_ms)
    by = after - total_ms
    low, high = sorted((response.low * by, response.high * by))
    return response.estimate * by, low, high, by != (total_ms + change_ms) - total_ms


def velocity(
    stages: Sequence[StageTime],
    total_ms: float,
    changes_ms: Mapping[str, float],
    revenue_per_month: float,
    response: PerMs | Curve,
    cost_per_month: Mapping[str, float] | None = None,
) -> Velocity:
    """Value changes of stages, each alone and all together.

    `total_ms` is the mean from end to end, `changes_ms` by stage (negative is faster), `cost_per_month` by stage.
    Raises SensitivityError naming a stage that is unknown or gets faster than nothing, or today's latency outside the
    support.
    """
    known = {stage.name: stage for stage in stages}
    _check(known, len(stages), total_ms, changes_ms, revenue_per_month, response)
    costs = cost_per_month or {}
    worths = []
    for name, change in changes_ms.items():
        stage = known[name]
        part, low, high, clamped = _moved(response, total_ms, change)
        gain, cost = revenue_per_month * part, costs.get(name)
        worths.append(
            Worth(
                stage=name,
                kind=stage.kind,
                weight=stage.mean_ms / total_ms,
                change_ms=change,
                per_month=gain,
                low=revenue_per_month * low,
                high=revenue_per_month * high,
                per_ms=gain / abs(change) if change else 0.0,
                per_dollar=gain / cost if cost else None,
                clamped=clamped,
            )
        )
    # What is seen goes first; then by what a dollar brings where all have a cost, else by what the change brings.
    priced = all(one.per_dollar is not None for one in worths)

    def order(one: Worth) -> tuple[bool, float, str]:
        value = one.per_dollar if priced and one.per_dollar is not None else one.per_month
        return not one.seen, -value, one.stage

    ranked = sorted(worths, key=order)
    part, low, high, clamped = _moved(response, total_ms, sum(changes_ms.values()))
    weights: dict[str, float] = {}
    for stage in stages:
        weights[stage.kind] = weights.get(stage.kind, 0.0) + stage.mean_ms / total_ms
    weights[UNATTRIBUTED] = weights.get(UNATTRIBUTED, 0.0) + 1.0 - sum(stage.mean_ms for stage in stages) / total_ms
    ends = revenue_per_month * low, revenue_per_month * high
    if ends[0] > 0 or ends[1] < 0:
        span = f"95 % interval {ends[0]:+,.0f} to {ends[1]:+,.0f}"
        sentence = f"All changes together: {revenue_per_month * part:+,.0f} a month ({span})"
    else:
        sentence = f"No detectable effect on revenue: between {ends[0]:+,.0f} and {ends[1]:+,.0f} a month"
    sentence += "; counted only as far as latencies were seen." if clamped else "."
    return Velocity(
        erv=revenue_per_month * (1 + part),
        low=revenue_per_month + ends[0],
        high=revenue_per_month + ends[1],
        gain=revenue_per_month * part,
        clamped=clamped,
        ranked=tuple(ranked),
        weights=weights,
        sentence=sentence,
    )


def _check(
    known: Mapping[str, StageTime],
    given: int,
    total_ms: float,
    changes_ms: Mapping[str, float],
    revenue_per_month: float,
    response: PerMs | Curve,
) -> None:
    if len(known) != given:
        raise SensitivityError("stages: two have the same name")
    if not (math.isfinite(total_ms) and total_ms > 0):
        raise SensitivityError(f"total_ms: {total_ms} must be more than 0")
    if not (math.isfinite(revenue_per_month) and revenue_per_month >= 0):
        raise SensitivityError(f"revenue_per_month: {revenue_per_month} must be 0 or more")
    for name, stage in known.items():
        if not (math.isfinite(stage.mean_ms) and stage.mean_ms >= 0):
            raise SensitivityError(f"stages.{name}: {stage.mean_ms} must be 0 or more")
    for name, change in changes_ms.items():
        if name not in known:
            raise SensitivityError(f"changes_ms.{name}: no such stage; there are {', '.join(sorted(known))}")
        if not (math.isfinite(change) and change >= -known[name].mean_ms):
            raise SensitivityError(f"changes_ms.{name}: {change} is more than the {known[name].mean_ms:g} ms it takes")
    least, most = response.support if isinstance(response, Curve) else (response.least_ms, response.most_ms)
    if not least <= total_ms <= most:
        raise SensitivityError(f"total_ms: {total_ms:g} is outside {least:g} to {most:g} ms, where it was measured")
