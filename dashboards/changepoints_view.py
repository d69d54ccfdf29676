"""Change points on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dashboards.terminal import count, duration, plain_table, share

if TYPE_CHECKING:
    from rich.console import Console

Row = Mapping[str, Any]
_WIDTH = 60


def show_changepoints(console: Console, found: Row) -> None:
    """A table, where in the time each change lies, the recorded changes beside it, and the warnings."""
    body = []
    for one in found["found"]:
        first = one["moved"][0]
        before, after = _figure(one, first, "before"), _figure(one, first, "after")
        near = one["changes"][0] if one["changes"] else None
        beside = "" if near is None else f"{near['kind']} {near['what']} ({_signed(near['after_ns'])})"
        body.append((_time(one["at_ns"]), one["subject"], _name(one, first), before, after, f"{one['q']:.3f}", beside))
    title = f"{found['path']}: what changed"
    console.print(plain_table(title, ("from", "what", "of", "before", "after", "q", "recorded beside it"), body))
    for one in found["found"]:
        console.print(f"{_line(found, one)} {one['subject']} {one['stage']} {one['name']}", style="dim")
    if not body:
        console.print("nothing stands out")
    for one in found["anomalies"][:20]:
        figures = f"{_value(one, one['value'])}, usually {_value(one, one['usual'])}"
        console.print(f"anomaly {_time(one['at_ns'])}: {one['stage']} {one['name']} {figures}", style="yellow")
    for warned in found["warnings"]:
        if warned["at_ns"]:
            times = ", ".join(_time(at) for at in warned["at_ns"][:5])
            console.print(f"early warning in {warned['stage']}: {times}", style="yellow")
        lead = warned["lead"]
        if lead is not None and lead["breaches"]:
            console.print(
                f"{warned['stage']}: warned of {lead['warned']} of {lead['breaches']} breaches, by"
                f" {duration(lead['lead_ns'])}; {lead['false_alarms']} false alarms"
            )
    console.print(
        f"{found['tested']} series of {count(found['count'])} messages in steps of {found['step_s']} s, complete"
        f" {share(found['completeness'])}. {found['sentence']}",
        style="dim",
    )


def _name(one: Row, first: Row) -> str:
    if one["subject"] == "mix":
        return f"{one['name']}={first['name']}"
    return f"{one['stage']} {one['name']}".strip()


def _figure(one: Row, first: Row, side: str) -> str:
    if one["subject"] == "percentile" and one[f"{side}_ns"] is not None:
        return duration(one[f"{side}_ns"])
    return _value(one, first[side])


def _value(one: Row, value: float) -> str:
    return f"{100 * value:.2f} %" if one["unit"] == "share" else f"{value:,.4g}"


def _line(found: Row, one: Row) -> str:
    """Where in the time the change lies: its interval as a bar, its place as a cross."""
    length = max(1, found["to_ns"] - found["from_ns"])

    def place(ns: int) -> int:
        return int(min(_WIDTH - 1, max(0, (ns - found["from_ns"]) * _WIDTH // length)))

    cells = ["·"] * _WIDTH
    for i in range(place(one["low_ns"]), place(one["high_ns"]) + 1):
        cells[i] = "─"
    cells[place(one["at_ns"])] = "┼"
    return "".join(cells)


def _signed(ns: int) -> str:
    return f"{duration(abs(ns))} {'before' if ns >= 0 else 'after'}"


def _time(ns: int) -> str:
    return f"{datetime.fromtimestamp(ns // 1_000_000_000, UTC):%Y-%m-%d %H:%M:%S}"
