"""What a tap hands over every report period: FLOWS rows, gauges, changes of routes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collector.changes import Change
from collector.packet.conversations import COUNTED
from collector.packet.headers import TCP
from collector.packet.live.bursts import WIDTHS_NS
from collector.packet.live.flows import DIRECTIONS, Period, RouteChange, hops
from collector.packet.live.tap import Tap
from collector.record import FLOWS, Columns

_TCP = (*COUNTED, "rtt_samples")
_TCP_NS = ("handshake_ns", "rtt_min_ns", "rtt_p50_ns", "rtt_p99_ns", "rtt_max_ns")
_ROUTE = ("hops", "ttl_min", "ttl_max", "dscp_min", "dscp_max")
MOST_CHANGES = 100  # of a tap and period; a route that moves moves many flows at once
_HOPS = np.array([hops(ttl) for ttl in range(256)], dtype=np.uint8)


def flow_columns(tap: Tap, host: str, start_ns: int, duration_ns: int) -> Columns | None:
    """FLOWS rows of the period that ends now; None when nothing passed. Begins the TCP analysis' next period."""
    row = tap.flows.active()
    figures = tap.tcp.turn()
    other = tap.flows.other_packets > 0
    n = len(row) + other
    if not n:
        tap.tcp.next_period()
        return None
    period = tap.flows.period(row)
    values: dict[str, NDArray[Any]] = {c.name: np.zeros(n, dtype=c.kind.dtype) for c in FLOWS.columns}
    nulls = {c.name: np.ones(n, dtype=np.bool_) for c in FLOWS.columns if c.nullable}
    texts = {"host": [host], "tap": [tap.name], "interface": [tap.interface], "direction": list(DIRECTIONS)}
    texts["time_source"] = ["hw" if tap.counts.hardware else "sw"]
    values["ts_ns"][:], values["duration_ns"][:] = start_ns, duration_ns
    values["coverage"][:] = tap.counts.coverage
    known = slice(0, len(row))
    for name in ("source", "target"):
        codes: dict[str, int] = {}
        addresses = getattr(period, name)
        values[name][known] = np.fromiter((codes.setdefault(a, len(codes)) for a in addresses), "<u2", len(row))
        if other:
            values[name][-1] = codes.setdefault("", len(codes))
        texts[name] = list(codes)
    for name in ("direction", "source_port", "target_port", "protocol", "packets", "bytes", *_ROUTE[1:]):
        values[name][known] = getattr(period, name)
    values["hops"][known] = _HOPS[period.ttl_min]
    for name in _ROUTE:
        nulls[name][known] = False
    tagged = period.vlan >= 0
    values["vlan"][known] = np.where(tagged, period.vlan, 0)
    nulls["vlan"][known] = ~tagged
    _put_tcp(period, figures, values, nulls)
    if other:
        values["packets"][-1], values["bytes"][-1] = tap.flows.other_packets, tap.flows.other_bytes
        values["direction"][-1] = DIRECTIONS.index("")
    tap.tcp.next_period()
    return Columns(FLOWS, values, texts, nulls)


def _put_tcp(
    period: Period,
    figures: NDArray[Any],
    values: Mapping[str, NDArray[Any]],
    nulls: Mapping[str, NDArray[np.bool_]],
) -> None:
    # Sorted by flow, then side, two rows for each flow.
    place = 2 * np.searchsorted(figures["flow"][::2], period.flow) + period.side
    inside = np.flatnonzero((period.protocol == TCP) & (place < len(figures)))
    inside = inside[figures["flow"][place[inside]] == period.flow[inside]]
    place = place[inside]
    for name in _TCP:
        values[name][inside] = figures[name][place]
        nulls[name][inside] = False
    for name in _TCP_NS:
        measured = figures[name][place] >= 0
        values[name][inside[measured]] = figures[name][place[measured]]
        nulls[name][inside[measured]] = False


Gauge = tuple[str, float, dict[str, str]]


def gauges(tap: Tap, bits_s: int | None) -> Iterator[Gauge]:
    """The tap's gauges of the period: (name, value, further labels)."""
    counts = tap.counts
    yield "packet_packets", counts.packets, {}
    yield "packet_bytes", counts.bytes, {}
    yield "packet_dropped", counts.dropped, {}
    yield "packet_ring_freezes", counts.freezes, {}
    yield "packet_coverage", counts.coverage, {}
    yield "packet_not_ip", counts.not_ip, {}
    yield "packet_flows", len(tap.flows), {}
    yield "packet_other_packets", tap.flows.other_packets, {}
    if tap.tcp.share < 1:
        yield "packet_tcp_share", tap.tcp.share, {}
    if counts.damaged_blocks:
        yield "packet_damaged_blocks", counts.damaged_blocks, {}
    for reason, count in counts.malformed.items():
        yield "packet_malformed", count, {"reason": reason.name.lower()}
    if tap.bursts.late:
        yield "packet_late", tap.bursts.late, {}
        tap.bursts.late = 0
    for (window, outgoing), peak in tap.bursts.take_peaks().items():
        labels = {"window": window, "direction": "out" if outgoing else "in"}
        yield "packet_peak_bytes", peak.bytes, labels
        yield "packet_bursts", peak.bursts, labels
        if bits_s:
            yield "packet_peak_utilisation", peak.bytes * 8e9 / (bits_s * WIDTHS_NS[window]), labels


def route_changes(tap: Tap, host: str) -> Iterable[Change]:
    """One change per flow and direction that settled on another TTL or DSCP; the last one counts what is beyond."""
    beyond = 0
    for number, change in enumerate(tap.flows.changes()):
        if number >= MOST_CHANGES:
            beyond += 1
            continue
        yield Change(
            ts_ns=change.at_ns,
            kind="network",
            what=_words(change),
            who="packet collector",
            host=host,
            service=tap.name,
            labels={"interface": tap.interface, "what": change.what},
        )
    if beyond:
        yield Change(
            ts_ns=max(int(t) for t in tap.flows.period(tap.flows.active()).last_ns),
            kind="network",
            what=f"the same for {beyond} further flows",
            who="packet collector",
            host=host,
            service=tap.name,
            labels={"interface": tap.interface},
        )


def _words(change: RouteChange) -> str:
    if change.what == "dscp":
        return f"{change.ends}: DSCP {change.before} became {change.after}"
    before, after = hops(change.before), hops(change.after)
    path = f"{before} hops became {after}" if before != after else "as many hops, another start value"
    return f"{change.ends}: {path} (TTL {change.before} became {change.after})"
