"""One stage: its tail, and who the slow messages are."""

from __future__ import annotations

from dashboards.grafana import queries as q
from dashboards.grafana.board import Board
from dashboards.grafana.panels import cells, number, rows, series

UID = "tailsight-stage"
_TIME = f"toDateTime(intDiv(toUnixTimestamp(window), {q.STEP}) * {q.STEP}) AS time"
_COUNTS = f"FROM stage_counts WHERE {q.counts_where('$stage')}"
_SUMS = f"FROM stage_windows WHERE {q.counts_where('$stage')}"
_EDGE = f"toString(round(pow(2, (floor(log2(greatest({q.MIDPOINT_NS}, 1)) * 4) + 1) / 4)))"
_ROLLUPS = q.counts_where("$stage", rollup="!= ''")


def board() -> Board:
    """Below a path: one of its stages."""
    return (
        Board(UID, "Stage", "One stage: its tail over time, by label and host.", variables=["path", "stage"])
        .row(
            "Now",
            *(
                number(
                    name,
                    f"{name} of this stage over the time shown, from merged counts; empty where there are too few.",
                    f"SELECT {q.percentile(quantile)} AS value {_COUNTS}",
                    "ns",
                )
                for name, quantile in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999))
            ),
            number("Longest", "The longest, exactly.", f"SELECT max(max_ns) AS value {_SUMS}", "ns"),
            number(
                "Below clock resolution",
                "Share of values that are smaller than their own clock error: they say only that it was fast.",
                f"SELECT sum(below_resolution) / greatest(sum(n), 1) AS share {_SUMS}",
                "percentunit",
            ),
            number(
                "Negative",
                "Values below zero: the clocks of the two ends disagree. They are shown and counted, never clamped.",
                f"SELECT sum(negative) AS negative {_SUMS}",
                "short",
                steps=[(None, "green"), (1, "orange")],
            ),
        )
        .row(
            "Over time",
            series(
                "Percentiles",
                "Per step, from merged counts; a gap is a step with too few values for that percentile.",
                f"""SELECT {_TIME}, {q.percentile(0.5)} AS p50, {q.percentile(0.9)} AS p90, {q.percentile(0.99)} AS p99,
                {q.percentile(0.999)} AS `p99.9` {_COUNTS} GROUP BY time ORDER BY time""",
                "ns",
                minimum=None,
            ),
            series(
                "Repeatability",
                "How far the tail is from the usual: p99 over p50. Repeatable stages stay low and flat.",
                f"""SELECT {_TIME}, {q.percentile(0.99)} / greatest({q.percentile(0.5)}, 1) AS `p99 / p50` {_COUNTS}
                GROUP BY time ORDER BY time""",
                "none",
            ),
            cells(
                "All values",
                "How many values were how long, per step.",
                f"""SELECT toDateTime(intDiv(toUnixTimestamp(window), {q.STEP}) * {q.STEP} + {q.STEP}) AS time,
                {_EDGE} AS le,
                toFloat64(sum(n)) AS Value {_COUNTS} GROUP BY time, le ORDER BY time, toFloat64(le)""",
            ),
        )
        .row(
            "Who is slow",
            rows(
                "By label",
                "This stage by the labels that the path is configured to roll up (host, symbol, ...), slowest "
                "tail first.",
                f"""SELECT rollup AS label, sum(n) AS messages, {q.percentile(0.5)} AS p50, {q.percentile(0.99)} AS p99,
                {q.percentile(0.999)} AS `p99.9` FROM stage_counts WHERE {_ROLLUPS} GROUP BY label
                ORDER BY p99 DESC LIMIT 100""",
                units=dict.fromkeys(("p50", "p99", "p99.9"), "ns"),
            ),
            rows(
                "Slowest percent against the rest, end to end",
                "Shares of hosts, services, outcomes and caches among the slowest 1 % of this path's messages and "
                "among "
                "all of them. A large difference is a lead, not a proof: `tailsight explain` tests it.",
                f"""WITH (SELECT quantileExact(0.99)(e2e_ns) FROM messages WHERE {q.messages_where()}) AS edge
                SELECT tupleElement(pair, 1) AS what, tupleElement(pair, 2) AS value, countIf(e2e_ns >= edge) AS slow,
                slow / greatest(sum(slow) OVER (PARTITION BY what), 1) AS `share of slow`,
                count() / sum(count()) OVER (PARTITION BY what) AS `share of all`,
                `share of slow` - `share of all` AS difference
                FROM (SELECT e2e_ns, arrayJoin([('host', toString(host)), ('service', toString(service)),
                ('outcome', toString(outcome)), ('cache', toString(cache)), ('mode', toString(mode))]) AS pair
                FROM messages WHERE {q.messages_where()} AND isNotNull(e2e_ns))
                GROUP BY pair ORDER BY difference DESC LIMIT 30""",
                units=dict.fromkeys(("share of slow", "share of all", "difference"), "percentunit"),
            ),
        )
    )
