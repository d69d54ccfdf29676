"""What is configured, as rows of the store: who reads the store alone (Grafana) knows stages, budgets and targets.

Each table holds whole declarations; the newest, by `applied`, is in force.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from analytics.paths import Path
from analytics.slo.indicators import describe
from analytics.slo.objectives import Objective
from collector.store import Store
from collector.store.blocks import from_rows
from collector.store.schema import table_types

_NO_OBJECTIVE = {
    "objective": "", "version": 0, "slo": "", "service": "", "target": 0.0, "period_s": 0, "indicator": "",
}  # fmt: skip


class Declared:
    """Writes declarations when they are not those that were written last."""

    def __init__(self) -> None:
        self._last: dict[str, list[dict[str, Any]]] = {}

    def paths(self, store: Store, paths: Mapping[str, Path], now_ns: int) -> bool:
        """The paths, one row each with its stages in order; whether anything was written. Raises StoreError."""
        rows = [
            {
                "path": path.name,
                "stages": [stage.name for stage in path.stages],
                "classes": [str(stage.kind) for stage in path.stages],
                "budgets_ns": [stage.budget_ns or 0 for stage in path.stages],
                "sentences": [stage.sentence for stage in path.stages],
                "revenue_node": path.revenue_node,
            }
            for path in sorted(paths.values(), key=lambda one: one.name)
        ]
        return self._write(store, "paths", rows, now_ns)

    def objectives(self, store: Store, objectives: Sequence[Objective], now_ns: int) -> bool:
        """The objectives in force; whether anything was written. Raises StoreError."""
        rows = [
            {
                "objective": one.name,
                "version": one.version,
                "slo": one.slo,
                "service": one.service,
                "target": one.target,
                "period_s": one.period_s,
                "indicator": describe(one.indicator),
            }
            for one in objectives
        ]
        # None in force is a declaration too: the rows of an earlier one must not stay.
        return self._write(store, "objectives", rows or [dict(_NO_OBJECTIVE)], now_ns)

    def _write(self, store: Store, table: str, rows: list[dict[str, Any]], now_ns: int) -> bool:
        if not rows or self._last.get(table) == rows:
            return False
        block = from_rows(table_types()[table], [{**row, "applied": now_ns} for row in rows])
        store.insert(table, block, token=f"{table}/{now_ns}")
        self._last[table] = rows
        return True
