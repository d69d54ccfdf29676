"""Stamps of a capture file into the store, by the same landing as an agent's: checked, once, with a ledger row."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping

import numpy as np

from collector.frames import Stream, encode
from collector.landing import Landing, LandingSettings
from collector.payload import split
from collector.points import Point
from collector.record import Columns
from collector.store import Store

_FRAME_ROWS = 32_768
_BATCH_ROWS = 131_072
_SPACE = uuid.UUID("5f6a3a53-2f0b-5c1e-9c39-0d6f0e5a7b11")


class CaptureLanding:
    """Lands the rows of one capture as they come, in batches of some 130,000.

    The same capture, decoded in the same way, has the same batches: importing it again changes nothing.

    Args:
        store: where to.
        points: that are declared.
        digest: names the capture's content and how it is decoded.

    Attributes:
        stored: rows stored, now or before.
        quarantined: rows that were refused.
        already: whether all of them had been there before.
        first_ns, last_ns: the earliest and the latest time; None when there was no row.
    """

    def __init__(self, store: Store, points: Mapping[str, Point], digest: bytes) -> None:
        # A capture may be years old: the bound on event times is that of live data.
        self._landing = Landing(store, points, LandingSettings(max_past="36500d", max_future="36500d"))
        self._stream = Stream(uuid.uuid5(_SPACE, digest.hex()), 1)
        self._parts: list[Columns] = []
        self._held = 0
        self._seq = 0
        self.stored = self.quarantined = 0
        self.already = True
        self.first_ns: int | None = None
        self.last_ns: int | None = None

    def add(self, columns: Columns) -> None:
        """Take rows. Raises StoreError when the store cannot take them now."""
        if not len(columns):
            return
        low, high = int(np.min(columns.values["ts_ns"])), int(np.max(columns.values["ts_ns"]))
        self.first_ns = low if self.first_ns is None else min(self.first_ns, low)
        self.last_ns = high if self.last_ns is None else max(self.last_ns, high)
        self._parts += split(columns, _FRAME_ROWS)
        self._held += len(columns)
        if self._held >= _BATCH_ROWS:
            self.close()

    def close(self) -> None:
        """Land what is held. Raises StoreError."""
        if not self._parts:
            return
        now, first, body = time.time_ns(), self._seq, b""
        for part in self._parts:
            body += encode(part, stream=self._stream, seq_first=self._seq, created_ns=now)
            self._seq += len(part)
        self._parts, self._held = [], 0
        batch = f"{self._stream.collector}/{self._stream.boot}/{first}"
        known = self._landing.find(batch)
        if known is None:
            self.already = False
            landed = self._landing.land(batch, "import pcap", "capture", 0, body, now)
            self.stored, self.quarantined = self.stored + landed.stored, self.quarantined + landed.quarantined
        else:
            self.stored, self.quarantined = self.stored + known["stored"], self.quarantined + known["quarantined"]
