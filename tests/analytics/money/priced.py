"""A small world with money in it: one hour of messages with known latencies, counted, and what is declared of them."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

from analytics import windows
from analytics.kpis import KpiDefinition
from analytics.money.declared import Money, money_from
from analytics.slo.compiled import compiled
from analytics.slo.objectives import Objective
from analytics.slo.openslo_read import read
from collector.store import Store
from tests.analytics.world import HOUR, beat, label_set, path, put, stamp

MS = 1_000_000
S = 1_000_000_000
PATHS = {"order": path()}
KPIS = {"revenue": KpiDefinition(kind="sum", unit="USD"), "success": KpiDefinition()}

VALUE = """
[value.order]
revenue_per_hour = 36000
[value.order.effect]
estimate = -0.01
low = -0.015
high = -0.005
least_ms = 1
most_ms = 50
design = "experiment"
measured = 2025-06-01
"""

SLO = """
apiVersion: openslo/v1
kind: SLO
metadata: {name: fast, annotations: {tailsight.dev/rules: workbook}}
spec:
  service: trading
  indicator:
    metadata: {name: fast}
    spec:
      ratioMetric:
        rawType: success
        raw: {metricSource: {type: tailsight, spec: {latency: {path: order, threshold: 4ms}}}}
  timeWindow: [{duration: 30d, isRolling: true}]
  budgetingMethod: Occurrences
  objectives: [{target: 0.99}]
"""


def money(text: str = VALUE, paths: Mapping[str, Any] = PATHS) -> Money:
    return money_from(tomllib.loads(text), paths, KPIS)


def objective(text: str = SLO) -> Objective:
    made = compiled(read(text, "test").objects, paths={"order"})
    assert not made.errors, made.errors
    return made.objectives[0]


def fill(
    store: Store, count: int = 100, slow: int = 10, *, symbols: tuple[str, ...] = ("A",), error_ns: int = 0
) -> int:
    """`count` messages in one 10 s window: 2 ms each, `slow` of them 12 ms (all in `send`); returns when it ends."""
    sets = [label_set(store, {"symbol": one}) for one in symbols]
    stamps = []
    for i in range(count):
        at, took = HOUR + i * 50 * MS % (9 * S), 11 * MS if i < slow else 1 * MS
        more = {"label_set": sets[i % len(sets)], "error_ns": error_ns}
        stamps += [
            stamp(i + 1, "app_ingress", at, **more),
            stamp(i + 1, "app_decision", at + 1 * MS, **more),
            stamp(i + 1, "app_egress", at + 1 * MS + took, **more),
        ]
    put(store, stamps)
    beat(store, HOUR + 30 * S, HOUR + 30 * S)
    windows.run_due(store, PATHS, now_ns=HOUR + 60 * S)
    return HOUR + 10 * S
