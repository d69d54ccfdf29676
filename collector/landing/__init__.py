"""The landing: where batches become rows, exactly once, and are acknowledged only then.

Order: check, quarantine bad rows with a reason, insert each table as one block of one partition, write the ledger row
last. A batch without its ledger row is not acknowledged. What an earlier attempt may have left is read back by the
batch's name, row by row (sequence numbers): a deduplication token alone can lose a batch when the engine is killed
between logging the token and renaming the part, so a token is never used twice after an insert of unknown outcome.

Only rows that are not there yet are judged and inserted, so it does not matter if the configuration or the receiver's
clock has moved between two attempts.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
import numpy as np
import structlog

from collector.landing.batch import Batch, RejectedError, batch_stream, read_batch
from collector.landing.checks import Bounds, Reason, judge
from collector.landing.doubt import Doubts, Turns
from collector.landing.held import present, seqs_of, without
from collector.landing.ledger import Outcome, find_row, record_heartbeats, write_row
from collector.landing.quarantine import quarantine_rows, read_quarantine
from collector.points import Point
from collector.record import Columns
from collector.settings import Section, duration_ns
from collector.store import Store, StoreError
from collector.store.blocks import constant, from_columns, from_rows
from collector.store.native import BlockColumn
from collector.store.schema import table_types

__all__ = ["Landed", "Landing", "LandingSettings", "RejectedError", "record_heartbeats"]

log = structlog.get_logger()


class LandingSettings(Section, frozen=True, kw_only=True):
    """`[landing]`: how far an event time may be from the receiver's clock.

    `max_past` covers the longest outage that a spool bridges; `max_future` what clocks may be apart.
    """

    max_past: str = "10d"
    max_future: str = "60s"

    def validate(self) -> None:
        """Raise ConfigError naming a duration that is not one."""
        duration_ns(self.max_past, "max_past")
        duration_ns(self.max_future, "max_future")


class Landed(msgspec.Struct, frozen=True):
    """What became of a batch: `events = stored + quarantined + dropped`."""

    batch: str
    status: Literal["stored", "duplicate"]
    events: int
    stored: int
    quarantined: int
    dropped: int
    boot_id: str
    tables: tuple[str, ...] = ()  # with rows of this batch that this call stored


class Landing:
    """Lands batches in a store. Thread-safe; batches of one id are taken one after another."""

    def __init__(self, store: Store, points: Mapping[str, Point], settings: LandingSettings | None = None) -> None:
        self._store = store
        self._points = points
        chosen = settings or LandingSettings()
        self._past_ns = duration_ns(chosen.max_past, "max_past")
        self._future_ns = duration_ns(chosen.max_future, "max_future")
        self._turns = Turns()
        self._doubts = Doubts()

    def land(
        self, batch_id: str, name: str, host: str, attempt: int, body: bytes | memoryview, received_ns: int
    ) -> Landed:
        """Store a batch durably and answer for it; `name` and `host` are the collector's.

        Raises RejectedError when it can never be stored, StoreError when it cannot now: send it again, unchanged.
        """
        batch = read_batch(batch_id, body)
        with self._turns.of(batch_id):
            boot_id = self._store.boot_id()
            doubtful = attempt > 0 or self._doubts.about(batch_id, batch.stream, boot_id)
            if doubtful:
                self._store.settle(f"{batch_id}#")
            known = find_row(self._store, batch.stream.collector, batch.stream.boot, batch.seq_first)
            if known is not None:
                return self._duplicate(batch, known, boot_id)
            try:
                outcome = self._insert(batch, attempt, received_ns, doubtful)
                write_row(self._store, batch, name, host, attempt, received_ns, outcome)
            except StoreError:
                self._doubts.add(batch_id)
                raise
            self._doubts.clear(batch_id)
        quarantined, dropped = sum(outcome.reasons.values()), sum(batch.dropped.values())
        if quarantined:
            log.warning("rows quarantined", batch=batch_id, collector=name, host=host, reasons=outcome.reasons)
        return Landed(
            batch_id, "stored", batch.events, sum(outcome.rows.values()), quarantined, dropped, boot_id,
            tuple(outcome.rows),
        )  # fmt: skip

    def find(self, batch_id: str) -> dict[str, Any] | None:
        """The ledger's row of a batch, or None. Raises RejectedError for what is not a batch id."""
        stream, seq_first = batch_stream(batch_id)
        return find_row(self._store, stream.collector, stream.boot, seq_first)

    def _insert(self, batch: Batch, attempt: int, received_ns: int, doubtful: bool) -> Outcome:
        bounds = Bounds(received_ns - self._past_ns, received_ns + self._future_ns)
        outcome = Outcome()
        suffix = f"#{secrets.token_hex(4)}" if doubtful else ""
        held = read_quarantine(self._store, batch, outcome) if doubtful else np.zeros(0, np.uint64)
        bad: list[dict[str, Any]] = []
        for table, rows in batch.tables.items():
            columns = rows
            if doubtful:
                columns = without(columns, held)
                there = present(self._store, batch, columns, bounds)
                if len(there):
                    outcome.stored(table, columns.take(np.isin(seqs_of(columns), there)))
                    columns = without(columns, there)
            verdict = judge(columns, self._points, bounds)
            good = columns if not verdict.any() else columns.take(verdict == Reason.OK)
            if len(good):
                self._insert_rows(batch, table, good, f"{batch.id}#{attempt}#{table}{suffix}", received_ns)
                outcome.stored(table, good)
            if len(good) < len(columns):
                bad += quarantine_rows(batch, columns, verdict, bounds, received_ns, outcome)
        if bad:
            block = from_rows(table_types()["quarantine"], bad)
            self._store.insert("quarantine", block, token=f"{batch.id}#{attempt}#quarantine{suffix}")
        return outcome

    def _insert_rows(self, batch: Batch, table: str, columns: Columns, token: str, received_ns: int) -> None:
        types = table_types()[table]
        n = len(columns)
        extra: tuple[BlockColumn, ...] = (
            BlockColumn("batch", types["batch"], np.full(n, batch.name, np.uint64)),
            BlockColumn("seq", types["seq"], seqs_of(columns)),
            constant("cut_day", types["cut_day"], batch.cut_day, n),
        )
        if "recorded" in types:  # what follows the changes goes by when they came, not by when they happened
            extra += (constant("recorded", types["recorded"], received_ns, n),)
        self._store.insert(table, from_columns(types, columns, extra), token=token)

    def _duplicate(self, batch: Batch, row: Mapping[str, Any], boot_id: str) -> Landed:
        if row["checksum"] != batch.checksum or row["events"] != batch.events:
            raise RejectedError(
                422,
                "different_bytes",
                f"{batch.id} was stored with checksum {row['checksum']:08x} and {row['events']} events, this body has "
                f"{batch.checksum:08x} and {batch.events}; a batch must be the same bytes on every attempt",
            )
        self._doubts.clear(batch.id)
        return Landed(
            batch.id, "duplicate", batch.events, row["stored"], row["quarantined"], row["dropped"], boot_id
        )  # fmt: skip
