"""NIC and TCP: what the network lost, held up and sent again."""

from __future__ import annotations

from dashboards.grafana.board import Board
from dashboards.grafana.panels import rows, series

UID = "tailsight-nic-tcp"
_TIME = "toDateTime(intDiv(toUnixTimestamp(ts), $__interval_s) * $__interval_s) AS time"
_HOST = "$__timeFilter(ts) AND host = '$host'"
_LABEL = "JSONExtractString(labels, '{}')"


def _gauges(names: tuple[str, ...], by: str, how: str = "sum") -> str:
    """A statement over gauges of the host, by one label."""
    quoted = ", ".join(f"'{name}'" for name in names)
    return f"""SELECT {_TIME}, concat(toString(name), ' ', {_LABEL.format(by)}) AS series, {how}(value) AS value
    FROM gauges AS g LEFT ANY JOIN label_sets AS l ON g.label_set = l.label_set
    WHERE name IN ({quoted}) AND {_HOST} GROUP BY time, series ORDER BY time"""


def board() -> Board:
    """Interfaces, queues and TCP of one host."""
    return (
        Board(UID, "NIC and TCP", "What the network of a host lost, held up and sent again.", variables=["host"])
        .row(
            "Lost",
            series(
                "Lost before the program saw it",
                "Packets lost in the card's ring (`missed`), by the kernel, in queueing disciplines, CPU backlogs "
                "or sockets.",
                _gauges(
                    (
                        "nic_rx_missed_errors",
                        "nic_rx_dropped",
                        "nic_tx_dropped",
                        "qdisc_drops",
                        "softnet_dropped",
                        "tcp_drops",
                        "udp_drops",
                    ),
                    "interface",
                ),
                "short",
                bars=True,
            ),
            series(
                "Sent again",
                "TCP segments that the kernel sent again, by port.",
                _gauges(("tcp_retransmits",), "port"),
                "short",
                bars=True,
            ),
        )
        .row(
            "Held up",
            series(
                "Waiting in the queueing discipline",
                "How long a packet that comes now will wait there.",
                _gauges(("qdisc_delay_ns",), "interface", "max"),
                "ns",
            ),
            series(
                "Waiting in sockets",
                "The largest receive and send queues: arrived and not read, written and not sent or acknowledged.",
                _gauges(
                    ("tcp_receive_queue_bytes", "udp_receive_queue_bytes", "tcp_send_queue_bytes", "tcp_unsent_bytes"),
                    "port",
                    "max",
                ),
                "bytes",
            ),
            series(
                "Round trips, as the kernel smooths them",
                "The largest smoothed round trip of the host's connections, by port.",
                _gauges(("tcp_rtt_ns",), "port", "max"),
                "ns",
            ),
            series(
                "Packets",
                "Packets per step and interface.",
                _gauges(("nic_rx_packets", "nic_tx_packets"), "interface"),
                "short",
            ),
        )
        .row(
            "Flows at the taps",
            rows(
                "Flows, most sent again first",
                "What taps of the collector `packet` saw of each direction of a flow: round trips, "
                "retransmissions, losses. "
                "`coverage` below 1 says that the tap itself missed packets.",
                f"""SELECT source, target, sum(packets) AS packets, sum(bytes) AS bytes, sum(retransmissions) AS again,
            sum(lost_segments) AS lost, sum(out_of_order) AS `out of order`, sum(zero_windows) AS `zero windows`,
            max(rtt_p99_ns) AS `rtt p99`, max(hops) AS hops, min(coverage) AS coverage FROM flows WHERE {_HOST}
            GROUP BY source, target ORDER BY again DESC, packets DESC LIMIT 50""",
                units={"bytes": "bytes", "rtt p99": "ns", "coverage": "percentunit"},
            ),
            rows(
                "Microbursts",
                "Times at which an interface was busier than the threshold for a window of 100 us or 1 ms, "
                "longest first, "
                "with the flow that brought most.",
                f"""SELECT ts, toString(kind) AS window, duration_ns AS lasted, toString(culprit) AS flow, labels
            FROM intervals AS i LEFT ANY JOIN label_sets AS l ON i.label_set = l.label_set
            WHERE {_HOST} AND startsWith(toString(kind), 'microburst') ORDER BY duration_ns DESC LIMIT 50""",
                units={"lasted": "ns"},
            ),
        )
    )
