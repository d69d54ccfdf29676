"""Which process holds a socket: an endpoint to an inode by /proc/net, an inode to a process by /proc/PID/fd.

Looked up when it is asked for, so a socket that has been closed since is unknown. Cost: one read of /proc/net/tcp and
its like, at most every second, and one walk of /proc at most every five seconds; both stop at a bound. Sockets of
other users' processes are found only with CAP_SYS_PTRACE (or root); sockets of other network namespaces are not.
"""

from __future__ import annotations

import ipaddress
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_TABLES = {6: ("tcp", "tcp6"), 17: ("udp", "udp6")}
_MOST_BYTES = 8 << 20
_MOST_FILES = 100_000
_SOCKETS_S, _PROCESSES_S = 1.0, 5.0

End = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds a socket."""

    pid: int
    command: str


class Holders:
    """Looks up holders, with both lists cached. `now` is a clock in seconds, given by tests."""

    def __init__(self, root: Path = Path("/proc"), now: Callable[[], float] = time.monotonic) -> None:
        self._root = root
        self._now = now
        self._sockets: dict[int, dict[tuple[End, End], int]] = {}
        self._sockets_at = self._processes_at = float("-inf")
        self._processes: dict[int, Holder] = {}

    def find(self, protocol: int, one: End, other: End) -> Holder | None:
        """The process on this host at either end of a flow; None when none is known. Ends are (address, port)."""
        if protocol not in _TABLES:
            return None
        if self._now() - self._sockets_at >= _SOCKETS_S:
            self._sockets = {p: self._read(names) for p, names in _TABLES.items()}
            self._sockets_at = self._now()
        inode = self._inode(protocol, one, other)
        if not inode:
            return None
        if inode not in self._processes and self._now() - self._processes_at >= _PROCESSES_S:
            self._processes = self._walk()
            self._processes_at = self._now()
        return self._processes.get(inode)

    def _inode(self, protocol: int, one: End, other: End) -> int:
        sockets = self._sockets[protocol]
        for local, remote in ((one, other), (other, one)):
            for near in (local, ("*", local[1])):
                for far in (remote, ("*", 0)):
                    inode = sockets.get((near, far))
                    if inode:
                        return inode
        return 0

    def _read(self, names: tuple[str, ...]) -> dict[tuple[End, End], int]:
        found: dict[tuple[End, End], int] = {}
        for name in names:
            try:
                with (self._root / "net" / name).open("rb") as file:
                    text = file.read(_MOST_BYTES).decode("ascii", "replace")
            except OSError:
                continue
            for line in text.splitlines()[1:]:
                words = line.split()
                if len(words) < 10 or not words[9].isdigit():
                    continue
                try:
                    ends = _end(words[1]), _end(words[2])
                except ValueError:
                    continue
                found.setdefault(ends, int(words[9]))
        return found

    def _walk(self) -> dict[int, Holder]:
        found: dict[int, Holder] = {}
        looked = 0
        for process in os.scandir(self._root):
            if not process.name.isdigit():
                continue
            try:
                command = ""
                for entry in os.scandir(f"{process.path}/fd"):
                    looked += 1
                    link = os.readlink(entry.path)  # noqa: PTH115 - many thousand times; a Path each is slow
                    if link.startswith("socket:["):
                        command = command or Path(process.path, "comm").read_text("utf-8", "replace").strip()
                        found.setdefault(int(link[8:-1]), Holder(int(process.name), command))
            except (OSError, ValueError):
                continue  # it has ended, or is not ours to look at
            if looked > _MOST_FILES:
                break
        return found


def _end(text: str) -> End:
    """`0100007F:1F90` as ("127.0.0.1", 8080); an unbound address as "*". IPv4 inside IPv6 is IPv4."""
    raw, port = text.split(":")
    size = len(raw) // 2
    data = bytes.fromhex(raw)
    if sys.byteorder == "little":
        data = b"".join(data[at : at + 4][::-1] for at in range(0, size, 4))
    if not any(data):
        return "*", int(port, 16)
    if size == 16:
        six = ipaddress.IPv6Address(data)
        return str(six.ipv4_mapped or six), int(port, 16)
    return str(ipaddress.IPv4Address(data)), int(port, 16)
