# ruff: noqa: T201 - a bench prints its tables
"""Bytes per stamp for each choice of order and codec, and how fast the landing and the encoder are.

`pytest tests/bench/test_store.py -m bench -s` prints the tables of docs/benchmarks.md.
"""

from __future__ import annotations

import re
import time
import uuid
from pathlib import Path

import numpy as np
import pytest

from collector.frames import Stream, encode
from collector.landing import Landing
from collector.points import BUILT_IN
from collector.record import STAMPS, Columns
from collector.store import native
from collector.store.blocks import constant, from_columns
from collector.store.embedded import open_embedded
from collector.store.native import Block, BlockColumn
from collector.store.schema import Retention, _fill, migrate, migrations, table_types

POINTS = ["nic_rx", "kernel_rx", "app_ingress", "app_transform", "app_decision", "app_egress", "qdisc_tx", "driver_tx"]
POINTS += ["nic_tx", "acked"]
PER_MESSAGE = len(POINTS)
RATE = 50_000  # stamps a second
SECONDS = 40
S = 1_000_000_000
START = time.time_ns() // S * S - 60 * S

ORDER = "ORDER BY (toStartOfMinute(ts), key, ts)"
# name -> (what to replace in the schema's CREATE, with what)
CHOICES: dict[str, list[tuple[str, str]]] = {
    "as in the schema": [],
    "all LZ4": [(r"CODEC\([^\n]*\)(?=,?\n)", "CODEC(LZ4)")],
    "all ZSTD(1)": [(r"CODEC\([^\n]*\)(?=,?\n)", "CODEC(ZSTD(1))")],
    "ORDER BY ts": [(re.escape(ORDER), "ORDER BY ts")],
    "ORDER BY service, point, ts": [(re.escape(ORDER), "ORDER BY (service, point, ts)")],
    "ORDER BY key, ts": [(re.escape(ORDER), "ORDER BY (key, ts)")],
    "ts: Delta, T64, ZSTD(1)": [(r"(ts +DateTime64\(9, 'UTC'\) +)CODEC\([^\n]*\),", r"\1CODEC(Delta, T64, ZSTD(1)),")],
    "ts: Delta, ZSTD(3)": [(r"(ts +DateTime64\(9, 'UTC'\) +)CODEC\([^\n]*\),", r"\1CODEC(Delta, ZSTD(3)),")],
    "ts: DoubleDelta, ZSTD(1)": [
        (r"(ts +DateTime64\(9, 'UTC'\) +)CODEC\([^\n]*\),", r"\1CODEC(DoubleDelta, ZSTD(1)),")
    ],
    "ts: T64, ZSTD(1)": [(r"(ts +DateTime64\(9, 'UTC'\) +)CODEC\([^\n]*\),", r"\1CODEC(T64, ZSTD(1)),")],
    "seq: Delta, ZSTD(1)": [(r"(seq +UInt64 +)CODEC\([^\n]*\),", r"\1CODEC(Delta, ZSTD(1)),")],
    "seq: T64, ZSTD(1)": [(r"(seq +UInt64 +)CODEC\([^\n]*\),", r"\1CODEC(T64, ZSTD(1)),")],
    "seq: Delta, T64, ZSTD(1)": [(r"(seq +UInt64 +)CODEC\([^\n]*\),", r"\1CODEC(Delta, T64, ZSTD(1)),")],
    "seq: ZSTD(1)": [(r"(seq +UInt64 +)CODEC\([^\n]*\),", r"\1CODEC(ZSTD(1)),")],
    "key: Delta, ZSTD(1)": [(r"(key +UInt64 +)CODEC\([^\n]*\),", r"\1CODEC(Delta, ZSTD(1)),")],
    "batch: T64, ZSTD(1)": [(r"(batch +UInt64 +)CODEC\([^\n]*\),", r"\1CODEC(T64, ZSTD(1)),")],
    "thread: ZSTD(1)": [(r"(thread +UInt32 +)CODEC\([^\n]*\),", r"\1CODEC(ZSTD(1)),")],
    "all ZSTD(3)": [(r"ZSTD\(1\)", "ZSTD(3)")],
}


def second(number: int, rng: np.random.Generator) -> Columns:
    """One second of an order path: random keys, 10 stamps each in 2 processes, lognormal stages, in time order."""
    messages = RATE // PER_MESSAGE
    n = messages * PER_MESSAGE
    starts = START + number * S + np.sort(rng.integers(0, S, messages))
    stages = rng.lognormal(9.0, 0.45, (messages, PER_MESSAGE)).astype(np.int64)
    ts = (starts[:, None] + np.cumsum(stages, axis=1)).ravel()
    order = np.argsort(ts, kind="stable")
    place = np.tile(np.arange(PER_MESSAGE), messages)[order]
    depth = rng.geometric(0.3, n).astype("<i4")
    values = {
        "ts_ns": ts[order].astype("<i8"),
        "key": np.repeat(rng.integers(0, 1 << 63, messages, dtype=np.uint64), PER_MESSAGE)[order],
        "point": place.astype("<u2"),
        "host": np.zeros(n, "<u2"),
        "service": (place // 5).astype("<u2"),
        "thread": (4_000 + place // 3).astype("<u4"),
        "clock": np.zeros(n, "<u2"),
        "error_ns": np.full(n, 20_000 + number * 37, "<u4"),
        "depth": np.where(place == 2, depth, 0).astype("<i4"),
        "label_set": np.repeat(rng.choice(np.array([11, 22, 33], "<u8"), messages), PER_MESSAGE)[order],
        "outcome": np.ones(n, "<u1"),
        "mode": np.ones(n, "<u1"),
        "cache": np.zeros(n, "<u1"),
        "data_age_ns": np.zeros(n, "<i8"),
    }
    texts = {"point": POINTS, "host": ["host-1"], "service": ["engine", "gateway"], "clock": ["MONOTONIC"]}
    nulls = {"error_ns": np.zeros(n, np.bool_), "depth": place != 2, "data_age_ns": np.ones(n, np.bool_)}
    return Columns(STAMPS, values, texts, nulls)


def as_block(columns: Columns, number: int) -> Block:
    types = table_types()["stamps"]
    n = len(columns)
    extra = (
        BlockColumn("batch", types["batch"], np.full(n, number * 0x9E3779B97F4A7C15 % (1 << 64), np.uint64)),
        BlockColumn("seq", types["seq"], np.arange(number * n, (number + 1) * n, dtype=np.uint64)),
        constant("cut_day", types["cut_day"], (START + number * S) // (86_400 * S), n),
    )
    return from_columns(types, columns, extra)


@pytest.mark.bench
@pytest.mark.timeout(900)
def test_bytes_per_stamp(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    blocks = [as_block(second(number, rng), number) for number in range(SECONDS)]
    create = _fill(migrations()[0].statements[0], Retention())
    results: dict[str, tuple[float, float]] = {}
    columns: list[tuple[str, float]] = []
    with open_embedded(tmp_path) as store:
        for number, (choice, changes) in enumerate(CHOICES.items()):
            sql = create.replace("stamps", f"v{number}", 1).replace("fsync_after_insert = 1", "fsync_after_insert = 0")
            for pattern, replacement in changes:
                sql, count = re.subn(pattern, replacement, sql)
                assert count, f"{choice}: {pattern} is not in the schema any more"
            store.execute(sql)
            began = time.perf_counter()
            for at, block in enumerate(blocks):
                store.insert(f"v{number}", block, token=f"{number}.{at}")
            store.execute(f"OPTIMIZE TABLE v{number} FINAL")
            took = time.perf_counter() - began
            sizes = store.query(
                "SELECT column, sum(column_bytes_on_disk) / {n:UInt64} AS b FROM system.parts_columns "
                "WHERE active AND table = {t:String} GROUP BY column ORDER BY b DESC",
                {"n": RATE * SECONDS, "t": f"v{number}"},
            )
            disk = store.query(
                "SELECT sum(bytes_on_disk) / {n:UInt64} AS b FROM system.parts WHERE active AND table = {t:String}",
                {"n": RATE * SECONDS, "t": f"v{number}"},
            ).item()
            results[choice] = disk, took
            if not changes:
                columns = list(sizes.iter_rows())
            store.execute(f"DROP TABLE v{number} SYNC")
    chosen, chosen_s = results["as in the schema"]
    print(f"\n| choice, {RATE * SECONDS:,} stamps | bytes/stamp | against the schema | time to insert and merge |")
    print("|---|---|---|---|")
    for choice, (size, took) in results.items():
        print(f"| {choice} | {size:.2f} | {size / chosen:.2f} | {took / chosen_s:.2f} |")
    print("\n| column | bytes/stamp |\n|---|---|\n" + "\n".join(f"| {name} | {size:.3f} |" for name, size in columns))
    assert chosen <= 8.0


@pytest.mark.bench
@pytest.mark.timeout(300)
def test_rows_per_second(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    parts = [second(number, rng) for number in range(20)]
    block = as_block(parts[0], 0)
    began = time.perf_counter()
    for _ in range(40):
        native.encode(block)
    encoded = 40 * block.rows / (time.perf_counter() - began)

    stream, seq, batches = Stream(uuid.uuid4(), 1), 0, []
    for number in range(0, 20, 2):
        name, body = f"{stream.collector}/1/{seq}", b""
        for part in parts[number : number + 2]:
            for start in range(0, len(part), 10_000):
                piece = part.take(np.arange(start, start + 10_000))
                body += encode(piece, stream=stream, seq_first=seq, created_ns=START + S)
                seq += 10_000
        batches.append((name, body))
    with open_embedded(tmp_path) as store:
        migrate(store)
        landing = Landing(store, BUILT_IN)
        landing.land(*batches[0][:1], "bench", "host", 0, batches[0][1], START + 60 * S)
        cpu, began = time.process_time(), time.perf_counter()
        for name, body in batches[1:]:
            assert landing.land(name, "bench", "host", 0, body, START + 60 * S).stored == 2 * RATE
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    n = 2 * RATE * (len(batches) - 1)
    print(f"\nencode: {encoded / 1e6:.1f} M stamps/s")
    print(f"land: {n / wall / 1e6:.2f} M stamps/s (batches of {2 * RATE:,}, each read back, fsync)")
    print(f"the door's own CPU in it: {n / cpu / 1e6:.2f} M stamps/s")
    assert encoded > 10e6
    assert n / cpu > 1e6
