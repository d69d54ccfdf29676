"""Readings as `gauges`: levels as they are, counters as what was added in the period. Plain values in, gauges out.

A counter that went back (a new interface of an old name, a new socket) starts again: nothing is shown for it once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from collector.nic.backlog import Softnet
from collector.nic.links import Qdisc
from collector.nic.sockets import LISTEN, Socket
from collector.sched.gauges import Gauge

LINK_ALWAYS = ("rx_packets", "tx_packets", "rx_bytes", "tx_bytes", "rx_dropped", "tx_dropped", "rx_missed_errors")


def of_link(name: str, now: Mapping[str, int], before: Mapping[str, int] | None) -> Iterable[Gauge]:
    """Counters of one interface over a period; those that rarely move only when they did."""
    if before is None:
        return
    for field, value in now.items():
        added = value - before.get(field, 0)
        if added > 0 or (added == 0 and field in LINK_ALWAYS):
            yield Gauge(f"nic_{field}", added, labels=(("interface", name),))


def of_qdisc(name: str, now: Qdisc, before: Qdisc | None, seconds: float) -> Iterable[Gauge]:
    """Levels of one queue, what it lost in the period, and how long a packet that comes now will wait.

    The wait is the backlog over the rate at which the queue was drained, both in bytes; null (left out) while nothing
    leaves it. Parents report their children's backlog too: do not add them up.
    """
    labels = (("interface", name), ("qdisc", now.kind), ("handle", now.name))
    yield Gauge("qdisc_backlog_packets", now.backlog_packets, labels=labels)
    yield Gauge("qdisc_backlog_bytes", now.backlog_bytes, labels=labels)
    if before is None:
        return
    for field in ("drops", "requeues", "overlimits"):
        # 32-bit counters of the kernel: they wrap.
        added = (getattr(now, field) - getattr(before, field)) & 0xFFFFFFFF
        if added < 1 << 31 and (added or field == "drops"):
            yield Gauge(f"qdisc_{field}", added, labels=labels)
    sent = now.sent_bytes - before.sent_bytes
    if sent > 0 and seconds > 0:
        yield Gauge("qdisc_delay_ns", now.backlog_bytes / sent * seconds * 1e9, labels=labels)
    elif now.backlog_bytes == 0:
        yield Gauge("qdisc_delay_ns", 0, labels=labels)


def of_softnet(now: Mapping[int, Softnet], before: Mapping[int, Softnet]) -> Iterable[Gauge]:
    """What each CPU took from the network in the period, and what its backlog threw away."""
    for cpu, new in now.items():
        old = before.get(cpu)
        if old is None:
            continue
        labels = (("cpu", str(cpu)),)
        for field in ("processed", "dropped", "squeezed"):
            added = (getattr(new, field) - getattr(old, field)) & 0xFFFFFFFF
            if added < 1 << 31 and (added or field == "dropped"):
                yield Gauge(f"softnet_{field}", added, labels=labels)


def of_statistics(
    name: str, now: Mapping[str, int], before: Mapping[str, int], patterns: Sequence[str], most: int
) -> tuple[list[Gauge], int]:
    """Driver counters that a pattern names and that grew, at most `most`; and how many were left out."""
    grown = [
        (key, value - before[key])
        for key, value in now.items()
        if key in before and value > before[key] and any(fnmatchcase(key, pattern) for pattern in patterns)
    ]
    rows = [
        Gauge("nic_statistic", added, labels=(("interface", name), ("statistic", key[:64])))
        for key, added in grown[:most]
    ]
    return rows, max(0, len(grown) - most)


def of_sockets(
    now: Sequence[Socket], before: Mapping[tuple[str, int], Socket], ports: Sequence[int]
) -> Iterable[Gauge]:
    """Per protocol, port and side: how many sockets, the worst of their levels, the sum of what they lost.

    One socket in trouble shows in the largest queue and the largest round trip; which one, `ss -ti` says.
    """
    groups: dict[tuple[str, int, str], list[Socket]] = {}
    for one in now:
        for side, port in (("local", one.local_port), ("remote", one.remote_port)):
            if port in ports:
                groups.setdefault((one.protocol, port, side), []).append(one)
    for (protocol, port, side), members in sorted(groups.items()):
        labels = (("port", str(port)), ("side", side))
        waiting = [m for m in members if m.protocol == "tcp" and m.state == LISTEN]
        live = [m for m in members if m not in waiting]
        if waiting:
            yield Gauge("tcp_accept_queue", max(m.receive_bytes for m in waiting), labels=labels)
        if not live:
            continue
        yield Gauge(f"{protocol}_sockets", len(live), labels=labels)
        yield Gauge(f"{protocol}_receive_queue_bytes", max(m.receive_bytes for m in live), labels=labels)
        yield Gauge(f"{protocol}_send_queue_bytes", max(m.send_bytes for m in live), labels=labels)
        yield Gauge(f"{protocol}_drops", _added(live, before, "drops"), labels=labels)
        if protocol != "tcp":
            continue
        yield Gauge("tcp_retransmits", _added(live, before, "retransmits"), labels=labels)
        yield Gauge("tcp_unsent_bytes", max(m.unsent_bytes or 0 for m in live), labels=labels)
        rtts = [m.rtt_ns for m in live if m.rtt_ns]
        if rtts:
            yield Gauge("tcp_rtt_ns", max(rtts), labels=labels)
        least = [m.min_rtt_ns for m in live if m.min_rtt_ns is not None]
        if least:
            yield Gauge("tcp_min_rtt_ns", min(least), labels=labels)


def _added(now: Sequence[Socket], before: Mapping[tuple[str, int], Socket], field: str) -> int:
    """What the sockets counted since the last reading; all that a new one counted."""
    total = 0
    for one in now:
        old = before.get((one.protocol, one.cookie))
        total += max(0, (getattr(one, field) or 0) - ((getattr(old, field) or 0) if old else 0))
    return total
