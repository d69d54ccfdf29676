"""Packets of a ring as the bytes of a pcapng file: section, interfaces, enhanced packet blocks, statistics.

Format: https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng-02.html. A VLAN tag that the kernel took off is put
back, as libpcap does. The packets are copied by one gather, not one by one.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from collector.packet.live.tpacket import LiveBlock

Ints = NDArray[np.int64]

_FIXED, _FLAGS = 28, 16  # bytes before the packet; flags option, end of options and the length again


@dataclass(slots=True)
class PacketBlocks:
    """Enhanced packet blocks one after another in `data`; block i lies at `start[i]` and has the time `ts_ns[i]`."""

    data: NDArray[np.uint8]
    start: Ints
    size: Ints
    ts_ns: Ints

    def __len__(self) -> int:
        return len(self.start)

    def sorted_before(self, ts_ns: int) -> tuple[bytes, PacketBlocks]:
        """The bytes of the blocks with times before `ts_ns`, in order of time, and the other blocks."""
        early = self.ts_ns < ts_ns
        index = np.flatnonzero(early)
        index = index[np.argsort(self.ts_ns[index], kind="stable")]
        return self._take(index).data.tobytes(), self._take(np.flatnonzero(~early))

    def with_more(self, more: PacketBlocks) -> PacketBlocks:
        """These and more."""
        return PacketBlocks(
            np.concatenate([self.data, more.data]),
            np.concatenate([self.start, more.start + len(self.data)]),
            np.concatenate([self.size, more.size]),
            np.concatenate([self.ts_ns, more.ts_ns]),
        )

    def _take(self, index: Ints) -> PacketBlocks:
        size = self.size[index]
        start = np.cumsum(size) - size
        out = np.zeros(int(size.sum()), dtype=np.uint8)
        _copy(self.data, self.start[index], out, start, size)
        return PacketBlocks(out, start, size, self.ts_ns[index])


def no_blocks() -> PacketBlocks:
    """None."""
    nothing = np.empty(0, dtype=np.int64)
    return PacketBlocks(np.empty(0, dtype=np.uint8), nothing, nothing, nothing)


def packet_blocks(live: LiveBlock, interface: int, index: Ints, snap: int) -> PacketBlocks:
    """The packets `index` of a block, at most `snap` captured bytes of each (and its tag)."""
    block = live.block
    ts_ns = block.ts_ns[index]
    kept = np.minimum(block.caplen[index], snap)
    tag = np.where((live.vlan[index] >= 0) & (kept >= 12), 4, 0)
    caplen, origlen = kept + tag, block.origlen[index] + tag
    size = _FIXED + (caplen + 3) // 4 * 4 + _FLAGS
    start = np.cumsum(size) - size
    out = np.zeros(int(size.sum()), dtype=np.uint8)
    words, at = out.view("<u4"), start // 4
    for place, value in enumerate((6, size, interface, ts_ns >> 32, ts_ns & 0xFFFFFFFF, caplen, origlen)):
        words[at + place] = value
    end = at + size // 4
    words[end - 4] = 4 << 16 | 2  # epb_flags, 4 bytes
    words[end - 3] = np.where(live.outgoing[index], 2, 1)
    words[end - 1] = size
    source, target = block.offset[index], start + _FIXED
    tagged = np.flatnonzero(tag)
    if len(tagged):
        head = np.where(tag, 12, kept)
        _copy(block.data, source, out, target, head)
        for shift, value in enumerate((live.tpid[index].astype(np.int64), live.vlan[index].astype(np.int64))):
            out[target[tagged] + 12 + 2 * shift] = value[tagged] >> 8
            out[target[tagged] + 13 + 2 * shift] = value[tagged] & 0xFF
        _copy(block.data, source[tagged] + 12, out, target[tagged] + 16, kept[tagged] - 12)
    else:
        _copy(block.data, source, out, target, kept)
    return PacketBlocks(out, start, size, ts_ns)


def section(comment: str, interfaces: list[tuple[str, int]], snap: int) -> bytes:
    """The head of a file: a section with a comment, and an interface description (name, link type) for each."""
    out = _block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1), [(1, comment.encode()), (4, b"tailsight")])
    for name, link in interfaces:
        out += _block(1, struct.pack("<HHI", link, 0, snap), [(2, name.encode()), (9, b"\x09")])
    return out


def statistics(interface: int, ts_ns: int, dropped: int, comment: str = "") -> bytes:
    """An interface statistics block: packets that the ring lost in the time of the file."""
    options = [(5, struct.pack("<Q", dropped))]
    if comment:
        options.insert(0, (1, comment.encode()))
    return _block(5, struct.pack("<III", interface, ts_ns >> 32, ts_ns & 0xFFFFFFFF), options)


def _block(kind: int, body: bytes, options: list[tuple[int, bytes]]) -> bytes:
    for code, value in options:
        body += struct.pack("<HH", code, len(value)) + value + b"\0" * (-len(value) % 4)
    body += struct.pack("<HH", 0, 0)
    total = len(body) + 12
    return struct.pack("<II", kind, total) + body + struct.pack("<I", total)


def _copy(source: NDArray[np.uint8], at: Ints, target: NDArray[np.uint8], to: Ints, size: Ints) -> None:
    """Copy pieces: `target[to[i] : to[i] + size[i]] = source[at[i] : at[i] + size[i]]`, for all i."""
    if not len(size):
        return
    within = np.arange(int(size.sum()), dtype=np.int64) - np.repeat(np.cumsum(size) - size, size)
    target[np.repeat(to, size) + within] = source[np.repeat(at, size) + within]
