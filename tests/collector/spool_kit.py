"""Polls of numbered rows and a server that books sequence numbers, for the tests of the spool."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from collector.frames import decode
from collector.payload import Packed, pack_columns, pack_drop
from collector.record import GAUGES, Columns, DropReason
from collector.spool import Spool
from collector.spool.fs import SpoolFS
from collector.spool.settings import SpoolSettings

DAY = 20_000 * 86_400_000_000_000
SMALL = SpoolSettings(
    segment_bytes=4096, max_bytes=1 << 20, min_free_bytes=0, reserve_bytes=4096, batch_events=64, commit_bytes=1 << 20
)


def rows(first: int, n: int, next_position: int | None = None) -> Packed:
    """`n` gauges whose value is their number, counted from `first`."""
    columns = Columns.from_rows(
        GAUGES,
        [{"ts_ns": DAY + i, "name": "n", "host": "h", "service": "s", "value": i} for i in range(first, first + n)],
    )
    return pack_columns(columns, {} if next_position is None else {"ring": next_position})


class Producer:
    """A source with a position, like a ring: after a crash it goes on from where the spool says it was."""

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self.next = spool.positions.get("ring", 0)

    def poll(self, n: int, frames: int = 1, dropped: int = 0) -> None:
        packed = [pack_drop(DropReason.RING_OVERWRITTEN, dropped)] if dropped else []
        for i in range(frames):
            last = i + 1 == frames
            packed.append(rows(self.next + i * n, n, self.next + frames * n if last else None))
        self.spool.append(packed, created_ns=DAY, positions={"ring": self.next + frames * n})
        self.next += frames * n


class Books:
    """What a server has: values of stored rows, and for each boot which sequence numbers it knows of."""

    def __init__(self) -> None:
        self.values: Counter[int] = Counter()
        self.reasons: Counter[str] = Counter()
        self.ranges: dict[int, set[tuple[int, int]]] = {}
        self.batches: set[str] = set()
        self.corrupt: list[tuple[int, int]] = []  # (boot, first) of frames that damage took

    def receive(self, name: str, body: bytes) -> None:
        """Take a batch once, as the door does."""
        if name in self.batches:
            return
        self.batches.add(name)
        boot, at = int(name.split("/")[1]), int(name.split("/")[2])
        for frame in decode(body):
            assert frame.header.seq_first == at, "a batch has no holes"
            assert frame.header.stream.boot == boot
            at = frame.header.seq_end
            self.ranges.setdefault(boot, set()).add((frame.header.seq_first, at))
            if frame.columns is None:
                assert frame.reason is not None
                self.reasons[frame.reason.value] += frame.header.events
                if frame.reason is DropReason.CORRUPT:
                    self.corrupt.append((boot, frame.header.seq_first))
            else:
                self.values.update(int(v) for v in frame.columns.values["value"])

    def events(self, boot: int) -> int:
        """Distinct sequence numbers of a boot; fails when two frames claim the same one."""
        at, total = 0, 0
        for first, end in sorted(self.ranges.get(boot, ())):
            assert first >= at, f"boot {boot}: numbers {first}..{at} came twice"
            at, total = end, total + end - first
        return total

    def difference(self, spool: Spool) -> dict[int, int]:
        """What the spool calls acknowledged and this server does not have, for each boot the spool still knows."""
        missing: dict[int, int] = {}
        for state, _ in spool.boots():
            here = {n for first, end in self.ranges.get(state.boot, ()) for n in range(first, end)}
            missing[state.boot] = len({n for first, end in state.acked for n in range(first, end)} - here)
            assert not here or max(here) < state.produced, "the server has what was never produced"
        return missing


def drain(spool: Spool, books: Books, limit: int = 1_000_000) -> None:
    """Send everything that can be sent."""
    for _ in range(limit):
        spool.cut()
        pending = spool.pending()
        if not pending:
            return
        batch = pending[0]
        spool.claim(batch)
        books.receive(batch.name, spool.read(batch))
        spool.ack(batch)


def open_spool(folder: Path, settings: SpoolSettings = SMALL, fs: SpoolFS | None = None) -> Spool:
    """A spool whose clock stands still: nothing commits or rotates by time."""
    return Spool(folder, settings, fs=fs, now=lambda: 0.0)


def kill(spool: Spool) -> None:
    """What kill -9 leaves: the files as they are, the lock free."""
    for fd in (spool._writer.fd, spool._lock_fd):
        if fd is not None and fd >= 0:
            spool._fs.close(fd)
