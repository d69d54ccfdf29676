"""What the store holds of a batch already, left by an earlier attempt: looked for by the batch's name."""

from __future__ import annotations

import numpy as np
import structlog
from numpy.typing import NDArray

from collector.landing.batch import Batch
from collector.landing.checks import Bounds
from collector.record import Columns
from collector.store import Store

log = structlog.get_logger()

_MINUTE_NS = 60_000_000_000
_DAY_NS = 86_400_000_000_000
# Rewritten freely: the table keeps one row per set, so they are neither read back nor counted twice.
_IDEMPOTENT = frozenset({"label_sets"})


def present(store: Store, batch: Batch, columns: Columns, bounds: Bounds) -> NDArray[np.uint64]:
    """Sequence numbers of the batch that the table holds already, looked for in the batch's minutes only."""
    table = columns.table.name
    if table in _IDEMPOTENT or not len(columns):
        return np.zeros(0, np.uint64)
    ts = columns.values["ts_ns"]
    near = ts[(ts >= bounds.earliest_ns - _DAY_NS) & (ts <= bounds.latest_ns + _DAY_NS)]
    if not len(near):
        return np.zeros(0, np.uint64)
    frame = store.query(
        # `table` is one of collector.record.TABLES, never a caller's text.
        f"SELECT seq FROM {table} WHERE cut_day = toDate({{day:UInt16}}) AND batch = {{batch:UInt64}} "  # noqa: S608
        "AND toStartOfMinute(ts) BETWEEN toDateTime({first:UInt32}, 'UTC') AND toDateTime({last:UInt32}, 'UTC') "
        "AND ts BETWEEN fromUnixTimestamp64Nano({low:Int64}, 'UTC') "
        "AND fromUnixTimestamp64Nano({high:Int64}, 'UTC')",
        {
            "day": batch.cut_day,
            "batch": batch.name,
            "first": int(near.min()) // _MINUTE_NS * 60,
            "last": int(near.max()) // _MINUTE_NS * 60,
            "low": int(near.min()),
            "high": int(near.max()),
        },
    )
    seqs = frame["seq"].to_numpy()
    unique = np.unique(seqs)
    if len(unique) != len(seqs):
        log.error("a batch is stored twice", batch=batch.id, table=table, rows=len(seqs), distinct=len(unique))
    elif 0 < len(unique) < len(columns):
        log.warning("a batch is stored in part", batch=batch.id, table=table, rows=len(seqs), of=len(columns))
    return unique.astype(np.uint64)


def without(columns: Columns, seqs: NDArray[np.uint64]) -> Columns:
    """The rows whose sequence numbers are not among `seqs`."""
    return columns if not len(seqs) else columns.take(~np.isin(seqs_of(columns), seqs))


def seqs_of(columns: Columns) -> NDArray[np.uint64]:
    """The rows' sequence numbers. Raises TypeError when they have none."""
    if columns.seq is None:
        raise TypeError(f"{columns.table.name}: rows of a batch have sequence numbers")
    return columns.seq
