"""Which threads are observed: those of given processes, or of a cgroup; and which of them never leave their CPU."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

BUSY_SHARE = 0.9


def threads_of(processes: Iterable[int], proc: Path = Path("/proc")) -> list[int]:
    """The threads of the processes that still exist."""
    found: list[int] = []
    for pid in processes:
        try:
            found += [int(entry.name) for entry in (proc / str(pid) / "task").iterdir()]
        except FileNotFoundError:
            continue
        except ProcessLookupError:
            continue
    return found


def threads_of_cgroup(path: Path) -> list[int]:
    """The threads of a cgroup folder (version 2: `cgroup.threads`, version 1: `tasks`), those below it included.

    Raises OSError when the folder does not exist or holds neither file; one below it may end meanwhile.
    """
    found = _tasks(path)
    for folder, names, _ in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                found += _tasks(Path(folder) / name)
    return found


def _tasks(folder: Path) -> list[int]:
    name = "cgroup.threads" if (folder / "cgroup.threads").exists() else "tasks"
    return [int(tid) for tid in (folder / name).read_text().split()]


class Groups:
    """Names of thread groups and their numbers, in order of appearance; what does not fit shares the last one."""

    REST = "(other observed)"

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.names: list[str] = ["(not observed)"]

    def number(self, name: str) -> int:
        """The number of `name`, from 1; a new name takes the next one until only the shared one is left."""
        if name in self.names:
            return self.names.index(name)
        if len(self.names) == self._limit - 1:
            name = self.REST
        if len(self.names) == self._limit:
            return self._limit - 1
        self.names.append(name)
        return len(self.names) - 1


class BusyThreads:
    """Finds threads that ran all the time without being switched: no switch, so no run-queue delay to observe.

    Reads /proc/TID/schedstat (time run, time waited, times given a CPU): 1.7 us per thread, no privilege.
    """

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._last: Mapping[int, tuple[int, int]] = {}
        self._last_ns = 0

    def update(self, threads: Iterable[int], now_ns: int) -> list[int]:
        """Threads that used at least BUSY_SHARE of the time since the last call without a switch."""
        seen: dict[int, tuple[int, int]] = {}
        for tid in threads:
            try:
                run_ns, _, runs = (self._proc / str(tid) / "schedstat").read_text().split()
            except (OSError, ValueError):
                continue
            seen[tid] = (int(run_ns), int(runs))
        elapsed = now_ns - self._last_ns
        busy = [
            tid
            for tid, (run_ns, runs) in seen.items()
            if tid in self._last and runs == self._last[tid][1] and run_ns - self._last[tid][0] >= BUSY_SHARE * elapsed
        ]
        self._last, self._last_ns = seen, now_ns
        return busy
