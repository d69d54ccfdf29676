"""Tables and small bar charts about the tail, for a terminal; rows are what `--json` prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from dashboards.terminal import bar, count, duration, plain_table

Row = Mapping[str, Any]


def percent(value: float | None, ci: Sequence[float] | None = None) -> str:
    """A share in percent, with its interval where there is one; "-" for none."""
    if value is None:
        return "-"
    return f"{100 * value:.3g} %" + (f" [{100 * ci[0]:.0f}, {100 * ci[1]:.0f}]" if ci else "")


def budgets_tables(found: Row) -> Iterator[Table]:
    """Stages against their budgets, how repeatable they are, and classes."""
    largest = max((one["over_share"] or 0.0 for one in found["stages"]), default=0.0)
    yield plain_table(
        f"{found['path']}: budgets",
        ("stage", "class", "budget", "messages", "over", "", "mean", "p50", "p99", "of the tail"),
        [
            (
                one["stage"], one["kind"], duration(one["budget_ns"]), count(one["count"]), percent(one["over_share"]),
                bar(one["over_share"], largest), duration(one["mean_ns"]), duration(one["p50_ns"]),
                duration(one["p99_ns"]), percent(one["tail_share"], one["tail_share_ci"]),
            )
            for one in found["stages"]
        ],
    )  # fmt: skip
    yield plain_table(
        "Repeatability",
        ("stage", "p99 - p50", "p99.9 / p50", "jitter", "p99 spread", "p99 trend per hour"),
        [
            (
                one["stage"], duration(one["p99_less_p50_ns"]), _ratio(one["p999_over_p50"]),
                duration(one["jitter_ns"]), _ratio(one["p99_spread"]), _trend(one),
            )
            for one in found["stages"]
        ],
    )  # fmt: skip
    yield plain_table(
        "Classes",
        ("class", "stages", "budget", "over", "mean", "of the tail"),
        [
            (
                one["kind"], ", ".join(one["stages"]), duration(one["budget_ns"]), percent(one["over_share"]),
                duration(one["mean_ns"]), percent(one["tail_share"]),
            )
            for one in found["classes"]
        ],
    )  # fmt: skip


def attribution_table(found: Row) -> Table:
    """Parts of the tail, with bars of what made it slower than the body."""
    largest = max((one["excess_ns"] for one in found["stages"]), default=0)
    rows = [
        (
            one["stage"], one["kind"], duration(one["mean_ns"]), percent(one["share"], one["share_ci"]),
            duration(one["body_ns"]), duration(one["excess_ns"]), percent(one["excess_share"], one["excess_share_ci"]),
            bar(one["excess_ns"], largest),
        )
        for one in found["stages"]
        if one["total_ns"] or one["body_ns"] or one["kind"] not in ("unattributed", "unfinished")
    ]  # fmt: skip
    rows.append(
        ("whole", "", duration(found["tail_mean_ns"]), "100 %", duration(found["body_mean_ns"]),
         duration(found["excess_ns"]), "", "")
    )  # fmt: skip
    title = f"{found['path']}: the slowest {100 * found['q']:g} %, from {duration(found['threshold_ns'])} on"
    return plain_table(title, ("stage", "class", "tail", "share", "body", "more", "share of that", ""), rows)


def inside_table(found: Row) -> Table:
    """What kept threads from working, of the slowest and of others."""
    return plain_table(
        "On the threads",
        ("stage", "the slowest", "others"),
        [
            (one["stage"], _kinds(one["slowest"]), _kinds(one["others"]))
            for one in found["inside"]
            if one["slowest"] or one["others"]
        ],
    )


def drivers_table(found: Row) -> Table:
    """What stands out, with bars of the difference."""
    return plain_table(
        f"{found['path']}: who the slowest {100 * found['q']:g} % are",
        ("what", "of the tail", "of the rest", "difference", "slow", "q", ""),
        [
            (
                " and ".join(f"{dim}={value}" for dim, value in one["what"].items()), percent(one["tail_share"]),
                percent(one["rest_share"]), percent(one["difference"], one["ci"]), percent(one["slow_share"]),
                f"{one['q']:.1g}", bar(one["difference"], 1.0),
            )
            for one in found["drivers"][:30]
        ],
    )  # fmt: skip


def causes_table(found: Row) -> Table:
    """Causes, best first."""
    return plain_table(
        f"{found['path']}: why the tail is slower",
        ("stage", "layer", "label", "share", "", "adds", "evidence"),
        [
            (
                one["stage"], one["layer"], one["label"], percent(one["share"], one["ci"]), bar(one["share"], 1.0),
                duration(one["added_ns"]), one["evidence"],
            )
            for one in found["causes"]
        ],
    )  # fmt: skip


def _kinds(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{kind} {percent(value)}" for kind, value in list(shares.items())[:4]) or "-"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _trend(one: Row) -> str:
    if one["trend_ci"] is None:
        return "-"
    low, high = one["trend_ci"]
    return f"{duration(one['trend_ns_per_hour'])} [{duration(low)}, {duration(high)}]"
