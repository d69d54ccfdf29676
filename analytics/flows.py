"""What flows did in a time, as the taps saw them: one row per tap and direction of a flow, summed over its reports.

Counts add up over reports; percentiles do not. Of the round trips the extremes are exact, and of the medians and 99th
percentiles the worst report's is given.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from collector.store import Store

Order = Literal["bytes", "packets", "retransmissions", "rtt", "hops"]
ORDERS: dict[str, str] = {
    "bytes": "bytes",
    "packets": "packets",
    "retransmissions": "retransmissions",
    "rtt": "rtt_p99_worst_ns",
    "hops": "hops_max",
}
PROTOCOLS = {1: "icmp", 2: "igmp", 6: "tcp", 17: "udp", 47: "gre", 50: "esp", 58: "icmp6", 89: "ospf", 132: "sctp"}


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """One direction of a flow at one tap. TCP figures are None where the flow was never analysed.

    A flow without addresses is what a tap counted beyond the flows it tells apart.
    """

    host: str
    tap: str
    interface: str
    direction: str
    time_source: str
    source: str
    source_port: int
    target: str
    target_port: int
    protocol: str
    vlan: int | None
    from_ns: int
    to_ns: int
    reports: int
    packets: int
    bytes: int
    hops_min: int | None
    hops_max: int | None
    ttl_min: int | None
    ttl_max: int | None
    dscp_min: int | None
    dscp_max: int | None
    coverage: float
    retransmissions: int | None
    fast_retransmissions: int | None
    spurious_retransmissions: int | None
    out_of_order: int | None
    duplicate_acks: int | None
    lost_segments: int | None
    zero_windows: int | None
    handshake_ns: int | None
    rtt_samples: int | None
    rtt_min_ns: int | None
    rtt_p50_worst_ns: int | None
    rtt_p99_worst_ns: int | None
    rtt_max_ns: int | None


_FLOWS = """
SELECT toString(host) AS host, toString(tap) AS tap, toString(interface) AS interface,
    if(uniqExact(f.direction) = 1, any(toString(f.direction)), '') AS direction,
    if(uniqExact(f.time_source) = 1, any(toString(f.time_source)), 'sw') AS time_source,
    source, source_port, target, target_port, f.protocol AS number, any(f.vlan) AS vlan,
    min(toUnixTimestamp64Nano(ts)) AS from_ns, max(toUnixTimestamp64Nano(ts) + duration_ns) AS to_ns,
    count() AS reports, sum(f.packets) AS packets, sum(f.bytes) AS bytes,
    min(f.hops) AS hops_min, max(f.hops) AS hops_max, min(f.ttl_min) AS ttl_min, max(f.ttl_max) AS ttl_max,
    min(f.dscp_min) AS dscp_min, max(f.dscp_max) AS dscp_max, min(f.coverage) AS coverage,
    sum(f.retransmissions) AS retransmissions, sum(f.fast_retransmissions) AS fast_retransmissions,
    sum(f.spurious_retransmissions) AS spurious_retransmissions, sum(f.out_of_order) AS out_of_order,
    sum(f.duplicate_acks) AS duplicate_acks, sum(f.lost_segments) AS lost_segments, sum(f.zero_windows) AS zero_windows,
    max(f.handshake_ns) AS handshake_ns, sum(f.rtt_samples) AS rtt_samples, min(f.rtt_min_ns) AS rtt_min_ns,
    max(f.rtt_p50_ns) AS rtt_p50_worst_ns, max(f.rtt_p99_ns) AS rtt_p99_worst_ns, max(f.rtt_max_ns) AS rtt_max_ns
FROM flows AS f
WHERE ts >= fromUnixTimestamp64Nano({from_ns:Int64}, 'UTC') AND ts < fromUnixTimestamp64Nano({to_ns:Int64}, 'UTC')
    AND ({host:String} = '' OR f.host = {host:String}) AND ({tap:String} = '' OR f.tap = {tap:String})
    AND ({address:String} = '' OR f.source = {address:String} OR f.target = {address:String})
    AND ({port:UInt16} = 0 OR f.source_port = {port:UInt16} OR f.target_port = {port:UInt16})
GROUP BY host, tap, interface, source, source_port, target, target_port, number
ORDER BY $order DESC NULLS LAST, host, tap, source, source_port, target, target_port, number LIMIT {limit:UInt32}
"""


def flows(
    store: Store,
    *,
    from_ns: int,
    to_ns: int,
    host: str = "",
    tap: str = "",
    address: str = "",
    port: int = 0,
    order: str = "bytes",
    limit: int = 20,
) -> list[Flow]:
    """The first `limit` flows whose reports begin in [from_ns, to_ns), the largest by `order` (ORDERS) first.

    `address` and `port` may be those of either end. Raises KeyError for an unknown order, StoreError.
    """
    query = _FLOWS.replace("$order", ORDERS[order])
    params = {
        "from_ns": from_ns, "to_ns": to_ns, "host": host, "tap": tap, "address": address, "port": port, "limit": limit,
    }  # fmt: skip
    rows = store.query(query, params).iter_rows(named=True)
    found = []
    for row in rows:
        number = row.pop("number")
        found.append(Flow(**row, protocol=PROTOCOLS.get(number, str(number))))
    return found
