"""Counters of a report period as `gauges`: delay percentiles, counts, blocked time, interrupts, coverage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from collector.sched.delay_buckets import quantile
from collector.sched.layout import GROUP, SOFTIRQS
from collector.sched.mechanism import Totals
from collector.sched.perf_ring import MIN_COVERAGE

DELAY_KINDS = ("run_queue", "preempted")
# In the order of layout.State from BLOCKED_INTERRUPTIBLE on.
BLOCKED_KINDS = ("sleep", "blocked_kernel", "blocked_io", "blocked_lock", "page_fault", "other")
STOLEN_KINDS = ("irq", "softirq")
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}


@dataclass(frozen=True, slots=True)
class Gauge:
    """One value; `service` is the thread group, "" for the whole machine."""

    name: str
    value: float
    service: str = ""
    labels: tuple[tuple[str, str], ...] = ()


def difference(now: NDArray[np.void], before: NDArray[np.void]) -> NDArray[np.void]:
    """What was counted between two readings of the groups; `max_ns` is already that of the period."""
    out: NDArray[np.void] = now.copy()
    for name in GROUP.names or ():
        if name != "max_ns":
            out[name] = now[name] - before[name]  # unsigned, so a counter that wrapped still differs rightly
    return out


def of_groups(
    period: NDArray[np.void], names: Sequence[str], sees: frozenset[str], covered: float | None
) -> Iterable[Gauge]:
    """Gauges of the machine and of each observed group; percentiles only from MIN_COVERAGE and enough samples on."""
    if "machine" in sees:
        machine = np.zeros(1, dtype=GROUP)
        for name in GROUP.names or ():
            machine[name][0] = period[name].max(axis=0) if name == "max_ns" else period[name].sum(axis=0)
        yield from _of_group(machine[0], "", sees, covered)
    for number, name in enumerate(names[1:], start=1):
        yield from _of_group(period[number], name, sees, covered)


def _of_group(group: np.void, service: str, sees: frozenset[str], covered: float | None) -> Iterable[Gauge]:
    for kind, text in enumerate(DELAY_KINDS):
        if text in sees:
            yield from _delays(group, service, kind, covered)
    if "migrations" in sees:
        yield Gauge("scheduler_migrations", int(group["migrations"]), service)
    for field, kinds in (("blocked", BLOCKED_KINDS), ("stolen", STOLEN_KINDS)):
        for kind, text in enumerate(kinds if field in sees else ()):
            if group[field][kind]:
                labels = (("kind", text),)
                yield Gauge(f"scheduler_{field}", int(group[field][kind]), service, labels)
                yield Gauge(f"scheduler_{field}_ns", int(group[f"{field}_ns"][kind]), service, labels)


def _delays(group: np.void, service: str, kind: int, covered: float | None) -> Iterable[Gauge]:
    labels = (("kind", DELAY_KINDS[kind]),)
    count, longest = int(group["delays"][kind]), int(group["max_ns"][0][kind])
    yield Gauge("scheduler_delays", count, service, labels)
    if not count:
        return
    yield Gauge("scheduler_delay_sum_ns", int(group["delay_ns"][kind]), service, labels)
    yield Gauge("scheduler_delay_max_ns", longest, service, labels)
    if covered is not None and covered < MIN_COVERAGE:
        return
    for name, p in QUANTILES.items():
        value = quantile(group["histogram"][kind], p, longest).value_ns
        if value is not None:
            yield Gauge(f"scheduler_delay_{name}_ns", value, service, labels)


def of_cpus(now: NDArray[np.void], before: NDArray[np.void], softirqs: dict[int, str]) -> Iterable[Gauge]:
    """Interrupts per CPU in the period: counts and time, soft ones by vector."""
    for cpu, (new, old) in enumerate(zip(now, before, strict=True)):
        here = (("cpu", str(cpu)),)
        if new["irqs"] != old["irqs"]:
            yield Gauge("scheduler_irqs", int(new["irqs"] - old["irqs"]), labels=here)
            yield Gauge("scheduler_irq_ns", int(new["irq_ns"] - old["irq_ns"]), labels=here)
        for vector in range(SOFTIRQS):
            if new["softirqs"][vector] != old["softirqs"][vector]:
                which = (*here, ("softirq", softirqs.get(vector, str(vector))))
                yield Gauge("scheduler_softirqs", int(new["softirqs"][vector] - old["softirqs"][vector]), labels=which)
                taken = int(new["softirq_ns"][vector] - old["softirq_ns"][vector])
                yield Gauge("scheduler_softirq_ns", taken, labels=which)


def coverage(now: Totals, before: Totals) -> dict[str, float]:
    """The share of each event that was measured between two readings; 1.0 when none happened."""
    shares = {}
    for event, (measured, happened) in now.events.items():
        earlier = before.events.get(event, (0, 0))
        n = happened - earlier[1]
        shares[event] = min(1.0, (measured - earlier[0]) / n) if n > 0 else 1.0
    return shares


def of_mechanism(name: str, sees: frozenset[str], threshold_ns: int) -> Gauge:
    """Who measured, what it can know, and from which delay on there are intervals."""
    return Gauge("scheduler_threshold_ns", threshold_ns, labels=(("mechanism", name), ("sees", ",".join(sorted(sees)))))


def of_quality(shares: Mapping[str, float], lost: int) -> Iterable[Gauge]:
    """How much of the period was seen."""
    for event, share in shares.items():
        yield Gauge("scheduler_coverage", share, labels=(("event", event),))
    yield Gauge("scheduler_records_lost", lost)
