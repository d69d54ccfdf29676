"""From the first captured byte to the network header, for each link type: where it starts and what it is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from collector.packet.block import Block, LinkType, field, rows_at

IPV4, IPV6 = 0x0800, 0x86DD
_VLAN = (0x8100, 0x88A8, 0x9100)  # 802.1Q, 802.1ad (QinQ), and QinQ as it was before the standard
_MOST_TAGS = 4
_FAMILIES_V6 = (24, 28, 30, 10)  # AF_INET6 of NetBSD and OpenBSD, FreeBSD, macOS, Linux


class Reason(IntEnum):
    """Why a packet's headers could not be followed. `CUT` is the capture's snap length, the others are the packet's."""

    NONE = 0
    CUT = 1  # the header lies beyond the captured bytes, though not beyond the packet
    SHORT = 2  # the packet ends inside a header
    VLAN_DEPTH = 3
    IP_VERSION = 4
    IP_HEADER_LENGTH = 5
    IP_TOTAL_LENGTH = 6
    IPV6_PAYLOAD_LENGTH = 7
    IPV6_EXTENSIONS = 8
    TCP_HEADER_LENGTH = 9
    UDP_LENGTH = 10


@dataclass(slots=True)
class Network:
    """Packets that carry an IP header. `row` are positions in the block, in order.

    Attributes:
        row: int64[k].
        at: int64[k], where the IP header starts, relative to the packet.
        ether: int64[k], EtherType (IPV4 or IPV6).
    """

    row: NDArray[np.int64]
    at: NDArray[np.int64]
    ether: NDArray[np.int64]


class Verdicts:
    """Collects why packets were left; the first reason stays."""

    def __init__(self, block: Block) -> None:
        self.reason: NDArray[np.uint8] = np.zeros(len(block), dtype=np.uint8)
        self._block = block

    def whole(self, row: NDArray[np.int64], need: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which rows have `need` captured bytes; the others are marked CUT or SHORT."""
        good = self._block.caplen[row] >= need
        if not good.all():
            bad = ~good
            self.mark(row[bad], np.where(self._block.origlen[row[bad]] >= need[bad], Reason.CUT, Reason.SHORT))
        return good

    def mark(self, row: NDArray[np.int64], reason: Reason | NDArray[np.int64]) -> None:
        """Give these rows a reason."""
        self.reason[row] = reason


def network_layer(block: Block, verdicts: Verdicts) -> Network:
    """Follow the link header of every packet. Packets that are not IP are in no result and have no reason."""
    count = len(block)
    everything = np.arange(count, dtype=np.int64)
    if not count:
        return Network(everything, everything, everything)
    first = block.link[0]
    if (block.link == first).all():
        parts = [_follow(block, verdicts, everything, int(first))]
    else:
        links = np.unique(block.link).tolist()
        parts = [_follow(block, verdicts, everything[block.link == link], link) for link in links]
    row = np.concatenate([p.row for p in parts])
    at = np.concatenate([p.at for p in parts])
    ether = np.concatenate([p.ether for p in parts])
    if len(parts) > 1:
        order = np.argsort(row)
        row, at, ether = row[order], at[order], ether[order]
    ip = (ether == IPV4) | (ether == IPV6)
    return Network(row, at, ether) if ip.all() else Network(row[ip], at[ip], ether[ip])


def _follow(block: Block, verdicts: Verdicts, row: NDArray[np.int64], link: int) -> Network:
    if link == LinkType.ETHERNET:
        return _ethernet(block, verdicts, row, 12, 14)
    if link == LinkType.LINUX_SLL:
        return _ethernet(block, verdicts, row, 14, 16)
    if link == LinkType.LINUX_SLL2:
        return _ethernet(block, verdicts, row, 0, 20)
    if link in (LinkType.NULL, LinkType.LOOP):
        return _loopback(block, verdicts, row)
    if link in (LinkType.RAW, LinkType.RAW_BSD, LinkType.RAW_OPENBSD, LinkType.IPV4, LinkType.IPV6):
        row = row[verdicts.whole(row, np.ones(len(row), dtype=np.int64))]
        version = field(rows_at(block.data, block.offset[row], 1), 0, "u1") >> 4
        ether = np.where(version == 4, IPV4, np.where(version == 6, IPV6, 0))
        verdicts.mark(row[ether == 0], Reason.IP_VERSION)
        return Network(row, np.zeros(len(row), dtype=np.int64), ether)
    nothing = np.empty(0, dtype=np.int64)
    return Network(nothing, nothing, nothing)


def _ethernet(block: Block, verdicts: Verdicts, row: NDArray[np.int64], type_at: int, header: int) -> Network:
    """A link header of fixed size with an EtherType in it, then VLAN tags."""
    good = verdicts.whole(row, np.full(len(row), header, dtype=np.int64))
    row = row if good.all() else row[good]
    ether = field(block.rows(row, np.full(len(row), type_at, dtype=np.int64), 2), 0, ">u2")
    at = np.full(len(row), header, dtype=np.int64)
    for depth in range(_MOST_TAGS + 1):
        tagged = np.flatnonzero((ether == _VLAN[0]) | (ether == _VLAN[1]) | (ether == _VLAN[2]))
        if not len(tagged):
            break
        if depth == _MOST_TAGS:
            verdicts.mark(row[tagged], Reason.VLAN_DEPTH)
            break
        good = verdicts.whole(row[tagged], at[tagged] + 4)
        ether[tagged[~good]] = 0
        tagged = tagged[good]
        ether[tagged] = field(block.rows(row[tagged], at[tagged] + 2, 2), 0, ">u2")
        at[tagged] += 4
    return Network(row, at, ether)


def _loopback(block: Block, verdicts: Verdicts, row: NDArray[np.int64]) -> Network:
    """BSD loopback: the address family in the byte order of whoever captured, so both are tried."""
    row = row[verdicts.whole(row, np.full(len(row), 4, dtype=np.int64))]
    head = rows_at(block.data, block.offset[row], 4)
    ether = np.zeros(len(row), dtype=np.int64)
    for order in ("<u4", ">u4"):
        family = field(head, 0, order)
        ether[family == 2] = IPV4
        ether[np.isin(family, _FAMILIES_V6)] = IPV6
    return Network(row, np.full(len(row), 4, dtype=np.int64), ether)
