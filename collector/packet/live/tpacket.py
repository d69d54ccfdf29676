"""Blocks of a TPACKET_V3 ring as columns. Pure arithmetic on bytes; the ring itself is `collector.packet.live.ring`.

Layout: <linux/if_packet.h>, struct tpacket_block_desc and tpacket3_hdr. Records are 8-byte aligned. A block's lengths
are the kernel's, but they are checked all the same: a wrong one raises `BlockError`, nothing outside the block is read.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from collector.packet.block import LARGEST_RECORD, Block, LinkType, rows_at, same

HEADER = 48  # of a block, and of a packet up to its sockaddr_ll
PACKET_HEADER = HEADER + 20
_ROW = PACKET_HEADER - 8  # what is read of it: up to the packet type
SLACK = 64  # readable bytes behind every packet's start, as `Block` wants them

TS_SOFTWARE, TS_RAW_HARDWARE = 1 << 29, 1 << 31
VLAN_VALID, VLAN_TPID_VALID = 1 << 4, 1 << 6
OUTGOING = 4  # sockaddr_ll.sll_pkttype
_NS = 1_000_000_000
_WALK_WORDS = 2  # records start at multiples of 8 bytes


class BlockError(ValueError):
    """A block's lengths contradict each other."""


@dataclass(slots=True)
class LiveBlock:
    """The packets of one ring block, in the order of the ring.

    Attributes:
        block: the columns that file captures have too. `ts_ns` is CLOCK_REALTIME, taken by the kernel or the NIC.
        outgoing: True for packets that this host sent.
        hardware: True where the NIC took the time.
        vlan: tag control information that the kernel took off the frame, -1 where there was none.
        tpid: EtherType of that tag.
    """

    block: Block
    outgoing: NDArray[np.bool_]
    hardware: NDArray[np.bool_]
    vlan: NDArray[np.int32]
    tpid: NDArray[np.uint16]

    def __len__(self) -> int:
        return len(self.block)


def read_block(
    data: NDArray[np.uint8], start: int, size: int, interface: int, link: int = LinkType.ETHERNET
) -> LiveBlock:
    """The packets of the block at `start` of `data`, which holds `size` bytes and has SLACK readable ones behind it.

    Raises BlockError.
    """
    return read_records(data, [block_records(data, start, size)], interface, link)


@dataclass(frozen=True, slots=True)
class Records:
    """Where in a buffer the records of a block are, and where the block's used bytes end."""

    at: NDArray[np.int64]
    end: int


def block_records(data: NDArray[np.uint8], start: int, size: int) -> Records:
    """The records of the block at `start`, whose headers are all inside its `size` bytes. Raises BlockError."""
    words = data[start : start + HEADER].view("<u4")
    count, first, used = int(words[3]), int(words[4]), int(words[5])
    if used > size or (count and (first < HEADER or first + PACKET_HEADER > used or first % 8)):
        raise BlockError(f"a block of {size} bytes states {used} used bytes and a first packet at {first}")
    if not count:
        return Records(np.empty(0, dtype=np.int64), start)
    return Records(record_offsets(data, start, count, first, used), start + used)


def read_records(
    data: NDArray[np.uint8], records: list[Records], interface: int, link: int = LinkType.ETHERNET
) -> LiveBlock:
    """The packets of several blocks' records over the same buffer, one after another.

    A piece of some thousand packets costs less for each than small ones. Measured: 25-40 ns a packet.
    Raises BlockError for a packet that reaches beyond its block.
    """
    at = np.concatenate([block.at for block in records])
    count = len(at)
    if not count:
        return _empty(data)
    # The packet's first bytes come along, where they begin at the same place in every record: memory is read once.
    mac = int(data[at[0] + 24 : at[0] + 26].view("<u2")[0])
    width = (mac + SLACK) // 8 * 8
    together = PACKET_HEADER <= mac <= 2 * PACKET_HEADER and int(at.max()) + width <= len(data)
    head = rows_at(data, at, width if together else _ROW)
    words = head[:, :_ROW].view("<u4")
    status = words[:, 5]
    tagged = (status & np.uint32(VLAN_VALID)) != 0
    vlan, tpid = same(-1, count, np.int32), same(0x8100, count, np.uint16)
    if tagged.any():
        vlan, tpid = vlan.copy(), tpid.copy()
        vlan[tagged] = words[tagged, 8] & 0xFFFF
        told = tagged & ((status & np.uint32(VLAN_TPID_VALID)) != 0)
        tpid[told] = words[told, 9] & 0xFFFF
    ts_ns = words[:, 1].astype(np.int64)
    ts_ns *= _NS
    ts_ns += words[:, 2]
    place = words[:, 6] & np.uint32(0xFFFF)
    heads = head[:, mac:] if together and (place == mac).all() else None
    offset, caplen = at + place, words[:, 3].astype(np.int64)
    if int(caplen.max()) > LARGEST_RECORD:
        raise BlockError("a packet reaches beyond its block")
    behind, low = offset + caplen, 0
    for one in records:
        high = low + len(one.at)
        if high > low and int(behind[low:high].max()) > one.end:
            raise BlockError("a packet reaches beyond its block")
        low = high
    block = Block(
        data=data,
        offset=offset,
        caplen=caplen,
        origlen=words[:, 4].astype(np.int64),
        ts_ns=ts_ns,
        link=same(link, count, np.uint16),
        interface=same(interface, count, np.uint16),
        _heads=heads,
    )
    return LiveBlock(block, head[:, 58] == OUTGOING, (status & np.uint32(TS_RAW_HARDWARE)) != 0, vlan, tpid)


def record_offsets(data: NDArray[np.uint8], start: int, count: int, first: int, used: int) -> NDArray[np.int64]:
    """Where the records of a block are in `data`. Raises BlockError when they do not add up to `count`.

    Equal records need no look. Otherwise every aligned position that has the seconds of the block's first or last
    packet where a record has them is a candidate; candidates that chain from the first to the last are the records.
    Only when something in the packets looks like a record is the chain walked one by one.
    """
    words = data[start : start + used // 8 * 8].view("<u4")
    here = first // 4
    step = int(words[here])
    if step and step % 8 == 0 and first + step * (count - 1) + PACKET_HEADER <= used:
        at = first + step * np.arange(count, dtype=np.int64)
        if (words[at[:-1] // 4] == step).all():
            return at + start
    seconds, last = int(words[here + 1]), int(data[start + 40 : start + 44].view("<u4")[0])  # ts_last_pkt.ts_sec
    places = words[here + 1 :: _WALK_WORDS]
    hit = places == seconds
    if last != seconds:
        hit |= (places - np.uint32(seconds)) <= max(0, last - seconds)
    at = np.flatnonzero(hit) * 8 + first
    if len(at) == count and at[0] == first and (np.diff(at) == words[at[:-1] // 4]).all():
        if int(at[-1]) + PACKET_HEADER > used:
            raise BlockError("the last packet's header reaches beyond its block")
        return at + start
    return np.array(_walk(words, count, first, used), dtype=np.int64) + start


def _walk(words: NDArray[np.uint32], count: int, first: int, used: int) -> list[int]:
    view = words.data
    at, out = first, list[int]()
    for _ in range(count):
        if at % 8 or at + PACKET_HEADER > used:
            raise BlockError(f"packet {len(out)} of {count} is at byte {at} of {used}")
        out.append(at)
        step = view[at // 4]
        if step < PACKET_HEADER and len(out) < count:
            raise BlockError(f"packet {len(out) - 1} of {count} is {step} bytes long")
        at += step
    return out


def _empty(data: NDArray[np.uint8]) -> LiveBlock:
    none = np.empty(0, dtype=np.int64)
    block = Block(data, none, none, none, none, none.astype(np.uint16), none.astype(np.uint16))
    return LiveBlock(block, none.astype(np.bool_), none.astype(np.bool_), none.astype(np.int32), none.astype(np.uint16))
