"""TCP packets of a capture as columns, ordered by conversation.

A conversation is what tshark calls one: two endpoints, until a SYN with a new initial sequence number reuses them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16


@dataclass(slots=True)
class TcpRows:
    """TCP packets as columns of the same length.

    Attributes:
        flow: uint64, name of the flow, the same in both directions.
        ts_ns: int64.
        seq, ack, length: uint32; `length` is the payload by the headers.
        window: uint16, not scaled.
        flags: uint8.
        side: uint8, 0 or 1: which of the two endpoints sent it.
    """

    flow: NDArray[np.uint64]
    ts_ns: NDArray[np.int64]
    seq: NDArray[np.uint32]
    ack: NDArray[np.uint32]
    length: NDArray[np.uint32]
    window: NDArray[np.uint16]
    flags: NDArray[np.uint8]
    side: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.flow)

    def take(self, index: NDArray[np.int64] | NDArray[np.bool_] | slice) -> TcpRows:
        """The rows at `index`."""
        return TcpRows(*(getattr(self, name)[index] for name in TcpRows.__slots__))

    @classmethod
    def join(cls, parts: list[TcpRows]) -> TcpRows:
        """Rows one after another."""
        if not parts:
            return cls(*(np.empty(0, dtype=kind) for kind in COLUMN_TYPES.values()))
        return cls(*(np.concatenate([getattr(p, name) for p in parts]) for name in TcpRows.__slots__))


COLUMN_TYPES = {
    "flow": np.dtype("u8"),
    "ts_ns": np.dtype("i8"),
    "seq": np.dtype("u4"),
    "ack": np.dtype("u4"),
    "length": np.dtype("u4"),
    "window": np.dtype("u2"),
    "flags": np.dtype("u1"),
    "side": np.dtype("u1"),
}


def by_flow(rows: TcpRows) -> TcpRows:
    """Rows sorted by flow, in capture order within each.

    Sorting one 64-bit number that holds the upper bits of the name and the row is several times faster than a stable
    sort of the names. Should two names share those bits, they are numbered first.
    """
    count = len(rows)
    bits = np.uint64(count.bit_length())
    index = np.arange(count, dtype=np.uint64)
    order = _sorted(rows.flow >> bits, index, bits)
    flow = rows.flow[order]
    change = flow[1:] != flow[:-1]
    if (change & (flow[1:] >> bits == flow[:-1] >> bits)).any():
        _, number = np.unique(rows.flow, return_inverse=True)
        order = _sorted(number.astype(np.uint64), index, bits)
    return rows.take(order)


def _sorted(number: NDArray[np.uint64], index: NDArray[np.uint64], bits: np.uint64) -> NDArray[np.int64]:
    key = (number << bits) | index
    key.sort()
    return (key & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64)


def conversation_starts(rows: TcpRows) -> NDArray[np.int64]:
    """Where conversations start in rows sorted by flow: at each flow, and at a SYN that reuses its ports.

    As in tshark, a pure SYN starts a new conversation when its sequence number is not the initial one known for its
    sender: that of the SYN before from the same side, else one less than the first packet's, else what the other side
    acknowledged first.
    """
    count = len(rows)
    if not count:
        return np.empty(0, dtype=np.int64)
    new_flow = np.ones(count, dtype=np.bool_)
    new_flow[1:] = rows.flow[1:] != rows.flow[:-1]
    starts = np.flatnonzero(new_flow)
    syn = np.flatnonzero(((rows.flags & (SYN | ACK)) == SYN) & ~new_flow)
    if not len(syn):
        return starts
    flow_of = np.searchsorted(starts, syn, side="right") - 1
    first = starts[flow_of]
    base = _known_base(rows, first, rows.side[syn])
    known = base >= 0
    # An earlier SYN of the same side in the same flow overrides: it was either the base or started a conversation.
    all_syn = np.flatnonzero((rows.flags & (SYN | ACK)) == SYN)
    for side in (0, 1):
        mine = all_syn[rows.side[all_syn] == side]
        at = np.flatnonzero(rows.side[syn] == side)
        if not len(mine) or not len(at):
            continue
        earlier = np.searchsorted(mine, syn[at]) - 1
        has = (earlier >= 0) & (mine[np.maximum(earlier, 0)] >= first[at])
        base[at[has]] = rows.seq[mine[earlier[has]]]
        known[at[has]] = True
    reuse = syn[known & (rows.seq[syn].astype(np.int64) != base)]
    return np.union1d(starts, reuse)


def _known_base(rows: TcpRows, first: NDArray[np.int64], side: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Initial sequence number of `side` by the first packet of its flow; -1 where that does not tell."""
    same = rows.side[first] == side
    plain = (rows.flags[first] & SYN) == 0
    own = (rows.seq[first].astype(np.int64) - plain) & 0xFFFFFFFF
    acked = (rows.ack[first].astype(np.int64) - 1) & 0xFFFFFFFF
    return np.where(same, own, np.where((rows.flags[first] & ACK) != 0, acked, -1))
