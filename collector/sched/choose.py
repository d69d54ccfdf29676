"""Picks the best mechanism that the kernel and the permissions allow, and says what would allow a better one."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

from collector.sched.bpf_syscall import BpfError, VerifierError
from collector.sched.kernel_pairs import KernelPairs
from collector.sched.mechanism import Mechanism
from collector.sched.perf_pairs import PerfPairs
from collector.sched.settings import SchedulerSettings
from collector.sched.switch_pairs import SwitchPairs
from collector.sched.tracefs import TracefsError, TracefsPermissionError
from collector.settings import duration_ns

_PERMISSION = (errno.EPERM, errno.EACCES)


@dataclass(frozen=True, slots=True)
class Choice:
    """The mechanism that works (None: only PSI is left), and why each better one does not."""

    mechanism: Mechanism | None
    reasons: tuple[str, ...]


def choose(settings: SchedulerSettings) -> Choice:
    """Try eBPF, perf rings and switch records in this order, or only the one that the settings name."""
    threshold = duration_ns(settings.threshold, "threshold")
    everyone = settings.observe == "all"
    candidates: dict[str, Callable[[], Mechanism]] = {
        "ebpf": lambda: KernelPairs(
            groups=settings.groups,
            threshold_ns=threshold,
            irq_threshold_ns=duration_ns(settings.irq_threshold, "irq_threshold"),
            record_all=everyone,
            ring_bytes=settings.ring_mib << 20,
            interrupts=settings.interrupts,
            wakers=settings.wakers,
            threads=settings.threads,
        ),
        "perf": lambda: PerfPairs(groups=settings.groups, threshold_ns=threshold, record_all=everyone),
        "switch": lambda: SwitchPairs(groups=settings.groups, threshold_ns=threshold),
    }
    reasons = []
    for name, attempt in candidates.items():
        if settings.mechanism not in ("auto", name):
            continue
        if name == "switch" and everyone:
            reasons.append("switch records: cannot observe all threads, only named ones")
            continue
        try:
            return Choice(attempt(), tuple(reasons))
        except (TracefsError, OSError) as error:
            reasons.append(f"{name}: {explain(name, error)}")
    return Choice(None, tuple(reasons))


def explain(mechanism: str, error: Exception) -> str:
    """The error with the one command that would lift it, where there is one."""
    text = error.strerror or str(error) if isinstance(error, OSError) else str(error)
    refused = isinstance(error, BpfError) and error.errno in _PERMISSION and not isinstance(error, VerifierError)
    if not refused and not isinstance(error, TracefsPermissionError):
        return text
    capabilities = {
        "ebpf": "cap_bpf,cap_perfmon",
        "perf": "cap_perfmon,cap_ipc_lock,cap_dac_read_search",
    }.get(mechanism)
    if capabilities is None:
        return f"{text}; run `sysctl kernel.perf_event_paranoid=2`"
    return f"{text}; run `setcap {capabilities}+ep {os.path.realpath(sys.executable)}`"
