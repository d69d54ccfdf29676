"""Investment scenarios as data: the TOML file that a user edits, read and checked field by field."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from collector.settings import ConfigError, Section, read_toml, section

_MAX_SCENARIOS = 20
_MAX_STAGES = 50


class Range(Section, frozen=True, kw_only=True):
    """A number that is not known exactly: the least, the likeliest and the most it may be (a triangle)."""

    low: float
    likely: float
    high: float

    def validate(self) -> None:
        """Raise ConfigError naming what is wrong."""
        for name in ("low", "likely", "high"):
            if not math.isfinite(getattr(self, name)):
                raise ConfigError(name, "must be a finite number")
        if not self.low <= self.likely <= self.high:
            raise ConfigError("likely", f"{self.likely} must lie between low {self.low} and high {self.high}")


Amount = float | Range


def as_range(amount: Amount) -> Range:
    """A number as a range of no width; a range as it is."""
    return amount if isinstance(amount, Range) else Range(low=amount, likely=amount, high=amount)


class MeasuredEffect(Section, frozen=True, kw_only=True):
    """What a millisecond less of total latency changes in revenue, relatively (0.0005 is +0.05 % per ms saved).

    `low` and `high` are its 95 % interval, `design` how it was found. No more than `at_most_ms` may be saved: the
    measurement holds no further than the latencies it has seen.
    """

    estimate: float
    low: float
    high: float
    at_most_ms: float
    design: Literal["experiment", "natural experiment", "strata", "published", "assumed"]
    source: str = ""

    def validate(self) -> None:
        """Raise ConfigError naming what is wrong."""
        for name in ("estimate", "low", "high", "at_most_ms"):
            if not math.isfinite(getattr(self, name)):
                raise ConfigError(name, "must be a finite number")
        if not self.low <= self.estimate <= self.high:
            raise ConfigError("estimate", f"{self.estimate} must lie between low {self.low} and high {self.high}")
        if max(abs(self.low), abs(self.high)) > 0.1:
            raise ConfigError("high", "more than 10 % per millisecond; write 0.05 % as 0.0005")
        if self.at_most_ms <= 0:
            raise ConfigError("at_most_ms", f"{self.at_most_ms} must be more than 0")


class Business(Section, frozen=True, kw_only=True):
    """What all scenarios share: the money per month that latency acts on, and how it is valued."""

    effect: MeasuredEffect
    revenue_per_month: Amount
    decisions_per_month: float
    margin: Amount = 1.0
    cost_per_decision_today: float = 0.0
    annual_discount_rate: float = 0.10
    months: int = 36
    gate: float = 3.0
    currency: str = "USD"

    def validate(self) -> None:
        """Raise ConfigError naming what is wrong."""
        _inside("effect", self.effect)
        _not_negative("revenue_per_month", self.revenue_per_month)
        _not_negative("margin", self.margin)
        if as_range(self.margin).high > 1:
            raise ConfigError("margin", "is the share of revenue that is kept: at most 1")
        if not (math.isfinite(self.decisions_per_month) and self.decisions_per_month > 0):
            raise ConfigError("decisions_per_month", f"{self.decisions_per_month} must be more than 0")
        _not_negative("cost_per_decision_today", self.cost_per_decision_today)
        if not 0 <= self.annual_discount_rate < 1:
            raise ConfigError("annual_discount_rate", f"{self.annual_discount_rate}: write 10 % as 0.10")
        if not 1 <= self.months <= 120:
            raise ConfigError("months", f"{self.months} must be 1 to 120")
        if not (math.isfinite(self.gate) and self.gate >= 0):
            raise ConfigError("gate", f"{self.gate} must be 0 or more")


class Serving(Section, frozen=True, kw_only=True):
    """One place that serves a share of the decisions, and what it takes for each."""

    share: float
    cost_per_decision: Amount

    def validate(self) -> None:
        """Raise ConfigError naming what is wrong."""
        if not 0 <= self.share <= 1:
            raise ConfigError("share", f"{self.share} must be 0 to 1")
        _not_negative("cost_per_decision", self.cost_per_decision)


class Scenario(Section, frozen=True, kw_only=True):
    """One investment. `gain_ms` is by stage how many milliseconds of total latency are saved once it works."""

    capex: Amount
    opex_per_month: Amount
    months_to_value: Amount
    gain_ms: dict[str, Amount]
    serving: dict[str, Serving] = msgspec.field(default_factory=dict)
    description: str = ""

    def validate(self) -> None:
        """Raise ConfigError naming what is wrong."""
        for name in ("capex", "opex_per_month", "months_to_value"):
            _not_negative(name, getattr(self, name))
        if not 1 <= len(self.gain_ms) <= _MAX_STAGES:
            raise ConfigError("gain_ms", f"must name 1 to {_MAX_STAGES} stages")
        for stage, gain in self.gain_ms.items():
            _finite(f"gain_ms.{stage}", gain)
        for name, serving in self.serving.items():
            _inside(f"serving.{name}", serving)
        if self.serving and not math.isclose(sum(one.share for one in self.serving.values()), 1.0, abs_tol=1e-9):
            raise ConfigError("serving", "the shares must add up to 1")


class Scenarios(Section, frozen=True, kw_only=True):
    """A whole file: the business and the scenarios by name."""

    business: Business
    scenarios: dict[str, Scenario]

    def validate(self) -> None:
        """Raise ConfigError naming what is wrong."""
        _inside("business", self.business)
        if not 1 <= len(self.scenarios) <= _MAX_SCENARIOS:
            raise ConfigError("scenarios", f"must be 1 to {_MAX_SCENARIOS}, as sections [scenarios.NAME]")
        for name, scenario in self.scenarios.items():
            _inside(f"scenarios.{name}", scenario)


def _inside(name: str, part: Section) -> None:
    try:
        part.validate()
    except ConfigError as error:
        raise ConfigError(f"{name}.{error.field}", error.problem) from error


def _finite(name: str, amount: Amount) -> None:
    if isinstance(amount, Range):
        _inside(name, amount)
    elif not math.isfinite(amount):
        raise ConfigError(name, "must be a finite number")


def _not_negative(name: str, amount: Amount) -> None:
    _finite(name, amount)
    if as_range(amount).low < 0:
        raise ConfigError(name, "must not be negative")


def scenarios_from(document: Mapping[str, object], source: str = "") -> Scenarios:
    """A parsed document as scenarios. Raises ConfigError naming the field and, if given, the file."""
    try:
        return section(document, Scenarios, "", source)
    except ConfigError as error:
        raise ConfigError(error.field.strip("."), error.problem, source) from error


def read_scenarios(path: Path) -> Scenarios:
    """The scenarios of a TOML file. Raises ConfigError naming the file and the field."""
    return scenarios_from(read_toml(path), str(path))


def example() -> str:
    """The file to start from: three kinds of investment with invented amounts, which say that they are."""
    return (Path(__file__).parent / "scenarios.toml").read_text("utf-8")
