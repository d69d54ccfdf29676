"""The part of the inventory that the kernel keeps in files: item names to values. `root` is / but for tests."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

_SYSCTLS = (
    "kernel/nmi_watchdog", "kernel/numa_balancing", "kernel/perf_event_paranoid", "kernel/randomize_va_space",
    "kernel/sched_rt_runtime_us", "kernel/sched_autogroup_enabled", "kernel/timer_migration",
    "kernel/unprivileged_bpf_disabled", "kernel/watchdog",
    "net/core/busy_poll", "net/core/busy_read", "net/core/default_qdisc", "net/core/netdev_budget",
    "net/core/netdev_budget_usecs", "net/core/netdev_max_backlog", "net/core/optmem_max", "net/core/rmem_default",
    "net/core/rmem_max", "net/core/rps_sock_flow_entries", "net/core/somaxconn", "net/core/wmem_default",
    "net/core/wmem_max",
    "net/ipv4/tcp_autocorking", "net/ipv4/tcp_congestion_control", "net/ipv4/tcp_ecn", "net/ipv4/tcp_fastopen",
    "net/ipv4/tcp_mem", "net/ipv4/tcp_notsent_lowat", "net/ipv4/tcp_rmem", "net/ipv4/tcp_sack",
    "net/ipv4/tcp_slow_start_after_idle", "net/ipv4/tcp_timestamps", "net/ipv4/tcp_wmem", "net/ipv4/udp_mem",
    "vm/dirty_background_ratio", "vm/dirty_ratio", "vm/nr_hugepages", "vm/stat_interval", "vm/swappiness",
    "vm/zone_reclaim_mode",
)  # fmt: skip
_FILES = {
    "kernel.release": "proc/sys/kernel/osrelease",
    "kernel.build": "proc/sys/kernel/version",
    "kernel.cmdline": "proc/cmdline",
    "kernel.clocksource": "sys/devices/system/clocksource/clocksource0/current_clocksource",
    "kernel.preempt": "sys/kernel/debug/sched/preempt",
    "kernel.transparent_hugepage": "sys/kernel/mm/transparent_hugepage/enabled",
    "cpu.online": "sys/devices/system/cpu/online",
    "cpu.isolated": "sys/devices/system/cpu/isolated",
    "cpu.nohz_full": "sys/devices/system/cpu/nohz_full",
    "cpu.smt": "sys/devices/system/cpu/smt/control",
    "cpu.no_turbo": "sys/devices/system/cpu/intel_pstate/no_turbo",
    "cpu.boost": "sys/devices/system/cpu/cpufreq/boost",
    "cpu.idle_driver": "sys/devices/system/cpu/cpuidle/current_driver",
    "cpu.idle_governor": "sys/devices/system/cpu/cpuidle/current_governor",
    "numa.nodes": "sys/devices/system/node/online",
    "firmware.vendor": "sys/class/dmi/id/bios_vendor",
    "firmware.version": "sys/class/dmi/id/bios_version",
    "firmware.date": "sys/class/dmi/id/bios_date",
    "machine.product": "sys/class/dmi/id/product_name",
}
_MOST_IRQS = 1_024
Refused = Callable[[str], None]


def file_items(root: Path, refused: Refused) -> Iterator[tuple[str, str]]:
    """All items that single files hold, then the gathered ones. `refused` is told of items we may not read."""
    read = _Reader(refused)
    for item, name in _FILES.items():
        value = read(item, root / name)
        if value is not None:
            yield item, _chosen(value)
    for name in _SYSCTLS:
        value = read(f"sysctl.{name.replace('/', '.')}", root / "proc/sys" / name)
        if value is not None:
            yield f"sysctl.{name.replace('/', '.')}", " ".join(value.split())
    yield from _cpus(root, read)
    for path in sorted((root / "sys/devices/system/cpu/vulnerabilities").glob("*")):
        value = read(f"mitigation.{path.name}", path)
        if value is not None:
            yield f"mitigation.{path.name}", value
    for node in sorted((root / "sys/devices/system/node").glob("node[0-9]*")):
        value = read(f"numa.{node.name}.cpus", node / "cpulist")
        if value is not None:
            yield f"numa.{node.name}.cpus", value
    yield from _interrupts(root, read)
    yield from _cgroup(root, read)
    swaps = read("memory.swap", root / "proc/swaps")
    if swaps is not None:
        yield "memory.swap", " ".join(line.split()[0] for line in swaps.splitlines()[1:]) or "none"


class _Reader:
    def __init__(self, refused: Refused) -> None:
        self._refused = refused

    def __call__(self, item: str, path: Path) -> str | None:
        try:
            return path.read_text("utf-8", "replace").strip()
        except PermissionError:
            self._refused(item)
        except (OSError, ValueError):
            pass  # this kernel or machine has no such thing
        return None


def _chosen(value: str) -> str:
    """The chosen one where a file marks it among all: "always [madvise] never"."""
    match = re.search(r"\[([^\]]+)\]", value) if re.fullmatch(r"[\w\s\[\]-]+", value) else None
    return match[1] if match else value


def _cpus(root: Path, read: _Reader) -> Iterator[tuple[str, str]]:
    info = read("cpu.model", root / "proc/cpuinfo") or ""
    for item, field in (("cpu.model", "model name"), ("cpu.microcode", "microcode")):
        found = sorted(set(re.findall(rf"^{field}\s*: (.*)$", info, re.MULTILINE)))
        if found:
            yield item, ", ".join(found)
    folder = root / "sys/devices/system/cpu"
    for item, name in (
        ("cpu.governor", "cpufreq/scaling_governor"), ("cpu.min_khz", "cpufreq/scaling_min_freq"),
        ("cpu.max_khz", "cpufreq/scaling_max_freq"), ("cpu.energy_preference", "cpufreq/energy_performance_preference"),
        ("cpu.resume_latency_us", "power/pm_qos_resume_latency_us"),
    ):  # fmt: skip
        by_value: dict[str, list[int]] = {}
        for path in folder.glob(f"cpu[0-9]*/{name}"):
            found_value = read(item, path)
            if found_value is not None:
                by_value.setdefault(found_value, []).append(int(path.relative_to(folder).parts[0][3:]))
        if by_value:
            yield item, grouped(by_value)
    states: dict[str, list[int]] = {}
    for state in folder.glob("cpu[0-9]*/cpuidle/state[0-9]*"):
        called, off = read("cpu.idle_states", state / "name"), read("cpu.idle_states", state / "disable")
        if called is not None:
            text = f"{called}: {'disabled' if off == '1' else 'enabled'}"
            states.setdefault(text, []).append(int(state.parts[-3][3:]))
    if states:
        per_state = (f"{text} (cpu {cpu_list(cpus)})" for text, cpus in sorted(states.items()))
        yield "cpu.idle_states", "; ".join(per_state)


def grouped(by_value: dict[str, list[int]]) -> str:
    """One text for a value per CPU: the value alone where all CPUs have it, else each with its CPUs."""
    if len(by_value) == 1:
        return next(iter(by_value))
    return "; ".join(f"{value} (cpu {cpu_list(cpus)})" for value, cpus in sorted(by_value.items()))


def cpu_list(cpus: list[int]) -> str:
    """Numbers as the kernel writes them: 0-3,8."""
    parts: list[list[int]] = []
    for cpu in sorted(set(cpus)):
        if parts and parts[-1][1] == cpu - 1:
            parts[-1][1] = cpu
        else:
            parts.append([cpu, cpu])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def _interrupts(root: Path, read: _Reader) -> Iterator[tuple[str, str]]:
    """Where each interrupt with a handler may go: its configured affinity, not where it happens to be."""
    folders = sorted((root / "proc/irq").glob("[0-9]*"), key=lambda path: int(path.name))
    for folder in folders[:_MOST_IRQS]:
        actions = read("irq", root / "sys/kernel/irq" / folder.name / "actions")
        if actions:
            value = read("irq.affinity", folder / "smp_affinity_list")
            if value is not None:
                yield f"irq.{folder.name}.{actions.split(',')[0]}", value
    default = read("irq.default_affinity", root / "proc/irq/default_smp_affinity")
    if default is not None:
        yield "irq.default_affinity", default


def _cgroup(root: Path, read: _Reader) -> Iterator[tuple[str, str]]:
    """Limits of the agent's own control group and of those above it: version 2, and 1 where it has the controller."""
    text = read("cgroup", root / "proc/self/cgroup") or ""
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        names: tuple[str, ...] = ()
        if not controllers:
            bases = [root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified"]
            names = ("cpu.max", "cpu.weight", "cpuset.cpus.effective", "memory.max", "memory.high")
        else:
            bases = [root / "sys/fs/cgroup" / c for c in (controllers, *controllers.split(","))]
            limits = {
                "cpu": ("cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.shares"),
                "cpuset": ("cpuset.cpus",),
                "memory": ("memory.limit_in_bytes",),
            }
            names = tuple(name for c in controllers.split(",") for name in limits.get(c, ()))
        for name in names:
            for base in bases:
                value = read(f"cgroup.{name}", base / path.lstrip("/") / name)
                if value is not None:
                    yield f"cgroup.{name}", value
                    break
