"""The reading end of a spool: which batches may be sent, and what became of them.

pending -> claim -> read -> send -> ack       stored, or known as lost: it leaves the spool
                                 -> release   outcome unknown: sent again, the same bytes
                                 -> halve     refused: each half is tried by itself
                                 -> reject    a single frame refused: quarantined, drop frames go in its place
"""

from __future__ import annotations

import errno
import threading
from pathlib import Path

from collector.record import DropReason
from collector.spool.books import Books
from collector.spool.cursor import BootState
from collector.spool.fs import SpoolFS
from collector.spool.quarantine import keep
from collector.spool.segment import Batch, parting, read_batch, residue
from collector.spool.writer import Writer


class Outbox:
    """Batches in the order in which they were cut. Thread-safe; the writing end shares the lock."""

    def __init__(
        self,
        fs: SpoolFS,
        folder: Path,
        quarantine_bytes: int,
        lock: threading.RLock,
        books: Books,
        writer: Writer,
        problems: dict[str, str],
    ) -> None:
        self.folder = folder
        self._fs = fs
        self._quarantine_bytes = quarantine_bytes
        self._lock = lock
        self._books = books
        self._writer = writer
        self._problems = problems
        self._claimed = books.claimed
        self._damaged: set[Batch] = set()

    @property
    def problem(self) -> str:
        """Why the spool is degraded; empty when it is not."""
        return "; ".join(self._problems.values())

    def pending(self) -> list[Batch]:
        """Batches that may be sent, oldest first: whole, durable, not claimed."""
        with self._lock:
            return [
                b
                for s in self._books.segments
                for b in s.batches
                if b is not self._writer.open_batch
                and b not in self._claimed
                and (b.stream.boot != self._books.stream.boot or b.end <= self._writer.durable)
            ]

    def claim(self, batch: Batch) -> int:
        """Note durably that this batch is about to be sent; returns its attempt (0 the first time).

        Raises OSError when the cursor cannot be written: then it must not be sent.
        """
        with self._lock:
            flight = self._books.flight(batch)
            if flight is None:
                flight = self._books.take_off(batch)
            else:
                flight.attempt += 1
            if not self._save():
                raise OSError(errno.EIO, f"cursor of {self.folder} cannot be written: {self.problem}")
            self._claimed.add(batch)
            return flight.attempt

    def read(self, batch: Batch) -> bytes:
        """The bytes to send: the same on every try, with drop frames where the disk lost something.

        A batch that was refused for good is drop frames (`rejected`) and nothing else.
        """
        if batch.rejected:
            return b"".join(residue(self._fs, batch, DropReason.REJECTED))
        body, lost = read_batch(self._fs, batch)
        if lost:
            with self._lock:
                if batch not in self._damaged:
                    self._damaged.add(batch)
                    self._books.cursor.count(DropReason.CORRUPT.value, lost)
        return body

    def release(self, batch: Batch) -> None:
        """Give a claimed batch back, outcome unknown; the next claim counts one attempt more."""
        with self._lock:
            self._claimed.discard(batch)

    def ack(self, batch: Batch) -> None:
        """The server has the batch durably, or knows all of it as lost: it leaves the spool."""
        with self._lock:
            self._claimed.discard(batch)
            self._damaged.discard(batch)
            self._books.acknowledge(batch, self._writer.active)
            self._save()

    def halve(self, batch: Batch) -> bool:
        """Part a refused batch at a frame near its middle, so that good frames do not share the fate of a bad one.

        False: it is a single frame (or already refused and replaced) and cannot be parted.
        """
        with self._lock:
            middle = None if batch.rejected else parting(self._fs, batch)
            if middle is None:
                return False
            offset, seq = middle
            length = batch.offset + batch.length - offset
            tail = Batch(batch.stream, seq, batch.end, batch.segment, offset, length, batch.created_ns)
            batches = batch.segment.batches
            batches.insert(batches.index(batch) + 1, tail)
            flight = self._books.flight(batch)
            if flight:
                flight.end = seq
            batch.end, batch.length = seq, offset - batch.offset
            self._claimed.discard(batch)
            return True

    def reject(self, batch: Batch, why: str) -> None:
        """The server refuses the batch for good: keep its bytes in `quarantine/`, send drop frames in its place."""
        with self._lock:
            if not batch.rejected:
                body, _ = read_batch(self._fs, batch)
                keep(self._fs, self.folder / "quarantine", batch, body, why, self._quarantine_bytes)
                self._books.cursor.count(DropReason.REJECTED.value, batch.events)
            batch.rejected = True
            self._claimed.discard(batch)
            flight = self._books.flight(batch) or self._books.take_off(batch)
            flight.rejected = True
            self._save()

    def boots(self) -> list[tuple[BootState, int]]:
        """The books of every boot that is not settled yet, with how many of its events are on the way."""
        with self._lock:
            return self._books.boots(self._writer.durable)

    def reported(self, boot: int) -> None:
        """The server has a heartbeat that closes the books of `boot`; it is forgotten, unless it is the current one."""
        with self._lock:
            self._books.close_boot(boot)

    def _save(self) -> bool:
        return self._books.save(self._writer.durable, self._writer.next)
