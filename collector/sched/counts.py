"""Histograms of a report period as `delay_counts`: of the host, of each service, CPU and observed thread.

Only buckets that counted something are handed over, many to a row. A delay of a period is in one row of each scope, so
counts of one scope add up over time, and scopes must not be added to each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from collector.record import DELAY_COUNTS, MAX_CELLS, Columns
from collector.sched.gauges import DELAY_KINDS
from collector.sched.mechanism import Totals


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose delays: counts int64[2, buckets] by kind, and the longest of each kind where it is known."""

    scope: str
    counts: NDArray[np.int64]
    service: str = ""
    thread: int = 0
    cpu: int | None = None
    longest: Sequence[int | None] = (None, None)


def scopes(
    now: Totals, before: Totals, names: Sequence[str], sees: frozenset[str], services: Mapping[int, str]
) -> Iterable[Scope]:
    """What was counted between two readings; `names` are the groups', `services` those of observed threads."""
    groups = _grown(now.groups["histogram"], before.groups["histogram"])
    longest = now.groups["max_ns"][:, 0]
    if "machine" in sees:
        yield Scope("host", groups.sum(axis=0), longest=[int(v) for v in longest.max(axis=0)])
    for number, name in enumerate(names[1:], start=1):
        yield Scope("service", groups[number], name, longest=[int(v) for v in longest[number]])
    if now.by_cpu is not None and before.by_cpu is not None:
        for cpu, counts in enumerate(_grown(now.by_cpu, before.by_cpu)):
            yield Scope("cpu", counts, cpu=cpu)
    for tid, counts in now.by_thread.items():
        earlier = before.by_thread.get(tid)
        grown = counts.astype(np.int64) if earlier is None else _grown(counts, earlier)
        yield Scope("thread", grown, services.get(tid, ""), tid)


def columns(host: str, found: Iterable[Scope], sees: frozenset[str], ts_ns: int, duration_ns: int) -> Columns | None:
    """The rows of one period that ended at `ts_ns` (UTC); None when nothing was counted."""
    rows: list[dict[str, object]] = []
    for one in found:
        for kind, text in enumerate(DELAY_KINDS):
            if text not in sees:
                continue
            about = {
                "ts_ns": ts_ns, "duration_ns": duration_ns, "scope": one.scope, "host": host, "service": one.service,
                "thread": one.thread, "cpu": one.cpu, "kind": text, "max_ns": one.longest[kind],
            }  # fmt: skip
            rows += [{**about, "cells": cells} for cells in cells_of(one.counts[kind])]
    return Columns.from_rows(DELAY_COUNTS, rows) if rows else None


def cells_of(counts: NDArray[np.int64]) -> Iterable[str]:
    """The buckets that counted something as `bucket:n,bucket:n`, in texts of at most MAX_CELLS characters."""
    text = ""
    used = np.flatnonzero(counts)
    for bucket, n in zip(used.tolist(), counts[used].tolist(), strict=True):
        cell = f"{bucket}:{n}"
        if text and len(text) + 1 + len(cell) > MAX_CELLS:
            yield text
            text = cell
        else:
            text = f"{text},{cell}" if text else cell
    if text:
        yield text


def _grown(now: NDArray[np.uint32], before: NDArray[np.uint32]) -> NDArray[np.int64]:
    """The difference of two readings of counters that wrap at 32 bits."""
    grown = (now - before).astype(np.int64)
    # Nothing is counted two thousand million times in a period: this counter began anew.
    return now.astype(np.int64) if (grown > 1 << 31).any() else grown
