"""The ledger's rows: what became of each batch, and what the collectors say of themselves."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collector.heartbeat import Heartbeat
from collector.landing.batch import Batch
from collector.record import Columns
from collector.store import Store, StoreError
from collector.store.blocks import from_rows
from collector.store.schema import table_types


@dataclass(slots=True)
class Outcome:
    """What is in the store of one batch, counted as it goes in."""

    rows: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    lost: list[NDArray[np.uint64]] = field(default_factory=list)
    first_ns: int | None = None
    last_ns: int | None = None

    def stored(self, table: str, columns: Columns) -> None:
        """Count rows that are in their table."""
        if not len(columns):
            return
        self.rows[table] = self.rows.get(table, 0) + len(columns)
        if "ts_ns" in columns.values:
            low, high = int(columns.values["ts_ns"].min()), int(columns.values["ts_ns"].max())
            self.first_ns = low if self.first_ns is None else min(low, self.first_ns)
            self.last_ns = high if self.last_ns is None else max(high, self.last_ns)

    def quarantined(self, reason: str, seqs: NDArray[np.uint64]) -> None:
        """Count rows that are in the quarantine."""
        self.reasons[reason] = self.reasons.get(reason, 0) + len(seqs)
        self.lost.append(seqs)


def write_row(
    store: Store, batch: Batch, name: str, host: str, attempt: int, received_ns: int, outcome: Outcome
) -> None:
    """Write the batch's row, last of all. Raises StoreError, also when the counts do not add up."""
    reasons = {**batch.dropped}
    for reason, count in outcome.reasons.items():
        reasons[reason] = reasons.get(reason, 0) + count
    lost = np.concatenate(outcome.lost) if outcome.lost else np.zeros(0, np.uint64)
    seconds, produced, missing = batch.by_second(lost)
    row = {
        "batch": batch.name,
        "collector": batch.stream.collector,
        "name": name,
        "host": host,
        "boot": batch.stream.boot,
        "seq_first": batch.seq_first,
        "events": batch.events,
        "stored": sum(outcome.rows.values()),
        "quarantined": sum(outcome.reasons.values()),
        "dropped": sum(batch.dropped.values()),
        "reasons": list(reasons),
        "reason_counts": list(reasons.values()),
        "tables": list(outcome.rows),
        "table_rows": list(outcome.rows.values()),
        "first_ts": outcome.first_ns or 0,
        "last_ts": outcome.last_ns or 0,
        "seconds": seconds,
        "produced_by_second": produced,
        "missing_by_second": missing,
        "cut": batch.cut_ns,
        "cut_day": batch.cut_day,
        "received": received_ns,
        "checksum": batch.checksum,
        "bytes": batch.size,
        "attempt": attempt,
    }
    if row["stored"] + row["quarantined"] + row["dropped"] != batch.events:  # type: ignore[operator] # row values are Any by use
        raise StoreError(f"batch {batch.id}: {row} does not add up to {batch.events} events; this is a defect")
    token = f"{batch.id}#{attempt}#batches#{secrets.token_hex(4)}"
    store.insert("batches", from_rows(table_types()["batches"], [row]), token=token)


def find_row(store: Store, collector: uuid.UUID, boot: int, seq_first: int) -> dict[str, Any] | None:
    """The ledger's row of a batch, or None. Raises StoreError."""
    frame = store.query(
        "SELECT toString(collector) AS collector_id, name, host, boot, seq_first, events, stored, quarantined, "
        "dropped, reasons, reason_counts, tables, table_rows, toUnixTimestamp64Nano(first_ts) AS first_ns, "
        "toUnixTimestamp64Nano(last_ts) AS last_ns, toUnixTimestamp64Nano(cut) AS cut_ns, "
        "toUnixTimestamp64Nano(received) AS received_ns, checksum, bytes, attempt FROM batches "
        "WHERE collector = {collector:UUID} AND boot = {boot:UInt32} AND seq_first = {seq:UInt64} LIMIT 1",
        {"collector": collector, "boot": boot, "seq": seq_first},
    )
    return frame.row(0, named=True) if frame.height else None


def record_heartbeats(store: Store, heartbeats: Sequence[Heartbeat]) -> None:
    """Write what collectors say of themselves. Raises StoreError."""
    rows = [
        {
            "ts": beat.ts_ns,
            "collector": beat.collector,
            "boot": beat.boot,
            "name": beat.name,
            "host": beat.host,
            "status": beat.status,
            "reason": beat.reason,
            "watermark": beat.watermark_ns,
            "produced": beat.produced,
            "acked": beat.acked,
            "in_flight": beat.in_flight,
            "spool_bytes": beat.spool_bytes,
        }
        for beat in heartbeats
    ]
    if rows:
        store.insert("heartbeats", from_rows(table_types()["heartbeats"], rows), token=f"beat#{secrets.token_hex(8)}")
