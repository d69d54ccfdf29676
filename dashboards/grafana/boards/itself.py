"""Tailsight itself: do the collectors live, does everything arrive, how late."""

from __future__ import annotations

from dashboards.grafana import queries as q
from dashboards.grafana.board import Board
from dashboards.grafana.panels import number, rows, series, states

UID = "tailsight-self"
_TIME = "toDateTime(intDiv(toUnixTimestamp(ts), $__interval_s) * $__interval_s) AS time"
_NAME = "concat(toString(name), '@', toString(host))"


def board() -> Board:
    """Delivery and health of the product's own parts."""
    return (
        Board(UID, "Tailsight itself", "Do the collectors live, does everything arrive, how late.")
        .row(
            "Delivery",
            number(
                "Events stored",
                "Events of batches that arrived in the time shown and are in the store.",
                "SELECT sum(stored) AS stored FROM batches WHERE $__timeFilter(cut)",
                "short",
            ),
            number(
                "Dropped",
                "Events that collectors lost and counted, with a reason.",
                "SELECT sum(dropped) AS dropped FROM batches WHERE $__timeFilter(cut)",
                "short",
                steps=[(None, "green"), (1, "orange")],
            ),
            number(
                "Quarantined",
                "Rows that could not be stored and were set aside with a reason.",
                "SELECT sum(quarantined) AS quarantined FROM batches WHERE $__timeFilter(cut)",
                "short",
                steps=[(None, "green"), (1, "orange")],
            ),
            number(
                "Age of the newest window",
                "How old the end of the newest computed window is: percentiles are that far behind.",
                "SELECT toInt64(toUnixTimestamp($__toTime)) - toInt64(max(toUnixTimestamp(window))) - 10 AS age "
                "FROM windows WHERE level = 10 AND $__timeFilter(window)",
                "s",
                steps=[(None, "green"), (60, "orange"), (300, "red")],
            ),
            number(
                "In spools",
                "Bytes that agents hold because the server has not acknowledged them.",
                "SELECT sum(bytes) AS bytes FROM (SELECT argMax(spool_bytes, ts) AS bytes FROM heartbeats "
                "WHERE $__timeFilter(ts) GROUP BY collector, boot)",
                "bytes",
            ),
            number(
                "Messages without a start",
                "Messages whose first point was never seen; they are not among the messages.",
                f"""SELECT sum(headless) AS headless FROM windows WHERE level = {q.LEVEL} AND $__timeFilter(window)
                AND (path, generation) IN (SELECT path, max(generation) FROM windows WHERE level = {q.LEVEL}
                AND $__timeFilter(window) GROUP BY path, window)""",
                "short",
            ),
        )
        .row(
            "Collectors",
            states(
                "State of each collector",
                "What each collector said of itself, the worst of each step: stopped, running, degraded, unavailable.",
                f"SELECT {_TIME}, {_NAME} AS collector, "
                "toInt64(max(transform(toString(status), ['stopped', 'running', 'degraded', 'unavailable'], "
                "[0, 1, 2, 3], 3))) AS state FROM heartbeats "
                "WHERE $__timeFilter(ts) GROUP BY time, collector ORDER BY time",
                {0: ("stopped", "text"), 1: ("running", "green"), 2: ("degraded", "orange"), 3: ("unavailable", "red")},
            ),
            series(
                "Produced, not acknowledged",
                "Events that a collector has produced and the server has not acknowledged yet.",
                f"SELECT {_TIME}, {_NAME} AS collector, max(toInt64(produced) - toInt64(acked)) AS waiting FROM "
                f"heartbeats "
                "WHERE $__timeFilter(ts) GROUP BY time, collector ORDER BY time",
                "short",
            ),
            series(
                "Events per second",
                "Events stored, by collector.",
                "SELECT toDateTime(intDiv(toUnixTimestamp(cut), $__interval_s) * $__interval_s) AS time, "
                f"{_NAME} AS collector, sum(stored) / $__interval_s AS rate FROM batches WHERE $__timeFilter(cut) "
                "GROUP BY time, collector ORDER BY time",
                "cps",
            ),
            rows(
                "Last word of each collector",
                "With the reason when it is not running, and what to do about it.",
                """SELECT toString(name) AS collector, toString(host) AS host, argMax(toString(status), ts) AS status,
                argMax(reason, ts) AS reason, max(ts) AS said FROM heartbeats WHERE $__timeFilter(ts)
                GROUP BY collector, host ORDER BY status = 'running', collector LIMIT 200""",
            ),
            rows(
                "Why rows were set aside or lost",
                "Reasons of the ledger over the time shown.",
                """SELECT toString(name) AS collector, toString(host) AS host, toString(reason) AS reason, sum(n) AS
                events
                FROM batches ARRAY JOIN reasons AS reason, reason_counts AS n WHERE $__timeFilter(cut)
                GROUP BY collector, host, reason ORDER BY events DESC LIMIT 100""",
            ),
        )
    )
