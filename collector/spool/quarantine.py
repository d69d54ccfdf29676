"""Batches that the server refused for good: their bytes and the reason, for a look and a replay, within a budget."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from collector.spool.fs import SpoolFS
from collector.spool.segment import Batch


def keep(fs: SpoolFS, folder: Path, batch: Batch, body: bytes, why: str, budget: int) -> None:
    """Write `<boot>-<first>.frames` and `.json` (batch, events, reason, time). The oldest files make room.

    A body larger than the whole budget, or a disk that takes no more, leaves the reason without the bytes.
    """
    fs.make_dir(folder)
    stem = f"{batch.stream.boot:010d}-{batch.first:020d}"
    files = [(name, fs.size(folder / name)) for name in fs.names(folder) if name.endswith(".frames")]
    used = sum(size for _, size in files)
    while files and used + len(body) > budget:
        name, size = files.pop(0)
        fs.unlink(folder / name)
        used -= size
    note = {"batch": batch.name, "events": batch.events, "bytes": len(body), "reason": why, "ts_ns": time.time_ns()}
    try:
        if len(body) <= budget:
            fs.replace(folder / f"{stem}.frames", body)
        fs.replace(folder / f"{stem}.json", msgspec.json.encode(note))
    except OSError:
        # The loss is booked as `rejected` whatever the disk says; a copy for people must not stop the queue.
        return
