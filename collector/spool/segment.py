"""One segment file: finding its frames after a crash, and reading a batch with damage booked exactly.

A segment holds consecutive frames of one collector and boot. Its name says the first sequence number, so what is
missing between that number and the frames that can be read is known without trusting any damaged byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import google_crc32c

from collector.frames import (
    HEADER_BYTES,
    MAGIC,
    FrameError,
    Header,
    Stream,
    UnknownVersionError,
    read_header,
    seal,
)
from collector.payload import DROP_WIRE_ID, pack_drop
from collector.record import DropReason
from collector.spool.fs import SpoolFS

_NAME = re.compile(r"(\d{20})\.(\d+)\.seg")
_CHUNK = 1 << 20
_MAX_DROP = (1 << 32) - 1


@dataclass(slots=True, eq=False)
class Batch:
    """Consecutive whole frames that are sent together: `first..end-1` at `offset` of a segment."""

    stream: Stream
    first: int
    end: int
    segment: Segment
    offset: int
    length: int
    created_ns: int
    rejected: bool = False

    @property
    def name(self) -> str:
        """The batch's id: collector/boot/first sequence number."""
        return f"{self.stream.collector}/{self.stream.boot}/{self.first}"

    @property
    def events(self) -> int:
        """How many sequence numbers it takes."""
        return self.end - self.first


@dataclass(slots=True, eq=False)
class Segment:
    """A segment file and what is known of it. `residue`: it holds only drop frames in place of lost ones."""

    path: Path
    stream: Stream
    first: int
    end: int
    size: int = 0
    batches: list[Batch] = field(default_factory=list)
    residue: bool = False


@dataclass(frozen=True, slots=True)
class Placed:
    """A header and where its frame starts; `whole` says whether the payload passes its CRC32C (None: not looked at)."""

    offset: int
    header: Header
    whole: bool | None = None


def segment_name(first: int, boot: int) -> str:
    """The file name of a segment: `<seq_first, 20 digits>.<boot>.seg`."""
    return f"{first:020d}.{boot}.seg"


def parse_name(name: str) -> tuple[int, int] | None:
    """(boot, first sequence number) of a segment's name; None for other files."""
    match = _NAME.fullmatch(name)
    return (int(match[2]), int(match[1])) if match else None


def walk(fs: SpoolFS, fd: int, start: int, stop: int, *, check: bool, stream: Stream | None = None) -> Iterator[Placed]:
    """The frames between two offsets; after damage it goes on at the next magic whose header passes its CRC32C.

    With `check` the payloads are read too. Only frames of `stream` are believed, if given. Raises
    UnknownVersionError for a frame of a newer program.
    """
    offset = start
    expected = 0
    while offset + HEADER_BYTES <= stop:
        try:
            header = read_header(fs.read(fd, HEADER_BYTES, offset))
        except UnknownVersionError:
            raise
        except FrameError:
            offset = _next_magic(fs, fd, offset + 1, stop)
            continue
        if (stream is not None and header.stream != stream) or header.seq_first < expected:
            offset = _next_magic(fs, fd, offset + 1, stop)  # bytes inside a damaged payload that look like a frame
            continue
        if offset + header.size > stop:
            return
        whole = None
        if check:
            payload = fs.read(fd, header.payload_bytes, offset + HEADER_BYTES)
            whole = len(payload) == header.payload_bytes and google_crc32c.value(payload) == header.payload_crc
        yield Placed(offset, header, whole)
        expected = header.seq_end
        offset += header.size


def read_batch(fs: SpoolFS, batch: Batch) -> tuple[bytes, int]:
    """The batch's bytes as they are sent, and how many of its events are lost to damage.

    Undamaged, they are the file's bytes. Otherwise drop frames (`corrupt`) stand in the place of lost frames, with
    the same sequence numbers, and the same again on every try.
    """
    fd = fs.open_read(batch.segment.path)
    try:
        good = [
            placed
            for placed in walk(fs, fd, batch.offset, batch.offset + batch.length, check=True, stream=batch.stream)
            if placed.whole and batch.first <= placed.header.seq_first and placed.header.seq_end <= batch.end
        ]
        if sum(p.header.events for p in good) == batch.events and sum(p.header.size for p in good) == batch.length:
            return fs.read(fd, batch.length, batch.offset), 0
        parts: list[bytes] = []
        expected, created = batch.first, batch.created_ns
        for placed in good:
            header = placed.header
            created = header.created_ns
            parts += drop_frames(
                batch.stream, expected, header.seq_first, DropReason.CORRUPT, created, header.watermark_ns
            )
            parts.append(fs.read(fd, header.size, placed.offset))
            expected = header.seq_end
        parts += drop_frames(batch.stream, expected, batch.end, DropReason.CORRUPT, created, 0)
    finally:
        fs.close(fd)
    return b"".join(parts), batch.events - sum(p.header.events for p in good)


def residue(fs: SpoolFS, batch: Batch, reason: DropReason) -> list[bytes]:
    """Drop frames that stand for a batch which will not be sent: one per second of cutting, same sequence numbers.

    Drop frames that are in the batch already keep their reason.
    """
    fd = fs.open_read(batch.segment.path)
    try:
        runs: list[bytes] = []
        first, created, mark = batch.first, batch.created_ns, 0
        for placed in walk(fs, fd, batch.offset, batch.offset + batch.length, check=True, stream=batch.stream):
            header = placed.header
            kept = header.wire_id == DROP_WIRE_ID and placed.whole
            if kept or header.created_ns // 1_000_000_000 != created // 1_000_000_000:
                runs += drop_frames(batch.stream, first, header.seq_first, reason, created, mark)
                first = header.seq_first
            created, mark = header.created_ns, header.watermark_ns
            if kept:
                runs.append(fs.read(fd, header.size, placed.offset))
                first = header.seq_end
        return runs + drop_frames(batch.stream, first, batch.end, reason, created, mark)
    finally:
        fs.close(fd)


def parting(fs: SpoolFS, batch: Batch) -> tuple[int, int] | None:
    """Offset and sequence number of the frame nearest the batch's middle, to part it there; None: it is one frame."""
    fd = fs.open_read(batch.segment.path)
    try:
        placed = list(walk(fs, fd, batch.offset, batch.offset + batch.length, check=False, stream=batch.stream))
    finally:
        fs.close(fd)
    if len(placed) < 2:
        return None
    middle = placed[len(placed) // 2]
    return middle.offset, middle.header.seq_first


def drop_frames(
    stream: Stream, first: int, end: int, reason: DropReason, created_ns: int, watermark_ns: int
) -> list[bytes]:
    """Drop frames over `first..end-1`; more than one only beyond 2^32-1 events, none for an empty range."""
    frames = []
    while first < end:
        events = min(end - first, _MAX_DROP)
        frames.append(seal(pack_drop(reason, events), stream, first, created_ns, 0, watermark_ns))
        first += events
    return frames


def _next_magic(fs: SpoolFS, fd: int, offset: int, stop: int) -> int:
    while offset < stop:
        chunk = fs.read(fd, min(_CHUNK, stop - offset), offset)
        at = chunk.find(MAGIC)
        if at >= 0:
            return offset + at
        if len(chunk) < len(MAGIC):
            return stop
        offset += len(chunk) - len(MAGIC) + 1
    return stop
