"""The demo's control directory, DIR/demo: one JSON file per fault, written by commands, watched by the programs.

Files of ended faults stay: they are the truth that a checker compares answers with. Nothing of the product reads them.
"""

from __future__ import annotations

import time
import uuid
from pathlib import Path

import msgspec

from api.demo.faults import Fault, checked

FOLDER = "demo"
_COARSE_NS = 50_000_000


class Control:
    """The directory's commands and its watchers' view. A file is replaced in one step, so nobody reads half of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "faults"
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._stamp = 0
        self._known: list[Fault] | None = None

    def start(self, fault: Fault) -> Fault:
        """Order a fault; returns it with its id. Raises FaultError when it cannot be."""
        named = checked(msgspec.structs.replace(fault, id=f"{fault.kind}-{uuid.uuid4().hex[:8]}"))
        self._write(named)
        return named

    def keep(self, fault: Fault) -> None:
        """Keep a fault of the past under its own id, as the truth of what happened then."""
        self._write(checked(fault))

    def stop(self, names: list[str], now_ns: int) -> list[Fault]:
        """End the named faults that have not ended, all of them when no name is given; returns those ended."""
        ended = []
        for fault in self.read():
            running = fault.end_ns is None or fault.end_ns > now_ns
            if running and (not names or fault.id in names):
                ended.append(msgspec.structs.replace(fault, end_ns=max(now_ns, fault.start_ns)))
                self._write(ended[-1])
        return ended

    def read(self) -> list[Fault]:
        """All faults ever ordered here, oldest first."""
        found = (msgspec.json.decode(file.read_bytes(), type=Fault) for file in self._folder.glob("*.json"))
        return sorted(found, key=lambda fault: (fault.start_ns, fault.id))

    def changed(self) -> list[Fault] | None:
        """As `read`, or None when nothing has changed since the last call; costs one system call then."""
        try:
            stamp = self._folder.stat().st_mtime_ns
        except FileNotFoundError:  # somebody tidied up
            stamp = 0
        if stamp and stamp == self._stamp:
            return None
        # The kernel's file times are coarse: a second change may carry the time of the first one.
        self._stamp = stamp if time.time_ns() - stamp > _COARSE_NS else 0
        before, self._known = self._known, self.read()
        return None if self._known == before else self._known

    def _write(self, fault: Fault) -> None:
        draft = self._folder / f".{fault.id}.new"
        draft.write_bytes(msgspec.json.encode(fault))
        draft.replace(self._folder / f"{fault.id}.json")
