"""A backtest in the terminal: what would have fired, as a table, and the budget and burn as a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console

from dashboards.terminal import plain_table

_WIDTH, _HEIGHT = 72, 6
_EIGHTHS = " ▁▂▃▄▅▆▇█"


def show_backtest(console: Console, found: Mapping[str, Any]) -> None:
    """Every objective of a backtest."""
    for one in found["objectives"]:
        _one(console, one)
    for note in found["notes"]:
        console.print(note, markup=False, soft_wrap=True)


def _one(console: Console, one: Mapping[str, Any]) -> None:
    console.print(
        f"{one['name']}: {one['pages']} pages, {one['tickets']} tickets; {one['bad']:g} bad of {one['events']} events; "
        f"budget at the end {100 * one['remaining']:.2f} %",
        markup=False, soft_wrap=True,
    )  # fmt: skip
    body = [
        (f["rule"], f["severity"], _time(f["breach_ns"]), _time(f["fired_ns"]),
         _time(f["resolved_ns"]) if f["resolved_ns"] else "still fires",
         _span((f["resolved_ns"] - f["fired_ns"]) / 1e9) if f["resolved_ns"] else "-")
        for f in one["fired"]
    ]  # fmt: skip
    if body:
        names = ("rule", "severity", "breach", "fires", "ends", "for")
        console.print(plain_table("would have fired", names, body))
    if one["detections"]:
        rows = [
            (_time(d["from_ns"]), _time(d["to_ns"]), d["rule"] or "no page",
             "-" if d["after_s"] is None else _span(d["after_s"]))
            for d in one["detections"]
        ]  # fmt: skip
        console.print(plain_table("incidents", ("from", "to", "paged by", "after"), rows))
        console.print(f"pages in no incident: {one['surplus_pages']}")
    if one.get("live") is not None:
        console.print(f"the server told of {len(one['live'])} in this time")
    points = one["points"]
    if points:
        marks = [f["fired_ns"] for f in one["fired"] if f["severity"] == "page"]
        plot(console, "burn rate of the last hour", [p["at_ns"] for p in points], [p["burn"] for p in points], marks)
        left = [p["remaining"] for p in points]
        plot(console, "budget remaining", [p["at_ns"] for p in points], left, marks)
    search = one["search"]
    if search:
        console.print(_found(search), markup=False, soft_wrap=True)


def plot(console: Console, title: str, times: Sequence[int], values: Sequence[float], marks: Sequence[int]) -> None:
    """Columns of blocks over time, negative values as nothing; under them ^ where a page would have fired."""
    per = max(1, -(-len(values) // _WIDTH))
    # The peak of each column: an average would hide what paged.
    columns = [max(values[i : i + per]) for i in range(0, len(values), per)]
    if title.startswith("budget"):
        columns = [min(values[i : i + per]) for i in range(0, len(values), per)]
    top = max(*columns, 0.0) or 1.0
    console.print(f"{title}, 0 to {top:.4g}")
    for line in range(_HEIGHT, 0, -1):
        cells = (min(8, max(0, round(8 * (_HEIGHT * value / top - line + 1)))) for value in columns)
        console.print("  |" + "".join(_EIGHTHS[cell] for cell in cells), markup=False)
    ends = [times[min(i + per, len(times)) - 1] for i in range(0, len(times), per)]
    starts = [times[0] - (times[1] - times[0] if len(times) > 1 else 0), *ends[:-1]]
    marked = ["^" if any(a < mark <= b for mark in marks) else "-" for a, b in zip(starts, ends, strict=True)]
    console.print("  +" + "".join(marked), markup=False)
    console.print(f"   {_time(starts[0])}{' ' * max(1, len(columns) - 34)}{_time(ends[-1])}", markup=False)


def _found(search: Mapping[str, Any]) -> str:
    tried = len(search["tried"])
    if search["from"] is None:
        text = f"none of {tried} values of {search['parameter']} would have paged {search['fires']} times"
    else:
        text = (
            f"{search['parameter']} from {search['from']:.10g} to {search['to']:.10g} would have paged "
            f"{search['fires']} times ({tried} tried)"
        )
    return f"{text}; {search['note']}" if search["note"] else text


def _time(ns: int) -> str:
    return f"{datetime.fromtimestamp(ns / 1e9, UTC):%m-%d %H:%M:%S}"


def _span(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
