"""TCP packets of a whole capture, until they can be analysed: in memory while they are few, on disk when they are many.

On disk they lie in one file per share of the flow names, so that each file holds whole flows and is analysed alone.
Memory is bounded by `LIMIT` rows, or by the largest share where that is larger.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np

from collector.packet.tcp_rows import COLUMN_TYPES, TcpRows

LIMIT = 4_000_000  # rows of 33 bytes; about 300 bytes each while they are analysed
_SHARES = 64
_RECORD = np.dtype(list(COLUMN_TYPES.items()))


class RowStore:
    """Takes rows in capture order and gives them back in groups that hold whole flows. A context manager."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._parts: list[TcpRows] = []
        self._held = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> RowStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def add(self, rows: TcpRows) -> None:
        """Append rows. Raises OSError when they have to go to disk and the disk is full."""
        self._parts.append(rows)
        self._held += len(rows)
        if self._held > self._limit:
            self._spill()

    def groups(self) -> Iterator[TcpRows]:
        """The rows, in capture order within each group; every flow lies in one group."""
        if self._folder is None:
            parts, self._parts = self._parts, []
            if parts:
                yield TcpRows.join(parts)
            return
        self._spill()
        for share in range(_SHARES):
            file = Path(self._folder.name) / str(share)
            if file.exists():
                records = np.fromfile(file, dtype=_RECORD)
                file.unlink()
                yield TcpRows(*(np.ascontiguousarray(records[name]) for name in COLUMN_TYPES))

    def _spill(self) -> None:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="tailsight-pcap-")
        for rows in self._parts:
            share = (rows.flow >> np.uint64(58)).astype(np.uint8)
            order = np.argsort(share, kind="stable")
            records = np.empty(len(rows), dtype=_RECORD)
            for name in COLUMN_TYPES:
                records[name] = getattr(rows, name)[order]
            ends = np.cumsum(np.bincount(share, minlength=_SHARES)).tolist()
            for number, (low, high) in enumerate(zip([0, *ends], ends, strict=False)):
                if high > low:
                    with (Path(self._folder.name) / str(number)).open("ab") as file:
                        records[low:high].tofile(file)
        self._parts, self._held = [], 0
