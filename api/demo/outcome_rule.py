"""How customers react to what happened to their orders: the rule, drawn anew for each run. Pure.

Who knows the coefficients knows the answer to every question about the effect of latency, so nobody but the back office
(which applies them) and the checker may read them. The chance that an accepted order converts its customer is linear
in what really happened to the order, so that an estimate can be held against it:

    p = base + latency_per_ms * min(latency, 20 ms) + age_per_s * min(data age, 2 s)
        + load * clip(load, -1, 1) + hour * wave(time of day - hour_shift) + cohort + channel + region + offer

Load and time of day are confounders: they move latency too (the first because a busy system is slower, the second
because the day's rate changes), and the mix of customers changes over the day. `latency_per_ms` is zero in a quarter
of the runs. The limits of the coefficients keep p inside (0, 1) without cutting.

Revenue is a fee on what was filled, and what a converted customer brings besides. Latency acts on it through the
conversion; what it does to fills and rejects is decided by the venue's book, not here.
"""

from __future__ import annotations

import math
import random
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from api.demo.faults import mixed

COHORTS = ("retail", "professional", "institutional")
CHANNELS = ("app", "web", "api")
REGIONS = ("americas", "emea", "apac")
OFFER_TYPES = ("limit", "immediate")

LATENCY_CAP_NS = 20_000_000
AGE_CAP_NS = 2_000_000_000
LOAD_SPAN_NS = 10_000_000_000
_DAY_S = 86_400.0
_FEE_PER_NOTIONAL = 5e-5  # half a basis point of quantity x price
_VALUE_CENTS = (150.0, 600.0, 2_500.0)  # what a converted customer of each cohort brings, on average
_SPREAD = 0.5  # of the logarithm of that value
Confounding = Literal["none", "moderate", "sign-flipping"]


class OutcomeRule(msgspec.Struct, frozen=True, kw_only=True):
    """One run's coefficients: changes of the chance to convert (0.01 is one percentage point)."""

    dice: int
    latency_per_ms: float
    age_per_s: float
    load: float  # per unit of the logarithm of the load
    hour: float
    hour_shift_s: float
    cohort: tuple[float, ...]
    channel: tuple[float, ...]
    region: tuple[float, ...]
    offer: tuple[float, ...]
    confounding: Confounding
    base: float = 0.5


def draw_rule(seed: int, confounding: Confounding | None = None) -> OutcomeRule:
    """The rule of that seed; the same seed gives the same rule. `confounding` asks for one strength of it."""
    rng = random.Random(f"outcomes/{seed}")  # noqa: S311 - drawn again from the seed by the checker
    drawn: Confounding = rng.choice(("none", "moderate", "sign-flipping"))
    strength = confounding or drawn
    low, high = {"none": (0.0, 0.0), "moderate": (0.01, 0.03), "sign-flipping": (0.12, 0.18)}[strength]
    least, most = (0.002, 0.004) if strength == "sign-flipping" else (0.003, 0.008)
    return OutcomeRule(
        dice=rng.getrandbits(64),
        latency_per_ms=-rng.uniform(least, most) if rng.random() < 0.75 else 0.0,
        age_per_s=-rng.uniform(0.0, 0.02),
        load=rng.uniform(low, high),
        hour=rng.uniform(low, high) / 2,
        hour_shift_s=rng.uniform(0.0, _DAY_S),
        cohort=tuple(rng.uniform(-0.04, 0.04) for _ in COHORTS),
        channel=tuple(rng.uniform(-0.02, 0.02) for _ in CHANNELS),
        region=tuple(rng.uniform(-0.02, 0.02) for _ in REGIONS),
        offer=tuple(rng.uniform(-0.02, 0.02) for _ in OFFER_TYPES),
        confounding=strength,
    )


@dataclass(frozen=True, slots=True)
class Customer:
    """On whose behalf an order was sent."""

    cohort: str
    channel: str
    region: str


@dataclass(frozen=True, slots=True)
class Experience:
    """What really happened to an order, as its customer has felt it. `latency_ns` None: never reported on."""

    latency_ns: int | None
    data_age_ns: int | None
    load: float  # as `LoadMeter` says
    day_s: float  # time of day, 0 to 86,400 s
    offer_type: str
    accepted: bool
    filled_notional: int  # quantity x price in ticks, one tick is a cent


@dataclass(frozen=True, slots=True)
class Reaction:
    """What the customer did, and what the order brought."""

    converted: bool
    revenue_cents: int


def customer_of(rule: OutcomeRule, order: int, day_s: float) -> Customer:
    """The customer behind an order: by a hash of its number; more retail and more app in the afternoon."""
    dice = Dice(rule.dice ^ 0xC0, order)
    afternoon = 0.5 - 0.5 * math.cos(2 * math.pi * (day_s / _DAY_S - 0.125))
    retail = 0.4 + 0.3 * afternoon
    cohort = _pick(COHORTS, (retail, 0.75 * (1 - retail)), dice.roll())
    channel = _pick(CHANNELS, (0.2 + 0.3 * afternoon, 0.3), dice.roll())
    region = _pick(REGIONS, (0.45, 0.35), dice.roll())
    return Customer(cohort, channel, region)


def chance(rule: OutcomeRule, customer: Customer, seen: Experience) -> float:
    """The probability that the order converts its customer; 0 for an order that was refused or never reported on."""
    if not seen.accepted or seen.latency_ns is None:
        return 0.0
    return (
        rule.base
        + rule.latency_per_ms * min(max(seen.latency_ns, 0), LATENCY_CAP_NS) * 1e-6
        + rule.age_per_s * min(max(seen.data_age_ns or 0, 0), AGE_CAP_NS) * 1e-9
        + rule.load * max(-1.0, min(1.0, seen.load))
        + rule.hour * math.cos(2 * math.pi * (seen.day_s - rule.hour_shift_s) / _DAY_S)
        + rule.cohort[COHORTS.index(customer.cohort)]
        + rule.channel[CHANNELS.index(customer.channel)]
        + rule.region[REGIONS.index(customer.region)]
        + rule.offer[OFFER_TYPES.index(seen.offer_type)]
    )


def react(rule: OutcomeRule, order: int, customer: Customer, seen: Experience) -> Reaction:
    """What the customer does: always the same for the same rule, order and experience."""
    dice = Dice(rule.dice, order)
    converted = dice.roll() < chance(rule, customer, seen)
    revenue = _FEE_PER_NOTIONAL * seen.filled_notional
    if converted:
        # A logarithmic normal value with the cohort's mean (the half square of the spread takes the mean back to 1).
        normal = math.sqrt(-2 * math.log(1 - dice.roll())) * math.cos(2 * math.pi * dice.roll())  # Box and Muller
        revenue += _VALUE_CENTS[COHORTS.index(customer.cohort)] * math.exp(_SPREAD * normal - _SPREAD**2 / 2)
    return Reaction(converted, round(revenue))


def revenue_per_ms(rule: OutcomeRule, cohort: str) -> float:
    """The true effect of one millisecond on the expected revenue of a cohort's accepted order, in cents."""
    return rule.latency_per_ms * _VALUE_CENTS[COHORTS.index(cohort)]


@dataclass(slots=True)
class LoadMeter:
    """How busy the path is: orders of the last 10 s against what is usual, as a natural logarithm."""

    usual_per_s: float
    _sent: deque[int] = field(default_factory=deque)
    _began_ns: int | None = None

    def sent(self, now_ns: int) -> float:
        """Book an order that is sent now; the load it met, itself included."""
        self._began_ns = now_ns if self._began_ns is None else self._began_ns
        self._sent.append(now_ns)
        while self._sent[0] <= now_ns - LOAD_SPAN_NS:
            self._sent.popleft()
        # A young meter has seen less than its span; a second at least, so that the first order is no burst.
        span_s = min(LOAD_SPAN_NS, max(now_ns - self._began_ns, 1_000_000_000)) * 1e-9
        return math.log((1 + len(self._sent)) / (1 + self.usual_per_s * span_s))


class Dice:
    """Uniform numbers in [0, 1) that depend on a seed and an order alone."""

    def __init__(self, seed: int, order: int) -> None:
        self._state = mixed(seed ^ mixed(order))

    def roll(self) -> float:
        """The next number."""
        self._state = (self._state + 0x9E3779B97F4A7C15) & 0xFFFF_FFFF_FFFF_FFFF
        return (mixed(self._state) >> 11) * 2.0**-53


def _pick(names: tuple[str, ...], shares: tuple[float, ...], roll: float) -> str:
    for name, share in zip(names, shares, strict=False):
        if roll < share:
            return name
        roll -= share
    return names[-1]
