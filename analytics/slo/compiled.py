"""OpenSLO objects into objectives, with everything named that the product cannot honour.

Annotations of ours, on top of the standard:

| annotation | on | meaning |
|---|---|---|
| `tailsight.dev/rules` | SLO | a rule set by name (`workbook`, `sloth`, `pyrra`), beside the alert policies |
| `tailsight.dev/rule` | AlertPolicy | policies of an SLO with the same value are one rule: all conditions at once |
| `tailsight.dev/objective` | AlertPolicy | its condition looks at the burn of another objective |
| `tailsight.dev/calendar` | SLO | the calendar of `[slo]` whose closed hours are not counted |
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from analytics.kpis import KpiDefinition
from analytics.slo import indicators
from analytics.slo.document import Node
from analytics.slo.fields import Fields
from analytics.slo.objectives import Objective, nominal_s
from analytics.slo.openslo import (
    Condition,
    DataSource,
    Indicator,
    Object,
    Op,
    Policy,
    Problem,
    Service,
    Slo,
    SloTarget,
    Target,
)
from analytics.slo.rules import MAX_WINDOW_S, TICK_S, Over, Rule, rules_named, too_low, unreachable

PREFIX = "tailsight.dev/"
SOURCE_TYPE = "tailsight"
MAX_PERIOD_S = 400 * 86_400
_ANNOTATIONS = {"SLO": {"rules", "calendar", "runbook", "dashboard"}, "AlertPolicy": {"rule", "objective", "runbook"}}


@dataclass(frozen=True, slots=True)
class Compiled:
    """What can be evaluated, and every problem with what was read."""

    objectives: tuple[Objective, ...]
    problems: tuple[Problem, ...]

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that keep the documents from being applied."""
        return tuple(p for p in self.problems if p.severity == "error")


def compiled(
    objects: Iterable[Object],
    *,
    paths: Collection[str] | None = None,
    calendars: Collection[str] | None = None,
    kpis: Mapping[str, KpiDefinition] | None = None,
) -> Compiled:
    """The objectives of a set of objects. `paths`, `calendars` and `kpis`, where given, are those that there are."""
    one = _Compiler(tuple(objects), paths, calendars, kpis)
    one.run()
    seen: dict[Problem, None] = dict.fromkeys(one.problems)
    return Compiled(tuple(one.objectives), tuple(seen))


class _Compiler:
    def __init__(
        self,
        objects: tuple[Object, ...],
        paths: Collection[str] | None,
        calendars: Collection[str] | None,
        kpis: Mapping[str, KpiDefinition] | None,
    ) -> None:
        self.objects, self.paths, self.calendars, self.kpis = objects, paths, calendars, kpis
        self.problems: list[Problem] = []
        self.objectives: list[Objective] = []
        self.by_name: dict[tuple[str, str], Object] = {}

    def run(self) -> None:
        for one in self.objects:
            key = (one.meta.kind, one.meta.name)
            if key in self.by_name:
                severity = "warning" if one.meta.kind == "Service" else "error"
                first = self.by_name[key].meta
                where = f"{first.file}:{first.line}" if first.file != one.meta.file else f"line {first.line}"
                self._note(one, "name", f"is given twice, first on {where}", severity)
            self.by_name.setdefault(key, one)
            self._annotations(one)
        for one in self.objects:
            match one:
                case DataSource():
                    if one.type != SOURCE_TYPE:
                        self._note(one, "type", f"data of {one.type} is not read; sources of type tailsight are",
                                   "not_honoured")  # fmt: skip
                case Indicator():
                    self._foreign(one)
                case Policy():
                    self._policy(one)
                case Condition():
                    self._condition(one)
                case Target():
                    self._target(one)
                case Slo():
                    self._slo(one)
                case _:
                    pass
        known = {o.name for o in self.objectives}
        for made in self.objectives:
            for rule in made.rules:
                for over in rule.overs:
                    if over.objective and over.objective not in known:
                        slo = self.by_name["SLO", made.slo]
                        self._note(
                            slo, f"rule {rule.name}", f"names the objective {over.objective}, which is not there"
                        )

    def _note(self, one: Object, field: str, message: str, severity: str = "error", line: int = 0) -> None:
        where = f"{one.meta.where}.{field}" if field else one.meta.where
        self.problems.append(Problem(line or one.meta.line, where, message, severity, one.meta.file))  # type: ignore[arg-type]

    def _annotations(self, one: Object) -> None:
        for name in one.meta.annotations:
            if name.startswith(PREFIX) and name.removeprefix(PREFIX) not in _ANNOTATIONS.get(one.meta.kind, set()):
                self._note(one, f"annotations.{name}", f"has no meaning on {one.meta.kind}", "warning")

    def _foreign(self, one: Indicator) -> list[str]:
        foreign = []
        for source in one.sources:
            kind = source.type
            if not kind and source.ref:
                ref = self.by_name.get(("DataSource", source.ref))
                kind = ref.type if isinstance(ref, DataSource) else ""
            if kind != SOURCE_TYPE:
                foreign.append(kind or f"unknown (metricSourceRef {source.ref})")
                message = (
                    f"queries of type {kind or 'unknown'} are not evaluated; a metricSource of type tailsight names an "
                    "indicator of this product"
                )
                self._note(one, "metricSource", message, "not_honoured", source.line)
        return foreign

    def _condition(self, one: Condition) -> None:
        if one.op in ("lte", "lt"):
            message = f"op {one.op} would alert while the budget is kept; a burn that is too fast is gt or gte"
            self._note(one, "condition.op", message, "not_honoured")
        if one.lookback_s > MAX_WINDOW_S:
            self._note(one, "condition.lookbackWindow", f"is longer than {MAX_WINDOW_S // 86_400} d", "not_honoured")

    def _policy(self, one: Policy) -> Condition | None:
        if one.when_no_data:
            self._note(one, "alertWhenNoData", "missing data alerts as `blind` on every objective, whatever this says",
                       "warning")  # fmt: skip
        for target in one.targets:
            found = target if isinstance(target, Target) else self.by_name.get(("AlertNotificationTarget", target))
            if isinstance(target, Target):
                self._target(target)
            elif found is None:
                self._note(one, "notificationTargets", f"{target} is not there", "warning")
        if isinstance(one.condition, Condition):
            self._condition(one.condition)
            return one.condition
        condition = self.by_name.get(("AlertCondition", one.condition))
        if not isinstance(condition, Condition):
            self._note(one, "conditions", f"AlertCondition {one.condition} is not there", "warning")
            return None
        return condition

    def _target(self, one: Target) -> None:
        if one.target not in ("alertmanager", "webhook"):
            message = f"nothing is sent to {one.target!r}; Alertmanager and webhooks of the configuration are"
            self._note(one, "target", message, "not_honoured")

    def _slo(self, one: Slo) -> None:
        if not isinstance(self.by_name.get(("Service", one.service)), Service):
            self._note(one, "service", f"Service {one.service} is not there", "warning")
        calendar = one.meta.annotations.get(PREFIX + "calendar", "")
        if calendar and self.calendars is not None and calendar not in self.calendars:
            known = ", ".join(sorted(self.calendars)) or "none"
            self._note(
                one, "annotations", f"calendar {calendar!r} is not declared under [slo.calendars]; there are {known}"
            )
            return
        period_s = nominal_s(one.window)
        if not 3_600 <= period_s <= MAX_PERIOD_S:
            self._note(one, "timeWindow", f"{one.window.text} is not evaluated; 1h to {MAX_PERIOD_S // 86_400}d are",
                       "not_honoured", one.window.line)  # fmt: skip
            return
        rules = self._rules(one, period_s)
        names: set[str] = set()
        for number, objective in enumerate(one.objectives):
            name = one.meta.name if len(one.objectives) == 1 else f"{one.meta.name}.{_slug(objective, number)}"
            if name in names:
                name = f"{name}-{number + 1}"
            names.add(name)
            made = self._objective(one, objective, name, calendar, rules)
            if made is not None:
                self.objectives.append(made)

    def _objective(
        self, slo: Slo, one: SloTarget, name: str, calendar: str, rules: tuple[Rule, ...]
    ) -> Objective | None:
        if one.weight is not None:
            self._note(slo, "objectives.compositeWeight", "objectives are evaluated one by one; weights are not used",
                       "not_honoured", one.line)  # fmt: skip
        given = one.indicator or slo.indicator
        sli = given if isinstance(given, Indicator) else self.by_name.get(("SLI", str(given)))
        if not isinstance(sli, Indicator):
            self._note(slo, "indicator", f"SLI {given} is not there", "error", one.line)
            return None
        if self._foreign(sli):
            return None
        counted = self._counted(slo, sli, one)
        if counted is None:
            return None
        averaged = slo.method == "RatioTimeslices"
        if averaged and one.slice_target is not None:
            message = "a slice of RatioTimeslices counts by its share of good events, whatever that is"
            self._note(slo, "objectives.timeSliceTarget", message, "not_honoured", one.line)
        kept = []
        for rule in rules:
            problem = unreachable(rule, one.target)
            if problem:
                self._note(slo, f"rule {rule.name}", problem, "error", one.line)
                continue
            if (low := too_low(rule)) and one.target > 0:
                self._note(slo, f"rule {rule.name}", low, "warning", one.line)
            kept.append(rule)
        return Objective(
            name=name, slo=slo.meta.name, service=slo.service,
            display_name=one.display_name or slo.meta.display_name or name, description=slo.description,
            target=one.target, indicator=counted, window=slo.window, rules=tuple(kept),
            slice_s=one.slice_s or 0, slice_target=0.0 if averaged else one.slice_target or 0.0,
            slice_ratio=averaged, calendar=calendar,
            labels={key: ",".join(values) for key, values in slo.meta.labels.items()},
            annotations=dict(slo.meta.annotations),
        )  # fmt: skip

    def _counted(self, slo: Slo, sli: Indicator, one: SloTarget) -> indicators.Indicator | None:
        source = sli.threshold or sli.raw
        if source is None:
            self._note(sli, "ratioMetric", "an indicator of ours has its own total: write it as raw, rawType: success")
            return None
        if sli.raw is not None and sli.raw_type == "failure":
            self._note(sli, "rawType", "indicators of ours count what is good: write success")
            return None
        problems: list[Problem] = []
        op: Op | None = one.op if sli.threshold is not None else None
        value = one.value if sli.threshold is not None else None
        assert isinstance(source.spec, Node)  # noqa: S101 - the reader keeps it with its lines
        fields = Fields(source.spec, f"{slo.meta.where}.spec", problems, sli.meta.file)
        made = indicators.read_indicator(fields, op, value)
        self.problems += problems
        if made is None or any(p.severity == "error" for p in problems):
            return None
        for side in (made, *getattr(made, "sides", ())):
            if isinstance(side, indicators.Kpi) and (problem := self._kpi(side)):
                self._note(sli, "spec.kpi", problem, "error", source.line)
                return None
        for path in _paths(made):
            if self.paths is not None and path not in self.paths:
                known = ", ".join(sorted(self.paths)) or "none"
                self._note(sli, "spec.path", f"there is no path {path!r}; there are {known}", "error", source.line)
                return None
        if one.slice_s and one.slice_s % TICK_S:
            self._note(slo, "timeSliceWindow", f"must be a multiple of {TICK_S} s", "error", one.line)
            return None
        return made

    def _kpi(self, one: indicators.Kpi) -> str:
        """What is wrong with a business measure as an indicator, or ''."""
        if self.kpis is None:
            return ""
        definition = self.kpis.get(one.name)
        if definition is None:
            known = ", ".join(sorted(self.kpis)) or "none"
            return f"there is no KPI {one.name!r} under [kpis]; there are {known}"
        if definition.kind != "ratio" and one.op is None:
            return (
                f"{one.name} is a {definition.kind} and has no events of its own: say with op and value when it is good"
            )
        return ""

    def _rules(self, one: Slo, period_s: int) -> tuple[Rule, ...]:
        rules: list[Rule] = []
        named = one.meta.annotations.get(PREFIX + "rules")
        if named:
            try:
                rules += rules_named(named, period_s)
            except ValueError as error:
                self._note(one, f"annotations.{PREFIX}rules", str(error))
        grouped: dict[str, list[tuple[Condition, str]]] = {}
        for given in one.policies:
            policy = given if isinstance(given, Policy) else self.by_name.get(("AlertPolicy", given))
            if not isinstance(policy, Policy):
                self._note(one, "alertPolicies", f"AlertPolicy {given} is not there", "error")
                continue
            condition = self._policy(policy)
            if condition is None or condition.op in ("lte", "lt") or condition.lookback_s > MAX_WINDOW_S:
                continue
            name = policy.meta.annotations.get(PREFIX + "rule", policy.meta.name)
            grouped.setdefault(name, []).append((condition, policy.meta.annotations.get(PREFIX + "objective", "")))
        for name, conditions in grouped.items():
            if any(r.name == name for r in rules):
                self._note(one, "alertPolicies", f"rule {name} is given twice")
                continue
            rules.append(_rule(name, conditions))
        for rule in rules:
            if rule.long_s > period_s:
                self._note(one, f"rule {rule.name}", f"looks back {rule.long_s} s, longer than the period", "error")
        if not rules:
            self._note(one, "alertPolicies", "no rule: the budget is kept, nothing alerts but `blind`", "warning")
        return tuple(rules)


def _rule(name: str, conditions: list[tuple[Condition, str]]) -> Rule:
    overs = sorted(
        (Over(c.lookback_s, c.threshold, c.op == "gte", objective) for c, objective in conditions),
        key=lambda over: -over.window_s,
    )
    severity = "page" if any(c.severity == "page" for c, _ in conditions) else conditions[0][0].severity
    return Rule(name, severity, tuple(overs), max(c.alert_after_s for c, _ in conditions))


def _slug(one: SloTarget, number: int) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", one.display_name.lower()).strip("-")
    return slug or str(number + 1)


def _paths(one: indicators.Indicator) -> set[str]:
    if isinstance(one, indicators.Combined):
        return {path for side in one.sides for path in _paths(side)}
    path = getattr(one, "path", "")
    return {path} if path else set()
