"""Tables for a terminal: percentiles with units that fit, what was refused, and how complete the answer is.

Rows are the objects that `--json` prints and the server answers, so that a table never knows more than a script does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

_PERCENTILES = (("p50", "p50_ns"), ("p90", "p90_ns"), ("p99", "p99_ns"), ("p99.9", "p999_ns"), ("p99.99", "p9999_ns"))
_NARROW_PERCENTILES = (("p50", "p50_ns"), ("p99", "p99_ns"), ("p99.9", "p999_ns"))
_WIDE = 130  # columns that the whole table needs
_UNITS = ((1e9, "s"), (1e6, "ms"), (1e3, "us"), (1.0, "ns"))
_BLOCKS = " ▁▂▃▄▅▆▇█"
Row = Mapping[str, Any]


def duration(ns: float | None) -> str:
    """A duration with three significant digits and the unit that fits it: 874 ns, 12.3 us, 1.05 ms; "-" for none."""
    if ns is None:
        return "-"
    size, unit = next(((size, unit) for size, unit in _UNITS if abs(ns) >= size), _UNITS[-1])
    value = ns / size
    digits = 0 if size == 1.0 else max(0, 2 - len(str(int(abs(value)))) + 1)
    return f"{value:.{digits}f} {unit}"


def share(value: float | None) -> str:
    """A share in percent that never rounds a loss away: 99.99 % stays below 100 %; "unknown" for none."""
    if value is None:
        return "unknown"
    if value < 1:
        return f"{min(100 * value, 99.999):.3f} %"
    return "100 %"


def count(value: float | None) -> str:
    """A whole number with thousands separators; "-" for none."""
    return "-" if value is None else f"{value:,.0f}"


def number(value: float | None) -> str:
    """A reading: whole numbers with separators, others with six significant digits; "-" for none."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value == int(value) and abs(value) < 1e15 else f"{value:,.6g}"


def percentiles_table(title: str, stages: Sequence[Row], width: int = _WIDE) -> Table:
    """One line per stage: how many, how long, how sure.

    A percentile that is refused shows how many messages it needs; the bar compares the stages' p99. On a terminal of
    less than 130 columns the mean, the minimum, p90 and p99.99 are left out.
    """
    wide = width >= _WIDE
    shown = _PERCENTILES if wide else _NARROW_PERCENTILES
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    table.add_column("stage")
    for name in ("messages", "unfinished", *(("mean", "min") if wide else ()), *(label for label, _ in shown), "max"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("p99", min_width=10)
    table.add_column("complete", justify="right", no_wrap=True)
    parts = [stage.get("p99_ns") or 0 for stage in stages if stage["stage"] != "end_to_end"]
    largest = max(parts, default=0)
    for stage in stages:
        refused = stage.get("refused") or {}
        cells = [duration(stage.get("mean_ns")), duration(stage.get("min_ns"))] if wide else []
        cells += [percentile(stage.get(field), refused.get(field)) for _, field in shown]
        table.add_row(
            stage["stage"],
            count(stage["count"]),
            Text(count(stage["unfinished"]), style="yellow" if stage["unfinished"] else ""),
            *cells,
            duration(stage.get("max_ns")),
            "" if stage["stage"] == "end_to_end" else bar(stage.get("p99_ns"), largest),
            share(stage.get("completeness")),
            style="bold" if stage["stage"] == "end_to_end" else "",
        )
    return table


def percentile(value: float | None, refusal: str | None) -> str:
    """A percentile, or the number of messages it is refused for want of."""
    if value is not None:
        return duration(value)
    numbers = [word.strip(".,") for word in (refusal or "").split() if word.strip(".,").replace(",", "").isdigit()]
    return f"n<{numbers[0]}" if numbers else "-"


def bar(value: float | None, largest: float, width: int = 10) -> str:
    """A bar in eighths of a character."""
    if not value or not largest or value < 0:
        return ""
    eighths = max(1, round(8 * width * min(1.0, value / largest)))
    full, rest = divmod(eighths, 8)
    return "█" * full + ("▏▎▍▌▋▊▉"[rest - 1] if rest else "")


def sparkline(values: Iterable[float | None]) -> str:
    """A line of blocks, one per value, scaled to the largest; a gap where there is no value."""
    known = list(values)
    largest = max((value for value in known if value is not None), default=0) or 1
    return "".join(" " if value is None else _BLOCKS[max(1, round(8 * value / largest))] for value in known)


def notes(stages: Sequence[Row]) -> list[str]:
    """What a reader must know beside the numbers: doubtful values, and why percentiles are refused."""
    lines: list[str] = []
    headless = max((stage.get("headless") or 0 for stage in stages), default=0)
    if headless:
        lines.append(
            f"{count(headless)} more without a start: stamped at later ends, while the first end's stamp is missing or"
            " more than max_age before; they have no latency"
        )
    for stage in stages:
        name = stage["stage"]
        for field, what in (
            ("negative", "are negative (a clock is wrong): shown and counted, not clamped"),
            ("below_resolution", "are smaller than their clock error"),
            ("missing", "lack an end of this stage"),
        ):
            if stage.get(field):
                lines.append(f"{name}: {count(stage[field])} {what}")
    refusals = {sentence for stage in stages for sentence in (stage.get("refused") or {}).values()}
    if refusals:
        lines.append("n<N: " + "; ".join(sorted(refusals)[:2]))
    return lines


def ledger_table(rows: Sequence[Row]) -> Table:
    """Where every produced event is, per collector and boot."""
    table = Table(title="Ledger", title_justify="left", header_style="bold", box=None, pad_edge=False)
    table.add_column("collector")
    names = ("boot", "produced", "stored", "dropped", "quarantined", "in spool", "in flight", "difference")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        dropped = ", ".join(f"{reason} {count(n)}" for reason, n in row["dropped"].items() if n) or "0"
        difference = row["difference"]
        table.add_row(
            str(row.get("name") or row["collector"]),
            str(row["boot"]),
            count(row["produced"]),
            count(row["stored_unique"]),
            dropped,
            count(row["quarantined"]),
            count(row["in_spool"]),
            count(row["in_flight"]),
            Text(count(difference), style="green" if difference == 0 else "bold red"),
        )
    return table


def collectors_table(rows: Sequence[Row]) -> Table:
    """What is collected and what is not, and why."""
    styles = {"running": "green", "degraded": "yellow", "unavailable": "red"}
    table = Table(title="Collectors", title_justify="left", header_style="bold", box=None, pad_edge=False)
    table.add_column("name")
    table.add_column("status")
    table.add_column("reason", overflow="fold")
    for row in rows:
        table.add_row(str(row["name"]), Text(row["status"], style=styles.get(row["status"], "")), row["reason"] or "")
    return table


def plain_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table of texts; numbers are set right."""
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    body = [list(row) for row in rows]
    for position, name in enumerate(columns):
        numeric = bool(body) and all(isinstance(row[position], int | float) for row in body)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in body:
        table.add_row(*("-" if cell is None else str(cell) for cell in row))
    return table
