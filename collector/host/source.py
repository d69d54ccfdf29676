"""The source `host`: what the host is set to, every difference as a change, and drift from a declared profile.

It lies in between no two events: each row is one reading. A change is dated at the reading that found it; it happened
in the period before. Cost: docs/host.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from collector.changes import Change, change_columns
from collector.clock import ClockReading
from collector.host.cards import card_items
from collector.host.compare import Difference, condensed, differences, drift, fitted, name_of, since_last_run
from collector.host.files import file_items
from collector.host.settings import HostSettings
from collector.nic.ethtool import Ethtool
from collector.nic.links import interfaces
from collector.record import GAUGES, HOSTS, Columns
from collector.settings import duration_ns
from collector.sources import Availability, Poll

WHO = "agent"


class HostSource:
    """A `collector.sources.Source`. `root` is / but for tests."""

    name = "host"

    def __init__(self, host: str, settings: HostSettings | None = None, root: Path = Path("/")) -> None:
        self._host = host
        self._settings = settings or HostSettings()
        self._root = root
        self._period_ns = duration_ns(self._settings.period, "period")
        # Asked more often than it reads: a collector that is not polled holds back what is known to be complete.
        self.period_s = min(1.0, self._period_ns / 1e9)
        self._repeat_ns = duration_ns(self._settings.repeat, "repeat")
        self._ethtool: Ethtool | None = None
        self._hashes: dict[str, int] = {}
        self._items: dict[str, str] | None = None
        self._read_ns = self._shipped_ns = 0
        self._refused: set[str] = set()
        self._left_out = 0

    def start(self, positions: Mapping[str, int]) -> Availability:
        """Remember what the host was when the agent last ran."""
        self._hashes = dict(positions)
        self._items = None
        try:
            self._ethtool = Ethtool()
        except OSError:
            self._ethtool = None  # no sockets here: the files are left
        return Availability("running")

    def state(self) -> Availability:
        """Degraded while items may not be read or are left out."""
        reasons = []
        if self._refused:
            some = ", ".join(sorted(self._refused)[:5])
            reasons.append(f"{len(self._refused)} items may not be read ({some}); run the agent as root to have them")
        if self._left_out:
            reasons.append(f"{self._left_out} items are left out; raise [agent.host] max_items or ignore some")
        return Availability("degraded", "; ".join(reasons)) if reasons else Availability("running")

    def poll(self, clock: ClockReading) -> Poll:
        """Read everything; rows for what is new or changed, for all of it every `repeat`."""
        if self._items is not None and clock.monotonic_ns - self._read_ns < self._period_ns:
            return Poll()
        self._read_ns = clock.monotonic_ns
        now = self._gather()
        first = self._items is None
        changed = since_last_run(self._hashes, now) if self._items is None else differences(self._items, now)
        before = {i for i, h in self._hashes.items() if h} if self._items is None else set(self._items)
        everything = first or clock.monotonic_ns - self._shipped_ns >= self._repeat_ns
        items = set(now) if everything else {d.item for d in changed if d.now is not None}
        gone = {d.item for d in changed if d.now is None}
        absent = self._settings.profile.keys() - now.keys() if everything else set[str]()
        self._items = now
        if everything:
            self._shipped_ns = clock.monotonic_ns
        poll = Poll(positions={d.item: name_of(d.now) for d in changed})
        if first:
            poll.positions |= {item: name_of(value) for item, value in now.items()}
        if items or gone or absent:
            poll.columns.append(self._rows(sorted(items | gone | absent), now, clock.realtime_ns))
        if changed:
            told = condensed(changed, before, now.keys())
            poll.columns.append(change_columns(self._changes(told, clock.realtime_ns)))
        if self._settings.profile:
            poll.columns.append(self._gauges(now, clock.realtime_ns))
        return poll

    def close(self) -> None:
        """Release the socket."""
        if self._ethtool is not None:
            self._ethtool.close()
            self._ethtool = None

    def _gather(self) -> dict[str, str]:
        self._refused = set()
        found: dict[str, str] = {}
        for item, value in file_items(self._root, self._refused.add):
            found[item[:200]] = fitted(value)
        if self._ethtool is not None:
            names = [name for name in interfaces().values() if name != "lo"]
            for item, value in card_items(names, self._ethtool, self._root):
                found[item[:200]] = fitted(value)
        kept = {i: v for i, v in found.items() if not any(fnmatchcase(i, p) for p in self._settings.ignore)}
        self._left_out = max(0, len(kept) - self._settings.max_items)
        return dict(sorted(kept.items())[: self._settings.max_items])

    def _rows(self, items: list[str], now: Mapping[str, str], ts_ns: int) -> Columns:
        profile = self._settings.profile
        return Columns.from_rows(
            HOSTS,
            (
                {
                    "ts_ns": ts_ns,
                    "host": self._host,
                    "item": item,
                    "state": "gone" if item not in now else "drift" if self._drifts(item, now[item]) else "",
                    "value": now.get(item, ""),
                    "expected": profile.get(item, ""),
                }
                for item in items
            ),
        )

    def _drifts(self, item: str, value: str) -> bool:
        want = self._settings.profile.get(item)
        return want is not None and not fnmatchcase(value, want)

    def _changes(self, changed: list[Difference], ts_ns: int) -> list[Change]:
        return [
            Change(ts_ns, "config", d.sentence, WHO, self._host, labels={"item": d.item, "collector": self.name})
            for d in changed
        ]

    def _gauges(self, now: Mapping[str, str], ts_ns: int) -> Columns:
        off = drift(now, self._settings.profile)
        values = {"host_profile_items": len(self._settings.profile), "host_profile_drift": len(off)}
        return Columns.from_rows(
            GAUGES, ({"ts_ns": ts_ns, "name": n, "host": self._host, "value": float(v)} for n, v in values.items())
        )
