"""Which frames of a segment are sent together: found again after a crash, or booked as they are written."""

from __future__ import annotations

from collections.abc import Iterable

from collector.frames import FLAG_FIRST, Header, read_header
from collector.spool.segment import Batch, Placed, Segment

_DAY_NS = 86_400_000_000_000


def cut_batches(segment: Segment, frames: Iterable[Placed], edges: Iterable[int] = ()) -> None:
    """Fill `segment.batches`: one starts at the segment's first number, at every FIRST flag and at every edge.

    Edges are the ends of what is acknowledged or on the way; one may lie inside damage, and still parts batches.
    """
    marks = sorted(e for e in edges if segment.first < e < segment.end)
    batches = [Batch(segment.stream, segment.first, segment.end, segment, 0, 0, 0)]

    def part(first: int, offset: int) -> None:
        last = batches[-1]
        last.end, last.length = first, offset - last.offset
        batches.append(Batch(segment.stream, first, segment.end, segment, offset, 0, last.created_ns))

    for placed in frames:
        header = placed.header
        while marks and marks[0] <= header.seq_first:
            part(marks.pop(0), placed.offset)
        starts = header.flags & FLAG_FIRST or other_day(batches[-1], header)
        if starts and header.seq_first != batches[-1].first:
            part(header.seq_first, placed.offset)
        if batches[-1].offset == placed.offset or not batches[-1].created_ns:
            batches[-1].created_ns = header.created_ns
    for mark in marks:
        part(mark, segment.size)
    batches[-1].length = segment.size - batches[-1].offset
    segment.batches = batches


def index_frames(segment: Segment, data: bytes) -> None:
    """Book frames that were just written to the end of `segment`: its size, its end, its batches."""
    offset = 0
    while offset < len(data):
        header = read_header(data, offset)
        batch = segment.batches[-1] if segment.batches else None
        starts = batch is None or header.flags & FLAG_FIRST or header.seq_first != batch.end
        if batch is None or starts or other_day(batch, header):
            batch = Batch(header.stream, header.seq_first, 0, segment, segment.size, 0, header.created_ns)
            segment.batches.append(batch)
        batch.end, batch.length = header.seq_end, batch.length + header.size
        segment.end = header.seq_end
        segment.size += header.size
        offset += header.size


def other_day(batch: Batch, header: Header) -> bool:
    """Whether a frame was cut on another day (UTC) than the batch: the store's partitions are days."""
    return batch.created_ns != 0 and header.created_ns // _DAY_NS != batch.created_ns // _DAY_NS
