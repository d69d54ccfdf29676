"""The `[scheduler]` section: which threads are observed, from which delay on, and by which mechanism."""

from __future__ import annotations

from typing import Literal

from collector.settings import ConfigError, Section, duration_ns


class SchedulerSettings(Section, frozen=True, kw_only=True):
    """Settings of the scheduler collector.

    Attributes:
        mechanism: auto takes the best that the permissions allow.
        observe: whose delays become intervals: of processes that stamp (probed), of `pids`, of `cgroup`, or of all.
        pids: process ids for observe = "pids".
        cgroup: folder of a cgroup for observe = "cgroup".
        threshold: run-queue delays from here on become intervals; shorter ones are counted.
        irq_threshold: the same for interrupts that hit observed threads.
        interrupts: measure interrupts.
        wakers: name who ended a blocked time; some 20 ns per wakeup on the machine, without it all are `unknown`.
        groups: how many groups of threads (services) are counted apart, all others included.
        report: how often percentiles and counters are handed over.
        intervals_per_second: at most so many intervals are kept, the longest of each poll; the others count as lost.
        threads: how many observed threads have percentiles of their own; 30 kB of kernel memory each.
        ring_mib: memory of the kernel's ring, a power of two; 14,500 delays per MiB.
    """

    mechanism: Literal["auto", "ebpf", "perf", "switch", "psi"] = "auto"
    observe: Literal["probed", "pids", "cgroup", "all"] = "probed"
    pids: tuple[int, ...] = ()
    cgroup: str = ""
    threshold: str = "10us"
    irq_threshold: str = "10us"
    interrupts: bool = True
    wakers: bool = True
    groups: int = 8
    report: str = "10s"
    intervals_per_second: int = 20_000
    threads: int = 128
    ring_mib: int = 8

    def validate(self) -> None:
        """Raise ConfigError naming the field that does not fit."""
        for name in ("threshold", "irq_threshold", "report"):
            duration_ns(getattr(self, name), name)
        if duration_ns(self.report, "report") == 0:
            raise ConfigError("report", "must be longer than 0")
        if self.ring_mib < 1 or self.ring_mib & (self.ring_mib - 1):
            raise ConfigError("ring_mib", f"{self.ring_mib} must be a power of two")
        if self.intervals_per_second < 1:
            raise ConfigError("intervals_per_second", f"{self.intervals_per_second} must be at least 1")
        if not 1 <= self.threads <= 4096:
            raise ConfigError("threads", f"{self.threads} must be between 1 and 4096")
        if not 2 <= self.groups <= 256:
            raise ConfigError("groups", f"{self.groups} must be between 2 and 256: one is that of all others")
        if (self.observe == "pids") != bool(self.pids):
            raise ConfigError("pids", 'go with observe = "pids", and only with it')
        if (self.observe == "cgroup") != bool(self.cgroup):
            raise ConfigError("cgroup", 'goes with observe = "cgroup", and only with it')
