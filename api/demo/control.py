"""The demo's control directory, DIR/demo: one JSON file per fault, written by commands, watched by the programs.

Files of ended faults stay: they are the truth that a checker compares answers with. Nothing of the product reads them.
"""

from __future__ import annotations

import logging
import time
import uuid
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import msgspec

from api.demo.faults import Fault, checked

log = logging.getLogger(__name__)
FOLDER = "demo"
_COARSE_NS = 50_000_000


class Named(Protocol):
    """What a record has: a name, and when it begins."""

    @property
    def id(self) -> str:
        """The file's name."""

    @property
    def start_ns(self) -> int:
        """Records are read in this order."""


R = TypeVar("R", bound=Named)


class Records(Generic[R]):
    """A folder of JSON files, one per record. A file is replaced in one step, so nobody reads half of it."""

    def __init__(self, folder: Path, kind: type[R]) -> None:
        self._folder = folder
        self._kind = kind
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._stamp = 0

    def read(self) -> list[R]:
        """All records, oldest first. A file that is none is left out, and the log says so."""
        found = []
        for file in self._folder.glob("*.json"):
            try:
                found.append(msgspec.json.decode(file.read_bytes(), type=self._kind))
            except (OSError, msgspec.DecodeError) as error:
                log.warning("%s is not read: %s", file, error)
        return sorted(found, key=lambda record: (record.start_ns, record.id))

    def changed(self) -> list[R] | None:
        """As `read`, or None when nothing has changed since the last call; costs one system call then."""
        try:
            stamp = self._folder.stat().st_mtime_ns
        except FileNotFoundError:  # somebody tidied up
            stamp = 0
        if stamp and stamp == self._stamp:
            return None
        # The kernel's file times are coarse: a second change may carry the time of the first one.
        self._stamp = stamp if time.time_ns() - stamp > _COARSE_NS else 0
        return self.read()

    def write(self, record: R) -> None:
        """Add the record, or put it in the place of the one of its name."""
        draft = self._folder / f".{record.id}.new"
        draft.write_bytes(msgspec.json.encode(record))
        draft.replace(self._folder / f"{record.id}.json")


class Control:
    """The faults' commands and their watchers' view."""

    def __init__(self, folder: Path) -> None:
        self._records = Records(folder / "faults", Fault)
        self._known: list[Fault] | None = None

    def start(self, fault: Fault) -> Fault:
        """Order a fault; returns it with its id. Raises FaultError when it cannot be."""
        named = checked(msgspec.structs.replace(fault, id=f"{fault.kind}-{uuid.uuid4().hex[:8]}"))
        self._records.write(named)
        return named

    def keep(self, fault: Fault) -> None:
        """Keep a fault of the past under its own id, as the truth of what happened then."""
        self._records.write(checked(fault))

    def stop(self, names: list[str], now_ns: int) -> list[Fault]:
        """End the named faults that have not ended, all of them when no name is given; returns those ended."""
        ended = []
        for fault in self.read():
            running = fault.end_ns is None or fault.end_ns > now_ns
            if running and (not names or fault.id in names):
                ended.append(msgspec.structs.replace(fault, end_ns=max(now_ns, fault.start_ns)))
                self._records.write(ended[-1])
        return ended

    def read(self) -> list[Fault]:
        """All faults ever ordered here, oldest first."""
        return self._records.read()

    def changed(self) -> list[Fault] | None:
        """As `read`, or None when nothing has changed since the last call; costs one system call then."""
        found = self._records.changed()
        if found is None or found == self._known:
            return None
        self._known = found
        return found
