"""Running state of TCP conversations as columns: what was known just before each packet.

Rows are sorted by conversation, both directions interleaved in capture order. Sequence numbers are unwrapped to 64 bits
relative to each sender's first, and every conversation gets a range of its own, 2^41 apart, so that one running maximum
over the whole array never mixes two conversations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from collector.packet.tcp_rows import FIN, SYN, TcpRows

Ints = NDArray[np.int64]

_APART = 41
NOTHING = np.int64(-(1 << 62))  # below every unwrapped number


@dataclass(slots=True)
class TcpState:
    """Columns over the rows of whole conversations; "own" is the sender's direction, "other" the opposite one.

    Attributes:
        conversation: number of the conversation each row belongs to.
        start: first row of each row's conversation.
        own, other: last earlier row of the direction in the same conversation; -1 = none.
        seq: unwrapped sequence number.
        end: the same behind the payload and SYN or FIN.
        next: highest `end` of the own direction before this packet; NOTHING if none.
        next_set: row that set it; -1 if none.
        ack: the acknowledged number, unwrapped in the other direction's numbers; NOTHING if nothing was seen there.
        jumps: rows whose sequence number is 2^30 or more away from the one before: unwrapping them is a guess.
    """

    conversation: Ints
    start: Ints
    own: Ints
    other: Ints
    seq: Ints
    end: Ints
    next: Ints
    next_set: Ints
    ack: Ints
    jumps: NDArray[np.bool_]


def running_state(rows: TcpRows, starts: Ints) -> TcpState:
    """Compute the columns; `starts` are the first rows of the conversations."""
    count = len(rows)
    index = np.arange(count, dtype=np.int64)
    opens = np.zeros(count, dtype=np.int64)
    opens[starts] = 1
    conversation = np.cumsum(opens) - 1
    start = starts[conversation]
    side = rows.side.astype(np.bool_)
    last = [_last_before(index, side == bool(d)) for d in (0, 1)]
    own = np.where(side, last[1], last[0])
    other = np.where(side, last[0], last[1])
    own[own < start] = -1
    other[other < start] = -1
    step = _signed32(rows.seq - rows.seq[own])  # row -1 is any row: masked below
    step[own < 0] = 0
    base = conversation << _APART
    seq = np.empty(count, dtype=np.int64)
    for mine in (side, ~side):
        run = np.cumsum(np.where(mine, step, 0))
        np.copyto(seq, run - run[start] + np.where(mine[start], step[start], 0) + base, where=mine)
    end = seq + rows.length + ((rows.flags & (SYN | FIN)) != 0)
    before = np.empty(count, dtype=np.int64)
    setter = np.empty(count, dtype=np.int64)
    for mine in (side, ~side):
        highest = np.maximum.accumulate(np.where(mine, end, NOTHING))
        rises = mine.copy()
        rises[1:] &= highest[1:] > highest[:-1]
        set_by = np.maximum.accumulate(np.where(rises, index, -1))
        np.copyto(before[1:], highest[:-1], where=mine[1:])
        np.copyto(setter[1:], set_by[:-1], where=mine[1:])
    before[own < 0] = NOTHING
    setter[own < 0] = -1
    ack = seq[other] + _signed32(rows.ack - rows.seq[other])
    ack[other < 0] = NOTHING
    return TcpState(conversation, start, own, other, seq, end, before, setter, ack, np.abs(step) >= 1 << 30)


def _last_before(index: Ints, mine: NDArray[np.bool_]) -> Ints:
    """The last row before each that belongs to a direction; -1 = none."""
    out = np.empty(len(index), dtype=np.int64)
    out[:1] = -1
    out[1:] = np.maximum.accumulate(np.where(mine, index, -1))[:-1]
    return out


def _signed32(difference: NDArray[np.uint32]) -> Ints:
    """A difference modulo 2^32 as the signed number nearest to 0 (RFC 9293, 3.4)."""
    return difference.view(np.int32).astype(np.int64)


def first_reaching(values: Ints, start: Ints, threshold: Ints) -> Ints:
    """For each query, the first position >= `start` whose value is >= `threshold`; len(values) if none.

    Climbs a tree of block maxima, so that a query costs the logarithm of the distance and no order of the values can
    make it slow.
    """
    levels = [values]
    while len(levels[-1]) > 1:
        below = levels[-1]
        pairs = np.maximum(below[:-1:2], below[1::2])
        levels.append(np.append(pairs, below[-1]) if len(below) % 2 else pairs)
    block = start.copy()
    height = np.full(len(start), -1, dtype=np.int64)
    climbing = np.arange(len(start), dtype=np.int64)
    for up, level in enumerate(levels):
        climbing = climbing[block[climbing] < len(level)]
        # An odd block is looked at alone: its parent also covers what lies before the start.
        alone = climbing if len(level) == 1 else climbing[block[climbing] & 1 == 1]
        reached = level[block[alone]] >= threshold[alone]
        height[alone[reached]] = up
        block[alone[~reached]] += 1
        climbing = climbing[height[climbing] < 0]
        if not len(climbing):
            break
        block[climbing] >>= 1
    for down in range(len(levels) - 1, 0, -1):
        inside = np.flatnonzero(height >= down)
        left = block[inside] * 2
        block[inside] = left + (levels[down - 1][left] < threshold[inside])
    return np.where(height >= 0, block, len(values))
