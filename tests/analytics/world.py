"""Small worlds: stamps and links as dictionaries, landed with their ledger row as one batch."""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from analytics.paths import Path, paths_from
from collector.keys import hash64
from collector.points import BUILT_IN
from collector.store import Store
from collector.store.blocks import from_rows
from collector.store.schema import table_types

T0 = 1_750_000_000_000_000_000
HOUR = T0 - T0 % 3_600_000_000_000
AGENT = uuid.UUID("00000000-0000-4000-8000-000000000001")
_sequence = itertools.count(1)

ORDER = """
max_age = "1s"
rollup = ["host", "symbol"]
stages = [
  {name = "decide", class = "compute", budget = "150us", from = {point = "app_ingress"}, to = {point = "app_decision"}},
  {name = "send", class = "network", from = {point = "app_decision"}, to = {point = "app_egress", which = "last"}},
]
"""


def path(text: str = ORDER, name: str = "order") -> Path:
    import tomllib

    return paths_from({"paths": {name: tomllib.loads(text)}}, BUILT_IN)[name]


def stamp(key: int, point: str, ts_ns: int, **more: Any) -> dict[str, Any]:
    return {"key": key, "point": point, "ts_ns": ts_ns, "host": "a", "clock": "MONOTONIC", "service": "engine", **more}


def link(parent: int, child: int, ts_ns: int) -> dict[str, Any]:
    return {"parent": parent, "child": child, "ts_ns": ts_ns}


def put(
    store: Store,
    stamps: Sequence[Mapping[str, Any]] = (),
    links: Sequence[Mapping[str, Any]] = (),
    *,
    received_ns: int | None = None,
    collector: uuid.UUID = AGENT,
    boot: int = 1,
) -> int:
    """Insert one batch and its ledger row; returns the batch's name."""
    batch = next(_sequence)
    events = len(stamps) + len(links)
    times = [row["ts_ns"] for row in (*stamps, *links)]
    blank = {
        "thread": 1, "error_ns": None, "depth": None, "label_set": 0, "outcome": 0, "mode": 0, "cache": 0,
        "data_age_ns": None, "host": "a", "service": "", "clock": "MONOTONIC",
    }  # fmt: skip
    tail = {"batch": batch, "cut_day": 20_254}
    if stamps:
        rows = [{**blank, **s, **tail, "ts": s["ts_ns"], "seq": i} for i, s in enumerate(stamps)]
        _insert(store, "stamps", [{k: v for k, v in row.items() if k != "ts_ns"} for row in rows])
    if links:
        rows = [
            {"ts": x["ts_ns"], "parent": x["parent"], "child": x["child"], "host": "a", "service": "", **tail, "seq": i}
            for i, x in enumerate(links)
        ]
        _insert(store, "links", rows)
    received = max(times, default=T0) + 100_000_000 if received_ns is None else received_ns
    tables = [t for t, rows in (("stamps", stamps), ("links", links)) if rows]
    _insert(
        store,
        "batches",
        [
            {
                "batch": batch, "collector": collector, "name": "agent", "host": "a", "boot": boot,
                "seq_first": batch * 1_000_000, "events": events, "stored": events, "quarantined": 0, "dropped": 0,
                "reasons": [], "reason_counts": [], "tables": tables,
                "table_rows": [len(stamps) or len(links)] * len(tables),
                "first_ts": min(times, default=0), "last_ts": max(times, default=0),
                "seconds": [received // 1_000_000_000], "produced_by_second": [events], "missing_by_second": [0],
                "cut": received, "cut_day": 20_254, "received": received, "checksum": 0, "bytes": 0, "attempt": 0,
            }
        ],
    )  # fmt: skip
    return batch


def put_ledger(store: Store, collector: uuid.UUID, boot: int, batches: Sequence[Mapping[str, Any]]) -> None:
    """Ledger rows alone: `first`, `events`, `dropped`, `quarantined` and `hour` (of the cut, after `HOUR`) of each."""
    rows = [
        {
            "batch": next(_sequence), "collector": collector, "name": "agent", "host": "a", "boot": boot,
            "seq_first": b["first"], "events": b["events"], "stored": b["events"] - b["dropped"] - b["quarantined"],
            "quarantined": b["quarantined"], "dropped": b["dropped"], "reasons": ["oversize", "bad_time"],
            "reason_counts": [b["dropped"], b["quarantined"]], "tables": [], "table_rows": [], "first_ts": 0,
            "last_ts": 0, "seconds": [], "produced_by_second": [], "missing_by_second": [],
            "cut": HOUR + b["hour"] * 3_600_000_000_000, "cut_day": 20_254, "received": HOUR, "checksum": 0,
            "bytes": 0, "attempt": 0,
        }
        for b in batches
    ]  # fmt: skip
    if rows:
        _insert(store, "batches", rows)


def beat(
    store: Store, ts_ns: int, watermark_ns: int, *, produced: int = 0, acked: int = 0, status: str = "running",
    collector: uuid.UUID = AGENT, boot: int = 1, name: str = "agent",
) -> None:  # fmt: skip
    _insert(
        store,
        "heartbeats",
        [
            {
                "ts": ts_ns, "collector": collector, "boot": boot, "name": name, "host": "a", "status": status,
                "reason": "", "watermark": watermark_ns, "produced": produced, "acked": acked, "in_flight": 0,
                "spool_bytes": 0,
            }
        ],
    )  # fmt: skip


def put_rows(store: Store, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows of one shipped table as the landing writes them, without a ledger row."""
    tail = {"batch": next(_sequence), "cut_day": 20_254}
    _insert(store, table, [{**tail, "seq": i, **row} for i, row in enumerate(rows)])


def label_set(store: Store, labels: Mapping[str, str]) -> int:
    """Intern a label set and return its id."""
    text = json.dumps(labels, sort_keys=True, separators=(",", ":"))
    name = hash64("labels", text)
    put_rows(store, "label_sets", [{"label_set": name, "labels": text}])
    return name


def _insert(store: Store, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    store.insert(table, from_rows(table_types()[table], rows), token=f"{table}#{next(_sequence)}")
