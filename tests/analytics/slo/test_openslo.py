"""OpenSLO documents: what is read, what is refused with its line, and what is named because it is not honoured."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.kpis import KpiDefinition, kpis_from
from analytics.slo.compiled import Compiled, compiled
from analytics.slo.document import MAX_NODES, DocumentError, documents
from analytics.slo.gates import gates_from
from analytics.slo.indicators import Combined, Errors, Gauge, Kpi, Latency, describe
from analytics.slo.objectives import period
from analytics.slo.openslo import TimeWindow
from analytics.slo.openslo_read import read, read_all
from analytics.slo.rules import rule_sets, rules_named

DAY = 86_400
SLO = """apiVersion: openslo/v1
kind: SLO
metadata:
  name: order-latency
  annotations:
    tailsight.dev/rules: workbook
spec:
  service: trading
  indicator:
    metadata: {name: fast-orders}
    spec:
      ratioMetric:
        rawType: success
        raw:
          metricSource:
            type: tailsight
            spec:
              latency: {path: order, stage: decide, threshold: 150us}
  timeWindow:
    - {duration: 30d, isRolling: true}
  budgetingMethod: Occurrences
  objectives:
    - {target: 0.999}
---
apiVersion: openslo/v1
kind: Service
metadata: {name: trading}
spec: {}
"""
INDICATOR = "latency: {path: order, stage: decide, threshold: 150us}"


def compile_(text: str, **known: list[str]) -> Compiled:
    found = read(text)
    assert not found.problems, found.problems
    return compiled(found.objects, **known)


def problem_of(text: str) -> tuple[int, str]:
    found = read(text)
    (one,) = found.problems or compiled(found.objects).errors
    return one.line, f"{one.where}: {one.message}"


def test_an_objective_has_its_indicator_its_window_and_the_workbooks_rules() -> None:
    made = compile_(SLO, paths=["order"])
    assert made.problems == ()
    (one,) = made.objectives
    assert one.indicator == Latency("order", "decide", 150_000, "", unfinished_bad=False)
    assert (one.target, one.period_s, one.service) == (0.999, 30 * DAY, "trading")
    assert [(r.severity, [(o.window_s, round(o.factor, 9)) for o in r.overs]) for r in one.rules] == [
        ("page", [(3600, 14.4), (300, 14.4)]),
        ("page", [(21600, 6.0), (1800, 6.0)]),
        ("ticket", [(259200, 1.0), (21600, 1.0)]),
    ]


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("kind: SLO", "kind: SLA", 2, "no kind of openslo/v1"),
        ("openslo/v1\nkind: SLO", "openslo/v1alpha\nkind: SLO", 1, "write it as openslo/v1"),
        ("name: order-latency", "name: Order Latency", 4, "no name"),
        ("service: trading\n  ind", "ind", 8, "service: is required"),
        ("30d", "1M", 20, "has no fixed length"),
        ("30d", "30 days", 20, "not a duration"),
        ("isRolling: true", "isRolling: false", 20, "calendar: is required"),
        ("isRolling: true", "isRolling: yes", 20, "must be true or false"),
        ("Occurrences", "Occurences", 21, "must be one of Occurrences, Timeslices, RatioTimeslices"),
        ("target: 0.999", "target: 1", 23, "below 1"),
        ("target: 0.999", "target: 0.9, targetPercent: 90", 23, "exactly one of target and targetPercent"),
        ("target: 0.999", "target: 0.9, target: 0.8", 23, "given twice"),
        ("budgetingMethod: Occurrences", "budgetingMethod: Timeslices", 23, "timeSliceWindow: is required"),
        ("150us", "'150'", 18, "is not a duration"),
        (", threshold: 150us", "", 18, "threshold: is needed"),
        ("latency:", "latencies:", 18, "exactly one indicator"),
        ("stage: decide", "stages: decide", 18, "is not known here"),
        ("rawType: success", "rawType: failure", 10, "write success"),
        ("workbook", "workbok", 1, "is no rule set; there are pyrra, sloth, workbook"),
        ("workbook", "workbook-28d", 1, "the objective's period is 30 d; write workbook"),
        ("target: 0.999", "target: 0.93", 23, "page-1h: burn rate 14.4 can never be exceeded"),
        ("    - {duration: 30d, isRolling: true}", "    - {duration: 30d, isRolling: true", 21, "expected"),
        ("spec: {}", "spec: {a: *b}", 28, "*b refers to nothing above it"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_line(old: str, new: str, line: int, says: str) -> None:
    assert old in SLO
    found = read(SLO.replace(old, new, 1))
    problems = [p for p in (*found.problems, *compiled(found.objects).problems) if p.severity == "error"]
    assert [p.line for p in problems if says in f"{p.where}: {p.message}"] == [line], problems


def test_a_page_that_can_never_fire_is_refused_and_a_ticket_below_one_is_flagged() -> None:
    lowest = 1 - 1 / 14.4
    refused = compile_(SLO.replace("0.999", f"{lowest - 1e-4:.5f}"))
    assert len(refused.errors) == 1
    assert "a full outage burns at" in refused.errors[0].message
    assert compile_(SLO.replace("0.999", f"{lowest + 1e-4:.5f}")).errors == ()
    flagged = compile_(SLO.replace("30d", "28d"))
    assert [p.severity for p in flagged.problems] == ["warning"]
    assert "0.9333 is below 1" in flagged.problems[0].message


def test_policies_of_one_rule_have_to_hold_together() -> None:
    def policy(name: str, window: str, more: str = "") -> str:
        return f"""---
apiVersion: openslo/v1
kind: AlertPolicy
metadata:
  name: {name}
  annotations: {{tailsight.dev/rule: fast-burn{more}}}
spec:
  alertWhenBreaching: true
  conditions:
    - kind: AlertCondition
      metadata: {{name: {name}}}
      spec:
        severity: page
        condition: {{kind: burnrate, op: gt, threshold: 14.4, lookbackWindow: {window}, alertAfter: 5m}}
  notificationTargets: []
"""

    both = SLO.replace("workbook", "workbook\n  labels: {a: b}", 1).replace(
        "    tailsight.dev/rules: workbook\n", "    tailsight.dev/runbook: https://example.com\n"
    )
    both = both.replace("  objectives:", "  alertPolicies: [long, short, other]\n  objectives:", 1)
    text = both + policy("long", "1h") + policy("short", "5m")
    elsewhere = ", tailsight.dev/objective: order-errors"
    missing = compile_(text + policy("other", "5m", elsewhere))
    (rule,) = missing.objectives[0].rules
    assert [(o.window_s, o.objective) for o in rule.overs] == [(3600, ""), (300, ""), (300, "order-errors")]
    assert (rule.name, rule.for_s, rule.severity) == ("fast-burn", 300, "page")
    assert ["names the objective order-errors" in p.message for p in missing.errors] == [True]


def test_what_cannot_be_honoured_is_named() -> None:
    made = compile_(SLO.replace("type: tailsight", "type: Prometheus"))
    assert made.objectives == ()
    assert {p.severity for p in made.problems} == {"not_honoured"}
    assert "queries of type Prometheus are not evaluated" in made.problems[0].message


def test_ratio_time_slices_are_averaged_and_what_they_do_not_use_is_named() -> None:
    text = SLO.replace("Occurrences", "RatioTimeslices").replace("target: 0.999", "target: 0.999, timeSliceWindow: 1m")
    (one,) = compile_(text).objectives
    assert (one.method, one.slice_s, one.slice_ratio) == ("RatioTimeslices", 60, True)
    made = compile_(text.replace("timeSliceWindow", "timeSliceTarget: 0.9, timeSliceWindow"))
    assert [p.severity for p in made.problems] == ["not_honoured"]
    assert "counts by its share of good events" in made.problems[0].message
    assert made.objectives[0].slice_target == 0.0


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("kpi: {name: order_success}", ""),
        ("kpi: {name: order_success, op: gte, value: 0.9, region: eu, offer: gold}", ""),
        ("kpi: {name: slippage, op: lte, value: 2}", ""),
        ("kpi: {name: slippage}", "slippage is a level and has no events of its own"),
        ("kpi: {name: conversion}", "there is no KPI 'conversion' under [kpis]; there are order_success, slippage"),
        ("kpi: {name: slippage, op: lte}", "op and value belong together"),
        ("kpi: {name: slippage, op: below, value: 2}", "must be one of lte, gte, lt, gt"),
    ],
)
def test_business_measures_are_counted_where_their_meaning_is_declared(given: str, problem: str) -> None:
    kpis = {"order_success": KpiDefinition(), "slippage": KpiDefinition(kind="level")}
    made = compiled(read(SLO.replace(INDICATOR, given)).objects, kpis=kpis)
    assert problem in "; ".join(p.message for p in made.problems if p.severity != "warning")
    assert len(made.objectives) == (not problem)
    if not problem:
        assert isinstance(made.objectives[0].indicator, Kpi)
        assert describe(made.objectives[0].indicator).startswith("KPI ")


def test_several_indicators_can_be_required_at_once() -> None:
    both = f"any_of: [{{{INDICATOR}}}, {{errors: {{path: order}}}}]"
    (one,) = compile_(SLO.replace(INDICATOR, both)).objectives
    assert isinstance(one.indicator, Combined)
    assert not one.indicator.every
    assert isinstance(one.indicator.sides[1], Errors)
    assert describe(one.indicator).startswith("(order.decide <= 150 us) or (order without error")
    assert problem_of(SLO.replace(INDICATOR, f"all_of: [{{{INDICATOR}}}]"))[1].endswith("needs at least two sides")


def test_a_threshold_metric_takes_op_and_value_from_its_objective() -> None:
    text = (
        SLO.replace("      ratioMetric:\n        rawType: success\n        raw:\n", "      thresholdMetric:\n")
        .replace("          metric", "        metric")
        .replace("            type", "          type")
        .replace("            spec", "          spec")
        .replace(INDICATOR, "gauge: {name: nic_ring_fill, host: gw}")
        .replace("target: 0.999", "target: 0.999, op: lte, value: 0.8")
    )
    (one,) = compile_(text).objectives
    assert one.indicator == Gauge("nic_ring_fill", "lte", 0.8, host="gw")


def test_counts_keep_their_version_until_what_is_counted_changes() -> None:
    (one,) = compile_(SLO).objectives
    (stricter,) = compile_(SLO.replace("0.999", "0.9999")).objectives
    (other,) = compile_(SLO.replace("150us", "151us")).objectives
    assert one.version == stricter.version != other.version


def test_rule_sets_say_whose_they_are() -> None:
    assert set(rule_sets()) == {"workbook", "sloth", "pyrra"}
    factors = {
        name: [round(r.overs[0].factor, 3) for r in rules_named(name, days * DAY)]
        for name, days in (("workbook-30d", 30), ("workbook-28d", 28), ("workbook", 7), ("sloth-30d", 30),
                           ("sloth-28d", 28), ("pyrra-28d", 28))
    }  # fmt: skip
    assert factors == {
        "workbook-30d": [14.4, 6.0, 1.0],
        "workbook-28d": [13.44, 5.6, 0.933],
        "workbook": [3.36, 1.4, 0.233],
        "sloth-30d": [14.4, 6.0, 3.0, 1.0],
        "sloth-28d": [13.44, 5.6, 2.8, 0.933],
        "pyrra-28d": [14.0, 7.0, 2.0, 1.0],
    }
    pyrra = rules_named("pyrra", 28 * DAY)
    assert [(r.for_s, r.overs[0].window_s, r.overs[1].window_s) for r in pyrra] == [
        (120, 3600, 300), (900, 21600, 1800), (3600, DAY, 7200), (10800, 4 * DAY, 21600),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("window", "at", "length"),
    [
        (TimeWindow(1, "w", False, "2022-01-01 12:00:00", "America/New_York"), 1_647_200_000, 7 * DAY - 3600),
        (TimeWindow(1, "M", False, "2024-01-31 00:00:00", "UTC"), 1_709_200_000, 31 * DAY),
        (TimeWindow(1, "Q", False, "2024-01-01 00:00:00", "Europe/Zurich"), 1_705_000_000, 91 * DAY - 3600),
    ],
)
def test_calendar_periods_follow_local_time(window: TimeWindow, at: int, length: int) -> None:
    start, end = period(window, at)
    assert start <= at < end
    assert end - start == length


@given(st.integers(0, 4_000_000_000), st.sampled_from("mhdwMQY"), st.integers(1, 40))
def test_every_moment_lies_in_one_calendar_period(at: int, unit: str, count: int) -> None:
    window = TimeWindow(count, unit, False, "2020-02-29 03:30:00", "America/New_York")
    start, end = period(window, at)
    assert start <= at < end
    assert period(window, end)[0] == end
    assert period(window, start) == (start, end)


def test_yaml_is_read_with_bounds() -> None:
    laughs = "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    for name, before in zip("bcdefg", "abcdef", strict=True):
        laughs += f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    with pytest.raises(DocumentError, match=f"more than {MAX_NODES} values"):
        documents(laughs)
    with pytest.raises(DocumentError, match="nested deeper"):
        documents("[" * 100)
    assert documents("a: yes\nb: 1:30\nc: 0o17\nd: 1e3\ne: !!python/name:os.system x")[0].plain() == {
        "a": "yes", "b": "1:30", "c": "0o17", "d": 1000.0, "e": "x",
    }  # fmt: skip


@given(st.text(max_size=200))
def test_no_text_makes_the_reader_fail(text: str) -> None:
    read(text)
    read(SLO.replace("0.999", text))


@pytest.mark.real
def test_every_document_of_the_go_sdk_is_read_and_what_is_not_honoured_is_named() -> None:
    folder = os.environ.get("TAILSIGHT_REAL_DATA")
    if not folder:
        pytest.skip("TAILSIGHT_REAL_DATA names no folder with real OpenSLO documents")
    files = [(f.name, f.read_text()) for f in sorted((Path(folder) / "openslo").glob("*.yaml"))]
    assert len(files) == 7
    found = read_all(files)
    assert found.problems == ()
    assert sorted({o.meta.kind for o in found.objects}) == [
        "AlertCondition", "AlertNotificationTarget", "AlertPolicy", "DataSource", "SLI", "SLO", "Service",
    ]  # fmt: skip
    assert len(found.objects) == 16
    made = compiled(found.objects)
    assert made.errors == ()
    named = " ".join(p.message for p in made.problems if p.severity == "not_honoured")
    for foreign in ("Prometheus", "Datadog", "AppDynamics", "'email'", "'pagerduty'", "op lte"):
        assert foreign in named


EXAMPLES = Path(__file__).resolve().parents[3] / "deploy" / "examples"


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.slo.yaml")), ids=lambda file: file.name)
def test_every_example_is_honoured_whole(file: Path) -> None:
    document = tomllib.loads((EXAMPLES / "rollout.toml").read_text())
    kpis = kpis_from(document)
    found = read(file.read_text(), file.name)
    made = compiled(found.objects, kpis=kpis)
    assert [str(p) for p in (*found.problems, *made.problems) if p.severity != "warning"] == []
    assert made.objectives
    webhooks = [name for name, target in document["notify"].items() if target["kind"] == "webhook"]
    assert gates_from(document, kpis=kpis, webhooks=webhooks, calendars=[])
