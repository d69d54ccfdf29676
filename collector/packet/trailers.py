"""Hardware times that taps and switches append to a frame, behind the IP packet.

Two layouts are decoded, both checked against Wireshark's dissectors (`packet-metamako.c`, `packet-exablaze.c`).
Numbers are big-endian, and the four bytes of the frame's new check sequence may follow:

- **metamako** (Arista 7130, MetaWatch): original FCS 4, extensions, seconds 4, nanoseconds 4, flags 1, device 2,
  port 1.
- **exablaze** (Exablaze, Cisco Nexus 3550 and SmartNIC): original FCS 4, device 1, port 1, seconds 4, fraction of a
  second 5 (in 2^-40), reserved 1.

Nothing in a frame says that it has a trailer. A layout is taken for a capture when at least nine tenths of the first
block's candidates make sense in it; then each packet is still checked: a time further from the capture's own than
Wireshark allows is no time.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from collector.packet.block import NO_TIME, Block, LinkType, field, rows_at
from collector.packet.headers import Headers

Ints = NDArray[np.int64]

_SIZE = 16
_FCS = 4
_ENOUGH = 0.9


class Trailer(Enum):
    """A trailer's layout."""

    METAMAKO = "metamako"
    EXABLAZE = "exablaze"


# How far a trailer's time may be from the capture's, as in Wireshark.
_NEAR_S = {Trailer.METAMAKO: 30 * 86_400, Trailer.EXABLAZE: 7 * 86_400}


@dataclass(slots=True)
class _Candidates:
    """Packets with room for a trailer: position in the block and the bytes at the end of what was captured."""

    row: Ints
    tail: NDArray[np.uint8]  # the last 20 bytes


def hardware_times(block: Block, headers: Headers, layout: Trailer) -> Ints:
    """int64[len(block)]: hardware time of each packet in ns since the epoch, `NO_TIME` where there is none."""
    out = np.full(len(block), NO_TIME, dtype=np.int64)
    found = _candidates(block, headers)
    out[found.row] = _decode(block, found, layout)
    return out


def detect(block: Block, headers: Headers) -> Trailer | None:
    """The layout that the block's trailers have; None if there are none, or none that makes sense."""
    found = _candidates(block, headers)
    if not len(found.row):
        return None
    for layout in Trailer:
        if (_decode(block, found, layout) != NO_TIME).mean() >= _ENOUGH:
            return layout
    return None


def _candidates(block: Block, headers: Headers) -> _Candidates:
    """Whole Ethernet frames with at least 16 bytes behind the IP packet; padding of short frames is among those."""
    row = headers.row
    behind = block.caplen[row] - headers.ip_end
    here = (behind >= _SIZE) & (block.caplen[row] >= block.origlen[row]) & (block.link[row] == LinkType.ETHERNET)
    row = row[here]
    start = block.offset[row] + block.caplen[row] - _SIZE - _FCS
    return _Candidates(row, rows_at(block.data, start, _SIZE + _FCS))


def _decode(block: Block, found: _Candidates, layout: Trailer) -> Ints:
    out = np.full(len(found.row), NO_TIME, dtype=np.int64)
    captured = block.ts_ns[found.row] // 1_000_000_000
    for fcs in (_FCS, 0):  # the layout without a check sequence behind it is preferred, as in Wireshark
        tail = found.tail[:, _FCS - fcs : _FCS - fcs + _SIZE]
        tail = np.ascontiguousarray(tail)
        if layout is Trailer.METAMAKO:
            seconds, ns = field(tail, 4, ">u4"), field(tail, 8, ">u4")
            sound = (seconds > 3600) & (ns < 1_000_000_000)
        else:
            seconds = field(tail, 6, ">u4")
            fraction = (field(tail, 10, ">u4") << 8) | field(tail, 14, "u1")
            # fraction * 10^9 / 2^40 in 64 bits: 10^9 = 2^9 * 5^9
            ns = (fraction * 5**9) >> 31
            sound = seconds > 0
        sound &= np.abs(seconds - captured) <= _NEAR_S[layout]
        out[sound] = seconds[sound] * 1_000_000_000 + ns[sound]
    return out
