"""TCP analysis packet by packet: the rules as a state machine.

The definition that `tcp_analysis` computes for whole columns, and its fallback for the few conversations in which one
verdict changes the state that the next depends on. Rules: tshark 4.0, User's Guide, "TCP Analysis"
(https://www.wireshark.org/docs/wsug_html_chunked/ChAdvTCPAnalysis.html). Measured: 2-3 us per packet.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntFlag

import numpy as np
from numpy.typing import NDArray

from collector.packet.tcp_rows import ACK, FIN, RST, SYN, TcpRows

FAST_WITHIN_NS = 20_000_000  # a fast retransmission follows the duplicate ACK within 20 ms
OUT_OF_ORDER_NS = 3_000_000  # out of order, where the handshake's round trip is not known
_SHARE = 16_384


class Mark(IntFlag):
    """What the analysis says of one packet."""

    RETRANSMISSION = 1
    FAST_RETRANSMISSION = 2
    SPURIOUS_RETRANSMISSION = 4
    OUT_OF_ORDER = 8
    DUPLICATE_ACK = 16
    LOST_SEGMENT = 32
    ZERO_WINDOW = 64
    KEEP_ALIVE = 128


@dataclass(slots=True)
class _Side:
    """What is known of one direction. `next` None: nothing was sent yet."""

    next: int | None = None  # highest sequence number seen, plus one
    next_ns: int = 0  # when it was set
    contiguous: int | None = None  # the same without the holes: what may be acknowledged
    ack: int = 0
    ack_ns: int = 0
    window: int = 0
    duplicates: int = 0
    mark: int = 0


def _after(a: int, b: int) -> bool:
    """Whether sequence number a lies behind b, modulo 2^32 (RFC 9293, 3.4)."""
    return 0 < ((a - b) & 0xFFFFFFFF) < 0x80000000


def marks(rows: TcpRows) -> NDArray[np.uint8]:
    """The `Mark` of every packet of one conversation, in capture order."""
    sides = (_Side(), _Side())
    out = np.zeros(len(rows), dtype=np.uint8)
    syn_ns: int | None = None
    handshake_ns = 0
    for at, (ts, seq, ack, length, window, flags, side) in enumerate(_packets(rows)):
        fwd, rev = sides[side], sides[1 - side]
        if flags & (SYN | ACK) == SYN and at:
            fwd.next = fwd.contiguous if fwd.next is not None else None
        out[at] = _packet(fwd, rev, ts, seq, ack, length, window, flags, handshake_ns)
        if flags & (SYN | ACK) == SYN:
            syn_ns = ts
        elif flags & (SYN | ACK) == ACK and syn_ns is not None and not handshake_ns:
            handshake_ns = ts - syn_ns
    return out


def _packets(rows: TcpRows) -> Iterator[tuple[int, ...]]:
    """Rows as tuples of plain integers, which take ten times the memory of the columns: so a share at a time."""
    for low in range(0, len(rows), _SHARE):
        part = rows.take(slice(low, low + _SHARE))
        columns = (part.ts_ns, part.seq, part.ack, part.length, part.window, part.flags, part.side)
        yield from zip(*(column.tolist() for column in columns), strict=True)


def _packet(
    fwd: _Side, rev: _Side, ts: int, seq: int, ack: int, length: int, window: int, flags: int, handshake_ns: int
) -> int:
    mark = 0
    control = flags & (SYN | FIN | RST)
    probe = length == 1 and seq == fwd.next and rev.window == 0
    if not probe:
        if window == 0 and not control:
            mark |= Mark.ZERO_WINDOW
        if fwd.next is not None and _after(seq, fwd.next) and not flags & RST:
            mark |= Mark.LOST_SEGMENT
        if length <= 1 and fwd.next is not None and seq == (fwd.next - 1) & 0xFFFFFFFF and not control:
            mark |= Mark.KEEP_ALIVE
        repeats = length == 0 and window == fwd.window and seq == fwd.next and ack == fwd.ack and not control
        if repeats and window and not rev.mark & Mark.KEEP_ALIVE:
            fwd.duplicates += 1
            mark |= Mark.DUPLICATE_ACK
    if ack != fwd.ack:
        fwd.duplicates = 0
    if flags & ACK and rev.contiguous is not None and rev.next is not None and _after(ack, rev.contiguous):
        # It acknowledges what the capture has not got.
        if rev.contiguous > rev.next:
            rev.contiguous = rev.next
        else:
            rev.duplicates = 0
    end = (seq + length) & 0xFFFFFFFF
    advance = (end + 1) & 0xFFFFFFFF if flags & (SYN | FIN) else end
    if (length or flags & (SYN | FIN)) and not mark & Mark.KEEP_ALIVE:
        mark |= _repeated(fwd, rev, ts, seq, end, advance, length, handshake_ns)
    if (fwd.next is None or _after(advance, fwd.next)) and not probe:
        fwd.next, fwd.next_ns = advance, ts
    if (fwd.contiguous is None or seq == fwd.contiguous) and not probe:
        fwd.contiguous = fwd.next
    fwd.window, fwd.ack, fwd.ack_ns, fwd.mark = window, ack, ts, mark
    return mark


def _repeated(fwd: _Side, rev: _Side, ts: int, seq: int, end: int, advance: int, length: int, handshake_ns: int) -> int:
    """Which kind of repetition a segment is that carries data, SYN or FIN; 0 if it is new."""
    back = fwd.next is not None and _after(fwd.next, seq)
    if fwd.next is not None and length > 1 and seq == (fwd.next - 1) & 0xFFFFFFFF:
        back = False  # it really adds data behind a window probe
    if length and rev.ack and not _after(end, rev.ack):
        return Mark.SPURIOUS_RETRANSMISSION
    if not back:
        return 0
    if rev.duplicates >= 2 and rev.ack == seq and 0 <= ts - rev.ack_ns < FAST_WITHIN_NS:
        return Mark.FAST_RETRANSMISSION
    # A handshake that took less than nothing counts as endless: tshark compares unsigned.
    limit = handshake_ns if handshake_ns > 0 else OUT_OF_ORDER_NS if not handshake_ns else 1 << 63
    if 0 <= ts - fwd.next_ns < limit and fwd.next != advance:
        return Mark.OUT_OF_ORDER
    return Mark.RETRANSMISSION
