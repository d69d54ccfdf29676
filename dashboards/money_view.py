"""Tables of money for a terminal: scenarios, costs of objectives, showback, debts, degraded modes, agreements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from dashboards.terminal import count, duration, plain_table, share

Row = Mapping[str, Any]


def amount(value: float | None) -> str:
    """Money with separators; small amounts with three digits; "-" for none."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 or value == 0 else f"{value:,.3g}"


def per(value: float | None, digits: int = 3) -> str:
    """A ratio; "-" for none."""
    return "-" if value is None else f"{value:,.{digits}g}"


def chance(probability: float) -> str:
    """A probability of draws, no finer than they tell."""
    return f"{100 * probability:.1f} %"


def cost_cells(cost: Row) -> tuple[str, str]:
    """A cost and its interval; what is not told from nothing has an interval alone."""
    if cost["low"] is None:
        return "-", ""
    return amount(cost["value"]), f"{amount(cost['low'])} to {amount(cost['high'])}"


def scenario_tables(found: Row) -> Iterator[str | Table]:
    """The valuations, who beats whom, and the inputs that decide each."""
    body = [
        (
            one["name"], amount(one["npv"]), f"{amount(one['p5'])} to {amount(one['p95'])}", chance(one["p_positive"]),
            "-" if one["irr"] is None else f"{one['irr']:.0%}", per(one["per_dollar"]),
            "yes" if one["passes_gate"] else "no", amount(one["per_ms"]), per(one["cost_per_decision"], 4),
        )
        for one in found["scenarios"]
    ]  # fmt: skip
    title = f"over {found['months']} months, {found['currency']}; gate {found['gate']:g}"
    names = (
        "scenario",
        "NPV",
        "5 % to 95 %",
        "P(NPV>0)",
        "IRR",
        "per dollar",
        "passes",
        "a month per ms",
        "a decision",
    )
    yield plain_table(title, names, body)
    yield found["sentence"]
    if found["beats"]:
        pairs = [(one["a"], one["b"], chance(one["probability"])) for one in found["beats"] if one["a"] < one["b"]]
        yield plain_table("is worth more than", ("scenario", "than", "probability"), pairs)
    for one in found["scenarios"]:
        rows = [(s["name"], amount(s["at_low"]), amount(s["at_high"])) for s in one["tornado"][:6]]
        if rows:
            yield plain_table(f"what decides {one['name']}: NPV", ("input", "at its low end", "at its high end"), rows)
        if one["clamped_ms"]:
            yield f"{one['name']}: {one['clamped_ms']:g} ms are not counted, the effect was not measured so far."


def objectives_table(rows: Sequence[Row], currency: str) -> Table:
    """What objectives have cost in their period, and cost per hour now."""
    body = []
    for one in rows:
        period, hour = cost_cells(one["period"]["cost"]), cost_cells(one["now"]["cost"])
        why = one["period"]["cost"]["reason"]
        body.append((one["objective"], count(one["period"]["bad"]), count(one["period"]["total"]), *period, *hour, why))
    names = ("objective", "bad", "events", "period", "95 %", "an hour now", "95 %", "why not")
    return plain_table(f"cost of burned budgets, {currency}", names, body)


def episodes_table(rows: Sequence[Row], currency: str) -> Table:
    """Alert episodes and what each cost."""
    body = [
        (
            one["objective"], one["rule"], one["begun"], duration(one["length_ns"]) + " so far" * (not one["over"]),
            *cost_cells(one["burned"]["cost"]), one["burned"]["cost"]["reason"],
        )
        for one in rows
    ]  # fmt: skip
    return plain_table(
        f"episodes, {currency}", ("objective", "rule", "since", "length", "cost", "95 %", "why not"), body
    )


def showback_table(one: Row) -> Table:
    """A cost by one label."""
    body = [(s["who"], count(s["decisions"]), share(s["share"]), amount(s["cost"])) for s in one["shares"]]
    return plain_table(
        f"{one['name']} by {one['by']}, {one['currency']}", (one["by"], "decisions", "share", "cost"), body
    )


def debts_table(rows: Sequence[Row]) -> Table:
    """The debt ledger."""
    body = [
        (
            one["debt"], one["owner"], f"{one['path']}.{one['stage']}", one["since"], f"{one['costs_ms']:g}",
            *cost_cells(one["per_month"]), amount(one["so_far"]["value"]), per(one["payback_months"]),
            one["alerts"], duration(one["firing_s"] * 1e9), one["per_month"]["reason"],
        )
        for one in rows
    ]  # fmt: skip
    names = ("debt", "owner", "stage", "since", "ms", "a month", "95 %", "so far", "pays back in months", "alerts",
             "firing", "why not")  # fmt: skip
    return plain_table("technical debt", names, body)


def agreements_table(rows: Sequence[Row]) -> Table:
    """Provider agreements."""
    body = [
        (
            one["agreement"], one["provider"], f"p{one['percentile']:g} {one['path']}.{one['stage']}",
            duration(one["limit_ns"]), duration(one["value_ns"]),
            f"{duration(one['near_ns'])} to {duration(one['far_ns'])}", one["verdict"],
            amount(one["credit"]) if one["credit"] else "", one["reason"],
        )
        for one in rows
    ]  # fmt: skip
    names = ("agreement", "provider", "what", "limit", "measured", "surely within", "verdict", "credit", "why")
    return plain_table("agreements", names, body)


def budgets_table(rows: Sequence[Row]) -> Table:
    """Latency budgets of market actions."""
    body = [
        (
            one["action"], one["match"] or "all", amount(one["value"]), amount(one["tolerate"]),
            duration(one["least_ns"]), duration(one["budget_ns"]) + (" (capped)" if one["capped"] else ""),
            duration(one["p50_ns"]), duration(one["p99_ns"]), share(one["over"]) if one["over"] is not None else "-",
            one["reason"],
        )
        for one in rows
    ]  # fmt: skip
    names = ("action", "decisions", "at stake", "may be lost", "safe budget", "budget", "p50", "p99", "over", "why not")
    return plain_table("latency budgets", names, body)


def velocity_table(found: Row) -> Table:
    """Changes of stages ranked by what they are worth."""
    body = [
        (
            one["stage"], one["kind"], f"{one['mean_ms']:.4g}", f"{one['change_ms']:+.4g}", amount(one["per_month"]),
            f"{amount(one['low'])} to {amount(one['high'])}", amount(one["per_ms"]), per(one["per_dollar"]),
            "" if one["seen"] else "not told from nothing",
        )
        for one in found["ranked"]
    ]  # fmt: skip
    names = ("stage", "class", "mean ms", "change ms", "a month", "95 %", "per ms", "per dollar", "")
    return plain_table(f"{found['path']}: revenue velocity, {found['currency']} a month", names, body)
