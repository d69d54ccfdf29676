"""Stamps per second from columns to durable bytes and back, against what one would write by hand.

Each way ends with fdatasync after every 32,768 stamps and with columns of numbers in memory again. Best of three.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from collector.frames import Stream, decode, encode
from collector.payload import pack_columns
from collector.record import STAMPS, Columns
from collector.spool import Spool
from collector.spool.settings import SpoolSettings

ROWS, POLLS = 32_768, 16
NAMES = [c.name for c in STAMPS.columns]


def stamps() -> Columns:
    rng = np.random.default_rng(1)
    values = {c.name: np.zeros(ROWS, c.kind.dtype) for c in STAMPS.columns}
    values["ts_ns"] = (1_700_000_000 * 10**9 + np.cumsum(rng.exponential(1000, ROWS))).astype("<i8")
    values["key"] = rng.integers(0, 2**63, ROWS // 4).astype("<u8").repeat(4)
    values["point"] = (np.arange(ROWS) % 4).astype("<u2")
    values["depth"] = rng.integers(0, 50, ROWS).astype("<i4")
    values["error_ns"] = np.full(ROWS, 1200, "<u4")
    points = ["app_ingress", "app_transform", "app_decision", "app_egress"]
    texts = {"point": points, "host": ["host-1"], "service": ["engine"], "clock": ["monotonic"]}
    return Columns(STAMPS, values, texts, {"data_age_ns": np.ones(ROWS, bool)})


def best(work: Callable[[], int]) -> tuple[float, float]:
    """(stamps per second, bytes per stamp) of the best of three runs."""
    rates, size = [], 0
    for _ in range(3):
        began = time.perf_counter()
        size = work()
        rates.append(ROWS * POLLS / (time.perf_counter() - began))
    return max(rates), size / (ROWS * POLLS)


def by_rows(columns: Columns, folder: Path, write: Callable[[Any], bytes], read: Callable[[bytes], Any]) -> int:
    lists = [columns.text(n) if n in columns.texts else columns.values[n].tolist() for n in NAMES]
    path = folder / "rows"
    with path.open("wb") as file:
        for _ in range(POLLS):
            file.write(b"".join(write(dict(zip(NAMES, row, strict=True))) for row in zip(*lists, strict=True)))
            file.flush()
            os.fdatasync(file.fileno())
    rows = read(path.read_bytes())
    back = {n: np.array([row[n] for row in rows]) for n in NAMES}
    assert len(back["key"]) == ROWS * POLLS
    return path.stat().st_size


@pytest.mark.bench
@pytest.mark.timeout(300)
def test_spool_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    columns = stamps()
    stream = Stream(uuid.uuid4(), 1)
    one = encode(columns, stream=stream, seq_first=0, created_ns=0)

    def spooled() -> int:
        settings = SpoolSettings(min_free_bytes=0, reserve_bytes=4096, commit_bytes=1)
        spool = Spool(tmp_path / uuid.uuid4().hex, settings)
        for i in range(POLLS):
            spool.append([pack_columns(columns, {"ring": i})], created_ns=10**18, positions={"ring": i})
        spool.cut()
        seen, size = 0, spool.size_bytes
        for batch in spool.pending():
            seen += sum(len(f.columns) for f in decode(spool.read(batch)) if f.columns is not None)
        assert seen == ROWS * POLLS
        spool.close()
        return size

    json, msgpack = msgspec.json.Encoder(), msgspec.msgpack.Encoder()

    def packed(row: Any) -> bytes:
        body = msgpack.encode(row)
        return len(body).to_bytes(4, "little") + body

    def unpacked(raw: bytes) -> list[Any]:
        rows, at = [], 0
        while at < len(raw):
            size = int.from_bytes(raw[at : at + 4], "little")
            rows.append(msgspec.msgpack.decode(raw[at + 4 : at + 4 + size]))
            at += 4 + size
        return rows

    encoded = best(lambda: sum(len(encode(columns, stream=stream, seq_first=0, created_ns=0)) for _ in range(POLLS)))
    decoded = best(lambda: sum(len(one) * len(list(decode(one))) for _ in range(POLLS)))
    ours = best(spooled)
    as_json = best(
        lambda: by_rows(
            columns,
            tmp_path,
            lambda row: json.encode(row) + b"\n",
            lambda raw: [msgspec.json.decode(x) for x in raw.splitlines()],
        )
    )
    as_msgpack = best(lambda: by_rows(columns, tmp_path, packed, unpacked))
    with capsys.disabled():
        for name, (rate, size) in {
            "frames, encode": encoded,
            "frames, decode": decoded,
            "spool: encode, fdatasync, read back, decode": ours,
            "msgpack rows + fdatasync + decode": as_msgpack,
            "JSON lines + fdatasync + decode": as_json,
        }.items():
            print(f"\n{name:45} {rate / 1e6:8.2f} M stamps/s {size:8.1f} B/stamp", end="")  # noqa: T201 - the result
        print()  # noqa: T201
    assert encoded[0] >= 2e6
    assert ours[0] >= 10 * max(as_json[0], as_msgpack[0])
    assert ours[1] * 5 <= min(as_json[1], as_msgpack[1])
