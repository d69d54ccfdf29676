"""The spool: frames on disk between a source and the server, until the server has them for certain.

Rules, each held by a test in tests/collector/test_spool*.py:

- `append` takes the frames of one poll: all of them survive a crash, or none. Durable means fdatasync (and fsync of
  the folder for a new file), in group commit; only what is durable is ever sent or counted as produced.
- A failed fsync ends that file: it is never tried again on the same descriptor. What was not durable is written
  again to a new file.
- Every sequence number is stored by the server, or in the spool, or has a drop frame with a reason in its place.
- The cursor is durable before a batch is sent and before a segment is removed.
- A full disk or budget follows `when_full`; nothing is dropped in silence, and it recovers alone.

One writer per folder (flock). Thread-safe: a poll thread appends, a commit thread calls `tick`, a shipper claims
and acknowledges (see `collector.spool.outbox`, the reading end).
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from collector.frames import HEADER_BYTES, Stream
from collector.payload import DROP_WIRE_ID, Packed, pack_drop
from collector.record import DropReason
from collector.spool import cursor as spool_cursor
from collector.spool.books import Books
from collector.spool.cursor import Cursor, Identity
from collector.spool.fs import SpoolFS
from collector.spool.outbox import Outbox
from collector.spool.owed import Owed
from collector.spool.recovery import find_collector, last_boot, recover
from collector.spool.room import Room
from collector.spool.settings import SpoolSettings
from collector.spool.thinning import drop_oldest
from collector.spool.writer import Writer


class SpoolFullError(RuntimeError):
    """There is no room and the policy is `block`: keep the frames and try again."""


class Spool(Outbox):
    """The spool of one collector: an outbox with its writing end. Opening it starts the collector's next boot.

    Raises LockedError when another process has the folder, OSError when it cannot be written at all.
    """

    def __init__(
        self,
        folder: Path,
        settings: SpoolSettings | None = None,
        *,
        fs: SpoolFS | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings or SpoolSettings()
        self.settings.validate()
        fs = fs or SpoolFS()
        fs.make_dir(folder)
        self._lock_fd = fs.lock(folder / "lock")
        try:
            self._open(fs, folder, now)
        except BaseException:
            fs.close(self._lock_fd)
            raise

    def _open(self, fs: SpoolFS, folder: Path, now: Callable[[], float]) -> None:
        """Find out who the collector is and what its earlier boots left, and start the next boot."""
        problems: dict[str, str] = {}  # what is wrong, by part
        self._room = Room(fs, folder, self.settings, problems)
        self._owed = Owed()
        cursor = spool_cursor.load(fs, folder / "cursor", Cursor)
        identity = spool_cursor.load(fs, folder / "identity", Identity)
        collector = identity.collector if identity else find_collector(fs, folder) or uuid.uuid4()
        boots = (b.boot for b in cursor.boots) if cursor else ()
        boot = 1 + max(identity.boot if identity else 0, last_boot(fs, folder), *boots, 0)
        me = Identity(collector=collector, boot=boot)
        self._room.make_way(lambda: spool_cursor.save(fs, folder / "identity", me))

        found = recover(fs, folder, collector, cursor)
        books = Books(fs, folder, self._room, problems, Stream(collector, boot), cursor or Cursor(), found)
        fsynced = self.settings.durability == "fsync"
        books.settle(found.holes, DropReason.CORRUPT if fsynced else DropReason.NOT_FSYNCED)
        writer = Writer(fs, folder, self.settings, now, books.stream, books.segments, books.dead, problems)
        super().__init__(fs, folder, self.settings.quarantine_bytes, threading.RLock(), books, writer, problems)
        self._save()
        if found.refused:
            problems["refused"] = f"left alone: {'; '.join(found.refused)}"
        self._room.restock()

    @property
    def stream(self) -> Stream:
        """The collector and the boot that writes now."""
        return self._books.stream

    @property
    def positions(self) -> dict[str, int]:
        """Where the sources were with the last append, or, after a start, with the last frame that is on disk."""
        return self._books.positions

    @property
    def durable_seq(self) -> int:
        """Every event of this boot with a smaller sequence number survives a crash (see `durability`)."""
        return self._writer.durable

    @property
    def next_seq(self) -> int:
        """The sequence number that the next event gets."""
        return self._writer.next

    @property
    def size_bytes(self) -> int:
        """Bytes of all segments."""
        with self._lock:
            return self._books.size_bytes

    @property
    def counters(self) -> dict[str, int]:
        """Dropped events by reason, over all boots, as far as this spool dropped them itself."""
        with self._lock:
            return dict(self._books.cursor.counters)

    @property
    def watermark_ns(self) -> int:
        """The watermark that was noted last, also by an earlier boot."""
        return self._books.cursor.watermark_ns

    def note_watermark(self, watermark_ns: int) -> None:
        """Remember a watermark with the next cursor."""
        with self._lock:
            self._books.cursor.watermark_ns = max(self._books.cursor.watermark_ns, watermark_ns)

    def append(
        self,
        packed: Sequence[Packed],
        *,
        created_ns: int,
        created_mono_ns: int = 0,
        watermark_ns: int = 0,
        positions: Mapping[str, int] | None = None,
    ) -> int:
        """Write the frames of one poll; returns the end of their sequence numbers.

        They are durable once `durable_seq` is there. `positions` are those packed into the last frame. Raises
        SpoolFullError under `block`, with nothing taken.
        """
        with self._lock:
            group = [*self._owed.packed(), *((p, created_ns) for p in packed)]
            need = sum(HEADER_BYTES + len(p.payload) for p, _ in group)
            drops = [(p, made) for p, made in group if p.wire_id == DROP_WIRE_ID]
            lost = sum(p.events for p, _ in group) - sum(p.events for p, _ in drops)
            while not (self._fits(need) and self._writer.write(group, created_mono_ns, watermark_ns)):
                problem = self.problem
                if self.settings.when_full == "drop_oldest" and self._drop_oldest():
                    continue
                if self.settings.when_full == "block":
                    raise SpoolFullError(f"{self.folder}: {problem}")
                if lost:
                    self._books.cursor.count(DropReason.FULL_NEWEST.value, lost)
                    drops.append((pack_drop(DropReason.FULL_NEWEST, lost, positions), created_ns))
                if not self._writer.write(drops, created_mono_ns, watermark_ns):
                    self._owed.add(packed, lost, created_ns)
                    return self._writer.next
                break
            else:
                self._problems.pop("space", None)
            self._owed.clear()
            if positions:
                self._books.positions = dict(positions)
            if self._writer.commit_large:
                self._writer.commit()
            return self._writer.next

    def commit(self) -> bool:
        """Make durable what was appended. False: it could not be; `problem` says why, and tick tries again."""
        with self._lock:
            return self._writer.commit()

    @property
    def uncommitted(self) -> bool:
        """Whether something waits to be made durable: `tick` must be called soon."""
        return self._writer.uncommitted

    def tick(self) -> None:
        """Do what is due: group commit, rotation by age, drops that are owed to the disk, the reserve."""
        with self._lock:
            if self._writer.commit_due and self.settings.durability != "none":
                self._writer.commit()
            if self._owed and self._writer.write(self._owed.packed(), 0, 0):
                self._owed.clear()
            if self._writer.aged:
                self._writer.rotate()
            if not self._room.has_reserve:
                self._room.restock()
            if self._books.dead:
                self._save()

    def cut(self) -> None:
        """End the open batch, so that it can be sent; the next frame starts a new one."""
        with self._lock:
            if self._writer.open_batch is not None and self._writer.commit():
                self._writer.cut()

    def close(self) -> None:
        """Commit, write the cursor and let go of the folder."""
        with self._lock:
            self._writer.close()
            self._save()
            if self._lock_fd >= 0:
                self._fs.close(self._lock_fd)
                self._lock_fd = -1

    def _fits(self, need: int) -> bool:
        return self._room.fits(self._books.size_bytes, need)

    def _drop_oldest(self) -> bool:
        return drop_oldest(self._fs, self._books, self._writer, self._room, self._problems)
