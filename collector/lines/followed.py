"""One file that grows at its end: whole lines since the last reading, whatever happens to its name.

A file is known by its inode and its beginning (the first line, at most 256 bytes), because names change when logs are
rotated and inodes are used again. While it is held open a rename or removal changes nothing. A file that got shorter,
or begins differently, was truncated: it is read from its beginning as a new one.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from collector.keys import hash64

_HEAD = 256


class NotAFileError(OSError):
    """A pipe, a socket or a device: it cannot be read again from where one was."""


@dataclass(slots=True)
class Reading:
    """What one reading found: whole lines, and what was left out of them."""

    lines: bytes = b""
    too_long: int = 0
    cut: int = 0  # beginnings of lines that a truncation took the end of
    truncated: bool = False
    more: bool = False  # there is more to read at once


class Followed:
    """An open file. `offset` lies behind the last whole line that was read; `identity` is None until there is one."""

    def __init__(self, path: Path) -> None:
        """Open it. Raises OSError, NotAFileError for what is no regular file."""
        self.path = path
        self.offset = 0
        self._skipped = 0  # bytes from `offset` on that belong to a line that is too long
        self._unfinished = False  # a line had begun at the end
        self._seen: tuple[int, int] | None = None  # size and time of the last change when all of it was read
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(self._fd)
            raise NotAFileError(0, "is not a regular file")
        self.place = (status.st_dev, status.st_ino)
        try:
            self.identity = self._identify()
        except OSError:
            os.close(self._fd)
            raise

    @property
    def mtime_ns(self) -> int:
        """When it was last changed."""
        return os.fstat(self._fd).st_mtime_ns

    @property
    def at_end(self) -> bool:
        """Whether all of it was read but for a line that is not finished."""
        status = os.fstat(self._fd)
        return self._seen == (status.st_size, status.st_mtime_ns)

    def read(self, most: int, longest: int, *, ended: bool = False) -> Reading:
        """Up to `most` bytes of whole lines; lines above `longest` bytes, which is less, are left out and counted.

        `ended` says that nobody writes to it any more: then the last line needs no newline. Raises OSError.
        """
        reading = Reading()
        status = os.fstat(self._fd)
        if self._seen == (status.st_size, status.st_mtime_ns) and not ended:
            return reading
        found = self._identify(ended=ended)
        if self.identity is not None and (status.st_size < self.offset + self._skipped or found != self.identity):
            reading.truncated, reading.cut = True, int(self._unfinished)
            self.offset, self._skipped, self._unfinished = 0, 0, False
        self.identity = found
        at = self.offset + self._skipped
        data = os.pread(self._fd, most, at) if found is not None else b""
        reading.more = len(data) == most
        self._seen = None if reading.more else (status.st_size, status.st_mtime_ns)
        if not data:
            return reading
        last = ended and not reading.more and not data.endswith(b"\n")
        self._take(reading, data + b"\n" if last else data, at, longest)
        if last:
            self.offset -= 1  # that newline is ours
        return reading

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)

    def _take(self, reading: Reading, data: bytes, at: int, longest: int) -> None:
        if self._skipped:
            end = data.find(b"\n") + 1
            if not end:
                self._skipped += len(data)
                return
            self._skipped, at, data = 0, at + end, data[end:]
            reading.too_long += 1
        whole = data.rfind(b"\n") + 1
        reading.lines, left_out = _bounded(data[:whole], longest)
        reading.too_long += left_out
        self.offset = at + whole
        rest = len(data) - whole
        self._unfinished = rest > 0
        if rest > longest:
            self._skipped = rest

    def _identify(self, *, ended: bool = False) -> str | None:
        """Inode and beginning; None while the first line is unfinished and shorter than what is looked at."""
        head = os.pread(self._fd, _HEAD, 0)
        line, newline, _ = head.partition(b"\n")
        if not newline and len(head) < _HEAD and not (ended and head):
            return None
        return f"{self.place[1]:x}.{hash64('file', line):016x}"


def _bounded(lines: bytes, longest: int) -> tuple[bytes, int]:
    """Whole lines without those above `longest` bytes, and how many those were."""
    if len(lines) <= longest:
        return lines, 0
    parts = lines.split(b"\n")
    kept = [part for part in parts if len(part) <= longest]
    return b"\n".join(kept), len(parts) - len(kept)
