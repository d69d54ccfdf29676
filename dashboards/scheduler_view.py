"""The scheduler's answer for a terminal: delays, culprits, sums, and what could not be seen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from dashboards.terminal import count, duration, number, percentile, plain_table, share

_PERCENTILES = ("p50_ns", "p90_ns", "p99_ns", "p999_ns")


def scheduler_view(found: Mapping[str, Any]) -> Iterator[Table | Text]:
    """Tables and remarks of the object that `tailsight query scheduler --json` prints."""
    yield _delays(found)
    refusals = sorted({text for row in found["delays"] for text in row["refused"].values()})
    if refusals:
        yield Text("n<N: " + "; ".join(refusals[:2]), style="dim")
    if found["culprits"]:
        body = [
            (
                c["kind"],
                c["culprit"] or "unknown",
                count(c["count"]),
                duration(c["total_ns"]),
                duration(c["max_ns"]),
                c["threads"],
            )
            for c in found["culprits"]
        ]
        yield plain_table(
            "Who kept threads from running", ("kind", "culprit", "times", "sum", "longest", "threads"), body
        )
    if found["counters"]:
        sums = [
            (
                c["name"],
                c["service"] or "(machine)",
                " ".join(f"{k}={v}" for k, v in c["labels"].items()),
                duration(c["total"]) if c["name"].endswith("_ns") else number(c["total"]),
            )
            for c in _over_cpus(found["counters"])
        ]
        yield plain_table("Sums", ("what", "of", "labels", "sum"), sums)
    if found["collections"]:
        yield _collections("Garbage collections", found["collections"])
    for one in found["mechanisms"]:
        covered = ", ".join(f"{event} {share(value)}" for event, value in one["coverage"].items()) or "unknown"
        yield Text(
            f"{one['host']}: by {one['mechanism']}, coverage {covered}, "
            f"intervals from {duration(one['threshold_ns'])} on, {count(one['records_lost'])} lost; "
            f"sees {', '.join(one['sees'])}",
            style="dim",
        )
    if not found["mechanisms"]:
        yield Text("Nobody measured: put scheduler into [agent] collectors.", style="yellow")
    for one in found["not_observable"]:
        yield Text(
            f"{one['host']}: thread {one['thread']} of {one['service']} polls and is never switched: not observable, "
            "which is not a delay of zero",
            style="yellow",
        )


def _collections(title: str, rows: Iterable[Mapping[str, Any]]) -> Table:
    body = [
        (
            row["service"] or "(unknown)",
            row["host"],
            row["mechanism"],
            "-" if row["pauses"] is None else count(row["pauses"]),
            duration(row["total_ns"]),
            "-" if row["max_ns"] is None else duration(row["max_ns"]),
            "each, in budgets" if row["placed"] else "sums of periods, in no budget",
        )
        for row in rows
    ]
    return plain_table(title, ("service", "on", "by", "pauses", "sum", "longest", "known"), body)


def _over_cpus(counters: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The counters without their CPU, added up: a terminal has no room for each."""
    out: dict[tuple[Any, ...], dict[str, Any]] = {}
    for c in counters:
        labels = {name: value for name, value in c["labels"].items() if name != "cpu"}
        key = (c["name"], c["host"], c["service"], *sorted(labels.items()))
        whole = out.setdefault(key, {**c, "labels": labels, "total": 0.0})
        whole["total"] += c["total"]
    return list(out.values())


def budget_view(found: Mapping[str, Any]) -> Iterator[Table | Text]:
    """Stages with what kept their threads from working as rows below them, of `tailsight query budget --json`."""
    body: list[tuple[str, str, str, str]] = []
    for stage in found["stages"]:
        total = stage["total_ns"]
        body.append((stage["stage"], count(stage["messages"]), duration(total), _percent(stage["share"])))
        body += [(f"  {kind}", "", duration(ns), _percent(ns / total)) for kind, ns in stage["kinds"].items()]
        body.append(("  remaining", "", duration(stage["remaining_ns"]), ""))
        body += [
            (f"  worst: {part['kind']} by {part['culprit']}", "", duration(part["ns"]), "")
            for part in stage["culprits"][:1]
        ]
    title = f"{found['path']}: {count(found['messages'])} messages ({found['pick']})"
    yield plain_table(title, ("stage", "messages", "sum", "kept from working"), body)
    if found["not_placed"]:
        yield _collections("Garbage collections that no stage is charged with", found["not_placed"])
    unknown = sum(stage["unknown"] for stage in found["stages"])
    if unknown:
        yield Text(f"{count(unknown)} stages lie on hosts that nobody measured: unknown, not zero", style="yellow")
    if found["threshold_ns"] is not None:
        lost = f", and {count(found['intervals_lost'])} that were lost" if found["intervals_lost"] else ""
        yield Text(f"remaining holds intervals shorter than {duration(found['threshold_ns'])}{lost}", style="dim")
    if found["unmatched"]:
        yield Text(f"{count(found['unmatched'])} stages are left out: their stamps are gone or changed", style="dim")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _delays(found: Mapping[str, Any]) -> Table:
    body = []
    for row in found["delays"]:
        whose = {
            "host": row["host"],
            "service": row["service"],
            "cpu": f"CPU {row['cpu']}",
            "thread": f"{row['thread']} {row['service']}",
        }[found["per"]]
        values = (percentile(row[name], row["refused"].get(name)) for name in _PERCENTILES)
        body.append((whose, row["host"], row["kind"], count(row["count"]), *values, duration(row["max_ns"])))
    columns = (found["per"], "on", "kind", "delays", "p50", "p90", "p99", "p99.9", "max")
    return plain_table("Waiting for a CPU", columns, body)
