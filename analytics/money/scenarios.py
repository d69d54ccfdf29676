"""What an investment is worth, how sure that is, and which input decides it.

Money moves at t = 0 (capex) and at the end of each month. All scenarios see the same draws of what they share (effect,
revenue, margin), so that their difference is not noise of the draws; what belongs to one scenario is drawn under its
own name, so that adding a scenario changes no other one's figures.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xxhash

from analytics.money.finance import FinanceError, Floats, irr, npvs, period_rate
from analytics.money.scenario_files import Amount, Business, MeasuredEffect, Range, Scenario, Scenarios, as_range

_Z975 = 1.959963984540054
MULTIPLES = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)
_MAX_DRAWS = 200_000

Inputs = dict[str, Floats]


@dataclass(frozen=True, slots=True)
class Swing:
    """One input at its low and its high end, all others at their likeliest: the net present value at both."""

    name: str
    at_low: float
    at_high: float

    @property
    def width(self) -> float:
        """How much the input moves the value."""
        return abs(self.at_high - self.at_low)


@dataclass(frozen=True, slots=True)
class Valuation:
    """One scenario in money of today; `p5`, `p50`, `p95` and the probabilities are over the draws.

    `at_effect` is the value with the effect times each of MULTIPLES, `break_even_effect` the effect that makes it zero.
    `multiple` is the present value of what it brings by all it takes, and `irr` per year (None: there is not one).
    """

    name: str
    npv: float
    p5: float
    p50: float
    p95: float
    p_positive: float
    irr: float | None
    multiple: float
    passes_gate: bool
    p_gate: float
    cost_per_decision: float
    at_effect: Mapping[float, float]
    break_even_effect: float | None
    tornado: tuple[Swing, ...]
    clamped_ms: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """All scenarios, best first, and how probable it is that one is worth more than another."""

    valuations: tuple[Valuation, ...]
    beats: Mapping[tuple[str, str], float]
    draws: int
    seed: int


def _uniforms(seed: int, name: str, draws: int) -> Floats:
    return np.random.default_rng([seed, xxhash.xxh64_intdigest(name.encode())]).random(draws)


def _triangle(amount: Range, u: Floats) -> Floats:
    """The inverse distribution function of a triangle at u."""
    width = amount.high - amount.low
    if width == 0:
        return np.full(len(u), amount.likely)
    split = (amount.likely - amount.low) / width
    rising = amount.low + np.sqrt(u * width * (amount.likely - amount.low))
    falling = amount.high - np.sqrt((1 - u) * width * (amount.high - amount.likely))
    return np.where(u < split, rising, falling)


def _effect(effect: MeasuredEffect, u: Floats) -> Floats:
    """The effect as two halves of a normal distribution whose 2.5 % and 97.5 % are the interval's ends."""
    from scipy.special import ndtri

    z = np.asarray(ndtri(u), dtype=np.float64)
    below = (effect.estimate - effect.low) / _Z975
    above = (effect.high - effect.estimate) / _Z975
    return np.asarray(effect.estimate + z * np.where(z < 0, below, above))


def _amounts(business: Business, scenario: Scenario) -> tuple[dict[str, Amount], dict[str, Amount]]:
    """What all scenarios share, and what belongs to this one, by name."""
    common: dict[str, Amount] = {"revenue_per_month": business.revenue_per_month, "margin": business.margin}
    own: dict[str, Amount] = {
        "capex": scenario.capex,
        "opex_per_month": scenario.opex_per_month,
        "months_to_value": scenario.months_to_value,
    }
    own |= {f"gain_ms.{stage}": gain for stage, gain in scenario.gain_ms.items()}
    own |= {f"serving.{name}": one.cost_per_decision for name, one in scenario.serving.items()}
    return common, own


def _likely(business: Business, scenario: Scenario) -> Inputs:
    common, own = _amounts(business, scenario)
    inputs = {name: np.array([as_range(amount).likely]) for name, amount in (common | own).items()}
    return inputs | {"effect": np.array([business.effect.estimate])}


def _drawn(business: Business, name: str, scenario: Scenario, draws: int, seed: int) -> Inputs:
    common, own = _amounts(business, scenario)
    inputs = {one: _triangle(as_range(amount), _uniforms(seed, one, draws)) for one, amount in common.items()}
    inputs |= {one: _triangle(as_range(amount), _uniforms(seed, f"{name}/{one}", draws)) for one, amount in own.items()}
    return inputs | {"effect": _effect(business.effect, _uniforms(seed, "effect", draws))}


def _per_decision(business: Business, scenario: Scenario, inputs: Inputs) -> Floats:
    if not scenario.serving:
        return np.full(len(inputs["effect"]), business.cost_per_decision_today)
    parts = [one.share * inputs[f"serving.{name}"] for name, one in scenario.serving.items()]
    return np.asarray(np.sum(parts, axis=0))


def _saved_ms(scenario: Scenario, inputs: Inputs) -> Floats:
    return np.asarray(np.sum([inputs[f"gain_ms.{stage}"] for stage in scenario.gain_ms], axis=0))


def _flows(business: Business, scenario: Scenario, inputs: Inputs) -> tuple[Floats, Floats]:
    """What comes in and what goes out over today, both float64[draws, months + 1], costs positive."""
    months = np.arange(business.months + 1, dtype=np.float64)
    limit = business.effect.at_most_ms
    saved = np.clip(_saved_ms(scenario, inputs), -limit, limit)
    monthly = inputs["revenue_per_month"] * inputs["margin"] * inputs["effect"] * saved
    # Whatever part of a month lies after the start of value counts.
    working = np.clip(months[None, :] - inputs["months_to_value"][:, None], 0.0, 1.0)
    per_decision = _per_decision(business, scenario, inputs) - business.cost_per_decision_today
    running = inputs["opex_per_month"] + per_decision * business.decisions_per_month
    costs = np.repeat(running[:, None], len(months), axis=1)
    costs[:, 0] = inputs["capex"]
    return monthly[:, None] * working, costs


def _values(business: Business, scenario: Scenario, inputs: Inputs) -> tuple[Floats, Floats]:
    """Present values of what comes in and what goes out: float64[draws] each."""
    rate = period_rate(business.annual_discount_rate)
    gains, costs = _flows(business, scenario, inputs)
    return npvs(rate, gains), npvs(rate, costs)


def _multiple(gains: Floats, costs: Floats) -> Floats:
    # An investment that takes nothing, or saves money while it runs, passes any gate if it brings something.
    return np.asarray(
        np.where(costs > 0, gains / np.where(costs > 0, costs, 1.0), np.where(gains > costs, np.inf, 0.0))
    )


def _tornado(business: Business, scenario: Scenario) -> tuple[Swing, ...]:
    common, own = _amounts(business, scenario)
    ends = {name: as_range(amount) for name, amount in (common | own).items()}
    pairs = {name: (one.low, one.high) for name, one in ends.items()}
    pairs["effect"] = (business.effect.low, business.effect.high)
    likely = _likely(business, scenario)
    swings = []
    for name, (low, high) in pairs.items():
        if low == high:
            continue
        at = []
        for end in (low, high):
            gains, costs = _values(business, scenario, likely | {name: np.array([end])})
            at.append(float(gains[0] - costs[0]))
        swings.append(Swing(name, at[0], at[1]))
    return tuple(sorted(swings, key=lambda swing: (-swing.width, swing.name)))


def _valued(business: Business, name: str, scenario: Scenario, inputs: Inputs) -> tuple[Valuation, Floats]:
    likely = _likely(business, scenario)
    gain, cost = (float(one[0]) for one in _values(business, scenario, likely))
    gains, costs = _values(business, scenario, inputs)
    drawn = gains - costs
    flows_in, flows_out = _flows(business, scenario, likely)
    try:
        yearly: float | None = (1.0 + irr(flows_in[0] - flows_out[0])) ** 12 - 1.0
    except FinanceError:
        yearly = None
    estimate = business.effect.estimate
    multiple = float(_multiple(np.array([gain]), np.array([cost]))[0])
    saved = float(_saved_ms(scenario, likely)[0])
    per_unit = float(_values(business, scenario, likely | {"effect": np.array([1.0])})[0][0])
    decisions = business.decisions_per_month * business.months
    fixed = float(likely["capex"][0] + likely["opex_per_month"][0] * business.months)
    p5, p50, p95 = (float(one) for one in np.quantile(drawn, [0.05, 0.5, 0.95]))
    valuation = Valuation(
        name=name,
        npv=gain - cost,
        p5=p5,
        p50=p50,
        p95=p95,
        p_positive=float((drawn > 0).mean()),
        irr=yearly,
        multiple=multiple,
        passes_gate=multiple >= business.gate,
        p_gate=float((_multiple(gains, costs) >= business.gate).mean()),
        cost_per_decision=fixed / decisions + float(_per_decision(business, scenario, likely)[0]),
        at_effect={m: per_unit * estimate * m - cost for m in MULTIPLES},
        break_even_effect=cost / per_unit if per_unit > 0 else None,
        tornado=_tornado(business, scenario),
        clamped_ms=max(0.0, abs(saved) - business.effect.at_most_ms),
    )
    return valuation, drawn


def compare(given: Scenarios, draws: int = 20_000, seed: int = 1) -> Comparison:
    """Value every scenario with the same draws of what they share.

    Raises FinanceError for fewer than 1,000 or more than 200,000 draws.
    """
    if not 1000 <= draws <= _MAX_DRAWS:
        raise FinanceError(f"draws: {draws} must be 1000 to {_MAX_DRAWS}")
    valuations, drawn = [], {}
    for name, scenario in given.scenarios.items():
        inputs = _drawn(given.business, name, scenario, draws, seed)
        valuation, drawn[name] = _valued(given.business, name, scenario, inputs)
        valuations.append(valuation)
    beats = {(a, b): float((drawn[a] > drawn[b]).mean()) for a, b in itertools.permutations(drawn, 2)}
    ranked = sorted(valuations, key=lambda one: (-one.npv, one.name))
    return Comparison(tuple(ranked), beats, draws, seed)
