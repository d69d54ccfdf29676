"""CPU bandwidth limits: how often and how long the control groups of observed programs were throttled.

Question: did a limit take the CPU away? Between two readings of `cpu.stat` of each group that a program belongs to: the
kernel's own count of periods in which the group used up its share, and the time its threads stood still for it, summed
over CPUs. Groups without a limit count no periods and are absent. Versions 1 and 2 of control groups. Cost: 3 us per
program and group, and 4 us per reading.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_MOST_GROUPS = 256


@dataclass(frozen=True, slots=True)
class Throttling:
    """What a group's `cpu.stat` says since it was made: periods, periods throttled, and time, ns."""

    periods: int
    throttled: int
    throttled_ns: int


def mounts(mountinfo: str) -> dict[int, tuple[str, str]]:
    """Where control groups with the CPU controller are mounted: version -> (mount point, root of what is mounted).

    `mountinfo` as in proc(5).
    """
    found: dict[int, tuple[str, str]] = {}
    for line in mountinfo.splitlines():
        words, _, rest = line.partition(" - ")
        fields, kind = words.split(), rest.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        if kind[0] == "cgroup2":
            found.setdefault(2, (fields[4], fields[3]))
        elif kind[0] == "cgroup" and "cpu" in kind[2].split(","):
            found.setdefault(1, (fields[4], fields[3]))
    return found


def groups_of(cgroup: str, mounted: dict[int, tuple[str, str]]) -> list[Path]:
    """The folders of the groups that a process with this /proc/PID/cgroup belongs to, and of those above them."""
    folders: list[Path] = []
    for line in cgroup.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        version = 2 if number == "0" and not controllers else 1 if "cpu" in controllers.split(",") else 0
        if version not in mounted:
            continue
        mount, root = mounted[version]
        inside = path.removeprefix(root.rstrip("/")).strip("/") if path.startswith(root) else path.strip("/")
        folder = Path(mount)
        for part in inside.split("/"):
            if part in ("", ".", ".."):
                continue
            folder /= part
            folders.append(folder)
    return folders


def parse(text: str) -> Throttling | None:
    """`cpu.stat` of either version; None without a CPU controller. No periods: no limit was in force yet."""
    numbers: dict[str, int] = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if value.strip().isdigit():
            numbers[name] = int(value)
    if "nr_periods" not in numbers:
        return None
    ns = numbers.get("throttled_time", 1000 * numbers.get("throttled_usec", 0))  # version 1 counts nanoseconds
    return Throttling(numbers["nr_periods"], numbers.get("nr_throttled", 0), ns)


@dataclass(frozen=True, slots=True)
class Limits:
    """What bears on some processes now: groups by their folder, and each process' innermost one with a limit."""

    groups: dict[str, Throttling]
    innermost: dict[int, str]


def read(processes: Iterable[int], proc: Path = Path("/proc")) -> Limits:
    """The limits that bear on these processes (or threads) now; at most 256 groups are looked at."""
    try:
        mounted = mounts((proc / "self" / "mountinfo").read_text())
    except OSError:
        return Limits({}, {})
    groups: dict[str, Throttling] = {}
    innermost: dict[int, str] = {}
    looked: dict[str, list[Path]] = {}
    seen: set[Path] = set()
    for pid in processes:
        try:
            text = (proc / str(pid) / "cgroup").read_text()
        except OSError:
            continue  # it has ended
        if text not in looked:
            looked[text] = groups_of(text, mounted)
        for folder in looked[text]:
            if folder not in seen and len(seen) < _MOST_GROUPS:
                seen.add(folder)
                throttling = _stat(folder)
                if throttling is not None:
                    groups[str(folder)] = throttling
            if str(folder) in groups and groups[str(folder)].periods:
                innermost[pid] = str(folder)
    return Limits(groups, innermost)


def _stat(folder: Path) -> Throttling | None:
    try:
        return parse((folder / "cpu.stat").read_text())
    except OSError:
        return None
