"""The source `nic`: counters and levels of interfaces, queues and chosen sockets, once a period.

Question: where do packets wait or get lost on this host? Each counter is what happened between two readings, each level
what was there at the reading. Nothing needs a privilege. Cost: docs/host.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar

from collector.clock import ClockReading
from collector.nic import gauges
from collector.nic.backlog import Softnet, byte_queue_limits, limited_queues, parse_softnet
from collector.nic.ethtool import Ethtool
from collector.nic.links import Qdisc, interfaces, read_links, read_qdiscs
from collector.nic.netlink import ROUTE, SOCK_DIAG, Netlink
from collector.nic.settings import NicSettings
from collector.nic.sockets import Socket, read_sockets
from collector.record import GAUGES, Columns
from collector.sched.culprits import LabelSets
from collector.sched.gauges import Gauge
from collector.settings import duration_ns
from collector.sources import Availability, Poll

T = TypeVar("T")
_SOFTNET = Path("/proc/net/softnet_stat")
_EARLY_NS = 5_000_000  # a poll that comes a little early counts
_QUEUES_NS = 30_000_000_000  # queues come and go with the driver's configuration, seldom


class NicSource:
    """A `collector.sources.Source` over the network namespace of the agent."""

    name = "nic"

    def __init__(self, host: str, settings: NicSettings | None = None) -> None:
        self._host = host
        self._settings = settings or NicSettings()
        self._period_ns = duration_ns(self._settings.period, "period")
        # Asked more often than it reads: a collector that is not polled holds back what is known to be complete.
        self.period_s = min(1.0, self._period_ns / 1e9)
        self._labels = LabelSets()
        self._route: Netlink | None = None
        self._diag: Netlink | None = None
        self._ethtool: Ethtool | None = None
        self._read_ns = self._now_ns = 0
        self._folders: dict[str, tuple[list[Path], int]] = {}
        self._links: dict[int, Mapping[str, int]] = {}
        self._qdiscs: dict[tuple[int, int, int], Qdisc] = {}
        self._softnet: dict[int, Softnet] = {}
        self._statistics: dict[str, Mapping[str, int]] = {}
        self._silent: set[str] = set()  # interfaces whose driver has no statistics
        self._sockets: dict[tuple[str, int], Socket] = {}
        self._failed: dict[str, str] = {}
        self._left_out = 0

    def start(self, positions: Mapping[str, int]) -> Availability:  # noqa: ARG002 - counters have no past to resume
        """Open the netlink sockets. Unavailable only where the kernel has no netlink for us."""
        try:
            self._route = Netlink(ROUTE)
            self._ethtool = Ethtool()
            if self._settings.ports:
                self._diag = Netlink(SOCK_DIAG)
        except OSError as error:
            self.close()
            return Availability("unavailable", f"netlink: {error.strerror}; run the agent where AF_NETLINK is allowed")
        return Availability("running")

    def state(self) -> Availability:
        """Degraded while a part cannot be read or interfaces are left out."""
        reasons = [f"{what}: {why}" for what, why in self._failed.items()]
        if self._left_out:
            reasons.append(f"{self._left_out} interfaces are left out; name those that count in [agent.nic] interfaces")
        return Availability("degraded", "; ".join(reasons)) if reasons else Availability("running")

    def poll(self, clock: ClockReading) -> Poll:
        """One sweep. What cannot be read is left out and said in `state`."""
        if self._route is None or clock.monotonic_ns - self._read_ns < self._period_ns - _EARLY_NS:
            return Poll()
        self._now_ns = clock.monotonic_ns
        seconds = (clock.monotonic_ns - self._read_ns) / 1e9
        names = self._names()
        rows = [*self._of_links(names), *self._of_qdiscs(names, seconds), *self._of_softnet()]
        rows += self._of_drivers(names)
        rows += self._of_sockets()
        self._read_ns = clock.monotonic_ns
        columns = Columns.from_rows(GAUGES, (self._row(row, clock.realtime_ns) for row in rows))
        labels = self._labels.take()
        return Poll(columns=[labels, columns] if labels is not None else [columns])

    def close(self) -> None:
        """Close the sockets."""
        for opened in (self._route, self._diag, self._ethtool):
            if opened is not None:
                opened.close()
        self._route = self._diag = self._ethtool = None

    def _names(self) -> dict[int, str]:
        patterns = self._settings.interfaces
        every = self._try("interfaces", interfaces, dict[int, str]())
        chosen = {
            index: name
            for index, name in sorted(every.items())
            if any(fnmatchcase(name, p) and (name != "lo" or p != "*") for p in patterns)
        }
        kept = dict(list(chosen.items())[: self._settings.max_interfaces])
        self._left_out = len(chosen) - len(kept)
        return kept

    def _of_links(self, names: Mapping[int, str]) -> list[Gauge]:
        now = self._try("links", lambda: read_links(_open(self._route)), dict[int, Mapping[str, int]]())
        before, self._links = self._links, now
        return [
            g for i, name in names.items() if i in now for g in gauges.of_link(name, now[i], before.get(i))
        ]  # fmt: skip

    def _of_qdiscs(self, names: Mapping[int, str], seconds: float) -> list[Gauge]:
        found = self._try("qdiscs", lambda: read_qdiscs(_open(self._route)), list[Qdisc]())
        now = {(q.ifindex, q.handle, q.parent): q for q in found if q.ifindex in names and q.kind != "noqueue"}
        before, self._qdiscs = self._qdiscs, now
        return [g for key, q in now.items() for g in gauges.of_qdisc(names[key[0]], q, before.get(key), seconds)]

    def _of_softnet(self) -> list[Gauge]:
        now = self._try("softnet", lambda: parse_softnet(_SOFTNET.read_text()), dict[int, Softnet]())
        before, self._softnet = self._softnet, now
        return list(gauges.of_softnet(now, before))

    def _of_drivers(self, names: Mapping[int, str]) -> Iterable[Gauge]:
        for name in names.values():
            for queue, inflight, limit in byte_queue_limits(self._queues(name)):
                labels = (("interface", name), ("queue", queue))
                yield Gauge("bql_inflight_bytes", inflight, labels=labels)
                yield Gauge("bql_limit_bytes", limit, labels=labels)
            if not self._settings.max_statistics or name in self._silent or self._ethtool is None:
                continue
            try:
                now = self._ethtool.statistics(name)
            except OSError:  # EOPNOTSUPP: it has none
                self._silent.add(name)
                continue
            before = self._statistics.get(name)
            self._statistics[name] = now
            if before is not None:
                rows, left = gauges.of_statistics(
                    name, now, before, self._settings.statistics, self._settings.max_statistics
                )
                yield from rows
                if left:
                    yield Gauge("nic_statistics_left_out", left, labels=(("interface", name),))
        for gone in self._statistics.keys() - set(names.values()):
            del self._statistics[gone]
        for gone in self._folders.keys() - set(names.values()):
            del self._folders[gone]
        self._silent &= set(names.values())

    def _queues(self, name: str) -> list[Path]:
        found, looked_ns = self._folders.get(name, ([], -_QUEUES_NS))
        if self._now_ns - looked_ns >= _QUEUES_NS:
            found, looked_ns = limited_queues(name), self._now_ns
            self._folders[name] = (found, looked_ns)
        return found

    def _of_sockets(self) -> list[Gauge]:
        if self._diag is None:
            return []
        ports = self._settings.ports
        found = self._try("sockets", lambda: read_sockets(_open(self._diag), ports), list[Socket]())
        before, self._sockets = self._sockets, {(s.protocol, s.cookie): s for s in found}
        return list(gauges.of_sockets(found, before, self._settings.ports))

    def _try(self, what: str, read: Callable[[], T], otherwise: T) -> T:
        try:
            value = read()
        except (OSError, ValueError) as error:
            self._failed[what] = str(error)
            return otherwise
        self._failed.pop(what, None)
        return value

    def _row(self, gauge: Gauge, ts_ns: int) -> dict[str, object]:
        return {
            "ts_ns": ts_ns, "name": gauge.name, "host": self._host, "service": gauge.service,
            "label_set": self._labels.intern(dict(gauge.labels)), "value": gauge.value,
        }  # fmt: skip


def _open(netlink: Netlink | None) -> Netlink:
    if netlink is None:
        raise OSError("not open")
    return netlink
