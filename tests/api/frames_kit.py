"""Batches of stamps as an agent would send them."""

from __future__ import annotations

import time
import uuid
from typing import Any

from collector.frames import Stream, encode
from collector.keys import hash64
from collector.record import STAMPS, Columns, Table

FRAMES = "application/vnd.tailsight.frames"


def stamp(key: int, point: str, ts_ns: int, **more: Any) -> dict[str, Any]:
    return {
        "ts_ns": ts_ns,
        "key": hash64("order", key),
        "point": point,
        "host": "host-1",
        "service": "engine",
        "thread": 7,
        "clock": "monotonic",
        "error_ns": 100,
        **more,
    }


class Agent:
    """Cuts batches of one stream with rising sequence numbers."""

    def __init__(self, boot: int = 1) -> None:
        self.collector = uuid.uuid4()
        self.boot = boot
        self.next = 0

    def batch(self, rows: list[dict[str, Any]], table: Table = STAMPS) -> tuple[dict[str, str], bytes]:
        return self.columns(Columns.from_rows(table, rows))

    def columns(self, columns: Columns) -> tuple[dict[str, str], bytes]:
        first, self.next = self.next, self.next + len(columns)
        body = encode(
            columns,
            stream=Stream(self.collector, self.boot),
            seq_first=first,
            created_ns=time.time_ns(),
        )
        headers = {
            "Content-Type": FRAMES,
            "Tailsight-Batch": f"{self.collector}/{self.boot}/{first}",
            "Tailsight-Attempt": "0",
            "Tailsight-Collector": "agent@host-1",
        }
        return headers, body

    def heartbeat(self, **more: Any) -> dict[str, Any]:
        now = time.time_ns()
        return {
            "collector": str(self.collector),
            "boot": self.boot,
            "name": "agent",
            "host": "host-1",
            "status": "running",
            "reason": "",
            "ts_ns": now,
            "watermark_ns": now,
            "produced": self.next,
            "acked": self.next,
            "in_flight": 0,
            "spool_bytes": 0,
            **more,
        }
