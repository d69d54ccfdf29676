"""Datagrams of one feed line, taken from a tap's ring as it is read, for the `feeds` collector.

The kernel's time is that of the packet, and nothing is joined, bound or received a second time. Cost: about 2 ns for
every packet of the tap, and a copy of those of the line.
"""

from __future__ import annotations

import ipaddress

import numpy as np
from numpy.typing import NDArray

from collector.feeds.udp import Received
from collector.packet.block import rows_at
from collector.packet.headers import UDP, Headers
from collector.packet.live.tpacket import LiveBlock

Ints = NDArray[np.int64]


class LineTap:
    """Holds what came for one address and port between two polls of the taker. Not thread-safe.

    Args:
        tap: the tap's name.
        address, port: the datagrams' destination, IPv4.
        most_bytes: that may wait; what is beyond is counted in `dropped`.
        longest: payload that the tap's snap length leaves whole, behind a VLAN tag.
    """

    def __init__(self, tap: str, address: str, port: int, most_bytes: int, longest: int = 65_535) -> None:
        self.tap = tap
        self.longest = longest
        self.open = False  # whether the tap's rings are open now
        self.closed = False  # whether nobody takes from it any more
        self.ring_lost = 0  # packets that the tap's rings lost, of this line or not
        self.granted = most_bytes
        self._address = np.frombuffer(ipaddress.IPv4Address(address).packed, dtype=np.uint8)
        self._port = port
        self._parts: list[Received] = []
        self._held = 0
        self._dropped = 0

    def offer(self, live: LiveBlock, headers: Headers) -> None:
        """Copy the line's datagrams out of a block that the tap has parsed. What this host sends is not for it."""
        hit = np.flatnonzero(headers.target_port == self._port)
        if not len(hit):
            return
        hit = hit[(headers.protocol[hit] == UDP) & ~live.outgoing[headers.row[hit]]]
        hit = hit[headers.version[hit] == 4]
        hit = hit[(headers.endpoints(live.block, hit)[:, 28:] == self._address).all(axis=1)]
        if not len(hit):
            return
        block, row = live.block, headers.row[hit]
        start, length = headers.payload[hit], headers.payload_len[hit]
        # What the snap length or fragmentation cut, and what states a length that cannot be, came and cannot be read.
        whole = (start >= 0) & (start + length <= block.caplen[row]) & ~headers.fragment[hit]
        cut = len(hit) - int(np.count_nonzero(whole))
        row, at, length = row[whole], (block.offset[row] + start)[whole], length[whole]
        width = int(length.max(initial=1)) or 1
        if self._held + len(row) * width > self.granted:
            self._dropped += len(hit)
            return
        self._held += len(row) * width
        data = _copied(block.data, at, length, width)
        starts = np.arange(len(row), dtype=np.int64) * width
        self._parts.append(Received(data, starts, length, block.ts_ns[row], cut))

    def receive(self) -> Received | None:
        """The oldest datagrams that wait; None when none does."""
        if not self._parts:
            return None
        part = self._parts.pop(0)
        self._held -= len(part.data)
        return part

    def dropped(self) -> int:
        """Datagrams that found no room since the beginning. What the ring lost is the tap's to tell."""
        return self._dropped

    def close(self) -> None:
        """Forget what waits, and take no more."""
        self.closed = True
        self._parts.clear()
        self._held = 0


def _copied(data: NDArray[np.uint8], at: Ints, length: Ints, width: int) -> NDArray[np.uint8]:
    """`width` bytes from each place, one after another; a row at the buffer's end has only its own length."""
    inside = at + width <= len(data)
    if inside.all():
        return rows_at(data, at, width).reshape(-1)
    rows = np.zeros((len(at), width), dtype=np.uint8)
    rows[inside] = rows_at(data, at[inside], width)
    for i in np.flatnonzero(~inside).tolist():
        size = int(length[i])
        rows[i, :size] = data[int(at[i]) : int(at[i]) + size]
    return rows.reshape(-1)
