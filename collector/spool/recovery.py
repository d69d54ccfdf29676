"""What a folder of segments holds after a crash: torn tails cut off, batches cut as before, holes found.

Nothing is believed without its CRC32C, nothing is deleted that was not acknowledged: what cannot be read stays in a
`.torn` file, and a segment of a newer program stays where it is.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from collector.frames import FLAG_MORE, FrameError, Stream, UnknownVersionError, open_frame
from collector.spool.cursor import Cursor
from collector.spool.cutting import cut_batches
from collector.spool.fs import SpoolFS
from collector.spool.segment import Placed, Segment, parse_name, walk

_TORN_BYTES = 1 << 20  # of a torn tail that are kept for a look


@dataclass(slots=True)
class Recovered:
    """What was found. `holes[boot]` are sequence ranges that neither a segment nor the cursor accounts for."""

    segments: list[Segment] = field(default_factory=list)
    holes: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    positions: dict[str, int] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)  # files of an unknown version, left alone


def find_collector(fs: SpoolFS, folder: Path) -> uuid.UUID | None:
    """The collector's uuid from the frames themselves, for a folder whose identity file is lost."""
    for name in fs.names(folder):
        if parse_name(name):
            fd = fs.open_read(folder / name)
            try:
                for placed in walk(fs, fd, 0, fs.size(folder / name), check=False):
                    return placed.header.stream.collector
            except UnknownVersionError:
                continue
            finally:
                fs.close(fd)
    return None


def last_boot(fs: SpoolFS, folder: Path) -> int:
    """The largest boot that has a segment; 0 without any."""
    return max((parsed[0] for name in fs.names(folder) if (parsed := parse_name(name))), default=0)


def recover(fs: SpoolFS, folder: Path, collector: uuid.UUID, cursor: Cursor | None) -> Recovered:
    """Scan all segments of earlier boots. `cursor` is None when it is lost: then everything is sent again."""
    found = Recovered()
    books = cursor or Cursor()
    entries = sorted((parsed, name) for name in fs.names(folder) if (parsed := parse_name(name)))
    frames: dict[Path, list[Placed]] = {}
    for boot, group in groupby(entries, key=lambda entry: entry[0][0]):
        files = [(parsed[1], folder / name) for parsed, name in group]
        for i, (first, path) in enumerate(files):
            limit = files[i + 1][0] if i + 1 < len(files) else None
            segment = Segment(path, Stream(collector, boot), first, first)
            try:
                placed = _scan(fs, segment, limit)
            except UnknownVersionError as error:
                found.refused.append(f"{path.name}: {error}")
                continue
            if placed:
                frames[path] = placed
                found.segments.append(segment)
    for segment in found.segments:
        boot = segment.stream.boot
        edges = {e for pair in books.boot(boot).acked for e in pair}
        edges |= {e for f in books.in_flight if f.boot == boot for e in (f.first, f.end)}
        cut_batches(segment, frames[segment.path], edges)
        segment.batches = [b for b in segment.batches if not books.boot(boot).covers(b.first, b.end)]
    if cursor is not None and not found.refused:
        found.holes = _holes(cursor, found.segments)
    found.positions = _positions(fs, found.segments, frames, books)
    return found


def _scan(fs: SpoolFS, segment: Segment, limit: int | None) -> list[Placed]:
    """Frames of one file; fills `end` and `size`. Without `limit` it is a boot's last file: its tail may be torn."""
    size = fs.size(segment.path)
    fd = fs.open_read(segment.path)
    try:
        found = list(walk(fs, fd, 0, size, check=limit is None, stream=segment.stream))
        # A segment given up after a failed fsync may hold frames that were written again in the next one.
        found = [p for p in found if limit is None or p.header.seq_end <= limit]
        while limit is None and found and found[-1].header.flags & FLAG_MORE:
            found.pop()  # half a poll: its positions were not saved, so its source gives it again
        segment.size = found[-1].offset + found[-1].header.size if found else 0
        segment.end = found[-1].header.seq_end if found else segment.first
        torn = b""
        if limit is None and size > segment.size:
            torn = fs.read(fd, min(size - segment.size, _TORN_BYTES), segment.size)
    finally:
        fs.close(fd)
    if torn:
        side = segment.path.with_name(segment.path.name + ".torn")
        fs.replace(side, torn)
        if found:
            fs.truncate(segment.path, segment.size)
        else:
            fs.unlink(segment.path)
            fs.sync_dir(segment.path.parent)
    elif not found and size == 0:
        fs.unlink(segment.path)  # created, never written
    return found


def _holes(cursor: Cursor, segments: list[Segment]) -> dict[int, list[tuple[int, int]]]:
    holes: dict[int, list[tuple[int, int]]] = {}
    for state in cursor.boots:
        mine = [(s.first, s.end) for s in segments if s.stream.boot == state.boot]
        end = max([state.produced, *(e for _, e in mine)])
        at = 0
        for first, stop in sorted([*mine, *state.acked, (end, end)]):
            if first > at:
                holes.setdefault(state.boot, []).append((at, first))
            at = max(at, stop)
    return holes


def _positions(
    fs: SpoolFS, segments: list[Segment], frames: dict[Path, list[Placed]], cursor: Cursor
) -> dict[str, int]:
    """The newest positions that are on disk: of the last frame that has any, or the cursor's."""
    for segment in reversed(segments):
        fd = fs.open_read(segment.path)
        try:
            for placed in reversed(frames[segment.path]):
                header = placed.header
                if (header.stream.boot, header.seq_end) <= (cursor.positions_boot, cursor.positions_seq):
                    return dict(cursor.positions)
                frame = fs.read(fd, header.size, placed.offset)
                try:
                    positions = open_frame(header, frame[header.size - header.payload_bytes :]).positions
                except FrameError:
                    continue
                if positions:
                    return positions
        finally:
            fs.close(fd)
    return dict(cursor.positions)
