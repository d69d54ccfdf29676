"""A copy of what passes a link, for whoever records it: a named pipe in the control directory, written without waiting.

A record is `time i64 (CLOCK_REALTIME ns) | length u16 | bytes`, little-endian, written in one piece. A reader that does
not keep up loses the pipe, and sees that by its end: a recording has no holes.
"""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path

NAME = "tap"
RECORD = struct.Struct("<qH")
_LARGEST = 4096 - RECORD.size  # PIPE_BUF: written in one piece or not at all


class Tap:
    """The writing end. `look` now and then whether somebody reads."""

    def __init__(self, control: Path) -> None:
        self._path = control / NAME
        self._fd: int | None = None

    def look(self) -> None:
        """Open the pipe when there is a reader."""
        if self._fd is None:
            try:
                self._fd = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:  # no pipe, or nobody reads it
                return

    def copy(self, data: bytes) -> None:
        """Write a copy, when somebody reads."""
        if self._fd is None:
            return
        try:
            if len(data) > _LARGEST or os.write(self._fd, RECORD.pack(time.time_ns(), len(data)) + data) == 0:
                self._close()
        except OSError:  # the reader has gone, or does not keep up
            self._close()

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
