"""The page to begin with: which path is slow, whether the figures are whole, what changed."""

from __future__ import annotations

from dashboards.grafana import queries as q
from dashboards.grafana.board import Board
from dashboards.grafana.boards import slo
from dashboards.grafana.panels import Link, number, rows, series

UID = "tailsight-overview"
PATH = Link("Path", "tailsight-path", {"path": "${__data.fields.path}"})
SERIES_PATH = Link("Path", "tailsight-path", {"path": "${__field.labels.path}"})

# The current generations of every path: a generation belongs to one window of one path.
_CURRENT = f"""(path, generation) IN (SELECT path, max(generation) FROM windows WHERE level = {q.LEVEL}
AND window >= toStartOfHour($__fromTime) AND window <= $__toTime GROUP BY path, window)"""
_COUNTS = f"""FROM stage_counts WHERE level = {q.LEVEL} AND rollup = '' AND stage = 'end_to_end'
AND window >= toStartOfHour($__fromTime) AND $__timeFilter(window) AND {_CURRENT}"""
_WINDOWS = f"FROM windows WHERE level = {q.LEVEL} AND $__timeFilter(window) AND {_CURRENT}"
_TIME = f"toDateTime(intDiv(toUnixTimestamp(window), {q.STEP}) * {q.STEP}) AS time"
_LAST_CLOCK = """FROM (SELECT host, argMax(error_ns, ts) AS error FROM clock WHERE event = 'sample' AND
$__timeFilter(ts)
GROUP BY host)"""


def board() -> Board:
    """What the on-call engineer opens first."""
    return (
        Board(UID, "Overview", "Which path is slow, whether the figures are whole, what changed.")
        .row(
            "Can these figures be trusted?",
            number(
                "Completeness",
                "Share of the events that programs produced and that these figures are built on, weighted by messages. "
                "Below 1, something was lost, is still on its way, or is late.",
                f"SELECT avgWeighted(completeness, messages) AS share {_WINDOWS} AND isNotNull(completeness)",
                "percentunit",
                steps=[(None, "red"), (0.99, "orange"), (0.999, "green")],
                decimals=3,
                links=[Link("Tailsight itself", "tailsight-self")],
            ),
            number(
                "Unfinished messages",
                "Messages that began in this time and had not ended when their window closed. They are slow or lost, "
                "and are in no percentile.",
                f"SELECT sum(unfinished) AS unfinished {_WINDOWS}",
                "short",
                steps=[(None, "green"), (1, "orange")],
            ),
            number(
                "Worst clock error",
                "The largest bound on a host's clock now. Differences between hosts below it mean nothing.",
                f"SELECT max(error) AS error_ns {_LAST_CLOCK}",
                "ns",
                steps=[(None, "green"), (100_000, "orange"), (1_000_000, "red")],
                links=[Link("Hosts and clock", "tailsight-hosts-clock")],
            ),
            number(
                "Hosts without a clock bound",
                "Hosts whose distance from true time nobody states: their differences to other hosts are unknown.",
                f"SELECT countIf(isNull(error)) AS hosts {_LAST_CLOCK}",
                "short",
                steps=[(None, "green"), (1, "orange")],
                links=[Link("Hosts and clock", "tailsight-hosts-clock")],
            ),
            number(
                "Collectors in trouble",
                "Collectors whose last word was `degraded` or `unavailable`, or that fell silent for a minute without "
                "having been stopped.",
                """SELECT countIf(status IN ('degraded', 'unavailable') OR (status = 'running' AND last < $__toTime -
                60))
                AS collectors FROM (SELECT argMax(status, ts) AS status, max(ts) AS last FROM heartbeats
                WHERE $__timeFilter(ts) GROUP BY name, host)""",
                "short",
                steps=[(None, "green"), (1, "orange")],
                links=[Link("Tailsight itself", "tailsight-self")],
            ),
            number(
                "Changes",
                "Deploys, configuration, flags, network: what anybody or anything changed in this time.",
                "SELECT count() AS changes FROM changes WHERE $__timeFilter(ts)",
                "short",
            ),
        )
        .row("Objectives", slo.worst(height=6))
        .row(
            "Paths",
            rows(
                "Paths, slowest tail first",
                "End-to-end latency of every path over the time shown, from merged counts. A percentile is empty where "
                "there are too few messages for it. Click a path.",
                f"""SELECT path, sum(n) AS messages, {q.percentile(0.5)} AS p50, {q.percentile(0.99)} AS p99,
                {q.percentile(0.999)} AS `p99.9` {_COUNTS} GROUP BY path ORDER BY p99 DESC""",
                units={"p50": "ns", "p99": "ns", "p99.9": "ns"},
                links={"path": PATH},
            ),
            series(
                "p99, end to end",
                "99th percentile of each path's end-to-end latency per step, from merged counts; a gap is a step with "
                "fewer than 368 messages.",
                f"SELECT {_TIME}, path, {q.percentile(0.99)} AS p99 {_COUNTS} GROUP BY time, path ORDER BY time",
                "ns",
                links=[SERIES_PATH],
            ),
            series(
                "Messages per second",
                "Messages that ended, per path.",
                f"SELECT {_TIME}, path, sum(n) / {q.STEP} AS rate {_COUNTS} GROUP BY time, path ORDER BY time",
                "mps",
                links=[SERIES_PATH],
            ),
        )
        .row(
            "What changed",
            rows(
                "Changes, newest first",
                "Who changed what and when, from people, pipelines and collectors.",
                """SELECT ts AS time, toString(kind) AS kind, who, what, toString(host) AS host,
                toString(service) AS service, version FROM changes WHERE $__timeFilter(ts) ORDER BY ts DESC LIMIT
                100""",
            ),
        )
    )
