"""What to fund: the scenarios of a user's file, ranked, and on whose effect they rest."""

from __future__ import annotations

import math

from analytics.money.scenario_files import Scenarios
from analytics.money.scenarios import Comparison, Valuation, compare
from analytics.report.value import Funding, ScenarioLine, SwingLine
from analytics.report.words import clean, money, percent

_SWINGS = 6
NONE = (
    "No investment scenarios were given. A file of them, or a saved plan, is named with --scenarios;"
    " tailsight scenarios new writes one to start from."
)


def funding(given: Scenarios | None, draws: int = 20_000, seed: int = 1) -> Funding:
    """The ranked investments, or the sentence that none were given."""
    if given is None:
        return Funding(
            scenarios=(), currency="", months=0, gate=0.0, effect_design="", effect_source="", beats_next=None,
            sentence="", unknown=NONE,
        )  # fmt: skip
    found = compare(given, draws, seed)
    business = given.business
    return Funding(
        scenarios=tuple(_line(one, given.scenarios[one.name].description) for one in found.valuations),
        currency=business.currency,
        months=business.months,
        gate=business.gate,
        effect_design=business.effect.design,
        effect_source=business.effect.source,
        beats_next=_beats(found),
        sentence=_sentence(found, given),
    )


def _line(one: Valuation, description: str) -> ScenarioLine:
    return ScenarioLine(
        name=one.name,
        description=description,
        npv=one.npv,
        p5=one.p5,
        p95=one.p95,
        p_positive=one.p_positive,
        multiple=one.multiple if math.isfinite(one.multiple) else None,
        passes_gate=one.passes_gate,
        irr=one.irr,
        break_even_effect=one.break_even_effect,
        clamped_ms=one.clamped_ms,
        tornado=tuple(SwingLine(name=s.name, at_low=s.at_low, at_high=s.at_high) for s in one.tornado[:_SWINGS]),
    )


def _beats(found: Comparison) -> float | None:
    first, *rest = found.valuations
    return found.beats[first.name, rest[0].name] if rest else None


def _sentence(found: Comparison, given: Scenarios) -> str:
    best, business = found.valuations[0], given.business
    name = clean(best.name.replace("_", " "), 60)
    years = f"{business.months} months"
    design = business.effect.design
    rests = {
        "experiment": "It rests on the effect of an experiment.",
        "natural experiment": "It rests on the effect of a natural experiment.",
        "strata": "It rests on an association among what is alike, which is no proof.",
        "published": "It rests on effects that others have published, not on your data.",
        "assumed": "It rests on an assumed effect.",
    }[design]
    if best.npv <= 0:
        worth = money(best.npv, business.currency)
        return f"None of the scenarios is worth its money over {years}: the best, {name}, has {worth}. {rests}"
    chance = percent(best.p_positive)
    gate = "passes" if best.passes_gate else "does not pass"
    return (
        f"{name} is worth most: {money(best.npv, business.currency)} in money of today over {years} (nine in ten draws"
        f" lie between {money(best.p5, business.currency)} and {money(best.p95, business.currency)}), with a chance of"
        f" {chance} to bring more than it takes. It {gate} the gate of {business.gate:g} times what it takes. {rests}"
    )
