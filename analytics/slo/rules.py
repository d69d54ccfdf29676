"""Alert rules: which burn rates over which windows have to be exceeded at once, and sets of them by name.

A set is a TOML file in `rulesets/`. A row either says which share of the budget its long window may use up,
`factor = share * period / long` (Site Reliability Workbook, chapter 5), or the factor itself.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from collector.settings import ConfigError, Section, duration_ns, section

FOLDER = Path(__file__).with_name("rulesets")
TICK_S = 10
MAX_WINDOW_S = 35 * 86_400
Severity = Literal["page", "ticket"]


@dataclass(frozen=True, slots=True)
class Over:
    """A burn rate that has to be exceeded over `window_s`: strictly, unless `or_equal`.

    `objective` names another one whose burn is meant; '' is the rule's own.
    """

    window_s: int
    factor: float
    or_equal: bool = False
    objective: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """All of `overs` at once, for `for_s` seconds on end. The longest window comes first."""

    name: str
    severity: str
    overs: tuple[Over, ...]
    for_s: int = 0

    @property
    def long_s(self) -> int:
        """The longest window on the rule's own objective."""
        return max(one.window_s for one in self.overs)


class Row(Section, frozen=True, kw_only=True, rename={"for_": "for"}):
    """One row of a rule set."""

    name: str
    severity: Severity
    long: str
    short: str
    budget_percent: float | None = None
    factor: float | None = None
    for_: str = "0s"

    def validate(self) -> None:
        """Raise ConfigError naming the field that makes no sense."""
        if (self.budget_percent is None) == (self.factor is None):
            raise ConfigError("factor", "needs exactly one of budget_percent and factor")
        if duration_ns(self.short, "short") >= duration_ns(self.long, "long"):
            raise ConfigError("short", f"must be shorter than long, got {self.short} and {self.long}")


class RuleSet(Section, frozen=True, kw_only=True):
    """A rule set as its file has it."""

    description: str
    periods: list[str]
    rules: list[Row]
    scale_with: str = ""

    def for_period(self, period_s: int) -> tuple[Rule, ...]:
        """Its rules for a budget period in seconds."""
        scale = 1.0
        if self.scale_with:
            scale = period_s / _seconds(self.scale_with)
        return tuple(_rule(row, period_s, scale) for row in self.rules)


def _rule(row: Row, period_s: int, scale: float) -> Rule:
    long_s, short_s = (max(TICK_S, _tick(_seconds(text) * scale)) for text in (row.long, row.short))
    factor = row.factor
    if factor is None:
        factor = (row.budget_percent or 0) / 100 * period_s / long_s
    return Rule(row.name, row.severity, (Over(long_s, factor), Over(short_s, factor)), _seconds(row.for_))


def _seconds(text: str) -> int:
    return duration_ns(text, "duration") // 1_000_000_000


def _tick(seconds: float) -> int:
    return round(seconds / TICK_S) * TICK_S


@cache
def rule_sets() -> dict[str, RuleSet]:
    """The rule sets by name; with a period (`workbook-28d`) or without one."""
    found = {}
    for file in sorted(FOLDER.glob("*.toml")):
        one = section(tomllib.loads(file.read_text("utf-8")), RuleSet, file.stem, str(file))
        for row in one.rules:
            row.validate()
        found[file.stem] = one
    return found


def rules_named(name: str, period_s: int) -> tuple[Rule, ...]:
    """The rules of a set for a period. Raises ValueError with the names there are.

    `workbook` takes the objective's own period; `workbook-30d` is refused for an objective of another one.
    """
    stem, _, period = name.partition("-")
    known = rule_sets()
    if stem not in known or (period and period not in known[stem].periods):
        names = sorted(f"{s}-{p}" for s, one in known.items() for p in one.periods)
        raise ValueError(f"{name!r} is no rule set; there are {', '.join((*sorted(known), *names))}")
    if period and _seconds(period) != period_s:
        raise ValueError(
            f"{name} is made for {period}, the objective's period is {period_s / 86_400:g} d; write {stem}"
        )
    return known[stem].for_period(period_s)


def unreachable(rule: Rule, target: float) -> str:
    """Why a rule can never fire on an objective, or ''. The burn rate never exceeds 1 / (1 - target)."""
    most = 1 / (1 - target)
    for one in rule.overs:
        if not one.objective and (one.factor > most * (1 - 1e-12) if not one.or_equal else one.factor > most):
            lowest = 1 - 1 / one.factor
            return (
                f"burn rate {one.factor:g} can never be exceeded: with target {100 * target:g} % a full outage burns "
                f"at {most:.4g}; it needs a target above {100 * lowest:.4g} % or a lower factor"
            )
    return ""


def too_low(rule: Rule) -> str:
    """Why a rule fires while all is within budget, or ''."""
    least = min(one.factor for one in rule.overs)
    if least < 1:
        return f"factor {least:.4g} is below 1: it alerts while the budget lasts for the whole period"
    return ""
