"""Burn rates, budgets and rules on counts. Pure; everything is weighted by events, never by time.

    burn      = (bad / total) / (1 - target)                       Site Reliability Workbook, chapter 5
    consumed  = burn * window / period                             share of the budget that a window used up
    exhausted = remaining * period / burn                          seconds until nothing is left at this burn

Counts that are not exact are bounds. Events in a bucket that the threshold cuts may be good or bad, and events
that were produced and never arrived may be either: a rule is over when even the lower bound exceeds its factor, under
when the upper one does not, and otherwise its answer is *held*: it cannot be said yet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from analytics.slo.rules import Over, Rule

Answer = Literal["over", "under", "held", "insufficient"]
ALPHA = 0.01  # below the guard a rule is over only where chance explains so many failures less often than this


@dataclass(frozen=True, slots=True)
class Counts:
    """Events of a window: `good` surely, `uncertain` of the rest perhaps; `missing` is the share not arrived.

    Whole numbers, but for RatioTimeslices: there the slices' shares add up.
    """

    good: float = 0
    total: int = 0
    uncertain: float = 0
    missing: float = 0.0

    @property
    def bad(self) -> float:
        """Events that are not surely good."""
        return self.total - self.good

    @property
    def bad_least(self) -> float:
        """Events that are surely bad."""
        return self.total - self.good - self.uncertain

    @property
    def ratio(self) -> float:
        """Share of bad events, the uncertain ones half; 0 without events."""
        return (self.bad - self.uncertain / 2) / self.total if self.total else 0.0

    def bounds(self) -> tuple[float, float]:
        """Least and largest share of bad events, the missing ones included.

        Of `total` arrived events and a share `missing` of all produced, total / (1 - missing) were produced.
        """
        if not self.total:
            return (0.0, 1.0 if self.missing > 0 else 0.0)
        here = 1 - min(self.missing, 1.0)
        return self.bad_least / self.total * here, self.bad / self.total * here + (1 - here)


@dataclass(frozen=True, slots=True)
class Side:
    """One window of a rule: what was counted, and the burn with its bounds against the factor."""

    over: Over
    counts: Counts
    burn: float
    least: float
    most: float
    answer: Answer


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a rule says now, why, and each side's value."""

    answer: Answer
    why: str
    sides: tuple[Side, ...] = ()


@dataclass(frozen=True, slots=True)
class Budget:
    """An error budget over its period. Shares are of the whole period's budget.

    `burned` may exceed 1, `remaining` may be negative. `exhausted_s` is None at a burn of zero and 0 when nothing is
    left; `forecast` is the share that will be burned at the end of the period if the burn stays.
    """

    target: float
    period_s: int
    counts: Counts
    burned: float
    remaining: float
    burn: float
    exhausted_s: float | None
    forecast: float


def burn_rate(ratio: float, target: float) -> float:
    """How many times faster than allowed the budget goes; 1 uses it up in exactly the period."""
    return ratio / (1 - target)


def time_to_fire_s(rule: Rule, target: float, ratio: float) -> float | None:
    """Seconds from the start of a constant error ratio after a clean history until a rule is over; None: never."""
    slowest = 0.0
    for one in rule.overs:
        needed = one.factor * (1 - target)
        if ratio <= needed:
            return None
        slowest = max(slowest, needed * one.window_s / ratio)
    return slowest + rule.for_s


def p_value(bad: int, total: int, ratio: float) -> float:
    """P(X >= bad) for X ~ Binomial(total, ratio), exact."""
    if bad <= 0:
        return 1.0
    if bad > total or ratio <= 0:
        return 0.0
    if ratio >= 1:
        return 1.0
    log_p, log_q = math.log(ratio), math.log1p(-ratio)
    top = math.lgamma(total + 1)
    # Below the guard total * ratio <= 1, so that the terms fall from bad >= 1 on: a few of them are the whole sum.
    tail = 0.0
    for k in range(bad, total + 1):
        term = math.exp(top - math.lgamma(k + 1) - math.lgamma(total - k + 1) + k * log_p + (total - k) * log_q)
        tail += term
        if term < tail * 1e-16:
            break
    return min(1.0, tail)


def few(total: int, over: Over, target: float) -> bool:
    """Whether a single bad event among `total` would exceed the factor: total <= 1 / (factor (1 - target))."""
    return total * over.factor * (1 - target) <= 1


def side(counts: Counts, over: Over, target: float) -> Side:
    """One window against its factor."""
    least, most = (burn_rate(one, target) for one in counts.bounds())
    burn = burn_rate(counts.ratio, target)
    if _exceeds(least, over):
        answer: Answer = "over"
    elif not _exceeds(most, over):
        answer = "under"
    else:
        answer = "held"
    return Side(over, counts, burn, least, most, answer)


def _exceeds(burn: float, over: Over) -> bool:
    # 15 bad of 1,000 at 99.9 % are a burn of 15, and of 14.999999999999986 in floating point.
    edge = over.factor * 1e-12
    return burn >= over.factor - edge if over.or_equal else burn > over.factor + edge


def judge(rule: Rule, counted: Sequence[Counts], targets: Sequence[float], *, firing: bool = False) -> Verdict:
    """What a rule says of the counts of its windows, given in the order of `rule.overs` with their objectives' targets.

    Under as soon as one side is surely not exceeded. With so few events that one of them decides, it is over only
    where an exact binomial test says that chance hardly explains them, and else `insufficient`. While `firing`, a short
    window with so few events does not end the alert: the long window does.
    """
    sides = tuple(side(c, o, t) for c, o, t in zip(counted, rule.overs, targets, strict=True))
    long_side = max(sides, key=lambda one: one.over.window_s)
    target = targets[sides.index(long_side)]
    if not long_side.counts.total and not long_side.counts.missing:
        return Verdict("insufficient", "no events in the whole long window", sides)
    if few(long_side.counts.total, long_side.over, target) and long_side.answer != "held":
        if not long_side.counts.bad:
            return Verdict("under", "no bad event", sides)
        chance = p_value(
            math.floor(long_side.counts.bad_least + 1e-9), long_side.counts.total, long_side.over.factor * (1 - target)
        )
        if chance > ALPHA:
            need = math.floor(1 / (long_side.over.factor * (1 - target))) + 1
            why = (
                f"insufficient traffic: {long_side.counts.bad:g} bad of {long_side.counts.total} events, one alone "
                f"would exceed the factor below {need} events, and chance explains them with probability {chance:.2g}"
            )
            return Verdict("insufficient", why, sides)
    if firing:
        unsaid = [
            s for s in sides if s is not long_side and s.answer == "under" and few(s.counts.total, s.over, target)
        ]
        if unsaid and all(s.answer == "over" for s in sides if s not in unsaid):
            return Verdict("over", "too few events in the short window to say that it has ended", sides)
    if any(one.answer == "under" for one in sides):
        return Verdict("under", "", sides)
    held = [one for one in sides if one.answer == "held"]
    if held:
        why = "; ".join(
            f"burn over {_span(one.over.window_s)} is between {one.least:.3g} and {one.most:.3g}"
            f" ({_unsure(one.counts)})"
            for one in held
        )
        return Verdict("held", why, sides)
    return Verdict("over", "; ".join(f"burn {s.burn:.3g} over {_span(s.over.window_s)}" for s in sides), sides)


def _unsure(counts: Counts) -> str:
    parts = []
    if counts.missing:
        parts.append(f"{100 * counts.missing:.3g} % of the events are missing")
    if counts.uncertain:
        parts.append(f"{counts.uncertain:g} events may be good or bad")
    return ", ".join(parts)


def _span(seconds: int) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds % size == 0:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def budget(
    counts: Counts, target: float, period_s: int, burn: float, *, observed_s: float, left_s: float | None = None
) -> Budget:
    """The budget of a period of which `observed_s` seconds have been counted, burning at `burn` now.

    While an objective is younger than its period, the budget is that of a whole period at the traffic seen so far.
    `left_s` is what is left of a calendar period; a rolling one is looked at a whole period ahead.
    """
    share = min(1.0, observed_s / period_s) if period_s else 1.0
    burned = burn_rate(counts.ratio, target) * share
    remaining = 1 - burned
    if remaining <= 0:
        exhausted: float | None = 0.0
    else:
        exhausted = remaining * period_s / burn if burn > 0 else None
    ahead = period_s if left_s is None else left_s
    return Budget(target, period_s, counts, burned, remaining, burn, exhausted, burned + burn * ahead / period_s)
