"""A capture file of any kind we read: what it is, its packets in blocks, and where it stopped making sense."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from collector.packet.block import Block, LinkType
from collector.packet.bytes_in import ByteWindow
from collector.packet.damage import DamageError
from collector.packet.erf import looks_like_erf, read_erf, unwrap
from collector.packet.pcap import MAGICS, read_pcap
from collector.packet.pcapng import MAGIC as PCAPNG
from collector.packet.pcapng import PcapngReader


class Capture:
    """One file. Iterate it for its blocks; a damaged file ends the iteration and sets `damage`, it does not raise.

    Attributes:
        path: the file.
        kind: pcap, pcapng, erf, or "" if it is none of these.
        gzip: whether it is compressed.
        damage: where and why reading stopped before the end; None if all was read.
        dropped: packets the capturing program says it lost, where the format tells.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kind = ""
        self.gzip = False
        self.damage: DamageError | None = None
        self.dropped = 0

    def blocks(self, progress: Callable[[int], None] | None = None) -> Iterator[Block]:
        """The packets, a block per chunk; each block is valid until the next is taken.

        `progress` is called after every block with the bytes read from disk since the last call.
        Raises OSError when the file cannot be opened or read.
        """
        window = ByteWindow(self.path)
        told = 0
        try:
            for block in self._reader(window):
                yield unwrap(block) if (block.link == LinkType.ERF).any() else block
                if progress:
                    progress(window.disk_position() - told)
                    told = window.disk_position()
        except DamageError as damage:
            self.damage = damage
        finally:
            if progress:
                progress(window.size - told)
            window.close()

    def _reader(self, window: ByteWindow) -> Iterator[Block]:
        self.gzip = window.gzip
        window.refill()
        head = window.data[: min(window.end, 65_536)].tobytes()
        if head[:4] in MAGICS:
            self.kind = "pcap"
            yield from read_pcap(window)
        elif head[:4] == PCAPNG:
            self.kind = "pcapng"
            reader = PcapngReader(window)
            try:
                yield from reader.blocks()
            finally:
                self.dropped = reader.dropped
        elif looks_like_erf(head):
            self.kind = "erf"
            yield from read_erf(window)
        elif window.problem:
            raise DamageError(window.end, window.problem)
        elif not head:
            raise DamageError(0, "the file is empty")
        else:
            raise DamageError(0, f"neither pcap, pcapng nor ERF: it starts with {head[:4].hex(' ')}")
