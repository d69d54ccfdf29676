"""What this machine lets us do: each check names what is missing and the one command that would grant it."""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from collector.clock import ClockReading

_LOW_DISK = 2 << 30
_LOW_SHM = 64 << 20
_DOUBTFUL_CLOCK_NS = 10_000_000


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: `status` is ok, warning or missing; `fix` is a command, empty when none is needed."""

    name: str
    status: str
    detail: str
    fix: str = ""


def checks(data: Path, ring_dir: Path, clock: ClockReading, proc: Path = Path("/proc")) -> list[Check]:
    """All checks that need no store."""
    return [
        _disk(data),
        _rings(ring_dir),
        _schedstat(proc),
        _clock(clock),
        _chrony(clock),
    ]


def clock_fields(clock: ClockReading) -> dict[str, object]:
    """The clock as `doctor --json` shows it: `error_ns` null means that nothing states a bound."""
    return {
        "source": clock.source,
        "error_ns": clock.error_ns,
        "bracket_ns": clock.bracket_ns,
        "synchronised": clock.error_ns is not None,
        "realtime_ns": clock.realtime_ns,
    }


def _disk(data: Path) -> Check:
    place = next(each for each in (data.absolute(), *data.absolute().parents) if each.exists())
    usage = shutil.disk_usage(place)
    detail = f"{usage.free / 2**30:.1f} GiB free of {usage.total / 2**30:.1f} GiB at {place}"
    if not os.access(place, os.W_OK):
        return Check("disk", "missing", f"{place} is not writable by this user", f"sudo chown $USER {place}")
    if usage.free < _LOW_DISK:
        return Check("disk", "warning", detail, "lower [retention] in tailsight.toml, or use --data on another disk")
    return Check("disk", "ok", detail)


def _rings(ring_dir: Path) -> Check:
    place = next(each for each in (ring_dir, *ring_dir.parents) if each.exists())
    if not os.access(place, os.W_OK | os.X_OK):
        return Check(
            "probe rings",
            "missing",
            f"{place} is not writable by this user",
            f"sudo install -d -m 0700 -o $USER {ring_dir}",
        )
    free = shutil.disk_usage(place).free
    detail = f"{ring_dir}, {free / 2**20:.0f} MiB free"
    if free < _LOW_SHM:
        return Check("probe rings", "warning", detail, "sudo mount -o remount,size=1G /dev/shm")
    return Check("probe rings", "ok", detail)


def _schedstat(proc: Path) -> Check:
    try:
        fields = (proc / "self" / "schedstat").read_text().split()
    except OSError as error:
        return Check(
            "schedstat", "missing", f"/proc/PID/schedstat: {error.strerror}", "use a kernel with CONFIG_SCHED_INFO=y"
        )
    if len(fields) != 3:
        return Check(
            "schedstat", "missing", f"/proc/PID/schedstat has {len(fields)} fields, want 3", "use Linux 2.6.23 or later"
        )
    if os.geteuid() != 0 and _hides_processes(proc):
        return Check(
            "schedstat", "warning", "/proc hides other users' processes", "sudo mount -o remount,hidepid=0 /proc"
        )
    return Check("schedstat", "ok", "run-queue delay of every thread is readable")


def _hides_processes(proc: Path) -> bool:
    try:
        mounts = (proc / "self" / "mounts").read_text().splitlines()
    except OSError:
        return False
    return any(line.split()[1] == "/proc" and "hidepid=" in line and "hidepid=0" not in line for line in mounts)


def _clock(clock: ClockReading) -> Check:
    if clock.error_ns is None:
        return Check(
            "clock",
            "warning",
            f"nothing states how far the clock is from UTC (asked: {clock.source or 'nobody'})",
            "sudo apt-get install chrony",
        )
    detail = f"within {clock.error_ns / 1e6:.3f} ms of UTC, says {clock.source}"
    if clock.error_ns > _DOUBTFUL_CLOCK_NS:
        return Check("clock", "warning", detail, "chronyc sources -v")
    return Check("clock", "ok", detail)


def _chrony(clock: ClockReading) -> Check:
    if clock.source == "chrony":
        return Check("chrony", "ok", "chronyd answers, its bound is used")
    if Path("/run/chrony/chronyd.sock").exists():
        if importlib.util.find_spec("pychrony") is None:
            what = "chronyd runs, but its bound cannot be read without pychrony"
            return Check("chrony", "missing", what, "pip install 'tailsight[clock]'")
        return Check("chrony", "ok", f"chronyd runs; {clock.source} states the bound that is used")
    if shutil.which("chronyd") is None:
        return Check(
            "chrony",
            "missing",
            "chronyd is not installed (optional: a tighter clock bound)",
            "sudo apt-get install chrony",
        )
    return Check(
        "chrony", "missing", "chronyd does not run (optional: a tighter clock bound)", "sudo systemctl start chrony"
    )
