"""Queues, headroom, bursts and lags on a terminal: tables and small charts of what `--json` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dashboards.terminal import bar, count, duration, plain_table, share, sparkline

if TYPE_CHECKING:
    from rich.console import Console

Row = Mapping[str, Any]


def show_queues(console: Console, path: str, rows: Sequence[Row]) -> None:
    """Per queue the waits by depth, what messages waited behind, Little's law and the depth limit."""
    if not rows:
        console.print(f"{path} has no stage of class queue")
    for row in rows:
        if row["refused"]:
            console.print(f"{row['stage']}: {row['refused']}")
            continue
        _depths(console, row)
        _behind(console, row)
        for part in row["classes"]:
            for law in part["little"]:
                if not _applies(row, part, law):
                    continue
                style = {"broken": "red", "undecided": "yellow"}.get(law["verdict"], "")
                said = f"Little's law, {part['name']}, {law['source']}: {law['verdict']}. {law['sentence']}"
                console.print(said, style=style or "dim")
            if part["limit"] is not None:
                console.print(f"depth limit, {part['name']}: {part['limit']['sentence']}", style="dim")
        console.print(f"complete {share(row['completeness'])}. {row['sentence']}", style="dim")


def _depths(console: Console, row: Row) -> None:
    largest = max(
        (q["value"] or 0 for part in row["classes"] for d in part["depths"] for q in d["quantiles"]
         if q["quantile"] == 0.99),
        default=0,
    )  # fmt: skip
    body = []
    for part in row["classes"]:
        for depth in part["depths"]:
            if not depth["count"]:
                continue
            by = {q["quantile"]: q for q in depth["quantiles"]}
            body.append(
                (
                    part["name"], _range(depth), count(depth["count"]), _quantile(by[0.5]), _quantile(by[0.9]),
                    _quantile(by[0.99]), _interval(by[0.99]), bar(by[0.99]["value"], largest),
                )
            )  # fmt: skip
    title = f"{row['path']} {row['stage']}: wait by depth on arrival"
    console.print(plain_table(title, ("class", "found", "messages", "p50", "p90", "p99", "95 %", "p99"), body))
    refused = sorted({q["refused"] for part in row["classes"] for d in part["depths"] if d["count"]
                      for q in d["quantiles"] if q["quantile"] == 0.99 and q["refused"]})  # fmt: skip
    for line in refused[:2]:
        console.print(f"refused: {line}", style="dim")
    falls = [f"{p['name']} p{100 * r['quantile']:g} {r['sentence']}" for p in row["classes"] for r in p["rising"]
             if r["holds"] is False]  # fmt: skip
    for line in falls:
        console.print(line, style="yellow")


def _applies(row: Row, part: Row, law: Row) -> bool:
    """Whether the law is about what the stamped depth counts, where that is known: all classes, or the own one."""
    if law["source"] != "depth on arrival" or not row["depth_counts"]:
        return True
    return bool((part["name"] == "all") == (row["depth_counts"] == "all"))


def _behind(console: Console, row: Row) -> None:
    if not row["head_of_line"]:
        return
    body = [
        (
            one["name"], count(one["count"]), duration(one["waited_ns"]), _percent(one["behind_urgent_share"]),
            _percent(one["behind_equal_share"]), _percent(one["behind_lower_share"]), _percent(one["unseen_share"]),
            _percent(one["behind_long_share"]), count(one["blocked"]),
        )
        for one in row["head_of_line"]
    ]  # fmt: skip
    columns = ("class", "messages", "waited", "behind urgent", "equal", "lower", "nobody", "one long", "blocked")
    console.print(plain_table("what they waited behind", columns, body))
    order = " > ".join(" = ".join(name or "(none)" for name in group) for group in row["order"])
    console.print(f"order: {order} ({row['order_from']})", style="dim")


def show_headroom(console: Console, found: Row) -> None:
    """Per objective the rate at which it breaks, and the knee."""
    body = []
    for row, date in zip(found["headroom"], found["dates"], strict=True):
        name = f"{100 * row['good']:g} % in {duration(row['threshold_ns'])}"
        rate = "-" if row["rate_s"] is None else f"{row['rate_s']:,.4g}/s"
        used = bar(row["now_s"], row["rate_s"]) if row["rate_s"] else ""
        when = "-" if date["at_s"] is None else f"{datetime.fromtimestamp(date['at_s'], UTC):%Y-%m-%d}"
        body.append((name, count(row["count"]), f"{row['now_s']:,.4g}/s", rate, _rates(row), used, when))
    title = f"{found['path']} {found['stage']}: load that objectives stand"
    console.print(plain_table(title, ("objective", "messages", "now", "breaks at", "95 %", "used", "at trend"), body))
    for row, date in zip(found["headroom"], found["dates"], strict=True):
        console.print(row["sentence"])
        console.print(date["sentence"], style="dim")
    console.print(f"knee: {found['knee']['sentence']}")
    for name, one in found["saturation"].items():
        console.print(f"{name}: {one['sentence']}")
    console.print(f"complete {share(found['completeness'])}. {found['sentence']}", style="dim")


def show_bursts(console: Console, rows: Sequence[Row]) -> None:
    """What microbursts did to messages."""
    body = [
        (
            row["stage"], row["kind"].removeprefix("microburst_"), count(row["bursts"]), count(row["count"]),
            count(row["hit"]), duration(row["excess_ns"]),
            "" if row["low_ns"] is None else f"{duration(row['low_ns'])} - {duration(row['high_ns'])}",
            _percent(row["hit_share"]), "-" if row["tail_share"] is None else _percent(row["tail_share"]),
            row["refused"],
        )
        for row in rows
    ]  # fmt: skip
    columns = ("stage", "window", "bursts", "messages", "hit", "longer by", "95 %", "of all", "of slowest 1 %", "")
    console.print(plain_table("microbursts", columns, body) if body else "no microburst was seen in that time")
    if rows:
        console.print(rows[0]["sentence"], style="dim")


def show_lead(console: Console, found: Row) -> None:
    """The correlation by lag."""
    lag = found["lag"]
    console.print(f"{found['gauge']} and {found['stage']}: {lag['sentence']}")
    if lag["correlation"]:
        line = sparkline(None if v is None else max(0.0, v) for v in lag["correlation"])
        low, high = lag["lags_ns"][0], lag["lags_ns"][-1]
        console.print(f"{duration(low)} {line} {duration(high)}")
    console.print(found["sentence"], style="dim")


def _range(depth: Row) -> str:
    if depth["high"] is None:
        return f"{depth['low']}+"
    return str(depth["low"]) if depth["low"] == depth["high"] else f"{depth['low']}-{depth['high']}"


def _quantile(one: Row) -> str:
    return duration(one["value"])


def _interval(one: Row) -> str:
    if one["value"] is None:
        return "refused"
    return f"{duration(one['low'])} - {'?' if one['high'] is None else duration(one['high'])}"


def _rates(row: Row) -> str:
    if row["rate_s"] is None:
        return "refused"
    return f"{row['low_s']:,.4g} - {'?' if row['high_s'] is None else format(row['high_s'], ',.4g')}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"
