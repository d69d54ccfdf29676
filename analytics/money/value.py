"""What latency is worth, as declared: `[money]`, and `[value.PATH]` with its revenue and its measured effects.

Nothing becomes money without an effect of an accepted design, measured not too long ago. What is missing is said in one
sentence that names the setting.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from analytics.money.effects import ANSWERS
from analytics.money.velocity import PerMs
from collector.settings import ConfigError, Section, duration_ns, section

NS = 1_000_000_000
ACCEPTED = ("experiment", "natural experiment", "strata")
Design = Literal["experiment", "natural experiment", "strata", "double machine learning", "published", "assumed"]
_MAX_FILE = 1 << 20
_MOST_VALUES = 100


class MoneySettings(Section, frozen=True, kw_only=True):
    """`[money]`: the currency, which designs may become money, and for how long a measured effect holds."""

    currency: str = "USD"
    accept: tuple[str, ...] = ACCEPTED
    max_age: str = "400d"

    def validate(self) -> None:
        """Raise ConfigError naming what is wrong."""
        if not 1 <= len(self.currency) <= 12 or not self.currency.isprintable():
            raise ConfigError("currency", "must be 1 to 12 characters, such as USD")
        for name in self.accept:
            if name not in ANSWERS:
                raise ConfigError("accept", f"{name!r} must not become money; there are {', '.join(ANSWERS)}")
        if duration_ns(self.max_age, "max_age") <= 0:
            raise ConfigError("max_age", "must be longer than nothing")


class LatencyEffect(Section, frozen=True, kw_only=True):
    """The relative change of revenue per millisecond more from end to end: -0.0005 is -0.05 % per ms.

    `low` and `high` are its 95 % interval; it holds for mean latencies of `least_ms` to `most_ms`. `measured` is the
    last day of the data that it was estimated from.
    """

    estimate: float
    low: float
    high: float
    least_ms: float
    most_ms: float
    design: Design
    measured: date
    source: str = ""

    def validate(self) -> None:
        """Raise ConfigError naming what is wrong."""
        _interval(self.estimate, self.low, self.high)
        if not (math.isfinite(self.most_ms) and 0 <= self.least_ms < self.most_ms):
            raise ConfigError("most_ms", "must be more than least_ms, which must be 0 or more")
        if max(abs(self.low), abs(self.high)) > 1:
            raise ConfigError("low", "is more than all revenue per millisecond; write -0.05 % as -0.0005")

    @property
    def per_ms(self) -> PerMs:
        """For the arithmetic."""
        return PerMs(self.estimate, self.low, self.high, self.least_ms, self.most_ms)


class BadEffect(Section, frozen=True, kw_only=True):
    """The relative change of revenue if all events of an objective were bad instead of none: -0.4 is -40 %.

    It holds up to a share `most` of bad events. For what has no milliseconds: errors, gaps, unfinished messages.
    """

    estimate: float
    low: float
    high: float
    most: float
    design: Design
    measured: date
    source: str = ""

    def validate(self) -> None:
        """Raise ConfigError naming what is wrong."""
        _interval(self.estimate, self.low, self.high)
        if not 0 < self.most <= 1:
            raise ConfigError("most", "must be a share of bad events, above 0 and at most 1")


class PathValue(Section, frozen=True, kw_only=True):
    """`[value.PATH]`: the revenue that a path's latency can move, and how much it does.

    Revenue is `revenue_per_hour`, or the measure `revenue_kpi` (kind sum) of the last `revenue_over`. `effect` is per
    millisecond; `effect_file` is a JSON file with the same fields. `bad` has effects per objective by name.
    """

    revenue_per_hour: float = 0.0
    revenue_kpi: str = ""
    revenue_over: str = "7d"
    effect: LatencyEffect | None = None
    effect_file: str = ""
    bad: dict[str, BadEffect] = msgspec.field(default_factory=dict)

    def validate(self) -> None:
        """Raise ConfigError naming what is wrong."""
        if not (math.isfinite(self.revenue_per_hour) and self.revenue_per_hour >= 0):
            raise ConfigError("revenue_per_hour", "must be 0 or more")
        if (self.revenue_per_hour > 0) == bool(self.revenue_kpi):
            raise ConfigError("revenue_per_hour", "give revenue_per_hour or revenue_kpi, one of them")
        if duration_ns(self.revenue_over, "revenue_over") < 60 * NS:
            raise ConfigError("revenue_over", "must be a minute or more")
        if self.effect is not None and self.effect_file:
            raise ConfigError("effect_file", "give effect or effect_file, one of them")
        if self.effect is not None:
            nested("effect", self.effect)
        for name, one in self.bad.items():
            nested(f"bad.{name}", one)


def _interval(estimate: float, low: float, high: float) -> None:
    for name, value in (("estimate", estimate), ("low", low), ("high", high)):
        if not math.isfinite(value):
            raise ConfigError(name, "must be a finite number")
    if not low <= estimate <= high:
        raise ConfigError("estimate", f"{estimate} must lie between low {low} and high {high}")


def nested(name: str, part: Section) -> None:
    """Validate a part of a section. Raises ConfigError with the part's name before the field's."""
    try:
        part.validate()
    except ConfigError as error:
        raise ConfigError(f"{name}.{error.field}", error.problem) from error


def tables(document: Mapping[str, Any], name: str, source: str, most: int) -> Mapping[str, Mapping[str, Any]]:
    """The tables [name.X] of a document by X. Raises ConfigError."""
    declared = document.get(name, {})
    if not isinstance(declared, Mapping) or not all(isinstance(one, Mapping) for one in declared.values()):
        raise ConfigError(name, f"must be sections [{name}.NAME]", source)
    if len(declared) > most:
        raise ConfigError(name, f"holds {len(declared)} sections, at most {most}", source)
    return declared


def values_from(
    document: Mapping[str, Any], paths: Collection[str], kpis: Mapping[str, str], source: str = ""
) -> dict[str, PathValue]:
    """`[value.PATH]` by path; `paths` are configured, `kpis` the declared measures with their kind.

    Effect files lie beside the configuration. Raises ConfigError.
    """
    found = {}
    for name, fields in tables(document, "value", source, _MOST_VALUES).items():
        if name not in paths:
            known = ", ".join(sorted(paths)) or "none"
            raise ConfigError(f"value.{name}", f"there is no path {name[:80]!r}; there are {known}", source)
        one = section(fields, PathValue, f"value.{name}", source)
        if one.revenue_kpi and kpis.get(one.revenue_kpi) != "sum":
            raise ConfigError(
                f"value.{name}.revenue_kpi",
                f"{one.revenue_kpi[:80]!r} must be a measure of kind sum under [kpis]",
                source,
            )
        if one.effect_file:
            one = msgspec.structs.replace(one, effect=_effect_of(one.effect_file, f"value.{name}.effect_file", source))
        found[name] = one
    return found


def _effect_of(file: str, name: str, source: str) -> LatencyEffect:
    path = Path(source).parent / file if source else Path(file)
    try:
        with path.open("rb") as opened:
            text = opened.read(_MAX_FILE + 1)
        if len(text) > _MAX_FILE:
            raise ConfigError(name, f"{file} is larger than {_MAX_FILE} bytes", source)
        document = json.loads(text)
    except OSError as error:
        raise ConfigError(name, f"{file} cannot be read: {error.strerror}", source) from error
    except ValueError as error:
        raise ConfigError(name, f"{file} is not JSON: {error}", source) from error
    if isinstance(document, Mapping) and isinstance(document.get("effect"), Mapping):
        document = document["effect"]
    return section(document, LatencyEffect, name, source)


def refusal(effect: LatencyEffect | BadEffect | None, settings: MoneySettings, now_ns: int, where: str) -> str:
    """Why an effect must not become money, in one sentence; empty when it may."""
    if effect is None:
        return f"no effect is known: measure it and give [{where}]"
    if effect.design not in settings.accept:
        shown = ", ".join(settings.accept) or "none"
        return f"the effect of [{where}] is of design {effect.design!r}; accepted are {shown}"
    days = age_days(effect, now_ns)
    most = duration_ns(settings.max_age, "max_age") // (86_400 * NS)
    if days > most:
        return f"the effect of [{where}] was measured {days} days ago, longer than max_age of {most} days"
    return ""


def age_days(effect: LatencyEffect | BadEffect, now_ns: int) -> int:
    """Days since the effect was measured."""
    return (datetime.fromtimestamp(now_ns // NS, UTC).date() - effect.measured).days
