"""The programs behind a ring directory: their rings, their dictionary, and whether they still run."""

from __future__ import annotations

import fcntl
import os
import re
import time
from pathlib import Path

from tailsight_probe import layout

from collector.sources.ring import RingReader
from collector.sources.ring_dictionary import RingDictionary

_RING = re.compile(r"(\d+)\.(\d+)\.(\d+)\.ring")

_MTIME_TICK_NS = 50_000_000


class RingProcess:
    """One program: `<pid>.<start ticks>` in a ring directory."""

    def __init__(self, directory: Path, pid: int, start_ticks: int) -> None:
        self.directory = directory
        self.pid = pid
        self.start_ticks = start_ticks
        self.dictionary = RingDictionary(directory / f"{pid}.{start_ticks}.dict")
        self.rings: dict[str, RingReader] = {}
        self.dead = False

    def alive(self, proc: Path = Path("/proc")) -> bool:
        """Whether the program runs: its start time is in /proc, or the lock on its dictionary is held.

        The lock covers programs in another PID namespace, whose numbers mean nothing here.
        """
        if running(self.pid, self.start_ticks, proc):
            return True
        try:
            with self.dictionary.path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def remove_read(self, durable: dict[str, int]) -> list[str]:
        """Delete the rings of this dead program that are read and durable to the end, and then its dictionary.

        Returns the position names of the rings that are gone.
        """
        gone = []
        for name, ring in list(self.rings.items()):
            if ring.finished and durable.get(ring.position_name(), 0) >= ring.accounted:
                gone.append(ring.position_name())
                ring.path.unlink(missing_ok=True)
                ring.close()
                del self.rings[name]
        prefix = f"{self.pid}.{self.start_ticks}."
        left = [entry.name for entry in os.scandir(self.directory) if entry.name.startswith(prefix)]
        if all(name.endswith((".dict", ".tmp")) for name in left):
            for name in left:
                (self.directory / name).unlink(missing_ok=True)
        return gone

    def close(self) -> None:
        """Unmap the rings."""
        for ring in self.rings.values():
            ring.close()
        self.rings.clear()


class RingDirectory:
    """A directory of rings, scanned for new ones.

    `refused` maps a file that cannot be read to the reason; such files are left where they are.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.processes: dict[tuple[int, int], RingProcess] = {}
        self.refused: dict[str, str] = {}
        self._seen_mtime = -1

    def scan(self, positions: dict[str, int]) -> None:
        """Map rings that are new. Does nothing when the directory has not changed."""
        try:
            changed = self.path.stat().st_mtime_ns
            if changed == self._seen_mtime:
                return
            names = [entry.name for entry in os.scandir(self.path)]
        except OSError:
            return  # no program has stamped yet
        # The file system's clock ticks every few ms: a change right after this scan may carry the same time.
        self._seen_mtime = changed if time.time_ns() - changed > _MTIME_TICK_NS else -1
        for name in sorted(names):
            match = _RING.fullmatch(name)
            if match is None:
                continue
            identity = (int(match[1]), int(match[2]))
            process = self.processes.get(identity)
            if (process and name in process.rings) or name in self.refused:
                continue
            try:
                ring = RingReader(self.path / name)
            except FileNotFoundError:
                continue
            except (layout.LayoutError, OSError, ValueError) as error:
                self.refused[name] = f"{self.path / name}: {error}"
                continue
            ring.resume(positions.get(ring.position_name(), 0))
            if process is None:
                process = self.processes[identity] = RingProcess(self.path, *identity)
            process.rings[name] = ring


def stamping(directory: Path) -> set[int]:
    """The processes that have rings in `directory`, dead ones whose rings are still unread included."""
    return {pid for pid, _ in identities(directory)}


def identities(directory: Path) -> set[tuple[int, int]]:
    """The same processes as (pid, start ticks)."""
    try:
        names = [entry.name for entry in os.scandir(directory)]
    except OSError:
        return set()  # no program has stamped yet
    return {(int(match[1]), int(match[2])) for match in map(_RING.fullmatch, names) if match}


def running(pid: int, start_ticks: int, proc: Path = Path("/proc")) -> bool:
    """Whether process `pid` runs and started at `start_ticks` (so that it is not another one with its number)."""
    try:
        stat = (proc / str(pid) / "stat").read_bytes()
        fields = stat.rpartition(b")")[2].split()
        return int(fields[19]) == start_ticks and fields[0] not in (b"Z", b"X")
    except (OSError, IndexError, ValueError):
        return False
