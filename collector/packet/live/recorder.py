"""The rolling buffer: ring blocks as they are, in a few files on disk, the oldest overwritten.

Nothing is parsed or rewritten while it records; that costs 30-60 ns a packet. What a trigger keeps is turned into
pcapng afterwards (`collector.packet.live.captures`).

A file is a row of chunks: `magic "TSPB" | interface u32 | bytes u32 | reserved u32 | first i64 | last i64` (ns), then
the bytes of the block. Files are of this process alone and are deleted when it starts anew.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from collector.packet.live.ring import BLOCK_BYTES
from collector.packet.live.tpacket import HEADER, SLACK

_HEAD = struct.Struct("<4sIIIqq")
_MAGIC = b"TSPB"
_SUFFIX = ".blocks"
_NS = 1_000_000_000


@dataclass(slots=True)
class Segment:
    """One file of the buffer."""

    path: Path
    first_ns: int
    last_ns: int
    size: int


class Recorder:
    """Writes blocks into `folder`, at most `most_bytes` in `files` files. Not thread-safe but for `segments`.

    `pinned_ns`: files with packets from that time on are not overwritten, until the buffer has twice its size.
    `problem` says why nothing is recorded; it is tried again after `retry`.
    """

    def __init__(self, folder: Path, most_bytes: int, files: int) -> None:
        self._folder = folder
        self._most = most_bytes
        self._each = most_bytes // files
        self._done: deque[Segment] = deque()
        self._open: Segment | None = None
        self._file: BinaryIO | None = None
        self._number = 0
        self.pinned_ns: int | None = None
        self.problem = ""
        self.unpinned = False  # a pinned file had to go
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in folder.glob(f"*{_SUFFIX}"):
            old.unlink()

    def write(self, blocks: Sequence[NDArray[np.uint8]], interface: int) -> None:
        """Append blocks, valid ones as the ring gave them. Never raises: what fails is in `problem`."""
        if self.problem:
            return
        try:
            for block in blocks:
                self._write(block, interface)
        except OSError as error:
            self.problem = f"the packet buffer in {self._folder} cannot be written: {error.strerror or error}"
            self._close()

    def retry(self) -> None:
        """Try to record again after a problem."""
        self.problem = ""

    def segments(self) -> list[Segment]:
        """The files now, oldest first; what is behind their size is not written yet."""
        return [*self._done, *([self._open] if self._open else [])]

    @property
    def size_bytes(self) -> int:
        """Bytes on disk."""
        return sum(s.size for s in self.segments())

    def close(self) -> None:
        """Stop, and delete the buffer."""
        self._close()
        for segment in self._done:
            segment.path.unlink(missing_ok=True)
        self._done.clear()

    def _write(self, block: NDArray[np.uint8], interface: int) -> None:
        words = block[:HEADER].view("<u4")
        if not int(words[3]) or not HEADER <= int(words[4]) <= len(block) - HEADER:
            return
        second, ns = block[int(words[4]) + 4 : int(words[4]) + 12].view("<u4").tolist()
        first, last = second * _NS + ns, int(words[10]) * _NS + int(words[11])
        if self._open is None or self._open.size + _HEAD.size + len(block) > self._each:
            self._roll(first)
        assert self._open is not None and self._file is not None  # noqa: S101 - _roll made them
        self._file.write(_HEAD.pack(_MAGIC, interface, len(block), 0, first, last))
        self._file.write(block.data)
        self._open.first_ns = min(self._open.first_ns, first)
        self._open.last_ns = max(self._open.last_ns, last)
        self._open.size += _HEAD.size + len(block)

    def _roll(self, first_ns: int) -> None:
        self._close()
        while self._done and self.size_bytes + self._each > self._most:
            oldest = self._done[0]
            if self.pinned_ns is not None and oldest.last_ns >= self.pinned_ns:
                if self.size_bytes + self._each <= 2 * self._most:
                    break
                self.unpinned = True
            oldest.path.unlink(missing_ok=True)
            self._done.popleft()
        path = self._folder / f"{self._number:010d}{_SUFFIX}"
        self._number += 1
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._file = os.fdopen(fd, "wb", buffering=0)
        self._open = Segment(path, first_ns, first_ns, 0)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._open is not None:
            self._done.append(self._open)
            self._open = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """A recorded block on disk."""

    path: Path
    at: int
    size: int
    interface: int
    first_ns: int
    last_ns: int

    def load(self) -> NDArray[np.uint8]:
        """Its bytes, with the slack behind them that `read_block` wants. Raises OSError."""
        out = np.zeros(self.size + SLACK, dtype=np.uint8)
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.at)
            got = file.readinto(out.data[: self.size])
        if got != self.size:
            raise OSError(f"{self.path} ends inside a block")
        return out


def chunks(segment: Segment) -> Iterator[Chunk]:
    """The blocks of a file, up to its size or to the first that makes no sense. Raises OSError."""
    at = 0
    with segment.path.open("rb") as file:
        while at + _HEAD.size <= segment.size:
            file.seek(at)
            head = file.read(_HEAD.size)
            if len(head) < _HEAD.size:
                return
            magic, interface, size, _, first_ns, last_ns = _HEAD.unpack(head)
            if magic != _MAGIC or not HEADER <= size <= BLOCK_BYTES:
                return
            yield Chunk(segment.path, at + _HEAD.size, size, interface, first_ns, last_ns)
            at += _HEAD.size + size
