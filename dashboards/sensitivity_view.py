"""Sensitivity on a terminal: the ladder's rungs, the checks, the groups and the curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from dashboards.terminal import count, plain_table

Row = Mapping[str, Any]


def sensitivity_tables(value: Row) -> list[Table]:
    """What `analytics.money.told.told` gives, as tables."""
    unit = f" {value['unit']}" if value["unit"] else ""
    title = f"{value['kpi']}{unit} per {value['exposure_unit']} of {value['exposure_words']}, path {value['path']}"
    body = [_row("answer" if one is value["rungs"][0] else "", one) for one in value["rungs"]]
    body += [_row("warning", value["naive"]), *(_row("check", one) for one in value["checks"])]
    columns = ("", "design", "change", "95 %", "would be seen", "clusters", "rows", "")
    tables = [plain_table(title, columns, body)]
    if value["groups"]:
        tables.append(_groups(value))
    if value["event_study"] is not None:
        tables.append(_study(value["event_study"]))
    if value["curve"] is not None:
        points = value["curve"]["points"]
        shape = [(_n(p["at"]), _n(p["level"]), f"{_n(p['low'])} to {_n(p['high'])}") for p in points]
        tables.append(plain_table("Response", (value["exposure_unit"], value["kpi"], "95 %"), shape))
    left = [(what, count(n)) for what, n in value["left_out"].items()]
    left += [("messages in this time", count(value["messages"])), ("rows used", count(value["rows"]))]
    tables.append(plain_table("Built on", ("", ""), left))
    return tables


def _row(what: str, one: Row) -> tuple[str, ...]:
    span = "-" if one["low"] is None else f"{_n(one['low'])} to {_n(one['high'])}"
    said = one["reason"] or one["verdict"]
    if one["first_stage_f"] is not None:
        said += f" (F {one['first_stage_f']:.1f})"
    return (
        what, one["design"], _n(one["estimate"]), span, _n(one["detectable"]), count(one["clusters"]), count(one["n"]),
        said,
    )  # fmt: skip


def _groups(value: Row) -> Table:
    body = []
    for group in value["groups"]:
        answer = group["answer"]
        change, span, said = "-", "-", group["refused"]
        if answer is not None:
            change, said = _n(answer["estimate"]), answer["reason"] or answer["verdict"]
            span = "-" if answer["low"] is None else f"{_n(answer['low'])} to {_n(answer['high'])}"
            said = f"no claim: {', '.join(group['checks_failed'])}" if group["checks_failed"] else said
        body.append((group["value"] or "-", count(group["rows"]), _n(group["mean"]), change, span, said))
    return plain_table(f"By {value['by']}", (value["by"], "rows", "mean", "change", "95 %", ""), body)


def _study(study: Row) -> Table:
    periods: Sequence[Row] = study["periods"]
    body = [
        (
            str(one["offset"]), _n(one["kpi"]), f"{_n(one['kpi_low'])} to {_n(one['kpi_high'])}", _n(one["exposure"]),
            f"{_n(one['exposure_low'])} to {_n(one['exposure_high'])}",
        )
        for one in periods
    ]  # fmt: skip
    p = study["pre_trend_p"]
    title = "Treated less control, against the last period before" + ("" if p is None else f" (before: p = {p:.2g})")
    return plain_table(title, ("period", "KPI", "95 %", "exposure", "95 %"), body)


def _n(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
