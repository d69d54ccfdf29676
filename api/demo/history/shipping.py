"""From frames to rows: a spool, its batches, the landing and the ledger, as the agent and the server do it.

A span is a boot of one collector whose id says what the history is made of, so that the same span of the same history
always is the same batches under the same ids: sent again they are duplicates, and nothing is doubled.
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from api.demo.history.calendar import NS
from api.demo.history.hours import HOST
from api.demo.history.making import Made
from collector.heartbeat import Heartbeat
from collector.landing import Landed, Landing, record_heartbeats
from collector.spool import Spool, SpoolFullError
from collector.spool import cursor as spool_cursor
from collector.spool.cursor import Identity
from collector.spool.fs import SpoolFS
from collector.spool.settings import SpoolSettings
from collector.store import Store

NAME = "history"
_NAMESPACE = uuid.UUID("5a1f0c9e-7d4b-4a53-9b6a-3f0e4d9c2b71")
_BEAT_NS = 60 * NS
# What is lost here is made again: no reserve, and the disk is left to the system.
_SPOOL = SpoolSettings(reserve_bytes=0, min_free_bytes=64 << 20)


def collector_of(what: str) -> uuid.UUID:
    """The collector of a history (or a fixture) that `what` describes."""
    return uuid.uuid5(_NAMESPACE, what)


@dataclass(slots=True)
class Shipped:
    """What became of a span's events."""

    events: int = 0
    stored: int = 0
    quarantined: int = 0
    batches: int = 0
    duplicates: int = 0

    def add(self, landed: Landed) -> None:
        """Count one batch."""
        self.events += landed.events
        self.stored += landed.stored
        self.quarantined += landed.quarantined
        self.batches += 1
        self.duplicates += landed.status == "duplicate"


class Shipping:
    """Ships spans of one collector into a store. `folder` is the spool's; it is empty afterwards."""

    def __init__(self, store: Store, landing: Landing, folder: Path, collector: uuid.UUID) -> None:
        self._store, self._landing, self._folder, self._collector = store, landing, folder, collector

    def ship(self, made: Made, boot: int) -> Shipped:
        """Spool a span's frames, land its batches, and close the boot's books with a last heartbeat.

        Raises StoreError, SpoolFullError or OSError; then nothing is acknowledged that is not stored, and the span can
        be shipped again.
        """
        shipped = Shipped()
        if made.frames:
            spool = self._open(boot)
            try:
                for created_ns, packed in made.frames:
                    spool.append([packed], created_ns=created_ns, watermark_ns=created_ns)
                if not spool.commit():
                    raise SpoolFullError(f"{self._folder}: {spool.problem}")
                spool.cut()
                while pending := spool.pending():
                    for batch in pending:
                        attempt, body = spool.claim(batch), spool.read(batch)
                        shipped.add(self._landing.land(batch.name, NAME, HOST, attempt, body, time.time_ns()))
                        spool.ack(batch)
            finally:
                spool.close()
                shutil.rmtree(self._folder, ignore_errors=True)
        record_heartbeats(self._store, list(self._beats(made, boot)))
        return shipped

    def _open(self, boot: int) -> Spool:
        """A new spool of this very boot; what a killed run left in it is made again."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True, mode=0o700)
        spool_cursor.save(SpoolFS(), self._folder / "identity", Identity(self._collector, boot - 1))
        return Spool(self._folder, _SPOOL)

    def _beats(self, made: Made, boot: int) -> Iterator[Heartbeat]:
        """What the collector would have said of itself, once a minute, and at last that it stops."""
        for ts_ns in (*range(made.begin_ns, made.end_ns - 1, _BEAT_NS), made.end_ns - 1):
            stopped = ts_ns == made.end_ns - 1
            cut = sum(packed.events for created_ns, packed in made.frames if stopped or created_ns < ts_ns)
            yield Heartbeat(
                collector=self._collector, boot=boot, name=NAME, host=HOST,
                status="stopped" if stopped else "running", reason="", ts_ns=ts_ns, watermark_ns=ts_ns,
                produced=cut, acked=cut, in_flight=0, spool_bytes=0,
            )  # fmt: skip
