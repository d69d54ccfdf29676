"""Investment scenarios as an answer: every valuation as plain values, ranked, and whether the effect was measured."""

from __future__ import annotations

import math

import msgspec

from analytics.money.scenario_files import Scenarios, as_range
from analytics.money.scenarios import Comparison, compare
from analytics.money.value import ACCEPTED

MOST_DRAWS = 20_000  # of an answer over the network
_MOST_MULTIPLE = 1e12


class Swing(msgspec.Struct, frozen=True, kw_only=True):
    """The net present value with one input at its low and its high end, the widest first."""

    name: str
    at_low: float
    at_high: float


class Sensitivity(msgspec.Struct, frozen=True, kw_only=True):
    """The net present value with the effect times `multiple`."""

    multiple: float
    npv: float


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One scenario in money of today (docs/money.md says how each figure is computed).

    `gain_per_month` is what it brings once it works, `per_ms` the same for each millisecond saved, `per_dollar` the
    present value that each dollar of its cost brings (null: it costs nothing). `rank_per_ms` and `rank_per_dollar`
    begin at 1.
    """

    name: str
    description: str
    npv: float
    p5: float
    p50: float
    p95: float
    p_positive: float
    irr: float | None
    passes_gate: bool
    p_gate: float
    cost_per_decision: float
    gain_per_month: float
    saved_ms: float
    per_ms: float
    per_dollar: float | None
    rank_per_ms: int
    rank_per_dollar: int
    break_even_effect: float | None
    clamped_ms: float
    at_effect: list[Sensitivity]
    tornado: list[Swing]


class Beats(msgspec.Struct, frozen=True, kw_only=True):
    """How probable it is that scenario `a` is worth more than `b`."""

    a: str
    b: str
    probability: float


class Plans(msgspec.Struct, frozen=True, kw_only=True):
    """All scenarios, best first by net present value. `measured` says whether the effect is one of an accepted design;
    otherwise the figures are of an assumption, and `sentence` says so."""

    currency: str
    months: int
    gate: float
    design: str
    source: str
    measured: bool
    draws: int
    seed: int
    scenarios: list[Plan]
    beats: list[Beats]
    cost_per_decision_today: float
    sentence: str


def plans(given: Scenarios, draws: int = 20_000, seed: int = 1) -> Plans:
    """Value the scenarios and rank them. Raises FinanceError for a wrong number of draws."""
    found = compare(given, draws, seed)
    business = given.business
    revenue, margin = as_range(business.revenue_per_month).likely, as_range(business.margin).likely
    effect = business.effect
    gains: dict[str, tuple[float, float]] = {}
    for name, scenario in given.scenarios.items():
        saved = sum(as_range(one).likely for one in scenario.gain_ms.values())
        counted = min(max(saved, -effect.at_most_ms), effect.at_most_ms)
        gains[name] = revenue * margin * effect.estimate * counted, saved
    per_ms = {name: gain / abs(ms) if ms else 0.0 for name, (gain, ms) in gains.items()}
    per_dollar = {
        one.name: one.multiple if math.isfinite(one.multiple) and one.multiple < _MOST_MULTIPLE else None
        for one in found.valuations
    }
    by_ms = _ranks(per_ms)
    by_dollar = _ranks({name: math.inf if one is None else one for name, one in per_dollar.items()})
    measured = effect.design in ACCEPTED
    return Plans(
        currency=business.currency,
        months=business.months,
        gate=business.gate,
        design=effect.design,
        source=effect.source,
        measured=measured,
        draws=found.draws,
        seed=found.seed,
        scenarios=[
            Plan(
                name=one.name, description=given.scenarios[one.name].description, npv=one.npv, p5=one.p5, p50=one.p50,
                p95=one.p95, p_positive=one.p_positive, irr=one.irr, passes_gate=one.passes_gate, p_gate=one.p_gate,
                cost_per_decision=one.cost_per_decision, gain_per_month=gains[one.name][0],
                saved_ms=gains[one.name][1], per_ms=per_ms[one.name], per_dollar=per_dollar[one.name],
                rank_per_ms=by_ms[one.name], rank_per_dollar=by_dollar[one.name],
                break_even_effect=one.break_even_effect, clamped_ms=one.clamped_ms,
                at_effect=[Sensitivity(multiple=m, npv=v) for m, v in one.at_effect.items()],
                tornado=[Swing(name=s.name, at_low=s.at_low, at_high=s.at_high) for s in one.tornado],
            )
            for one in found.valuations
        ],
        beats=[Beats(a=a, b=b, probability=p) for (a, b), p in sorted(found.beats.items())],
        cost_per_decision_today=business.cost_per_decision_today,
        sentence=_sentence(given, found, measured),
    )  # fmt: skip


def _ranks(values: dict[str, float]) -> dict[str, int]:
    return {name: at for at, name in enumerate(sorted(values, key=lambda n: (-values[n], n)), 1)}


def _sentence(given: Scenarios, found: Comparison, measured: bool) -> str:
    best, currency = found.valuations[0], given.business.currency
    said = (
        f"{best.name} is worth most: {best.npv:,.0f} {currency} over {given.business.months} months"
        f" (90 % of draws between {best.p5:,.0f} and {best.p95:,.0f}), above zero with a probability of"
        f" {100 * best.p_positive:.0f} %."
    )
    if best.npv <= 0:
        said = f"No scenario pays at the likeliest values: the best, {best.name}, is worth {best.npv:,.0f} {currency}."
    if not measured:
        said += f" The effect is {given.business.effect.design}, not measured here: measure it before you decide."
    return said
