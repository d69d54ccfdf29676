"""One message: its stamps over all layers on one clock, as a table and as a trace, and what programs said of it."""

from __future__ import annotations

from dashboards.grafana.board import Board
from dashboards.grafana.panels import TRACES, lines, rows, trace

UID = "tailsight-message"
_KEY = "toUInt64OrZero('$key')"
_BOUND = "$__timeFilter(ts)"
# Its parents and theirs: an order's timeline begins at the tick that caused it.
_PARENTS = f"SELECT parent FROM links WHERE {_BOUND} AND child = {_KEY}"
_FAMILY = f"""(SELECT {_KEY} UNION ALL {_PARENTS}
UNION ALL SELECT parent FROM links WHERE {_BOUND} AND child IN ({_PARENTS}))"""
_STAMPS = f"FROM stamps WHERE {_BOUND} AND key IN {_FAMILY}"


def board() -> Board:
    """Below a path: one of its messages."""
    return Board(
        UID, "Message", "One message: its stamps over all layers on one clock. Its key comes with the link.", text="key"
    ).row(
        "Timeline",
        rows(
            "Stamps",
            "Every stamp of the message and of the messages that it came from, in time order. `since before` is the "
            "time since the stamp above; `clock error` is how far the host's clock may be from true time.",
            f"""SELECT ts, toString(point) AS point, toString(host) AS host, toString(service) AS service, thread,
            toUnixTimestamp64Nano(ts) - lagInFrame(toUnixTimestamp64Nano(ts), 1, toUnixTimestamp64Nano(ts)) OVER
            (ORDER BY ts ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS `since before`,
            error_ns AS `clock error`, depth AS `queue depth`, toString(outcome) AS outcome, toString(mode) AS mode,
            toString(key) AS key {_STAMPS} ORDER BY ts LIMIT 1000""",
            units={"since before": "ns", "clock error": "ns"},
            height=10,
        ),
        trace(
            "As a trace",
            "The steps between stamps: each bar begins at one stamp and ends at the next.",
            f"""SELECT '$key' AS traceID, toString(row_number() OVER (ORDER BY ts)) AS spanID, '' AS parentSpanID,
            concat(before, ' to ', toString(point)) AS operationName, toString(service) AS serviceName,
            toDateTime64(began / 1e9, 9) AS startTime, (toUnixTimestamp64Nano(ts) - began) / 1e6 AS duration,
            [map('key', 'host', 'value', toString(host)), map('key', 'thread', 'value', toString(thread))] AS tags
            FROM (SELECT ts, point, host, service, thread,
            lagInFrame(toString(point), 1, '') OVER (ORDER BY ts ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED
            FOLLOWING)
            AS before, lagInFrame(toUnixTimestamp64Nano(ts), 1, 0) OVER
            (ORDER BY ts ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS began {_STAMPS})
            WHERE began > 0 ORDER BY startTime LIMIT 1000""",
            TRACES,
        ),
        rows(
            "What kept its threads from working",
            "Waits, pauses and interrupts on the threads that stamped the message, while it was there.",
            f"""SELECT i.ts AS ts, toString(i.kind) AS kind, i.duration_ns AS lasted, toString(i.culprit) AS culprit,
            toString(i.host) AS host, i.thread AS thread FROM intervals AS i
            INNER JOIN (SELECT host, thread, min(ts) AS first, max(ts) AS last {_STAMPS} GROUP BY host, thread) AS s
            ON i.host = s.host AND i.thread = s.thread
            WHERE $__timeFilter(i.ts) AND i.ts <= s.last AND addNanoseconds(i.ts, i.duration_ns) >= s.first - 1
            ORDER BY i.ts LIMIT 200""",
            units={"lasted": "ns"},
        ),
        lines(
            "What programs said",
            "Events with this message's key: decisions with their reasons and inputs, log lines.",
            f"""SELECT ts AS timestamp, concat(toString(kind), ' ', body, ' ', attributes) AS body, 'info' AS level
            FROM events WHERE {_BOUND} AND key IN {_FAMILY} ORDER BY ts LIMIT 500""",
        ),
    )
