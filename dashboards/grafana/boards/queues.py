"""Queues: how deep, and what waiting behind others costs."""

from __future__ import annotations

from dashboards.grafana import queries as q
from dashboards.grafana.board import Board
from dashboards.grafana.panels import bars, rows, series

UID = "tailsight-queues"
_DEPTHS = f"""FROM (SELECT e2e_ns, start, arrayMax(arrayMap(d -> ifNull(d, -1), stage_depth)) AS depth FROM messages
WHERE {q.messages_where()} AND isNotNull(e2e_ns)) WHERE depth >= 0"""
_CLASS = "multiIf(depth = 0, '0', depth <= 2, '1-2', depth <= 5, '3-5', depth <= 11, '6-11', '12 and more')"


def board() -> Board:
    """Depth on arrival and the tail."""
    return Board(
        UID, "Queues", "How deep the queues are when messages arrive, and what that costs them.", variables=["path"]
    ).row(
        "Depth on arrival",
        series(
            "Depth that messages met",
            "The deepest queue that a message of the path met: half of them met no deeper one than p50.",
            f"""SELECT toDateTime(intDiv(toUnixTimestamp(start), $__interval_s) * $__interval_s) AS time,
            quantileExact(0.5)(depth) AS p50, quantileExact(0.99)(depth) AS p99, max(depth) AS deepest {_DEPTHS}
            GROUP BY time ORDER BY time""",
            "short",
        ),
        bars(
            "p99 by depth on arrival",
            "99th percentile end to end of the messages that met a queue of this depth; empty below 368 messages.",
            f"""SELECT {_CLASS} AS met, if(count() < 368, NULL, quantileExact(0.99)(e2e_ns)) AS p99 {_DEPTHS}
            GROUP BY met ORDER BY min(depth)""",
            "ns",
        ),
        rows(
            "The tail by depth on arrival",
            "`tailsight query queues` adds intervals, priority classes, the check by Little's law and the knee.",
            f"""SELECT {_CLASS} AS met, count() AS messages, quantileExact(0.5)(e2e_ns) AS p50,
            if(messages < 368, NULL, quantileExact(0.99)(e2e_ns)) AS p99,
            if(messages < 3688, NULL, quantileExact(0.999)(e2e_ns)) AS `p99.9`, max(e2e_ns) AS slowest {_DEPTHS}
            GROUP BY met ORDER BY min(depth)""",
            units=dict.fromkeys(("p50", "p99", "p99.9", "slowest"), "ns"),
        ),
        series(
            "Queues of the sockets and the network",
            "The largest that waited: in sockets (not read, not sent) and in queueing disciplines.",
            """SELECT toDateTime(intDiv(toUnixTimestamp(ts), $__interval_s) * $__interval_s) AS time,
            concat(toString(name), ' ', toString(host)) AS queue, max(value) AS bytes FROM gauges
            WHERE name IN ('tcp_receive_queue_bytes', 'udp_receive_queue_bytes', 'tcp_send_queue_bytes',
            'tcp_unsent_bytes', 'qdisc_backlog_bytes') AND $__timeFilter(ts) GROUP BY time, queue ORDER BY time""",
            "bytes",
            width=24,
        ),
    )
