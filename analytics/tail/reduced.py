"""Messages whose stages ran at once, reduced to the critical path by their stamps."""

from __future__ import annotations

import numpy as np
import polars as pl

from analytics import budget
from analytics.paths import Path
from analytics.tail.critical import on_path
from analytics.tail.tailset import Cuts
from collector.store import Store

MOST = 2_000  # messages of the tail, and as many of the body


def members(store: Store, path: Path, prepared: pl.DataFrame, cut: Cuts) -> tuple[pl.DataFrame, int]:
    """The messages of tail, body and band (at most `MOST` of the tail and of the others each, by key) with `part_i` as
    the critical path has them, and how many of them were reduced. One whose stamps are gone stays as it was."""
    value = pl.col("took_ns")
    tail = prepared.filter(value >= cut.tail_ns).sort("key").head(MOST)
    near = value.is_between(cut.band_low_ns, cut.band_high_ns) & (value < cut.tail_ns)
    body = prepared.filter(value.is_between(cut.body_low_ns, cut.body_high_ns) & ~near).sort("key").head(MOST)
    chosen = pl.concat([tail, prepared.filter(near).sort("key").head(MOST), body])
    k = len(path.stages)
    rows = chosen.select("key", "start_ns", *(f"ns_{i}" for i in range(k))).iter_rows()
    spans, _ = budget.spans_of(store, path, [(int(row[0]), int(row[1]), list(row[2:])) for row in rows])
    begin, end = np.zeros((chosen.height, k), dtype=np.int64), np.zeros((chosen.height, k), dtype=np.int64)
    known = np.zeros((chosen.height, k), dtype=np.bool_)
    begin[spans.message, spans.stage], end[spans.message, spans.stage] = spans.start, spans.end
    known[spans.message, spans.stage] = True
    old = chosen.select(f"part_{i}" for i in range(k)).to_numpy()
    # Only where every stage that took time is known by its stamps, and the message ended.
    whole = (known | (old <= 0)).all(axis=1) & chosen["finished"].to_numpy()
    until = chosen["start_ns"].to_numpy() + chosen["took_ns"].to_numpy()
    new = np.where(whole[:, None], on_path(begin, end, known, until), old)
    rest = old.sum(axis=1) - new.sum(axis=1)
    changed = (new != old).any(axis=1)
    return chosen.with_columns(
        *(pl.Series(f"part_{i}", new[:, i]) for i in range(k)),
        (pl.col(f"part_{k}") + pl.Series(rest)).alias(f"part_{k}"),
    ), int(changed.sum())
