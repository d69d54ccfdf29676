"""How long threads were ready to run and had no CPU: the kernel's own run-queue accounting, without privilege.

The delay lies between the moment a thread becomes runnable and the moment it is given a CPU, summed by the kernel over
all waits. It equals the sum over scheduler tracepoints within 1.2 %. What it cannot say is how long a single wait was:
an interval row states the sum of one poll.

Cost: 4-6 us per watched thread and poll, 15 us for the host's totals.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from collector.clock import ClockReading
from collector.keys import hash64
from collector.record import GAUGES, INTERVALS, LABEL_SETS, Columns
from collector.sources import Availability, Poll
from collector.sources.procfs import Sched, parse_pressure, parse_schedstat, parse_steal
from collector.sources.ring_processes import stamping

_RESOURCES = ("cpu", "io", "memory")


class SchedstatSource:
    """Run-queue delay of the programs that use the probe and of a configured list, and the host's totals.

    Gauges, per second of wall time since the last poll, summed over the threads of one name in one process:
    `sched.run_delay_ns`, `sched.run_ns`, `sched.slices` (labels `pid`, `thread`). For the host: `cpu.steal_ns` and
    `pressure.{cpu,io,memory}.{some,full}_ns`. Interval `run_queue_sum`: a thread waited more than `threshold_ns` in one
    poll; it starts with the poll and lasts as long as the thread waited.

    Args:
        host: this host's name in the columns.
        ring_dir: directories whose rings name the programs to watch.
        pids: more processes to watch.
        services: what to call a process, by number (`ProbeSource.pids`); its command name otherwise.
        period_s: how often to poll.
        threshold_ns: from which delay per poll on an interval is made.
        proc: the root of procfs.
    """

    name = "schedstat"

    def __init__(
        self,
        host: str,
        *,
        ring_dir: Path | Collection[Path] = (),
        pids: Collection[int] = (),
        services: Callable[[], Mapping[int, str]] = dict,
        period_s: float = 1.0,
        threshold_ns: int = 1_000_000,
        proc: Path = Path("/proc"),
    ) -> None:
        self.period_s = period_s
        self._host = host
        self._ring_dirs = [ring_dir] if isinstance(ring_dir, Path) else list(ring_dir)
        self._pids = set(pids)
        self._services = services
        self._threshold_ns = threshold_ns
        self._proc = proc
        self._threads: dict[tuple[int, int], Sched] = {}
        self._names: dict[tuple[int, int], str] = {}
        self._totals: dict[str, int] = {}
        self._polled_ns: int | None = None
        self._shipped: set[int] = set()

    def start(self, positions: Mapping[str, int]) -> Availability:  # noqa: ARG002 # totals have no position
        """Whether this kernel counts run-queue delay, and whether all watched processes can be read."""
        own = self._proc / "self" / "schedstat"
        try:
            parse_schedstat(own.read_text())
        except (OSError, ValueError) as error:
            return Availability(
                "unavailable", f"{own}: {error}; needs a kernel with CONFIG_SCHED_INFO and procfs mounted"
            )
        missing = sorted(pid for pid in self._pids if not (self._proc / str(pid)).exists())
        if missing:
            return Availability("degraded", f"no process {', '.join(map(str, missing))}; correct the configured pids")
        if not (self._proc / "pressure" / "cpu").exists():
            return Availability("degraded", "no pressure stall information; boot with psi=1 to have it")
        return Availability("running")

    def poll(self, clock: ClockReading) -> Poll:
        """Rates since the last poll; the first one only takes the baseline."""
        since, self._polled_ns = self._polled_ns, clock.monotonic_ns
        seconds = 0.0 if since is None else (clock.monotonic_ns - since) / 1e9
        changes = list(self._changes())
        host = list(self._host_changes())
        if since is None or seconds <= 0:
            return Poll()
        labels: dict[int, str] = {}
        gauges = self._gauges(changes, clock.realtime_ns, seconds, labels)
        gauges += [
            {"ts_ns": clock.realtime_ns, "name": name, "host": self._host, "value": change / seconds}
            for name, change in host
        ]
        intervals = self._intervals(changes, since + clock.offset_ns, labels)
        new = {name: text for name, text in labels.items() if name not in self._shipped}
        self._shipped.update(new)
        rows: tuple[tuple[Any, list[dict[str, Any]]], ...] = (
            (LABEL_SETS, [{"label_set": name, "labels": text} for name, text in new.items()]),
            (GAUGES, gauges),
            (INTERVALS, intervals),
        )
        return Poll([Columns.from_rows(table, made) for table, made in rows if made])

    def close(self) -> None:
        """Forget the baselines."""
        self._threads.clear()
        self._totals.clear()
        self._polled_ns = None

    def watched(self) -> set[int]:
        """The processes to look at: the configured ones and those with rings."""
        return set(self._pids).union(*map(stamping, self._ring_dirs))

    def _changes(self) -> Iterator[tuple[int, int, str, Sched]]:
        """(pid, tid, thread name, what was added) of every thread seen in this poll and the one before."""
        now: dict[tuple[int, int], Sched] = {}
        names: dict[tuple[int, int], str] = {}
        for pid in self.watched():
            tasks = self._proc / str(pid) / "task"
            try:
                tids = [entry.name for entry in os.scandir(tasks)]
            except OSError:
                continue  # ended
            for tid in tids:
                key = (pid, int(tid))
                try:
                    with open(f"{tasks}/{tid}/schedstat", encoding="ascii") as file:  # noqa: PTH123 # 3x cheaper
                        now[key] = parse_schedstat(file.read())
                    names[key] = self._names.get(key) or (tasks / tid / "comm").read_text("utf-8", "replace").strip()
                except (OSError, ValueError):
                    continue  # the thread ended meanwhile
        before, self._threads, self._names = self._threads, now, names
        for key, sched in now.items():
            change = sched.since(before[key]) if key in before else None
            if change is not None and key in names:
                yield *key, names[key], change

    def _host_changes(self) -> Iterator[tuple[str, int]]:
        totals: dict[str, int] = {}
        steal = parse_steal(self._text("stat"))
        if steal is not None:
            totals["cpu.steal_ns"] = steal * (1_000_000_000 // os.sysconf("SC_CLK_TCK"))
        for resource in _RESOURCES:
            for kind, total in parse_pressure(self._text(f"pressure/{resource}")).items():
                totals[f"pressure.{resource}.{kind}_ns"] = total
        before, self._totals = self._totals, totals
        for name, total in totals.items():
            if name in before and total >= before[name]:
                yield name, total - before[name]

    def _text(self, name: str) -> str:
        try:
            return (self._proc / name).read_text("ascii")
        except (OSError, ValueError):
            return ""

    def _gauges(
        self, changes: list[tuple[int, int, str, Sched]], ts_ns: int, seconds: float, labels: dict[int, str]
    ) -> list[dict[str, Any]]:
        sums: dict[tuple[int, str], list[int]] = {}
        for pid, _, thread, change in changes:
            total = sums.setdefault((pid, thread), [0, 0, 0])
            for i, value in enumerate((change.run_delay_ns, change.run_ns, change.slices)):
                total[i] += value
        return [
            {
                "ts_ns": ts_ns,
                "name": name,
                "host": self._host,
                "service": self._service(pid),
                "label_set": _label_set({"pid": str(pid), "thread": thread}, labels),
                "value": value / seconds,
            }
            for (pid, thread), values in sums.items()
            for name, value in zip(("sched.run_delay_ns", "sched.run_ns", "sched.slices"), values, strict=True)
        ]

    def _intervals(
        self, changes: list[tuple[int, int, str, Sched]], start_ns: int, labels: dict[int, str]
    ) -> list[dict[str, Any]]:
        return [
            {
                "ts_ns": start_ns,
                "duration_ns": change.run_delay_ns,
                "kind": "run_queue_sum",
                "host": self._host,
                "thread": tid,
                "label_set": _label_set({"pid": str(pid), "thread": thread}, labels),
            }
            for pid, tid, thread, change in changes
            if change.run_delay_ns > self._threshold_ns
        ]

    def _service(self, pid: int) -> str:
        return self._services().get(pid) or self._text(f"{pid}/comm").strip()


def _label_set(labels: dict[str, str], seen: dict[int, str]) -> int:
    text = json.dumps(labels, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    name = hash64("labels", text)
    seen[name] = text
    return name
