"""`import pcap`: capture files in, one report out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from collector.packet.block import NO_TIME, Block
from collector.packet.capture import Capture
from collector.packet.conversations import analyse_rows
from collector.packet.flow_table import FlowTable
from collector.packet.headers import Headers, parse
from collector.packet.report import FileReport, PcapReport, ReportBuilder
from collector.packet.row_store import RowStore
from collector.packet.tcp_rows import TcpRows
from collector.packet.trailers import Trailer, detect, hardware_times

_PIECE = 16_384  # packets parsed at once: their columns stay in the cache

Progress = Callable[[Path, int], None]
Also = Callable[[Block, Headers, NDArray[np.int64] | None], None]


def analyse(files: Sequence[Path], progress: Progress | None = None, also: Also | None = None) -> PcapReport:
    """Read capture files, in the order given, as one capture, and analyse its TCP conversations.

    Args:
        files: pcap, pcapng or ERF, each plain or gzip. A conversation may run on from one file into the next.
        progress: called with the file and the bytes of it read since the last call; the sum is the file's size.
        also: called with every parsed piece and its hardware times, if it has any; both are valid until it returns.

    Returns:
        The report. A file that is damaged or no capture is in `report.files` with the byte offset and the reason, and
        what was good before that is counted.

    Raises:
        OSError: a file cannot be opened, or the disk that takes a large capture's columns is full.
    """
    builder = ReportBuilder()
    flows = FlowTable()
    with RowStore() as store:
        for path in files:
            capture = Capture(Path(path))
            layout = _Layout()
            file = builder.file(capture)
            for block in capture.blocks(None if progress is None else _bound(progress, Path(path))):
                for low in range(0, len(block), _PIECE):
                    _take(block.part(low, low + _PIECE), file, layout, builder, flows, store, also)
            builder.close_file(file, capture, layout.name)
        for rows in store.groups():
            for table, analysis in analyse_rows(rows):
                builder.conversations(table, analysis)
    return builder.report(flows)


class _Layout:
    """The trailer of one file: undecided until a block has candidates."""

    def __init__(self) -> None:
        self.trailer: Trailer | None = None
        self._decided = False

    @property
    def name(self) -> str:
        """What the report calls it; "" if there is none."""
        return self.trailer.value if self.trailer else ""

    def times(self, block: Block, headers: Headers) -> NDArray[np.int64] | None:
        """Hardware times of the block, or None if the capture has none."""
        if block.hw_ns is not None:
            return block.hw_ns
        if not self._decided and (block.caplen[headers.row] - headers.ip_end >= 16).any():
            self.trailer = detect(block, headers)
            self._decided = True
        return hardware_times(block, headers, self.trailer) if self.trailer else None


def _take(
    block: Block,
    file: FileReport,
    layout: _Layout,
    builder: ReportBuilder,
    flows: FlowTable,
    store: RowStore,
    also: Also | None,
) -> None:
    headers = parse(block)
    hardware = layout.times(block, headers)
    builder.packets(file, block, headers, hardware)
    if also is not None:
        also(block, headers, hardware)
    flows.add(block, headers)
    tcp, index = headers.tcp, headers.tcp.index
    if len(index):
        at = headers.row[index]
        store.add(
            TcpRows(
                flow=headers.flow[index],
                ts_ns=np.where(block.ts_ns[at] == NO_TIME, 0, block.ts_ns[at]),
                seq=tcp.seq.astype(np.uint32),
                ack=tcp.ack.astype(np.uint32),
                length=tcp.length.astype(np.uint32),
                window=tcp.window.astype(np.uint16),
                flags=tcp.flags.astype(np.uint8),
                side=headers.swapped[index].astype(np.uint8),
            )
        )


def _bound(progress: Progress, path: Path) -> Callable[[int], None]:
    return lambda count: progress(path, count)
