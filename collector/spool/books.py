"""The books of a spool: its segments, the batches in them that are on the way, and the cursor that outlives a crash.

Every sequence number of every boot is acknowledged, in a segment, or has a drop frame with a reason in its place. The
cursor is durable before a batch is sent and before a segment is removed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from collector.frames import Stream
from collector.record import DropReason
from collector.spool import cursor as spool_cursor
from collector.spool.cursor import BootState, Cursor, InFlight
from collector.spool.cutting import index_frames
from collector.spool.fs import SpoolFS
from collector.spool.recovery import Recovered
from collector.spool.room import Room
from collector.spool.segment import Batch, Segment, drop_frames, segment_name


class Books:
    """What a spool has and has had. Not thread-safe: the spool holds its lock.

    `stream` is the boot that writes now, `positions` are its sources', `problems` says what is wrong, by part.
    """

    def __init__(
        self,
        fs: SpoolFS,
        folder: Path,
        room: Room,
        problems: dict[str, str],
        stream: Stream,
        cursor: Cursor,
        found: Recovered,
    ) -> None:
        self._fs = fs
        self._folder = folder
        self._room = room
        self._problems = problems
        self.stream = stream
        self.cursor = cursor
        self.positions = found.positions
        self.segments = found.segments
        self.dead: list[Segment] = []  # acknowledged, to be removed once the cursor says so
        self.claimed: set[Batch] = set()

    @property
    def size_bytes(self) -> int:
        """Bytes of all segments."""
        return sum(segment.size for segment in (*self.segments, *self.dead))

    def settle(self, holes: Mapping[int, list[tuple[int, int]]], reason: DropReason) -> None:
        """Bring books and files together after a scan: book holes, close old boots, forget what is done.

        Raises OSError when a hole's drop frames cannot be written.
        """
        for boot, ranges in holes.items():
            for first, end in ranges:
                self._fill(Stream(self.stream.collector, boot), first, end, reason)
        self.segments.sort(key=lambda s: (s.stream.boot, s.first))
        for segment in self.segments:
            state = self.cursor.boot(segment.stream.boot)
            state.produced = max(state.produced, segment.end)
        names = {(b.stream.boot, b.first, b.end): b for s in self.segments for b in s.batches}
        flying = []
        for flight in self.cursor.in_flight:
            batch = names.get((flight.boot, flight.first, flight.end))
            if batch:
                batch.rejected = flight.rejected
                flying.append(flight)
        self.cursor.in_flight = flying
        self.cursor.boots = [b for b in self.cursor.boots if b.produced]
        self.cursor.boot(self.stream.boot)
        self.dead = [s for s in self.segments if not s.batches]
        self.segments = [s for s in self.segments if s.batches]

    def flight(self, batch: Batch) -> InFlight | None:
        """The batch's entry among those that may have reached the server."""
        key = (batch.stream.boot, batch.first)
        return next((f for f in self.cursor.in_flight if (f.boot, f.first) == key), None)

    def take_off(self, batch: Batch) -> InFlight:
        """A new entry for a batch that is about to be sent for the first time."""
        flight = InFlight(batch.stream.boot, batch.first, batch.end, 0, batch.rejected)
        self.cursor.in_flight.append(flight)
        return flight

    def acknowledge(self, batch: Batch, active: Segment | None) -> None:
        """Book a batch as delivered; a segment without batches, if it is not the active one, is to be removed."""
        flight = self.flight(batch)
        if flight:
            self.cursor.in_flight.remove(flight)
        self.cursor.boot(batch.stream.boot).add(batch.first, batch.end)
        segment = batch.segment
        if batch in segment.batches:
            segment.batches.remove(batch)
        if not segment.batches and segment is not active and segment in self.segments:
            self.segments.remove(segment)
            self.dead.append(segment)

    def boots(self, durable: int) -> list[tuple[BootState, int]]:
        """The books of every boot that is not settled yet, with how many of its events are on the way."""
        self.cursor.boot(self.stream.boot).produced = durable
        flying: dict[int, int] = {}
        for batch in self.claimed:
            flying[batch.stream.boot] = flying.get(batch.stream.boot, 0) + batch.events
        return [(BootState(b.boot, b.produced, list(b.acked)), flying.get(b.boot, 0)) for b in self.cursor.boots]

    def close_boot(self, boot: int) -> None:
        """Forget a boot, unless it is the current one or has segments still."""
        there = {s.stream.boot for s in (*self.segments, *self.dead)} | {self.stream.boot}
        self.cursor.boots = [b for b in self.cursor.boots if b.boot != boot or boot in there]

    def save(self, durable: int, next_seq: int) -> bool:
        """Write the cursor, then remove the segments it no longer needs. False: it could not be written."""
        self.cursor.boot(self.stream.boot).produced = durable
        if durable == next_seq:  # otherwise the positions are ahead of what is durable
            self.cursor.positions_boot, self.cursor.positions_seq = self.stream.boot, durable
            self.cursor.positions = dict(self.positions)
        try:
            self._room.make_way(lambda: spool_cursor.save(self._fs, self._folder / "cursor", self.cursor))
            if self.dead:
                for segment in self.dead:
                    self._fs.unlink(segment.path)
                self._fs.sync_dir(self._folder)
                self.dead.clear()
        except OSError as error:
            self._problems["cursor"] = f"the cursor of {self._folder} cannot be written: {error}"
            return False
        self._problems.pop("cursor", None)
        return True

    def _fill(self, stream: Stream, first: int, end: int, reason: DropReason) -> None:
        """A segment of drop frames for sequence numbers that nothing accounts for."""
        path = self._folder / segment_name(first, stream.boot)
        data = b"".join(drop_frames(stream, first, end, reason, time.time_ns(), 0))
        self._room.make_way(lambda: self._fs.replace(path, data))
        segment = Segment(path, stream, first, end, residue=True)
        index_frames(segment, data)
        self.segments.append(segment)
        self.cursor.count(reason.value, end - first)
