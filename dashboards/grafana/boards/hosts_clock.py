"""Hosts and clock: how far each clock may be off, and what hosts are set to."""

from __future__ import annotations

from dashboards.grafana.board import Board
from dashboards.grafana.panels import rows, series

UID = "tailsight-hosts-clock"
_TIME = "toDateTime(intDiv(toUnixTimestamp(ts), $__interval_s) * $__interval_s) AS time"


def board() -> Board:
    """Clock bounds, steps, drift of settings."""
    return (
        Board(UID, "Hosts and clock", "How far each clock may be off, and what hosts are set to.")
        .row(
            "Clock",
            series(
                "Clock error bound",
                "How far the host's clock may be from true time, as the authority that its stamps go by states "
                "it. A gap: "
                "nobody states one.",
                f"""SELECT {_TIME}, concat(toString(host), ' ', toString(source)) AS clock_of, max(error_ns) AS error
                FROM clock WHERE event = 'sample' AND $__timeFilter(ts) GROUP BY time, clock_of ORDER BY time""",
                "ns",
            ),
            series(
                "Offset",
                "The offset that the authorities state.",
                f"""SELECT {_TIME}, concat(toString(host), ' ', toString(source)) AS clock_of, avg(offset_ns) AS offset
                FROM clock WHERE event IN ('sample', 'stated') AND $__timeFilter(ts) GROUP BY time, clock_of ORDER BY
                time""",
                "ns",
                minimum=None,
            ),
            rows(
                "Steps and lost synchronisation",
                "A step moves every later stamp of the host; differences across it are wrong by it.",
                """SELECT ts, toString(host) AS host, toString(clock) AS clock, toString(source) AS source,
                toString(event) AS event, step_ns AS step FROM clock
                WHERE event NOT IN ('sample', 'stated') AND $__timeFilter(ts) ORDER BY ts DESC LIMIT 100""",
                units={"step": "ns"},
            ),
        )
        .row(
            "Settings",
            rows(
                "Not as declared",
                "Settings that differ from the declared profile, as last read.",
                """SELECT toString(host) AS host, toString(item) AS item, argMax(value, ts) AS is, argMax(expected, ts)
                AS declared FROM hosts WHERE ts <= $__toTime GROUP BY host, item
                HAVING argMax(state, ts) = 'drift' ORDER BY host, item LIMIT 200""",
            ),
            rows(
                "Settings that changed",
                "Every difference that the collector `host` has seen, newest first.",
                """SELECT ts, toString(host) AS host, what, who FROM changes
                WHERE kind = 'config' AND $__timeFilter(ts) ORDER BY ts DESC LIMIT 200""",
            ),
            rows(
                "Inventory",
                "What each host is set to, as last read.",
                """SELECT toString(host) AS host, toString(item) AS item, argMax(value, ts) AS value, max(ts) AS read
                FROM hosts WHERE ts <= $__toTime GROUP BY host, item ORDER BY host, item LIMIT 2000""",
                height=12,
            ),
        )
    )
