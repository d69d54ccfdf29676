"""A block of captured packets as columns over one shared buffer."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The largest record that is believed, as in libpcap (MAXIMUM_SNAPLEN) and Wireshark.
LARGEST_RECORD = 262_144

_HEAD = 64  # Ethernet, IPv4 and TCP; as many bytes as a buffer has behind its last valid one

NO_TIME = np.iinfo(np.int64).min  # in a time column: there is none


class LinkType(IntEnum):
    """The link types that are parsed; numbers from https://www.tcpdump.org/linktypes.html."""

    NULL = 0
    ETHERNET = 1
    RAW_BSD = 12
    RAW_OPENBSD = 14
    RAW = 101
    LOOP = 108
    LINUX_SLL = 113
    ERF = 197
    IPV4 = 228
    IPV6 = 229
    LINUX_SLL2 = 276


@dataclass(slots=True)
class Block:
    """Packets in file order. Valid until the next block is taken: the buffer is used again.

    Attributes:
        data: uint8, the shared buffer, with at least 64 readable bytes from every packet's start on.
        offset: int64[n], first captured byte of each packet in `data`.
        caplen: int64[n], captured bytes; `data[offset : offset + caplen]` lies inside `data`.
        origlen: int64[n], bytes on the wire as recorded.
        ts_ns: int64[n], as recorded, ns since the Unix epoch; `NO_TIME` where the format has none.
        link: uint16[n], link type.
        interface: uint16[n], number of the interface in this file.
        hw_ns: int64[n] or None: hardware time, `NO_TIME` where there is none.
    """

    data: NDArray[np.uint8]
    offset: NDArray[np.int64]
    caplen: NDArray[np.int64]
    origlen: NDArray[np.int64]
    ts_ns: NDArray[np.int64]
    link: NDArray[np.uint16]
    interface: NDArray[np.uint16]
    hw_ns: NDArray[np.int64] | None = None
    _heads: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.offset)

    def part(self, low: int, high: int) -> Block:
        """The packets from `low` to before `high`, as views."""
        return self.take(slice(low, high))

    def take(self, index: NDArray[np.int64] | slice) -> Block:
        """The packets at `index`, over the same buffer."""
        return Block(
            self.data,
            self.offset[index],
            self.caplen[index],
            self.origlen[index],
            self.ts_ns[index],
            self.link[index],
            self.interface[index],
            None if self.hw_ns is None else self.hw_ns[index],
        )

    def rows(self, row: NDArray[np.int64], at: NDArray[np.int64], width: int) -> NDArray[np.uint8]:
        """`width` bytes from position `at` of each packet of `row`, as uint8[k, width].

        The caller has checked that they were captured. Where every packet is asked for at the same place, as most
        blocks are, the answer is a view of the packets' first bytes, which are gathered once.
        """
        if len(row) == len(self) and len(row):
            place = int(at[0])
            known = _HEAD if self._heads is None else self._heads.shape[1]
            if place + width <= known and (at == place).all():
                if self._heads is None:
                    self._heads = rows_at(self.data, self.offset, _HEAD)
                return self._heads[:, place : place + width]
        return rows_at(self.data, self.offset[row] + at, width)

    def packet(self, row: int) -> bytes:
        """The captured bytes of one packet; for slow paths and tests."""
        start = int(self.offset[row])
        return self.data[start : start + int(self.caplen[row])].tobytes()


def rows_at(data: NDArray[np.uint8], at: NDArray[np.int64], width: int) -> NDArray[np.uint8]:
    """`width` bytes from each position of `at`, as uint8[n, width]. Every position must have that many bytes.

    Gathering whole rows through a view with stride 1 costs 10-20 ns a row; indexing byte by byte costs 450.
    """
    if not len(at):
        return np.empty((0, width), dtype=np.uint8)
    view: NDArray[np.uint8] = np.ndarray((len(data) - width + 1, width), np.uint8, data, 0, (1, 1))
    return view[at]


def same(value: int, count: int, kind: type[np.generic]) -> NDArray[Any]:
    """A column of one value that takes no memory; it cannot be written to."""
    return np.broadcast_to(np.asarray(value, dtype=kind), (count,))


def field(rows: NDArray[np.uint8], at: int, dtype: str) -> NDArray[np.int64]:
    """The number at byte `at` of every row, as int64 (an 8-byte number wraps)."""
    size = np.dtype(dtype).itemsize
    return rows[:, at : at + size].view(dtype)[:, 0].astype(np.int64)
