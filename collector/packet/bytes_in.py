"""Bytes of a capture file, plain or gzip, into one buffer that is used again: memory stays bounded.

A capture is not mapped: a file that shrinks while it is mapped kills the reader with SIGBUS.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

CHUNK = 16 << 20  # holds the largest record many times, and enough records to walk many at once
SLACK = 64  # readable bytes behind the last valid one, so that a fixed-width header can be read at any record
_GZIP_IN = 1 << 16


class GzipReader:
    """`readinto` over a gzip file of one or more members, keeping everything before damage.

    `problem` says what was wrong with the stream, "" while nothing is. The standard library's reader raises and loses
    the bytes of the call that met the damage.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.problem = ""
        self._file = file
        self._stream = zlib.decompressobj(wbits=31)
        self._rest = b""

    def readinto(self, target: memoryview) -> int:
        """Fill `target` as far as the stream reaches; 0 at its end or at damage. Never expands beyond `target`."""
        done = 0
        while done < len(target) and not self.problem:
            if not self._rest:
                self._rest = self._file.read(_GZIP_IN)
                if not self._rest:
                    if not self._stream.eof:
                        self.problem = "the gzip stream ends early: the file is cut off"
                    break
            if self._stream.eof:
                if not self._rest.strip(b"\0"):  # zero padding after the last member is allowed
                    self._rest = b""
                    continue
                self._stream = zlib.decompressobj(wbits=31)
            try:
                out = self._stream.decompress(self._rest, len(target) - done)
            except zlib.error as damage:
                self.problem = f"the gzip stream is damaged ({damage})"
                break
            self._rest = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
            target[done : done + len(out)] = out
            done += len(out)
        return done


class ByteWindow:
    """A sliding window over the bytes of a capture: `data[start:end]` are the bytes not consumed yet.

    Attributes:
        data: the shared buffer, uint8; its content is replaced by `refill`.
        base: file offset of `data[0]` (of the decompressed stream, if the file is gzip).
        size: bytes of the file on disk.
        gzip: whether the file is compressed.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self.size = os.fstat(self._file.fileno()).st_size
        self.gzip = self._file.read(2) == b"\x1f\x8b"
        self._file.seek(0)
        self._reader = GzipReader(self._file) if self.gzip else None
        self.data: NDArray[np.uint8] = np.zeros(CHUNK + SLACK, dtype=np.uint8)
        self.base = 0
        self.start = 0
        self.end = 0

    @property
    def problem(self) -> str:
        """What was wrong with the compressed stream; "" if nothing."""
        return self._reader.problem if self._reader else ""

    @property
    def offset(self) -> int:
        """Where in the (decompressed) file the next unread byte lies."""
        return self.base + self.start

    def disk_position(self) -> int:
        """Bytes of the file on disk read so far; for progress."""
        return self._file.tell()

    def refill(self) -> bool:
        """Move what is left to the front and read on. False when nothing more came."""
        left = self.end - self.start
        self.data[:left] = self.data[self.start : self.end].copy()
        self.base += self.start
        self.start, self.end = 0, left
        view = self.data.data
        while self.end < CHUNK:
            room = view[self.end : CHUNK]
            got = self._reader.readinto(room) if self._reader else self._file.readinto(room)
            if not got:
                break
            self.end += got
        return self.end > left

    def skip(self, count: int) -> bool:
        """Consume `count` bytes, which may reach beyond the window. False when the file ends before."""
        while count > self.end - self.start:
            count -= self.end - self.start
            self.start = self.end
            if not self.refill():
                return False
        self.start += count
        return True

    def close(self) -> None:
        """Close the file."""
        self._file.close()
