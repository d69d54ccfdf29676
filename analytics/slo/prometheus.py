"""Objectives as Prometheus rules, with the series names of Sloth, so that its dashboards find them.

The counts are read from two counters per objective, `tailsight_objective_events_total` and
`tailsight_objective_bad_events_total`. Sloth's period series are averages over time, ours over events: they differ
where traffic is uneven, and the rules keep to the counters instead. Time slices and calendars do not exist in
Prometheus; what cannot be exported is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from analytics.slo.objectives import Objective
from analytics.slo.rules import Over, Rule

EVENTS, BAD = "tailsight_objective_events_total", "tailsight_objective_bad_events_total"


@dataclass(frozen=True, slots=True)
class Exported:
    """A rule file as plain values, and what is not in it."""

    document: dict[str, Any]
    left_out: tuple[str, ...]


def exported(objectives: Sequence[Objective]) -> Exported:
    """Recording and alerting rules of objectives, one group of each per objective."""
    groups, left_out = [], []
    known = {one.name: one for one in objectives}
    for one in objectives:
        if one.slice_s:
            left_out.append(f"{one.name}: time slices have no rule in Prometheus")
            continue
        if one.calendar:
            left_out.append(f"{one.name}: exported without its calendar {one.calendar}")
        groups.append({"name": f"tailsight-slo-sli-recordings-{one.name}", "rules": _recordings(one, known)})
        groups.append({"name": f"tailsight-slo-meta-recordings-{one.name}", "rules": _meta(one)})
        if one.rules:
            alerts = [_alert(one, rule, known) for rule in one.rules]
            groups.append({"name": f"tailsight-slo-alerts-{one.name}", "rules": alerts})
    return Exported({"groups": groups}, tuple(left_out))


def duration(seconds: int) -> str:
    """A Prometheus duration: 5m, 1h, 3d."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _labels(one: Objective) -> dict[str, str]:
    return {"sloth_service": one.service, "sloth_slo": one.name, "sloth_id": f"{one.service}-{one.name}"}


def _matchers(one: Objective) -> str:
    return ", ".join(f'{name}="{_text(value)}"' for name, value in sorted(_labels(one).items()))


def _text(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _windows(one: Objective) -> list[int]:
    mine = {over.window_s for rule in one.rules for over in rule.overs}
    return sorted({300, 1_800, 3_600, 7_200, 21_600, 86_400, 259_200} | mine)


def _recordings(one: Objective, known: dict[str, Objective]) -> list[dict[str, Any]]:
    del known
    selector = f'{{objective="{_text(one.name)}"}}'
    rules = []
    for seconds in [*_windows(one), one.period_s]:
        length = duration(seconds)
        expr = f"sum(rate({BAD}{selector}[{length}]))\n/\nsum(rate({EVENTS}{selector}[{length}]))\n"
        rules.append(
            {
                "record": f"slo:sli_error:ratio_rate{length}",
                "expr": expr,
                "labels": {**_labels(one), "sloth_window": length},
            }
        )
    return rules


def _meta(one: Objective) -> list[dict[str, Any]]:
    where, length = _matchers(one), duration(one.period_s)
    budget = f"{1 - one.target:.12g}"
    ratio = f"slo:sli_error:ratio_rate{length}{{{where}}}"
    series = [
        ("slo:objective:ratio", f"vector({one.target:.12g})"),
        ("slo:error_budget:ratio", f"vector({budget})"),
        ("slo:time_period:days", f"vector({one.period_s / 86_400:g})"),
        ("slo:current_burn_rate:ratio", f"slo:sli_error:ratio_rate5m{{{where}}} / {budget}"),
        ("slo:period_burn_rate:ratio", f"{ratio} / {budget}"),
        ("slo:period_error_budget_remaining:ratio", f"1 - {ratio} / {budget}"),
    ]
    rules = [{"record": name, "expr": expr, "labels": _labels(one)} for name, expr in series]
    info = {**_labels(one), "sloth_mode": "tailsight", "sloth_objective": f"{100 * one.target:.12g}"}
    return [*rules, {"record": "sloth_slo_info", "expr": "vector(1)", "labels": info}]


def _alert(one: Objective, rule: Rule, known: dict[str, Objective]) -> dict[str, Any]:
    expr = "\nand\n".join(_side(known.get(over.objective, one), over) for over in rule.overs)
    alert: dict[str, Any] = {
        "alert": f"{one.name} {rule.name}",
        "expr": expr + "\n",
        "labels": {"sloth_severity": rule.severity, "severity": rule.severity, **_labels(one)},
        "annotations": {"title": f"({rule.severity}) {one.display_name} burns its error budget too fast"},
    }
    if rule.for_s:
        alert["for"] = duration(rule.for_s)
    return alert


def _side(one: Objective, over: Over) -> str:
    sign = ">=" if over.or_equal else ">"
    series = f"slo:sli_error:ratio_rate{duration(over.window_s)}{{{_matchers(one)}}}"
    return f"(max({series}) without (sloth_window) {sign} ({over.factor:.12g} * {1 - one.target:.12g}))"
