"""`when_full = "drop_oldest"`: the oldest segment gives way to drop frames that say what was lost."""

from __future__ import annotations

from collector.frames import HEADER_BYTES, read_header
from collector.record import DropReason
from collector.spool.books import Books
from collector.spool.cutting import index_frames
from collector.spool.fs import SpoolFS
from collector.spool.room import Room
from collector.spool.segment import Segment, residue
from collector.spool.writer import Writer


def drop_oldest(fs: SpoolFS, books: Books, writer: Writer, room: Room, problems: dict[str, str]) -> bool:
    """Put drop frames in the place of the oldest segment that is not on the way. False: there is none."""
    for _ in range(2):
        for segment in books.segments:
            untouched = not any(b in books.claimed or books.flight(b) for b in segment.batches)
            if not untouched or segment.residue or segment is writer.active:
                continue
            frames = [frame for batch in segment.batches for frame in residue(fs, batch, DropReason.FULL_OLDEST)]
            if sum(map(len, frames)) < segment.size:
                return _replace(fs, books, room, problems, segment, frames)
            segment.residue = True  # its drop frames would be no smaller
        if writer.active is None:
            return False
        writer.rotate()
    return False


def _replace(
    fs: SpoolFS, books: Books, room: Room, problems: dict[str, str], segment: Segment, frames: list[bytes]
) -> bool:
    data = b"".join(frames)
    try:
        # A rename in place: after a crash either the whole segment is there or its drop frames are.
        room.make_way(lambda: fs.replace(segment.path, data))
    except OSError as error:
        problems["space"] = f"making room in {segment.path.parent} failed: {error}"
        return False
    segment.size, segment.batches, segment.residue = 0, [], True
    index_frames(segment, data)
    for frame in frames:
        if b"full_oldest" in frame[HEADER_BYTES:]:
            books.cursor.count(DropReason.FULL_OLDEST.value, read_header(frame).events)
    return True
