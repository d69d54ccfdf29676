"""Rows that are refused, each kept with its reason."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from collector.landing.batch import Batch
from collector.landing.checks import Bounds, Reason, explain, rows_of
from collector.landing.held import seqs_of
from collector.landing.ledger import Outcome
from collector.record import Columns
from collector.store import Store


def quarantine_rows(
    batch: Batch, columns: Columns, verdict: NDArray[np.uint8], bounds: Bounds, received_ns: int, outcome: Outcome
) -> list[dict[str, Any]]:
    """Rows of the `quarantine` table for what `verdict` refuses, counted into `outcome`."""
    bad = verdict != Reason.OK
    refused = columns.take(bad)
    seqs = seqs_of(refused)
    rows = []
    for seq, code, row in zip(seqs.tolist(), verdict[bad].tolist(), rows_of(refused), strict=True):
        reason = Reason(code)
        rows.append(
            {
                "received": received_ns,
                "batch": batch.name,
                "seq": seq,
                "table": columns.table.name,
                "reason": reason.text,
                "error": explain(reason, row, bounds)[:1_000],
                "row": msgspec.json.encode(row).decode(),
                "cut_day": batch.cut_day,
            }
        )
    for code in np.unique(verdict[bad]).tolist():
        outcome.quarantined(Reason(code).text, seqs[verdict[bad] == code])
    return rows


def read_quarantine(store: Store, batch: Batch, outcome: Outcome) -> NDArray[np.uint64]:
    """Sequence numbers of the batch that are in the quarantine already, counted into `outcome`."""
    frame = store.query(
        "SELECT seq, any(reason) AS reason FROM quarantine "
        "WHERE cut_day = toDate({day:UInt16}) AND batch = {batch:UInt64} GROUP BY seq",
        {"day": batch.cut_day, "batch": batch.name},
    )
    seqs: NDArray[np.uint64] = frame["seq"].to_numpy().astype(np.uint64)
    reasons = np.array(frame["reason"].to_list(), dtype=object)
    for reason in set(reasons.tolist()):
        outcome.quarantined(reason, seqs[reasons == reason])
    return seqs
