"""Space: whether more fits, and a reserve file that makes way for the little that must be written on a full disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from collector.spool.fs import SpoolFS
from collector.spool.settings import SpoolSettings
from collector.spool.writer import NO_SPACE

T = TypeVar("T")


class Room:
    """The budget of a spool's folder and of the disk under it. `problems` says what is wrong, by part."""

    def __init__(self, fs: SpoolFS, folder: Path, settings: SpoolSettings, problems: dict[str, str]) -> None:
        self._fs = fs
        self._folder = folder
        self._settings = settings
        self._problems = problems
        self._reserve = folder / "reserve"
        self.has_reserve = False

    def fits(self, used: int, need: int) -> bool:
        """Whether `need` bytes may be added to the `used` ones; if not, `problems` says why."""
        s = self._settings
        if used + need > s.max_bytes:
            self._problems["space"] = f"the spool is full: {used} of {s.max_bytes} bytes; is the server reachable?"
            return False
        try:
            free = self._fs.free_bytes(self._folder)
        except OSError as error:
            self._problems["disk"] = f"the free space of {self._folder} cannot be read: {error}"
            return True
        if free - need < s.min_free_bytes:
            self._problems["space"] = f"the disk is full: {free} bytes free, min_free_bytes is {s.min_free_bytes}"
            return False
        return True

    def make_way(self, action: Callable[[], T]) -> T:
        """Do something small that must succeed on a full disk: if it does not, once more without the reserve."""
        try:
            return action()
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            self._fs.unlink(self._reserve)
            self.has_reserve = False
            return action()

    def restock(self) -> None:
        """Make the reserve when there is room for it."""
        s = self._settings
        try:
            if self._fs.free_bytes(self._folder) > s.min_free_bytes + s.reserve_bytes:
                self._fs.allocate(self._reserve, s.reserve_bytes)
                self.has_reserve = True
                self._problems.pop("reserve", None)
        except OSError as error:
            self._problems["reserve"] = f"no room for the reserve in {self._folder}: {error}"
