"""ERF, the format of Endace DAG cards: a hardware time in every record.

As a file (records one after another, no header) and as link type 197 inside pcap. Layout as in Wireshark's
`wiretap/erf.c`: 8 bytes little-endian time (32.32 fixed-point seconds since the epoch), type (bit 7: extension headers
of 8 bytes follow, each with the same bit), flags, big-endian record length, loss counter, wire length; Ethernet types
have 2 bytes of padding before the frame.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from collector.packet.block import NO_TIME, Block, LinkType, field, rows_at
from collector.packet.bytes_in import ByteWindow
from collector.packet.damage import DamageError
from collector.packet.walk import Chain, record_offsets

_HEADER = 16
_ETHERNET = (2, 11, 16, 20)  # ETH, COLOR_ETH, DSM_COLOR_ETH, COLOR_HASH_ETH
_IPV4, _IPV6 = 22, 23
UNPARSED = 0xFFFF  # link type of records that are none of these
_MOST_EXTENSIONS = 16
_CHAIN = Chain(">H", 10, 0, _HEADER, 65_535)


def looks_like_erf(head: bytes) -> bool:
    """Whether a file without a magic starts like ERF: three records with known types and lengths that fit."""
    at = 0
    for _ in range(3):
        if at + _HEADER > len(head):
            break
        kind, length = head[at + 8] & 0x7F, int.from_bytes(head[at + 10 : at + 12], "big")
        if not 1 <= kind <= 48 or length < _HEADER or head[at : at + 8] == bytes(8):
            return False
        at += length
    return at > 0


def read_erf(window: ByteWindow) -> Iterator[Block]:
    """The packets of an ERF file. Raises DamageError after the good ones."""
    while True:
        at, stop = record_offsets(window.data, window.start, window.end, _CHAIN)
        if len(at):
            size = field(rows_at(window.data, at + 10, 2), 0, ">u2")
            none = np.zeros(len(at), dtype=np.uint16)
            yield unwrap(Block(window.data, at, size, size, np.full(len(at), NO_TIME), none + LinkType.ERF, none))
        window.start = stop
        if window.end - stop >= _HEADER:
            length = int.from_bytes(window.data[stop + 10 : stop + 12].tobytes(), "big")
            if length < _HEADER:
                raise DamageError(window.offset, f"a record of {length} bytes: an ERF record has at least {_HEADER}")
        if not window.refill():
            break
    left = window.end - window.start
    if left or window.problem:
        raise DamageError(window.offset, window.problem or f"the file ends inside a record: {left} bytes are left")


def unwrap(block: Block) -> Block:
    """Take the ERF header off the packets of link type ERF: times and lengths become those it states."""
    erf = block.link == LinkType.ERF
    if not erf.any():
        return block
    out = block.take(np.arange(len(block)))
    out.hw_ns = np.full(len(block), NO_TIME, dtype=np.int64) if block.hw_ns is None else block.hw_ns.copy()
    rows = np.flatnonzero(erf & (block.caplen >= _HEADER))
    out.link[erf] = UNPARSED
    heads = rows_at(block.data, block.offset[rows], _HEADER)
    time = field(heads, 0, "<u8").view(np.uint64)
    # Rounded to the next ns, as Wireshark does.
    part = ((time & np.uint64(0xFFFFFFFF)) * np.uint64(1_000_000_000) + np.uint64(1 << 31)) >> np.uint64(32)
    ns = ((time >> np.uint64(32)) * np.uint64(1_000_000_000) + part).astype(np.int64)
    kind, length, wire = field(heads, 8, "u1"), field(heads, 10, ">u2"), field(heads, 14, ">u2")
    header = _HEADER + 8 * _extensions(block, rows, kind)
    kind = kind & 0x7F
    ethernet = np.isin(kind, _ETHERNET)
    header = header + np.where(ethernet, 2, 0)
    captured = np.minimum(np.minimum(length, block.caplen[rows]) - header, wire)
    out.ts_ns[rows] = ns
    out.hw_ns[rows] = ns
    fits = captured >= 0
    rows, kind, header, captured, wire = rows[fits], kind[fits], header[fits], captured[fits], wire[fits]
    out.offset[rows] += header
    out.caplen[rows] = captured
    out.origlen[rows] = wire
    out.link[rows] = np.select(
        [np.isin(kind, _ETHERNET), kind == _IPV4, kind == _IPV6],
        [LinkType.ETHERNET, LinkType.IPV4, LinkType.IPV6],
        UNPARSED,
    )
    return out


def _extensions(block: Block, rows: NDArray[np.int64], kind: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many extension headers each record has; at most as many as fit and `_MOST_EXTENSIONS`."""
    count = np.zeros(len(rows), dtype=np.int64)
    more = (kind & 0x80) != 0
    for _ in range(_MOST_EXTENSIONS):
        at = _HEADER + 8 * count
        more &= block.caplen[rows] >= at + 8
        here = np.flatnonzero(more)
        if not len(here):
            break
        first = block.data[block.offset[rows[here]] + at[here]]
        count[here] += 1
        more[here] = (first & 0x80) != 0
    return count
