"""One path: where its time goes, its tail over time, its slowest messages."""

from __future__ import annotations

from dashboards.grafana import queries as q
from dashboards.grafana.board import Board
from dashboards.grafana.panels import Link, bars, cells, number, rows, series

UID = "tailsight-path"
_TIME = f"toDateTime(intDiv(toUnixTimestamp(window), {q.STEP}) * {q.STEP}) AS time"
_END = f"FROM stage_counts WHERE {q.counts_where('end_to_end')}"
_STAGES = f"FROM stage_windows WHERE {q.counts_where()} AND stage != 'end_to_end'"
# Four cells per doubling: finer than the eye, coarse enough to draw.
_EDGE = f"toString(round(pow(2, (floor(log2(greatest({q.MIDPOINT_NS}, 1)) * 4) + 1) / 4)))"
_STAGE_LINK = Link("Stage", "tailsight-stage", {"path": "${path}", "stage": "${__data.fields.stage}"})
_TOOK = "arrayMap(y -> ifNull(y, 0), m.stage_ns)"
_WORST = f"indexOf({_TOOK}, arrayMax({_TOOK}))"
_NAMES = "(SELECT argMax(stages, applied) FROM paths WHERE path = '$path')"
_DECLARED = """(SELECT tupleElement(s, 1) AS name, tupleElement(s, 2) AS class, tupleElement(s, 3) AS budget,
tupleElement(s, 4) AS sentence FROM (SELECT arrayJoin(arrayZip(argMax(stages, applied), argMax(classes, applied),
argMax(budgets_ns, applied), argMax(sentences, applied))) AS s FROM paths WHERE path = '$path'))"""


def board() -> Board:
    """Below the overview: one path."""
    return (
        Board(UID, "Path", "One path: where its time goes, its tail, its slowest messages.", variables=["path"])
        .row(
            "Now",
            *(
                number(
                    name,
                    f"{name} of the end-to-end latency over the time shown, from merged counts; empty where there are "
                    "too few messages.",
                    f"SELECT {q.percentile(quantile)} AS value {_END}",
                    "ns",
                )
                for name, quantile in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999))
            ),
            number(
                "Slowest",
                "The slowest finished message, exactly.",
                f"SELECT max(max_ns) AS value FROM stage_windows WHERE {q.counts_where('end_to_end')}",
                "ns",
            ),
            number(
                "Messages",
                "Finished messages in the time shown.",
                f"SELECT sum(n) AS messages FROM stage_windows WHERE {q.counts_where('end_to_end')}",
                "short",
            ),
            number(
                "Unfinished",
                "Messages that had not ended when their window closed; they are in no percentile.",
                f"SELECT sum(unfinished) AS unfinished FROM stage_windows WHERE {q.counts_where('end_to_end')}",
                "short",
                steps=[(None, "green"), (1, "orange")],
            ),
        )
        .row(
            "Where the time goes",
            series(
                "Mean time by stage",
                "The mean of each stage per step, stacked: means add up to the mean end to end, percentiles do not. "
                "`unattributed` is what no stage explains.",
                f"""SELECT {_TIME}, stage, sum(sum_ns) / sum(n) AS mean {_STAGES} AND n > 0
                GROUP BY time, stage ORDER BY time, stage""",
                "ns",
                stacked=True,
                minimum=None,
                links=[Link("Stage", "tailsight-stage", {"path": "${path}", "stage": "${__field.labels.stage}"})],
            ),
            bars(
                "Share of all time by stage",
                "Each stage's share of the summed end-to-end time of finished messages, `unattributed` with them.",
                f"""SELECT stage, sum(sum_ns) / greatest((SELECT sum(sum_ns) FROM stage_windows
                WHERE {q.counts_where("end_to_end")}), 1) AS share {_STAGES} GROUP BY stage ORDER BY share DESC""",
                "percentunit",
            ),
            rows(
                "Stages",
                "Each stage over the time shown, from merged counts. Two stages' percentiles cannot be added. "
                "Click one.",
                f"""SELECT stage, sum(n) AS messages, {q.percentile(0.5)} AS p50, {q.percentile(0.99)} AS p99,
                {q.percentile(0.999)} AS `p99.9`, p99 - p50 AS `p99 - p50` FROM stage_counts WHERE {q.counts_where()}
                GROUP BY stage ORDER BY stage = 'end_to_end', p99 DESC""",
                units=dict.fromkeys(("p50", "p99", "p99.9", "p99 - p50"), "ns"),
                links={"stage": _STAGE_LINK},
            ),
        )
        .row(
            "Budgets",
            rows(
                "Stages against their budgets",
                "The budget of each stage as configured, and the share of messages that exceeded it, within the "
                "width of a "
                "count's bucket. Stages without a budget are not listed.",
                f"""SELECT d.name AS stage, any(d.class) AS class, any(d.budget) AS budget,
                {q.percentile(0.99)} AS p99, sumIf(n, {q.MIDPOINT_NS} > d.budget) / sum(n) AS `over budget`,
                any(d.sentence) AS `what it is` FROM stage_counts AS c INNER JOIN {_DECLARED} AS d ON c.stage = d.name
                WHERE {q.counts_where()} AND d.budget > 0 GROUP BY d.name ORDER BY `over budget` DESC""",
                units={"budget": "ns", "p99": "ns", "over budget": "percentunit"},
            ),
        )
        .row(
            "The tail over time",
            series(
                "Percentiles, end to end",
                "Per step, from merged counts; a gap is a step with too few messages for that percentile.",
                f"""SELECT {_TIME}, {q.percentile(0.5)} AS p50, {q.percentile(0.9)} AS p90, {q.percentile(0.99)} AS p99,
                {q.percentile(0.999)} AS `p99.9` {_END} GROUP BY time ORDER BY time""",
                "ns",
            ),
            series(
                "Messages per second",
                "Messages that ended, and those that had not when their window closed.",
                f"""SELECT {_TIME}, sum(n) / {q.STEP} AS finished, sum(unfinished) / {q.STEP} AS unfinished
                FROM stage_windows WHERE {q.counts_where("end_to_end")} GROUP BY time ORDER BY time""",
                "mps",
            ),
            cells(
                "End-to-end latency",
                "How many messages took how long, per step. Dark cells are many; a second band is a second way "
                "through.",
                f"""SELECT toDateTime(intDiv(toUnixTimestamp(window), {q.STEP}) * {q.STEP} + {q.STEP}) AS time,
                {_EDGE} AS le,
                toFloat64(sum(n)) AS Value {_END} GROUP BY time, le ORDER BY time, toFloat64(le)""",
            ),
        )
        .row(
            "Messages",
            rows(
                "Slowest messages",
                "Users' messages with the longest end-to-end latency. `slowest stage` is the one that took "
                "longest. Click a key for its timeline.",
                f"""SELECT toString(m.key) AS key, m.start AS start, m.e2e_ns AS `end to end`,
                arrayElement({_NAMES}, {_WORST}) AS `slowest stage`,
                arrayMax(arrayMap(y -> ifNull(y, 0), m.stage_ns)) AS `it took`, toString(m.host) AS host,
                toString(m.service) AS service, toString(m.outcome) AS outcome, toString(m.cache) AS cache
                FROM messages AS m WHERE {q.messages_where()} AND isNotNull(e2e_ns) ORDER BY e2e_ns DESC LIMIT 50""",
                units={"end to end": "ns", "it took": "ns"},
                links={"key": Link("Message", "tailsight-message", {"key": "${__value.raw}"})},
            ),
        )
    )
