"""The customers' rule on plain values: a regression finds what was put in, and only with the confounders in it."""

import math
import random
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.demo.outcome_rule import (
    CHANNELS,
    COHORTS,
    OFFER_TYPES,
    REGIONS,
    Customer,
    Experience,
    LoadMeter,
    OutcomeRule,
    chance,
    customer_of,
    draw_rule,
    react,
    revenue_per_ms,
)

MS = 1_000_000
DAY_S = 86_400.0
SEEN = Experience(3 * MS, None, 0.0, 43_200.0, "limit", True, 1_000_000)


def rule_with(latency_per_ms: float, confounding: str = "sign-flipping", seed: int = 3) -> OutcomeRule:
    drawn = draw_rule(seed, confounding)  # type: ignore[arg-type]
    return msgspec.structs.replace(drawn, latency_per_ms=latency_per_ms)


@pytest.fixture(scope="module")
def population() -> list[tuple[int, Experience]]:
    """Orders of many days: load follows the hour, latency follows the load."""
    rng = random.Random(11)  # noqa: S311 - a sample, not a secret
    orders = []
    for number in range(60_000):
        day_s = rng.uniform(0, DAY_S)
        load = 0.5 * math.sin(2 * math.pi * day_s / DAY_S) + rng.gauss(0, 0.3)
        latency = max(0.5, 6 + 4 * load + rng.gauss(0, 1.5))
        orders.append((number, replace(SEEN, latency_ns=round(latency * MS), load=load, day_s=day_s)))
    return orders


def slopes(rule: OutcomeRule, population: list[tuple[int, Experience]]) -> tuple[float, float, float]:
    """(least squares on latency alone, with the confounders in it, and the standard error of the latter)."""
    customers = [customer_of(rule, number, seen.day_s) for number, seen in population]
    y = np.array([react(rule, n, who, s).converted for (n, s), who in zip(population, customers, strict=True)], float)
    latency = np.array([(seen.latency_ns or 0) / MS for _, seen in population])
    load = np.array([max(-1.0, min(1.0, seen.load)) for _, seen in population])
    angle = np.array([2 * math.pi * seen.day_s / DAY_S for _, seen in population])
    dummies = [
        np.array([getattr(who, name) == value for who in customers], float)
        for name, values in (("cohort", COHORTS), ("channel", CHANNELS), ("region", REGIONS))
        for value in values[1:]
    ]
    one = np.ones_like(y)
    alone = np.stack([one, latency], axis=1)
    adjusted = np.stack([one, latency, load, np.cos(angle), np.sin(angle), *dummies], axis=1)
    naive = float(np.linalg.lstsq(alone, y, rcond=None)[0][1])
    fitted = np.linalg.lstsq(adjusted, y, rcond=None)[0]
    residual = y - adjusted @ fitted
    inverse = np.linalg.inv(adjusted.T @ adjusted)
    error = math.sqrt(float(residual @ residual) / (len(y) - adjusted.shape[1]) * float(inverse[1, 1]))
    return naive, float(fitted[1]), error


def test_the_effect_is_found_with_the_confounders_and_has_the_wrong_sign_without(
    population: list[tuple[int, Experience]],
) -> None:
    naive, adjusted, error = slopes(rule_with(-0.006), population)
    assert error < 0.002
    assert abs(adjusted - -0.006) < 3 * error
    assert naive > 0.002  # slower looks better: that is the trap


def test_no_effect_is_found_where_there_is_none(population: list[tuple[int, Experience]]) -> None:
    naive, adjusted, error = slopes(rule_with(0.0), population)
    assert abs(adjusted) < 3 * error
    assert naive > 5 * error


def test_without_confounding_the_plain_slope_is_right(population: list[tuple[int, Experience]]) -> None:
    naive, adjusted, error = slopes(rule_with(-0.006, "none"), population)
    assert abs(naive - -0.006) < 0.0025  # the mix of customers still changes over the day
    assert abs(adjusted - -0.006) < 3 * error


def test_the_draws_have_every_kind_and_a_seed_gives_one_rule() -> None:
    rules = [draw_rule(seed) for seed in range(400)]
    assert draw_rule(7) == rules[7]
    assert len({rule.latency_per_ms for rule in rules}) > 250
    assert 0.15 < sum(rule.latency_per_ms == 0 for rule in rules) / 400 < 0.35
    assert {rule.confounding for rule in rules} == {"none", "moderate", "sign-flipping"}
    assert all(rule.load == rule.hour == 0 for rule in rules if rule.confounding == "none")
    assert msgspec.json.decode(msgspec.json.encode(rules[0]), type=OutcomeRule) == rules[0]


@given(
    seed=st.integers(0, 2**64),
    latency_ns=st.integers(-(10**9), 10**12),
    age_ns=st.none() | st.integers(-1, 10**12),
    load=st.floats(-50, 50),
    day_s=st.floats(0, DAY_S),
    offer=st.sampled_from(OFFER_TYPES),
    who=st.builds(Customer, st.sampled_from(COHORTS), st.sampled_from(CHANNELS), st.sampled_from(REGIONS)),
)
@settings(max_examples=200, derandomize=True)
def test_a_chance_is_a_chance_whatever_happens(
    seed: int, latency_ns: int, age_ns: int | None, load: float, day_s: float, offer: str, who: Customer
) -> None:
    rule = draw_rule(seed)
    seen = Experience(latency_ns, age_ns, load, day_s, offer, True, 0)
    assert 0 < chance(rule, who, seen) < 1
    assert chance(rule, who, replace(seen, accepted=False)) == 0
    assert chance(rule, who, replace(seen, latency_ns=None)) == 0
    assert chance(rule, who, replace(seen, latency_ns=latency_ns + MS)) <= chance(rule, who, seen)


def test_revenue_is_a_fee_and_what_conversion_brings() -> None:
    rule = rule_with(-0.006)
    who = Customer("professional", "web", "emea")
    refused = replace(SEEN, accepted=False, filled_notional=0)
    assert all(react(rule, number, who, refused) == react(rule, 0, who, refused) for number in range(50))
    assert react(rule, 0, who, refused).revenue_cents == 0
    brought = [react(rule, number, who, SEEN) for number in range(20_000)]
    converted = [one.revenue_cents - 50 for one in brought if one.converted]
    assert {one.revenue_cents for one in brought if not one.converted} == {50}  # half a basis point of 10,000.00
    assert abs(len(converted) / 20_000 - chance(rule, who, SEEN)) < 0.015
    assert abs(sum(converted) / len(converted) - 600) < 15
    slower = [react(rule, number, who, replace(SEEN, latency_ns=13 * MS)) for number in range(20_000)]
    change = (sum(one.revenue_cents for one in slower) - sum(one.revenue_cents for one in brought)) / 20_000
    assert abs(change / 10 - revenue_per_ms(rule, "professional")) < 0.6


def test_the_mix_of_customers_changes_over_the_day() -> None:
    rule = draw_rule(1)
    night, noon = ([customer_of(rule, n, day_s) for n in range(5_000)] for day_s in (3 * 3_600.0, 15 * 3_600.0))
    retail = [sum(who.cohort == "retail" for who in half) / 5_000 for half in (night, noon)]
    assert retail[1] - retail[0] > 0.2
    assert {(w.cohort, w.channel, w.region) for w in noon} == {
        (a, b, c) for a in COHORTS for b in CHANNELS for c in REGIONS
    }


def test_the_load_is_measured_against_what_is_usual() -> None:
    meter = LoadMeter(usual_per_s=10)
    usual = [meter.sent(n * 100 * MS) for n in range(300)]
    assert max(abs(load) for load in usual[10:]) < 0.2
    double = [meter.sent(30_000 * MS + n * 50 * MS) for n in range(400)]
    assert abs(double[-1] - math.log(2)) < 0.05
    assert meter.sent(1_000_000 * MS) < -3  # after a silence
