"""The source `scheduler`: run-queue delays, preemptions and interrupts of the observed threads, and counts for all.

Measures between "became runnable" and "was given a CPU" with the best mechanism that the permissions allow; see
docs/scheduler.md for what each sees and costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from collector.clock import ClockReading
from collector.record import GAUGES, Columns, DropReason
from collector.sched import cgroups, counts, gauges, psi
from collector.sched.choose import choose
from collector.sched.culprits import Intervals, LabelSets, irq_name
from collector.sched.mechanism import Mechanism, Totals
from collector.sched.observed import BusyThreads, Groups, threads_of, threads_of_cgroup
from collector.sched.settings import SchedulerSettings
from collector.sched.tracefs import TracefsError, tracepoint
from collector.settings import duration_ns
from collector.sources import Availability, Poll

# The processes to observe now, by pid, with the name of their service.
Processes = Callable[[], Mapping[int, str]]
_REFRESH_NS = 1_000_000_000
_BURST_NS = 2_000_000_000  # after a pause no more intervals at once than of this time
# include/linux/interrupt.h; tracefs says the same where it can be read.
_SOFTIRQS = ("HI", "TIMER", "NET_TX", "NET_RX", "BLOCK", "IRQ_POLL", "TASKLET", "SCHED", "HRTIMER", "RCU")


class SchedulerSource:
    """A `collector.sources.Source`. `processes` is asked once a second when `observe` is "probed"."""

    name = "scheduler"
    period_s = 0.25

    def __init__(self, host: str, processes: Processes, settings: SchedulerSettings | None = None) -> None:
        self._host = host
        self._processes = processes
        self._settings = settings or SchedulerSettings()
        self._report_ns = duration_ns(self._settings.report, "report")
        self._threshold_ns = duration_ns(self._settings.threshold, "threshold")
        self._groups = Groups(self._settings.groups)
        self._labels = LabelSets()
        self._busy = BusyThreads()
        self._threads: dict[int, int] = {}
        self._programs: tuple[int, ...] = ()
        self._refreshed_ns = self._reported_ns = 0
        self._mechanism: Mechanism | None = None
        self._totals: Totals | None = None
        self._pressure = psi.Pressure({}, None)
        self._limits = cgroups.Limits({}, {})
        self._limited: dict[int, str] = {}  # observed thread -> the group whose limit bears on it
        self.problem = ""  # what is wrong now and may come right
        self._lost = self._thinned = 0
        self._polled_ns = 0
        self._unobservable: Mapping[int, str] = {}

    def start(self, positions: Mapping[str, int]) -> Availability:  # noqa: ARG002  (a live source has no place to resume)
        """Attach. Degraded when anything but eBPF serves; the reason has the command that grants the better one."""
        choice = choose(self._settings)
        self._mechanism = choice.mechanism
        self._softirqs = _softirq_names()
        self._intervals = Intervals(self._host, self._labels, self._softirqs, irq_name)
        self._pressure = psi.read()
        if choice.mechanism is None:
            works = "only machine-wide pressure (PSI) and steal are measured" if self._pressure.stalled_ns else ""
            return Availability(
                "degraded" if works else "unavailable", "; ".join(filter(None, (works, *choice.reasons)))
            )
        self._totals = choice.mechanism.totals()
        if not choice.reasons and not choice.mechanism.blind:
            return Availability("running")
        doing = f"measuring by {choice.mechanism.name}, which does not see {choice.mechanism.blind}"
        return Availability("degraded", "; ".join((doing, *choice.reasons)))

    def poll(self, clock: ClockReading) -> Poll:
        """Intervals above the threshold, and every report period the gauges."""
        poll = Poll()
        now = clock.monotonic_ns
        if now - self._refreshed_ns >= _REFRESH_NS:
            self._refresh()
            self._refreshed_ns = now
        if self._mechanism is not None:
            records = self._longest(self._mechanism.drain(), now, poll)
            if len(records):
                poll.columns.append(
                    self._intervals.columns(records, clock.offset_ns, self._groups.names, self._threads, self._limited)
                )
        if now - self._reported_ns >= self._report_ns:
            self._report(poll, clock)
        new_labels = self._labels.take()
        if new_labels is not None:
            poll.columns.append(new_labels)
        return poll

    def _longest(self, records: NDArray[np.void], now_ns: int, poll: Poll) -> NDArray[np.void]:
        """The records if they are not too many, else the longest of them in order of time; the others are counted."""
        elapsed, self._polled_ns = min(now_ns - self._polled_ns, _BURST_NS), now_ns
        most = max(1, self._settings.intervals_per_second * elapsed // 1_000_000_000)
        surplus = len(records) - most
        if surplus <= 0:
            return records
        self._thinned += surplus
        poll.drops[DropReason.SOURCE_LOST] = poll.drops.get(DropReason.SOURCE_LOST, 0) + surplus
        kept: NDArray[np.void] = records[np.sort(np.argpartition(records["duration_ns"], surplus)[surplus:])]
        return kept

    def close(self) -> None:
        """Detach."""
        if self._mechanism is not None:
            self._mechanism.close()
            self._mechanism = None

    def _refresh(self) -> None:
        settings = self._settings
        processes: dict[int, list[int]] = {}  # with their threads
        self._threads = {}
        self.problem = ""
        if settings.observe == "probed":
            for pid, service in self._processes().items():
                processes[pid] = threads_of([pid])
                self._threads |= dict.fromkeys(processes[pid], self._groups.number(service))
        elif settings.observe == "pids":
            processes = {pid: threads_of([pid]) for pid in settings.pids}
            threads = [tid for tids in processes.values() for tid in tids]
            self._threads = dict.fromkeys(threads, self._groups.number("pids"))
            if not threads:
                self.problem = f"none of the processes {list(settings.pids)} is running; see [agent.scheduler] pids"
        elif settings.observe == "cgroup":
            try:
                processes = {tid: [tid] for tid in threads_of_cgroup(Path(settings.cgroup))}
            except OSError as error:
                self.problem = f"{settings.cgroup}: {error.strerror}; see [agent.scheduler] cgroup"
            self._threads = dict.fromkeys(processes, self._groups.number(settings.cgroup))
        self._programs = tuple(processes)
        limits = cgroups.read(self._programs).innermost
        self._limited = {tid: limits[pid] for pid, tids in processes.items() if pid in limits for tid in tids}
        if self._mechanism is not None:
            self._unobservable = self._mechanism.observe(self._threads)

    def _report(self, poll: Poll, clock: ClockReading) -> None:
        first = self._reported_ns == 0
        period_ns = clock.monotonic_ns - self._reported_ns
        self._reported_ns = clock.monotonic_ns
        busy = self._busy.update(self._threads, clock.monotonic_ns)
        rows = [
            *self._pressure_gauges(),
            *self._limit_gauges(),
            *self._mechanism_gauges(poll, None if first else (clock.realtime_ns, period_ns)),
        ]
        rows += [
            gauges.Gauge("scheduler_not_observable", 1, self._groups.names[self._threads[tid]], (("thread", str(tid)),))
            for tid in {*busy, *self._unobservable} & set(self._threads)
        ]
        if not first:  # the first period began before anything was observed
            poll.columns.append(self._gauge_columns(rows, clock.realtime_ns))

    def _mechanism_gauges(self, poll: Poll, ended_ns: tuple[int, int] | None) -> Iterable[gauges.Gauge]:
        if self._mechanism is None or self._totals is None:
            return []
        totals, before = self._mechanism.totals(), self._totals
        self._totals = totals
        sees = self._mechanism.sees
        if totals.lost > self._lost:
            lost = totals.lost - self._lost
            poll.drops[DropReason.SOURCE_LOST] = poll.drops.get(DropReason.SOURCE_LOST, 0) + lost
            self._lost = totals.lost
        shares = gauges.coverage(totals, before)
        period = gauges.difference(totals.groups, before.groups)
        rows = [
            *gauges.of_groups(period, self._groups.names, sees, min(shares.values(), default=None)),
            *gauges.of_quality(shares, totals.lost - before.lost + self._thinned),
            gauges.of_mechanism(self._mechanism.name, sees, self._threshold_ns),
        ]
        self._thinned = 0
        if ended_ns is not None:
            services = {tid: self._groups.names[group] for tid, group in self._threads.items()}
            found = counts.scopes(totals, before, self._groups.names, sees, services)
            made = counts.columns(self._host, found, sees, *ended_ns)
            if made is not None:
                poll.columns.append(made)
        if totals.header is not None and before.header is not None:
            rows += gauges.of_cpus(totals.header, before.header, self._softirqs)
        return rows

    def _pressure_gauges(self) -> Iterable[gauges.Gauge]:
        now, before = psi.read(), self._pressure
        self._pressure = now
        rows = [
            gauges.Gauge("scheduler_pressure_ns", total - before.stalled_ns[what], labels=(("resource", what),))
            for what, total in now.stalled_ns.items()
            if what in before.stalled_ns
        ]
        if now.steal_ns is not None and before.steal_ns is not None:
            rows.append(gauges.Gauge("scheduler_steal_ns", now.steal_ns - before.steal_ns))
        return rows

    def _limit_gauges(self) -> Iterable[gauges.Gauge]:
        """What CPU limits took from the groups that observed programs belong to."""
        now, before = cgroups.read(self._programs), self._limits
        self._limits = now
        for group, limit in now.groups.items():
            earlier = before.groups.get(group)
            if earlier is not None and limit.periods:
                where = (("cgroup", group),)
                yield gauges.Gauge("scheduler_throttled", limit.throttled - earlier.throttled, labels=where)
                yield gauges.Gauge("scheduler_throttled_ns", limit.throttled_ns - earlier.throttled_ns, labels=where)

    def _gauge_columns(self, rows: Iterable[gauges.Gauge], ts_ns: int) -> Columns:
        return Columns.from_rows(
            GAUGES,
            [
                {
                    "ts_ns": ts_ns,
                    "name": row.name,
                    "host": self._host,
                    "service": row.service,
                    "label_set": self._labels.intern(dict(row.labels)),
                    "value": row.value,
                }
                for row in rows
            ],
        )


def _softirq_names() -> dict[int, str]:
    try:
        return tracepoint("irq", "softirq_exit").symbols
    except TracefsError:
        return dict(enumerate(_SOFTIRQS))
