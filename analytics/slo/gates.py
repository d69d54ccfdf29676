"""Gates: may a deployment go on? Open, closed or unknown, from rules of objectives and from business measures. Pure.

A gate is closed as soon as one of its sides is, unknown while one cannot be said, and open otherwise. Whether an
unknown gate lets pass is configured. A gate that closes may trigger a rollback: once per closing, not again within the
cool-down, never because data are missing, and never in closed hours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from analytics.kpis import KpiDefinition
from analytics.slo.burn import Answer, Budget
from analytics.slo.episodes import OPEN, State
from analytics.slo.evaluate import Judged
from analytics.slo.indicators import OPS
from collector.keys import hash64
from collector.settings import ConfigError, Section, duration_ns, section

NS = 1_000_000_000
MAX_GATES = 64
MAX_SIDES = 32
MAX_WINDOW_S = 86_400
Opinion = Literal["open", "closed", "unknown"]
HOLDS = {"lte": "<=", "lt": "<", "gte": ">=", "gt": ">"}


class KpiRule(Section, frozen=True, kw_only=True):
    """A business measure that has to hold `op limit` over the last `window`, with at least `min_count` events."""

    kpi: str = ""
    op: str = "lte"
    limit: float = 0.0
    window: str = "5m"
    min_count: float = 1.0
    cohort: str = ""
    channel: str = ""
    region: str = ""
    offer: str = ""

    def validate(self) -> None:
        """Raise ConfigError naming what makes no sense."""
        if not self.kpi:
            raise ConfigError("kpi", "names a measure of [kpis]; it is needed")
        if self.op not in OPS:
            raise ConfigError("op", f"must be one of {', '.join(OPS)}, got {self.op!r}")
        if not 10 <= self.window_s <= MAX_WINDOW_S:
            raise ConfigError("window", f"must be 10s to 24h, got {self.window}")
        if self.min_count < 0:
            raise ConfigError("min_count", f"must not be below 0, got {self.min_count:g}")

    @property
    def window_s(self) -> int:
        """`window` in seconds."""
        return duration_ns(self.window, "window") // NS

    def holds(self, value: float) -> bool:
        """Whether a value is as it should be."""
        return {
            "lte": value <= self.limit, "lt": value < self.limit, "gte": value >= self.limit, "gt": value > self.limit,
        }[self.op]  # fmt: skip


class GateSettings(Section, frozen=True, kw_only=True):
    """`[gates.NAME]`: what has to be so that a deployment may go on.

    `objectives` are closed while a page of theirs is due or their budget is at most `min_budget`; `rules` name single
    ones as `OBJECTIVE RULE`. `on_unknown` says whether the gate lets pass when something cannot be said: data that are
    missing, incomplete, fewer than asked for, or older than `stale_after`. `hook` is the webhook of `[notify]` that
    hears of rollbacks when the gate has been closed for `hook_after`, at most once in `cooldown`.
    """

    description: str = ""
    objectives: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    kpis: tuple[KpiRule, ...] = ()
    min_budget: float = 0.0
    on_unknown: Literal["closed", "open"] = "closed"
    stale_after: str = "2m"
    calendar: str = ""
    closed_hours: Literal["closed", "open"] = "closed"
    hook: str = ""
    hook_after: str = "0s"
    cooldown: str = "30m"

    def validate(self) -> None:
        """Raise ConfigError naming what makes no sense."""
        sides = len(self.objectives) + len(self.rules) + len(self.kpis)
        if not 1 <= sides <= MAX_SIDES:
            raise ConfigError("objectives", f"objectives, rules and kpis are 1 to {MAX_SIDES} together, got {sides}")
        for number, one in enumerate(self.kpis):
            try:
                one.validate()
            except ConfigError as error:
                raise ConfigError(f"kpis[{number}].{error.field}", error.problem) from error
        for rule in self.rules:
            if len(rule.split()) != 2:
                raise ConfigError("rules", f"{rule!r} is not OBJECTIVE RULE, such as 'order-latency page-1h'")
        if not self.min_budget < 1:
            raise ConfigError("min_budget", f"is a share of the budget below 1, got {self.min_budget:g}")
        if self.seconds("stale_after") < 20:
            raise ConfigError("stale_after", f"must be at least 20s, two looks, got {self.stale_after}")
        for name in ("hook_after", "cooldown"):
            self.seconds(name)

    def seconds(self, name: str) -> int:
        """A duration of it in seconds."""
        return duration_ns(getattr(self, name), name) // NS


def gates_from(
    document: Mapping[str, Any],
    source: str = "",
    *,
    kpis: Mapping[str, KpiDefinition] | None = None,
    calendars: Iterable[str] | None = None,
    webhooks: Iterable[str] | None = None,
) -> dict[str, GateSettings]:
    """The declared gates by name, checked against what they name where that is given. Raises ConfigError."""
    declared = document.get("gates", {})
    if not isinstance(declared, Mapping) or not all(isinstance(fields, Mapping) for fields in declared.values()):
        raise ConfigError("gates", "must be sections [gates.NAME]", source)
    if len(declared) > MAX_GATES:
        raise ConfigError("gates", f"holds {len(declared)} gates, at most {MAX_GATES} are judged", source)
    found = {name: section(fields, GateSettings, f"gates.{name}", source) for name, fields in declared.items()}
    for name, gate in found.items():
        for number, rule in enumerate(gate.kpis):
            if kpis is not None and rule.kpi not in kpis:
                known = ", ".join(sorted(kpis)) or "none"
                field = f"gates.{name}.kpis[{number}].kpi"
                raise ConfigError(field, f"{rule.kpi!r} is not declared under [kpis]; there are {known}", source)
        for field, value, known_names in (("calendar", gate.calendar, calendars), ("hook", gate.hook, webhooks)):
            if value and known_names is not None and value not in set(known_names):
                where = "[slo.calendars]" if field == "calendar" else "[notify] as a webhook"
                known = ", ".join(sorted(known_names)) or "none"
                problem = f"{value!r} is not declared under {where}; there are {known}"
                raise ConfigError(f"gates.{name}.{field}", problem, source)
    return found


@dataclass(frozen=True, slots=True)
class GateSide:
    """One thing that a gate looks at, with its value: `value op limit` keeps it open. Without a value: None."""

    name: str
    verdict: Opinion
    value: float | None
    op: str
    limit: float | None
    count: float
    why: str = ""


@dataclass(frozen=True, slots=True)
class SeenRule:
    """A rule of an objective as it was judged. `burn` and `factor` are of its longest window."""

    name: str
    severity: str
    answer: Answer
    state: State
    why: str
    burn: float
    factor: float
    events: float


@dataclass(frozen=True, slots=True)
class SeenObjective:
    """An objective as it was judged: its rules, and the share of its budget that remains."""

    rules: Sequence[SeenRule]
    remaining: float
    events: float


def seen_objective(judged: Iterable[Judged], budget: Budget) -> SeenObjective:
    """An objective as an evaluation found it."""
    rules = []
    for one in judged:
        long = max(one.verdict.sides, key=lambda side: side.over.window_s, default=None)
        burn, factor, events = (0.0, 0.0, 0) if long is None else (long.burn, long.over.factor, long.counts.total)
        found = one.verdict
        rules.append(
            SeenRule(one.rule.name, one.rule.severity, found.answer, one.alert.state, found.why, burn, factor, events)
        )
    return SeenObjective(rules, budget.remaining, budget.counts.total)


@dataclass(frozen=True, slots=True)
class Measured:
    """A business measure over a window: None without values; `count` of events; the end of the newest value."""

    value: float | None
    count: float
    newest_ns: int


@dataclass(frozen=True, slots=True)
class Portion:
    """Values of one interval, or of messages of the same 10 s, added up: numerators, denominators, values, how many."""

    at_ns: int
    end_ns: int
    above: float
    below: float
    total: float
    values: float


def measured(portions: Iterable[Portion], kind: str) -> Measured:
    """What a ratio, sum or level is over some portions."""
    above = below = total = count = 0.0
    newest = 0
    for one in portions:
        above, below, total, count = above + one.above, below + one.below, total + one.total, count + one.values
        newest = max(newest, one.end_ns)
    if kind == "sum":
        return Measured(total if count else None, count, newest)
    return Measured(above / below if below > 0 else None, below if kind == "ratio" else count, newest)


def rule_sides(gate: GateSettings, seen: Mapping[str, SeenObjective]) -> list[GateSide]:
    """The sides of a gate that are about objectives; of one that is not in force nothing can be said."""
    found = []
    for name in gate.objectives:
        one = seen.get(name)
        if one is None:
            found.append(GateSide(name, "unknown", None, "", None, 0, "no such objective is in force"))
            continue
        pages = [rule for rule in one.rules if rule.severity == "page" and rule.name != "blind"]
        pages = pages or [rule for rule in one.rules if rule.name != "blind"]
        found += [_rule_side(name, rule) for rule in pages]
        found.append(_budget_side(name, one, gate.min_budget))
    for text in gate.rules:
        name, rule_name = text.split()
        one = seen.get(name)
        rule = next((r for r in one.rules if r.name == rule_name), None) if one is not None else None
        if rule is None:
            found.append(GateSide(text, "unknown", None, "", None, 0, "no such rule is in force"))
        else:
            found.append(_rule_side(name, rule))
    return found


def _rule_side(objective: str, rule: SeenRule) -> GateSide:
    verdict: Opinion = "open"
    if rule.answer == "over" or rule.state in OPEN:
        verdict = "closed"
    elif rule.answer in ("held", "insufficient"):
        verdict = "unknown"
    why = rule.why or (f"the alert is {rule.state}" if verdict == "closed" else "")
    value = rule.burn if rule.events else None
    return GateSide(f"{objective} {rule.name}", verdict, value, "lte", rule.factor, rule.events, why)


def _budget_side(name: str, one: SeenObjective, least: float) -> GateSide:
    if not one.events:
        return GateSide(f"{name} budget", "unknown", None, "gt", least, 0, "no events in the whole period")
    spent = one.remaining <= least
    why = f"{100 * one.remaining:.3g} % of the budget is left" if spent else ""
    return GateSide(f"{name} budget", "closed" if spent else "open", one.remaining, "gt", least, one.events, why)


def kpi_side(gate: GateSettings, rule: KpiRule, found: Measured, now_ns: int) -> GateSide:
    """What a rule on a business measure says of what was measured in its window."""
    of = ", ".join(filter(None, (rule.cohort, rule.channel, rule.region, rule.offer)))
    name = f"{rule.kpi} ({of})" if of else rule.kpi
    age_s = (now_ns - found.newest_ns) / NS

    def said(verdict: Opinion, why: str) -> GateSide:
        return GateSide(name, verdict, found.value, rule.op, rule.limit, found.count, why)

    if found.value is None:
        return said("unknown", f"no value in the last {rule.window}")
    if age_s > gate.seconds("stale_after"):
        return said("unknown", f"the newest value is {age_s:.0f} s old, more than {gate.stale_after}")
    if found.count < rule.min_count:
        return said("unknown", f"{found.count:g} events in the last {rule.window}, fewer than {rule.min_count:g}")
    if rule.holds(found.value):
        return said("open", "")
    return said("closed", f"{found.value:.6g} over the last {rule.window} is not {HOLDS[rule.op]} {rule.limit:g}")


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """What a gate says: `passes` is the answer to who asks, `why` in words. `shut`: because of closed hours."""

    verdict: Opinion
    passes: bool
    why: str
    sides: Sequence[GateSide] = ()
    shut: bool = False


def judge_gate(gate: GateSettings, sides: Sequence[GateSide], *, shut: bool = False) -> GateVerdict:
    """The verdict of the sides; in closed hours (`shut`) that of the configuration."""
    if shut:
        verdict: Opinion = gate.closed_hours
        return GateVerdict(verdict, verdict == "open", f"the calendar {gate.calendar} is closed", sides, shut=True)
    closed = [side for side in sides if side.verdict == "closed"]
    if closed:
        return GateVerdict("closed", False, _said(closed), sides)
    unknown = [side for side in sides if side.verdict == "unknown"]
    if unknown:
        return GateVerdict("unknown", gate.on_unknown == "open", _said(unknown), sides)
    return GateVerdict("open", True, "", sides)


def _said(sides: Sequence[GateSide]) -> str:
    return "; ".join(f"{side.name}: {side.why}" for side in sides)


@dataclass(frozen=True, slots=True)
class GateState:
    """Where a gate stands. Times are epoch nanoseconds, 0 where they have not come.

    `closing_ns` is when data began to keep it closed; `trigger_id` the id of the last rollback; `done` whether this
    closing has had its rollback, `held_back` whether the cool-down has kept it from one.
    """

    name: str
    verdict: str = ""
    since_ns: int = 0
    closing_ns: int = 0
    trigger_id: str = ""
    triggered_ns: int = 0
    done: bool = False
    held_back: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What somebody has to hear of: the gate `opened`, `closed` or became `unknown`; a `rollback`, or one that the
    cool-down `held_back`."""

    kind: Literal["open", "closed", "unknown", "rollback", "held_back"]
    gate: str
    at_ns: int
    why: str
    trigger: str = ""


def step(gate: GateSettings, state: GateState, found: GateVerdict, now_ns: int) -> tuple[GateState, list[Decision]]:
    """The gate after one look, and what was decided. A closing lasts until the gate opens or its hours end."""
    decisions: list[Decision] = []
    if found.verdict != state.verdict:
        decisions.append(Decision(found.verdict, state.name, now_ns, found.why))
        state = replace(state, verdict=found.verdict, since_ns=now_ns)
    if found.shut or found.verdict == "open":
        return replace(state, closing_ns=0, done=False, held_back=False), decisions
    if found.verdict != "closed":
        return state, decisions
    if not state.closing_ns:
        state = replace(state, closing_ns=now_ns)
    # A clock that was set back must not make the wait longer than it is.
    waited_ns = now_ns - min(state.closing_ns, now_ns)
    if not gate.hook or state.done or waited_ns < gate.seconds("hook_after") * NS:
        return state, decisions
    if state.triggered_ns and 0 <= now_ns - state.triggered_ns < gate.seconds("cooldown") * NS:
        if not state.held_back:
            decisions.append(Decision("held_back", state.name, now_ns, f"within {gate.cooldown} of {state.trigger_id}"))
            state = replace(state, held_back=True)
        return state, decisions
    trigger = f"{hash64('gate', f'{state.name} {state.closing_ns}'):016x}"
    decisions.append(Decision("rollback", state.name, now_ns, found.why, trigger))
    return replace(state, trigger_id=trigger, triggered_ns=now_ns, done=True), decisions
