"""Latency budgets per market action, derived from the value at stake: `[actions.NAME]`.

    budget above the fastest seen = tolerate / (value * -beta)

with `value` the money at stake in one decision, `tolerate` what of it may be lost to latency, and beta the relative
change of revenue per millisecond. No budget reaches beyond the latencies that the effect was measured over.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from analytics import buckets
from analytics.cover import widen
from analytics.money.burned import Pricer
from analytics.money.value import LatencyEffect, tables
from analytics.paths import END_TO_END, Path
from analytics.percentiles import percentile
from collector.settings import ConfigError, Section, section

_MOST = 200


class Action(Section, frozen=True, kw_only=True):
    """`[actions.NAME]`: a kind of decision, what is at stake in each, and how much of that latency may cost.

    `match` is one label that the path counts, as `label=value`; empty: all messages. Give `tolerate` (money per
    decision) or `tolerate_share` (of the value).
    """

    path: str
    value: float
    match: str = ""
    tolerate: float = 0.0
    tolerate_share: float = 0.0
    description: str = ""

    def validate(self) -> None:
        """Raise ConfigError naming what is wrong."""
        if not (math.isfinite(self.value) and self.value > 0):
            raise ConfigError("value", "must be more than 0: what is at stake in one decision")
        if (self.tolerate > 0) == (self.tolerate_share > 0):
            raise ConfigError("tolerate", "give tolerate or tolerate_share, one of them, above 0")
        if not 0 <= self.tolerate_share < 1 or not 0 <= self.tolerate < math.inf:
            raise ConfigError("tolerate_share", "must be a share of the value, below 1")
        if self.match and not self.match.partition("=")[2]:
            raise ConfigError("match", f"{self.match!r} must be label=value")

    @property
    def lost(self) -> float:
        """Money per decision that may be lost."""
        return self.tolerate or self.tolerate_share * self.value


class ActionBudget(msgspec.Struct, frozen=True, kw_only=True):
    """The latency that an action may take, and what it takes. Nulls with `reason`.

    `budget_ns` is at the effect's estimate; `least_ns` (at the effect's strongest) is the one that is safe to promise,
    `most_ns` at its weakest. `capped`: the effect was measured no further. `over` is the share of decisions that took
    longer than `least_ns`, `lost_per_decision` the money that its mean latency above the fastest seen costs each.
    """

    action: str
    path: str
    match: str
    value: float
    tolerate: float
    currency: str
    budget_ns: int | None = None
    least_ns: int | None = None
    most_ns: int | None = None
    capped: bool = False
    count: int = 0
    mean_ns: float | None = None
    p50_ns: int | None = None
    p99_ns: int | None = None
    over: float | None = None
    lost_per_decision: float | None = None
    reason: str = ""
    sentence: str = ""


def actions_from(document: Mapping[str, Any], paths: Mapping[str, Path], source: str = "") -> dict[str, Action]:
    """The declared actions by name. Raises ConfigError."""
    found = {}
    for name, fields in tables(document, "actions", source, _MOST).items():
        one = section(fields, Action, f"actions.{name}", source)
        path = paths.get(one.path)
        if path is None:
            known = ", ".join(sorted(paths)) or "none"
            raise ConfigError(f"actions.{name}.path", f"there is no path {one.path[:80]!r}; there are {known}", source)
        label = one.match.partition("=")[0]
        if label and label not in path.rollup:
            counted = ", ".join(path.rollup) or "none"
            raise ConfigError(
                f"actions.{name}.match", f"{label!r} is not counted by path {path.name}; it counts {counted}", source
            )
        found[name] = one
    return found


def budget_ms(value: float, tolerate: float, effect: LatencyEffect) -> tuple[float, float, float, bool]:
    """Budget at the estimate, at the strongest and at the weakest effect, in ms from nothing, and whether it is capped.

    Raises ValueError where the interval does not say that latency costs anything.
    """
    if effect.high >= 0:
        raise ValueError("the effect's interval holds zero: no latency is too long that is known of")
    ends = [effect.least_ms + tolerate / (value * -one) for one in (effect.estimate, effect.low, effect.high)]
    held = [min(one, effect.most_ms) for one in ends]
    return held[0], held[1], held[2], held != ends


def budget_of(pricer: Pricer, name: str, one: Action, *, from_ns: int, to_ns: int) -> ActionBudget:
    """One action's budget, against its decisions of [from_ns, to_ns). Raises StoreError."""
    currency = pricer.settings.currency
    about = ActionBudget(
        action=name, path=one.path, match=one.match, value=one.value, tolerate=one.lost, currency=currency
    )
    effect, reason = pricer.effect(one.path)
    if effect is None:
        return msgspec.structs.replace(about, reason=reason, sentence=f"{name}: no budget. {reason}.")
    try:
        ms, least, most, capped = budget_ms(one.value, one.lost, effect)
    except ValueError as error:
        return msgspec.structs.replace(about, reason=str(error), sentence=f"{name}: no budget. {error}.")
    first, last = widen(from_ns, to_ns)
    found = {stage: t for (_, stage), t in pricer.tallies(one.path, one.match, first, last).items()}.get(END_TO_END)
    budget, safe = round(ms * 1e6), round(least * 1e6)
    said = (
        f"{name}: {one.value:,.6g} {currency} at stake, {one.lost:,.3g} may be lost: {ms:.4g} ms"
        f" ({least:.4g} ms to be safe)"
    )
    said += f"; the effect was measured no further than {effect.most_ms:g} ms" if capped else ""
    about = msgspec.structs.replace(
        about, budget_ns=budget, least_ns=safe, most_ns=round(most * 1e6), capped=capped, sentence=said + "."
    )
    if found is None or not found.counts.count:
        return msgspec.structs.replace(about, sentence=f"{said}; there were no decisions in that time.")
    counts = found.counts
    over = int(counts.n[buckets.midpoint(counts.bucket) > safe].sum())
    mean = counts.sum_ns / counts.count
    seen = min(max(mean / 1e6, effect.least_ms), effect.most_ms)
    return msgspec.structs.replace(
        about,
        count=counts.count,
        mean_ns=mean,
        p50_ns=percentile(counts, 0.5).value_ns,
        p99_ns=percentile(counts, 0.99).value_ns,
        over=over / counts.count,
        lost_per_decision=one.value * -effect.estimate * (seen - effect.least_ms),
        sentence=f"{said}; {over:,} of {counts.count:,} decisions took longer than the safe one.",
    )
