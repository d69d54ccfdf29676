"""Terminal tables of comparisons, what-ifs and rollouts. Rows are the objects that `--json` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from dashboards.terminal import count, duration, plain_table, share

Row = Mapping[str, Any]


def sides_table(sides: Sequence[Row]) -> Table:
    """How many messages each side has and where from."""
    body = [
        (
            label,
            one["name"],
            count(one["count"]),
            count(one["unfinished"]),
            one["source"],
            f"{one['clusters']} by {one['clustering']}" if one["clustering"] != "none" else "none",
            str(one["instances"] or "-"),
            share(one["completeness"]),
        )
        for label, one in zip("ab", sides, strict=True)
    ]
    columns = ("", "side", "messages", "unfinished", "from", "clusters", "instances", "complete")
    return plain_table("sides", columns, body)


def quantiles_table(rows: Sequence[Row]) -> Table:
    """Each quantile of both sides, its difference and ratio with intervals, or why not."""
    body = []
    for row in rows:
        if row["refused"]:
            body.append((row["name"], duration(row["a_ns"]), duration(row["b_ns"]), "-", "-", "-", row["refused"]))
            continue
        ratio = "-" if row["ratio"] is None else f"{row['ratio']:.3f}"
        ratio_ci = "-" if row["ratio_ci"] is None else f"{row['ratio_ci'][0]:.3f} to {row['ratio_ci'][1]:.3f}"
        body.append(
            (
                row["name"],
                duration(row["a_ns"]),
                duration(row["b_ns"]),
                duration(row["difference_ns"]),
                ratio,
                ratio_ci,
                span(row["difference_ci"]),
            )
        )
    return plain_table("quantiles", ("", "a", "b", "b - a", "b / a", "95 %", "95 % of b - a"), body)


def tests_table(rows: Sequence[Row]) -> Table:
    """How many messages of each side exceed what both sides pooled exceed, and how surprising that is."""
    body = [
        (
            row["name"],
            duration(row["threshold_ns"]) if row["threshold_ns"] is not None else "-",
            _percent(row["a_share"]),
            _percent(row["b_share"]),
            "-" if row["p_holm"] is None else f"{row['p_holm']:.2g}",
            _percent(row["detectable"]),
            row["refused"] or row["finding"],
        )
        for row in rows
    ]
    columns = ("", "above", "a", "b", "p (Holm)", "would be seen", "found")
    return plain_table("share of messages", columns, body)


def budgets_table(rows: Sequence[Row]) -> Table:
    """Absolute limits."""
    body = [
        (row["name"], duration(row["budget_ns"]), duration(row["value_ns"]), span(row["ci"]), row["status"])
        for row in rows
    ]
    return plain_table("budgets of b", ("", "budget", "value", "95 %", ""), body)


def whatif_table(rows: Sequence[Row]) -> Table:
    """Percentiles as they were and as they would be."""
    body = [
        (
            row["name"],
            duration(row["before_ns"]),
            duration(row["after_ns"]),
            span(row["after_ci"]),
            "-" if row["change"] is None else f"{row['change']:+.1%}",
            duration(row["same_time_ns"]) if row.get("same_time_ns") is not None else "-",
            row["refused"],
        )
        for row in rows
    ]
    columns = ("", "was", "would be", "95 %", "change", "if slowness is shared", "")
    return plain_table("what if", columns, body)


def rollout_table(rows: Sequence[Row]) -> Table:
    """What each metric says about the canary."""
    body = [
        (
            row["name"],
            duration(row["threshold_ns"]) if row["threshold_ns"] is not None else "-",
            _percent(row["baseline_share"]),
            _percent(row["canary_share"]),
            "-" if row["ratio"] is None else f"{row['ratio']:.2f}",
            _ratio_interval(row),
            "-" if row["p_holm"] is None else f"{row['p_holm']:.2g}",
            row["state"],
        )
        for row in rows
    ]
    columns = ("metric", "above", "baseline", "canary", "ratio", "at all times", "p (Holm)", "")
    return plain_table("rollout", columns, body)


def levels_table(rows: Sequence[Row]) -> Table:
    """Percentiles of both sides with intervals that hold at all looks."""
    body = [
        (
            row["name"],
            duration(row["baseline_ns"]),
            span(row["baseline_ci"]),
            duration(row["canary_ns"]),
            span(row["canary_ci"]),
        )
        for row in rows
    ]
    return plain_table("percentiles", ("", "baseline", "at all times", "canary", "at all times"), body)


def span(interval: Sequence[float] | None) -> str:
    """Two durations."""
    return "-" if interval is None else f"{duration(interval[0])} to {duration(interval[1])}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.3%}"


def _ratio_interval(row: Row) -> str:
    if row["ratio_low"] is None:
        return "-"
    high = "any" if row["ratio_high"] is None else f"{row['ratio_high']:.2f}"
    return f"{row['ratio_low']:.2f} to {high}"
