"""What the change of latency since the last period did to a business measure: as far as the estimate's design can say.

    change = effect per ms x (mean latency of this period - mean latency of the one before)

with the interval of the effect; the two means are taken as known. Beyond the latencies that were seen nothing is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from analytics.money.effects import Effect
from analytics.money.response import Curve
from analytics.money.sensitivity import Sensitivity
from analytics.report.value import CohortLine, Cost, CurveLine, CurvePoint, EffectLine, PathLine
from analytics.report.words import clean, number, percent, signed

POINTS = "percentage points"
# What an estimate's design is called where people read it.
DESIGNS = {
    "experiment": "an experiment",
    "natural experiment": "a natural experiment",
    "strata": "comparing what is alike",
    "double machine learning": "comparing what a model finds alike",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A business measure: its name, unit (`ratio`: a share of one) and value in both periods."""

    name: str
    unit: str
    good: str
    value: float | None = None
    before: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimated:
    """What was estimated for a path and a measure; `refused` says why there is nothing."""

    found: Sensitivity | None = None
    curve: Curve | None = None
    cohorts: Sequence[tuple[str, str, Effect]] = ()
    notes: Sequence[str] = ()
    refused: str = ""


def effect_line(one: Effect) -> EffectLine:
    """An effect as the report keeps it."""
    return EffectLine(
        design=one.design, verdict=one.verdict, sentence=one.sentence, estimate=one.estimate, low=one.low,
        high=one.high, detectable=one.detectable, n=one.n, clusters=one.clusters,
    )  # fmt: skip


def cost_of(path: PathLine, measure: Measure, given: Estimated) -> Cost:
    """The cost of a path's change of latency in one measure."""
    found = given.found
    answer = None if found is None else found.answer
    claim = answer is not None and answer.verdict != "refused"
    if found is not None and answer is not None and answer.design == "strata" and found.checks_failed:
        claim = False
    moved = None
    if path.mean_ns is not None and path.mean_before_ns is not None:
        moved = (path.mean_ns - path.mean_before_ns) / 1e6
    change = low = high = None
    if claim and answer is not None and moved is not None and answer.estimate is not None:
        ends = sorted(moved * end for end in (answer.low, answer.high) if end is not None)
        change, low, high = moved * answer.estimate, ends[0], ends[-1]
    unknown = given.refused or ("" if found is not None else "What latency does to this measure was not estimated.")
    if answer is not None and answer.verdict == "refused":
        unknown = answer.reason
    line = Cost(
        path=path.name,
        kpi=measure.name,
        kpi_unit=measure.unit,
        value=measure.value,
        before=measure.before,
        effect=None if answer is None else effect_line(answer),
        may_claim=claim,
        naive="" if found is None else found.naive.sentence,
        checks=() if found is None else tuple(one.sentence for one in found.checks),
        latency_change_ms=moved,
        change=change,
        change_low=low,
        change_high=high,
        curve=None if given.curve is None else _curve(given.curve),
        notes=tuple(given.notes),
        cohorts=tuple(CohortLine(dimension=d, value=v, effect=effect_line(e)) for d, v, e in given.cohorts),
        sentence="",
        unknown=unknown,
    )
    return _said(line, "" if found is None else found.sentence)


def _curve(one: Curve) -> CurveLine:
    return CurveLine(
        points=tuple(
            CurvePoint(at_ms=float(x), level=float(y), low=float(a), high=float(b))
            for x, y, a, b in zip(one.at_ms, one.level, one.low, one.high, strict=True)
        ),
        saturated_from_ms=one.saturated_from_ms,
        days=one.days,
        n=one.n,
    )


def found_by(design: str) -> str:
    """A design in words."""
    return DESIGNS.get(design, clean(design, 40))


def amount(value: float | None, unit: str, *, change: bool = False) -> str:
    """A value of a measure in words; of a ratio in percent, its change in percentage points."""
    if value is None:
        return "not known"
    if unit == "ratio":
        shown = f"{number(100 * value)} {POINTS}" if change else percent(value)
    else:
        shown = f"{number(value)} {unit}".strip()
    return signed(shown) if change else shown


def _said(line: Cost, found: str) -> Cost:
    from dataclasses import replace

    kpi, effect, unit = clean(line.kpi, 60), line.effect, line.kpi_unit
    path = clean(line.path, 60)
    if effect is None or effect.verdict == "refused":
        return replace(line, sentence=f"{path} and {kpi}: what latency costs is not known. {line.unknown}")
    if not line.may_claim:
        return replace(line, sentence=f"{path} and {kpi}: {found}")
    if effect.verdict == "no detectable effect":
        said = f"No detectable effect of the latency of {path} on {kpi} (found by {found_by(effect.design)})."
        if effect.detectable is not None:
            said += (
                f" An effect of {amount(effect.detectable, unit, change=True).lstrip('+')} per ms would have been seen"
                " with a probability of 80 %."
            )
        return replace(line, sentence=said)
    per_ms = (
        f"{amount(effect.estimate, unit, change=True)} per ms (95 % interval {amount(effect.low, unit, change=True)} to"
        f" {amount(effect.high, unit, change=True)})"
    )
    if effect.design in ("experiment", "natural experiment"):
        said = f"Each ms more changes {kpi} by {per_ms}, found by {found_by(effect.design)}."
    else:
        said = f"Association, not proof: where {path} takes one ms more, {kpi} differs by {per_ms}"
        said += f", found by {found_by(effect.design)}."
    if line.latency_change_ms is not None and line.change is not None:
        said += (
            f" The mean latency of {path} moved by {signed(number(line.latency_change_ms))} ms since the last period:"
            f" {amount(line.change, unit, change=True)} ({amount(line.change_low, unit, change=True)} to"
            f" {amount(line.change_high, unit, change=True)})."
        )
    return replace(line, sentence=said)
