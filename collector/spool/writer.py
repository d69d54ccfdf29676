"""The writing end of a spool: one active segment, group commit, and what happens when the disk refuses.

A failed write leaves nothing visible. A failed fsync ends the file: the kernel may have called the lost pages clean,
so the descriptor's word is worthless from then on (https://wiki.postgresql.org/wiki/Fsync_Errors); what was not
durable is kept in memory until it is, and goes to a new file.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from pathlib import Path

from collector.frames import FLAG_FIRST, FLAG_MORE, HEADER_BYTES, Stream, seal
from collector.payload import Packed
from collector.spool.cutting import index_frames
from collector.spool.fs import SpoolFS
from collector.spool.segment import Batch, Segment, segment_name
from collector.spool.settings import SpoolSettings

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_DAY_NS = 86_400_000_000_000


class Writer:
    """Appends groups of frames to segments of one boot. Not thread-safe: the spool holds its lock.

    `segments` and `dead` (to be removed after the next cursor) are the spool's own lists; `problems` says what is
    wrong, by part. `next` is the next sequence number, everything below `durable` survives a crash.
    """

    def __init__(
        self,
        fs: SpoolFS,
        folder: Path,
        settings: SpoolSettings,
        now: Callable[[], float],
        stream: Stream,
        segments: list[Segment],
        dead: list[Segment],
        problems: dict[str, str],
    ) -> None:
        self._fs = fs
        self._folder = folder
        self._settings = settings
        self._now = now
        self._stream = stream
        self._segments = segments
        self._dead = dead
        self._problems = problems
        self.next = self.durable = 0
        self.active: Segment | None = None
        self.open_batch: Batch | None = None
        self.fd: int | None = None
        self._since = 0.0  # when the active segment was opened
        self._new_file = False  # its name is not durable yet
        self._durable_size = 0
        self._cut = True  # the next frame starts a batch
        self._open_bytes = 0
        self._unsynced: list[bytes] = []
        self._unsynced_since = 0.0
        self._given_up = False  # the active file failed: what is not durable must go to a new one

    @property
    def commit_due(self) -> bool:
        """Whether something has waited long enough to be made durable, or failed to be."""
        s = self._settings
        interval = 1.0 if s.durability == "interval" else s.commit_s
        return self._given_up or bool(self._unsynced and self._now() - self._unsynced_since >= interval)

    @property
    def uncommitted(self) -> bool:
        """Whether something is not durable yet, or failed to be."""
        return self._given_up or bool(self._unsynced)

    @property
    def commit_large(self) -> bool:
        """Whether so much waits to be made durable that it should not wait longer."""
        return sum(map(len, self._unsynced)) >= self._settings.commit_bytes

    @property
    def aged(self) -> bool:
        """Whether the active segment is old or large enough to be closed."""
        if self.active is None:
            return False
        s = self._settings
        return self.active.size >= s.segment_bytes or self._now() - self._since >= s.segment_s

    def write(self, group: Sequence[tuple[Packed, int]], mono_ns: int, watermark_ns: int) -> bool:
        """Seal and write payloads with their times of cutting; False: nothing is visible, no number is taken."""
        if not group:
            return True
        if self.aged:
            self.rotate()
        if self._given_up and not self.commit():
            return False
        data, size, end = self._sealed(group, mono_ns, watermark_ns)
        try:
            segment, fd = self._file()
            self._fs.write(fd, data)
        except OSError as error:
            part = "space" if error.errno in NO_SPACE else "disk"
            self._problems[part] = f"writing to {self._folder} failed: {error}"
            self._undo()
            return False
        index_frames(segment, data)
        self.open_batch, self._open_bytes, self._cut = segment.batches[-1], size, False
        self.next = end
        if not self._unsynced:
            self._unsynced_since = self._now()
        if self._settings.durability == "fsync":
            self._unsynced.append(data)
        else:
            # Called durable once it is written, so nothing is kept here to be written again.
            self._unsynced = [b""] if self._settings.durability == "interval" else []
            self.durable, self._durable_size = self.next, segment.size
        return True

    def commit(self) -> bool:
        """Make durable what was written. False: it could not be; the next call writes it to a new file."""
        if not self._unsynced and not self._given_up:
            return True
        if self._given_up and not self._rewrite():
            return False
        segment, fd = self._file()
        try:
            self._fs.sync(fd)
            if self._new_file:
                self._fs.sync_dir(self._folder)
        except OSError as error:
            self._problems["disk"] = f"fsync of {segment.path.name} failed: {error}"
            self._give_up()
            return False
        self._new_file = False
        self._durable_size = segment.size
        self.durable = self.next
        self._unsynced.clear()
        self._problems.pop("disk", None)
        return True

    def cut(self) -> None:
        """End the open batch; the next frame starts a new one."""
        self.open_batch, self._cut = None, True

    def rotate(self) -> None:
        """Close the active segment; the next write opens a new one. Nothing happens when it cannot be committed."""
        if self.active is None or not self.commit() or self.fd is None:
            return
        self._fs.close(self.fd)
        segment, self.active, self.fd = self.active, None, None
        self.cut()
        if not segment.batches:
            self._segments.remove(segment)
            self._dead.append(segment)

    def close(self) -> None:
        """Commit and close the active segment."""
        self.commit()
        if self.fd is not None:
            self._fs.close(self.fd)
            self.fd = None

    def _sealed(self, group: Sequence[tuple[Packed, int]], mono_ns: int, mark_ns: int) -> tuple[bytes, int, int]:
        """The group's bytes with FIRST flags where batches start, the open batch's bytes then, the next number."""
        seq, parts = self.next, list[bytes]()
        batch, s = self.open_batch, self._settings
        first, size = (batch.first, self._open_bytes) if batch else (seq, 0)
        day = batch.created_ns // _DAY_NS if batch else 0
        for i, (packed, created_ns) in enumerate(group):
            length = HEADER_BYTES + len(packed.payload)
            over = seq + packed.events - first > s.batch_events or size + length > s.batch_bytes
            starts = (not parts and (batch is None or self._cut)) or over or created_ns // _DAY_NS != day
            if starts:
                first, size, day = seq, 0, created_ns // _DAY_NS
            flags = (FLAG_MORE if i + 1 < len(group) else 0) | (FLAG_FIRST if starts else 0)
            parts.append(seal(packed, self._stream, seq, created_ns, mono_ns, mark_ns, flags))
            seq += packed.events
            size += length
        return b"".join(parts), size, seq

    def _file(self) -> tuple[Segment, int]:
        """The active segment and its descriptor; new ones when there is none. Raises OSError."""
        if self.active is None or self.fd is None:
            first = self.durable if self._given_up else self.next
            path = self._folder / segment_name(first, self._stream.boot)
            self.fd = self._fs.create(path)
            self.active = Segment(path, self._stream, first, first)
            self._segments.append(self.active)
            self._since, self._durable_size, self._new_file = self._now(), 0, True
            self.cut()
        return self.active, self.fd

    def _undo(self) -> None:
        """After a failed write: cut the file back to the last whole group, or give it up."""
        if self.active is None:
            return
        try:
            self._fs.truncate(self.active.path, self.active.size)
        except OSError:
            self._give_up()
            return
        if self.active.size == 0:
            self._give_up()  # an empty file must not hold the name that the next one needs

    def _give_up(self) -> None:
        """Leave the active file: what is durable in it stays, the rest goes to a new file with the next commit."""
        if self.active is None or self.fd is None:
            return
        segment, fd = self.active, self.fd
        self.active = self.fd = None
        self.cut()
        segment.size, segment.end = self._durable_size, max(segment.first, min(segment.end, self.durable))
        segment.batches = [b for b in segment.batches if b.first < self.durable]
        for batch in segment.batches:
            if batch.end > self.durable:
                batch.end, batch.length = self.durable, segment.size - batch.offset
        if not segment.size or not segment.batches:
            self._segments.remove(segment)
        try:
            self._fs.close(fd)
            if not segment.size:
                self._fs.unlink(segment.path)
            elif not segment.batches:
                self._dead.append(segment)
            else:
                self._fs.truncate(segment.path, segment.size)
        except OSError as error:
            # Its frames beyond the durable ones are ignored anyway: the next file's name says where it starts.
            self._problems["disk"] = f"leaving {segment.path.name} failed: {error}"
        if self._settings.durability != "fsync":
            self._unsynced.clear()
        self._given_up = bool(self._unsynced)

    def _rewrite(self) -> bool:
        """Write what was not durable to a new file, the same frames with the same numbers."""
        data = b"".join(self._unsynced)
        try:
            segment, fd = self._file()
            self._fs.write(fd, data)
        except OSError as error:
            self._problems["disk"] = f"writing again to {self._folder} failed: {error}"
            self._give_up()
            return False
        index_frames(segment, data)
        self.open_batch, self._cut = segment.batches[-1], False
        self._open_bytes = self.open_batch.length
        self._given_up = False
        return True
