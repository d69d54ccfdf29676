"""TCP analysis of many conversations at once: what went wrong on each, and how long acknowledgements took.

The verdicts are those of tshark 4.0 (`docs/pcap.md` has them, with the differences). Each is a comparison with running
state (`tcp_columns`), so a whole column is judged at once. Two rules feed back into the state: a zero-window probe does
not advance it, and an acknowledgement of data that was not captured resets a counter. Conversations in which that
could matter are judged packet by packet by `tcp_state`.

Measured: 100-200 ns per packet.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from collector.packet.tcp_columns import NOTHING, TcpState, first_reaching, running_state
from collector.packet.tcp_rows import ACK, FIN, RST, SYN, TcpRows, conversation_starts
from collector.packet.tcp_state import FAST_WITHIN_NS, OUT_OF_ORDER_NS, Mark, marks

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(slots=True)
class TcpAnalysis:
    """The answer for the rows given.

    Attributes:
        starts: first row of each conversation.
        mark: uint8 per row, `Mark`.
        rtt_row, rtt_ns: the rows that acknowledge a segment, and the time since that segment was first sent.
        handshake_row, handshake_ns: one per conversation at most: the first pure ACK after the SYN, and the time since.
        stepped: conversations that were judged packet by packet.
    """

    starts: Ints
    mark: NDArray[np.uint8]
    rtt_row: Ints
    rtt_ns: Ints
    handshake_row: Ints
    handshake_ns: Ints
    stepped: int


def analyse_tcp(rows: TcpRows) -> TcpAnalysis:
    """Analyse rows that are sorted by flow (`by_flow`)."""
    starts = conversation_starts(rows)
    if not len(rows):
        nothing = np.empty(0, dtype=np.int64)
        return TcpAnalysis(starts, np.empty(0, dtype=np.uint8), nothing, nothing, nothing, nothing, 0)
    state = running_state(rows, starts)
    handshake_row, handshake_ns = _handshakes(rows, state)
    mark, odd = _judge(rows, state, handshake_row, handshake_ns)
    for number in odd.tolist():
        low = int(starts[number])
        high = int(starts[number + 1]) if number + 1 < len(starts) else len(rows)
        mark[low:high] = marks(rows.take(slice(low, high)))
    rtt_row, rtt_ns = _round_trips(rows, state)
    return TcpAnalysis(starts, mark, rtt_row, rtt_ns, handshake_row, handshake_ns, len(odd))


def _handshakes(rows: TcpRows, state: TcpState) -> tuple[Ints, Ints]:
    """From the last SYN to the first packet after it with ACK and without SYN, either way (tshark's initial_rtt)."""
    pure_syn = (rows.flags & (SYN | ACK)) == SYN
    if not pure_syn.any():
        nothing = np.empty(0, dtype=np.int64)
        return nothing, nothing
    index = np.arange(len(rows), dtype=np.int64)
    last_syn = np.maximum.accumulate(np.where(pure_syn, index, -1))
    row = np.flatnonzero(((rows.flags & (SYN | ACK)) == ACK) & (last_syn >= state.start))
    took = rows.ts_ns[row] - rows.ts_ns[last_syn[row]]
    row, took = row[took != 0], took[took != 0]  # a zero is "not known yet" to tshark, and the next ACK is taken
    first = np.ones(len(row), dtype=np.bool_)
    first[1:] = state.conversation[row[1:]] != state.conversation[row[:-1]]
    return row[first], took[first]


def _judge(rows: TcpRows, state: TcpState, handshake_row: Ints, handshake_ns: Ints) -> tuple[NDArray[np.uint8], Ints]:
    """The marks, and the conversations whose marks cannot be trusted because state feeds back."""
    count = len(rows)
    mark = np.zeros(count, dtype=np.uint8)
    flags, length, window = rows.flags, rows.length, rows.window
    plain = (flags & (SYN | FIN | RST)) == 0
    started = state.own >= 0
    # Row -1 stands for "none": it is some row, masked by `started` or `met`.
    own_window, own_ack = window[state.own], rows.ack[state.own]
    met = state.other >= 0
    other_window = np.where(met, window[state.other], 0)
    other_ack = np.where(met, rows.ack[state.other], 0).astype(np.uint32)
    at_next = started & (state.seq == state.next)

    mark[plain & (window == 0)] = np.uint8(Mark.ZERO_WINDOW)
    lost = started & (state.seq > state.next) & ((flags & RST) == 0)
    mark[lost] |= np.uint8(Mark.LOST_SEGMENT)
    keep_alive = started & plain & (length <= 1) & (state.seq == state.next - 1)
    mark[keep_alive] |= np.uint8(Mark.KEEP_ALIVE)
    repeats = at_next & plain & (length == 0) & (window != 0) & (window == own_window) & (rows.ack == own_ack)
    duplicate = repeats & ~(met & keep_alive[state.other])
    mark[duplicate] |= np.uint8(Mark.DUPLICATE_ACK)

    carries = (length > 0) | ((flags & (SYN | FIN)) != 0)
    back = started & (state.seq < state.next) & carries & ~keep_alive
    back &= ~((length > 1) & (state.seq == state.next - 1))
    behind = (rows.seq + length - other_ack).view(np.int32) <= 0
    spurious = (length > 0) & ~keep_alive & (other_ack != 0) & behind
    mark[spurious] |= np.uint8(Mark.SPURIOUS_RETRANSMISSION)
    repeated = np.flatnonzero(back & ~spurious)
    counted = _duplicates(rows, state, duplicate)
    if len(repeated):
        limit = np.full(int(state.conversation[-1]) + 1, OUT_OF_ORDER_NS, dtype=np.int64)
        known_from = np.full(len(limit), count, dtype=np.int64)
        known_from[state.conversation[handshake_row]] = handshake_row
        limit[state.conversation[handshake_row]] = np.where(handshake_ns > 0, handshake_ns, np.iinfo(np.int64).max)
        mark[repeated] |= _kinds(rows, state, repeated, counted, limit, known_from)
    odd = _odd(rows, state, at_next & (length == 1) & (other_window == 0), lost, counted)
    return mark, odd


def _kinds(
    rows: TcpRows, state: TcpState, row: Ints, counted: Ints, limit: Ints, known_from: Ints
) -> NDArray[np.uint8]:
    """Fast retransmission, out of order, or plain retransmission."""
    other = state.other[row]
    since_ack = rows.ts_ns[row] - rows.ts_ns[other]
    fast = (other >= 0) & (counted[other] >= 2) & (rows.ack[other] == rows.seq[row])
    fast &= (since_ack >= 0) & (since_ack < FAST_WITHIN_NS)
    talk = state.conversation[row]
    allowed = np.where(row > known_from[talk], limit[talk], OUT_OF_ORDER_NS)
    since_next = rows.ts_ns[row] - rows.ts_ns[state.next_set[row]]
    late = (since_next >= 0) & (since_next < allowed) & (state.end[row] != state.next[row])
    return np.select(
        [fast, late], [np.uint8(Mark.FAST_RETRANSMISSION), np.uint8(Mark.OUT_OF_ORDER)], np.uint8(Mark.RETRANSMISSION)
    )


def _duplicates(rows: TcpRows, state: TcpState, duplicate: Bools) -> Ints:
    """Duplicate ACKs of each row's sender since its acknowledgement number last changed, this row included."""
    out = np.zeros(len(rows), dtype=np.int64)
    if not duplicate.any():
        return out
    changed = (state.own < 0) | (rows.ack != rows.ack[state.own])
    for side in (0, 1):
        mine = rows.side == side
        so_far = np.cumsum(duplicate & mine)
        at_change = np.maximum.accumulate(np.where(mine & changed, so_far, 0))
        np.copyto(out, so_far - at_change, where=mine)
    return out


def _odd(rows: TcpRows, state: TcpState, probe: Bools, lost: Bools, counted: Ints) -> Ints:
    """Conversations in which a verdict changes the state that later verdicts depend on.

    Zero-window probes; numbers that jump by 2^30 or more; a SYN sent again after more was sent; and a sender that has
    gaps in what was captured of it and sends duplicate ACKs as well, whose count the peer's acknowledgements reset.
    """
    again = ((rows.flags & (SYN | ACK)) == SYN) & (state.own >= 0) & (state.next != state.end)
    odd = np.unique(state.conversation[probe | state.jumps | again])
    gap = np.flatnonzero(lost | ((state.own >= 0) & (rows.seq != rows.seq[state.own]) & (state.seq < state.next)))
    repeats = np.flatnonzero(counted >= 2)
    if len(gap) and len(repeats):
        both = np.intersect1d(
            state.conversation[gap] * 2 + rows.side[gap], state.conversation[repeats] * 2 + rows.side[repeats]
        )
        odd = np.union1d(odd, both // 2)
    return odd


def _round_trips(rows: TcpRows, state: TcpState) -> tuple[Ints, Ints]:
    """Acknowledgement round trips (tshark's ack_rtt): the rows that end them and their times.

    A segment waits until the first packet from the other side that acknowledges at least its end. It gives a sample if
    that packet acknowledges exactly its end; of several such segments the one sent first counts.
    """
    segment = np.flatnonzero((rows.length > 0) | ((rows.flags & (SYN | FIN)) != 0))
    acks = np.where((rows.flags & ACK) != 0, state.ack, NOTHING)
    got = np.empty(len(segment), dtype=np.int64)
    for side in (0, 1):
        mine = rows.side[segment] == side
        got[mine] = _first_ack(np.where(rows.side != side, acks, NOTHING), segment[mine], state.end[segment[mine]])
    answered = got < len(rows)
    segment, got = segment[answered], got[answered]
    exact = (state.conversation[got] == state.conversation[segment]) & (acks[got] == state.end[segment])
    segment, got = segment[exact], got[exact]
    first = np.full(len(rows), -1, dtype=np.int64)
    first[got[::-1]] = segment[::-1]  # of equal targets the last assignment stays: the earliest segment
    row = np.flatnonzero(first >= 0)
    return row, rows.ts_ns[row] - rows.ts_ns[first[row]]


def _first_ack(acks: Ints, segment: Ints, end: Ints) -> Ints:
    """First row behind each segment whose `acks` reaches its end. The next few rows are tried first: most are there."""
    out = np.full(len(segment), len(acks), dtype=np.int64)
    waiting = np.arange(len(segment), dtype=np.int64)
    last = len(acks) - 1
    for ahead in (1, 2):
        at = np.minimum(segment[waiting] + ahead, last)
        hit = (acks[at] >= end[waiting]) & (at > segment[waiting])
        out[waiting[hit]] = at[hit]
        waiting = waiting[~hit]
    if len(waiting):
        out[waiting] = first_reaching(acks, np.minimum(segment[waiting] + 1, last + 1), end[waiting])
    return out
