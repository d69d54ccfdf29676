"""From marks on packets to figures per conversation, and round-trip times for exact order statistics."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collector.packet.tcp_analysis import TcpAnalysis, analyse_tcp
from collector.packet.tcp_rows import TcpRows, by_flow
from collector.packet.tcp_state import Mark

# What is counted per conversation, and the marks that count for it. As in tshark's fields, every fast and every
# spurious retransmission is a retransmission too.
COUNTED: dict[str, int] = {
    "retransmissions": Mark.RETRANSMISSION | Mark.FAST_RETRANSMISSION | Mark.SPURIOUS_RETRANSMISSION,
    "fast_retransmissions": Mark.FAST_RETRANSMISSION,
    "spurious_retransmissions": Mark.SPURIOUS_RETRANSMISSION,
    "out_of_order": Mark.OUT_OF_ORDER,
    "duplicate_acks": Mark.DUPLICATE_ACK,
    "lost_segments": Mark.LOST_SEGMENT,
    "zero_windows": Mark.ZERO_WINDOW,
}
NEVER = -1  # in a `_ns` column of a conversation: not measured

CONVERSATION = np.dtype(
    [
        ("flow", "u8"),
        ("first_ns", "i8"),
        ("last_ns", "i8"),
        ("packets", "i8"),
        ("bytes", "i8"),
        *((name, "i8") for name in COUNTED),
        ("rtt_samples", "i8"),
        ("rtt_p50_ns", "i8"),
        ("rtt_p99_ns", "i8"),
        ("rtt_max_ns", "i8"),
        ("handshake_ns", "i8"),
    ]
)
_PIECE = 32_768  # rows analysed at once: small enough for the cache


def rank(p: float, count: int) -> int:
    """Rank of the p-quantile among `count` ordered samples: max(1, ceil(p * count))."""
    return max(1, math.ceil(p * count))


def quantiles(samples: NDArray[np.int64], levels: tuple[float, ...]) -> list[int]:
    """Exact order statistics of a non-empty sample."""
    ranks: list[int] = [rank(p, len(samples)) - 1 for p in levels]
    ordered: NDArray[np.int64] = np.partition(samples, ranks)
    return [int(ordered[r]) for r in ranks]


def analyse_rows(rows: TcpRows) -> Iterator[tuple[NDArray[Any], TcpAnalysis]]:
    """Analyse whole flows, some at a time: figures per conversation (dtype CONVERSATION) and the analysis itself."""
    rows = by_flow(rows)
    for piece in pieces(rows):
        analysis = analyse_tcp(piece)
        yield _figures(piece, analysis), analysis


def pieces(rows: TcpRows) -> Iterator[TcpRows]:
    """Cut between flows, about every `_PIECE` rows; a longer flow is one piece."""
    if not len(rows):
        return
    cuts = np.append(np.flatnonzero(rows.flow[1:] != rows.flow[:-1]) + 1, len(rows))
    low = 0
    while low < len(rows):
        high = int(cuts[min(int(np.searchsorted(cuts, low + _PIECE)), len(cuts) - 1)])
        yield rows.take(slice(low, high))
        low = high


def _figures(rows: TcpRows, analysis: TcpAnalysis) -> NDArray[Any]:
    starts = analysis.starts
    table = np.zeros(len(starts), dtype=CONVERSATION)
    table["flow"] = rows.flow[starts]
    table["first_ns"] = np.minimum.reduceat(rows.ts_ns, starts)
    table["last_ns"] = np.maximum.reduceat(rows.ts_ns, starts)
    table["packets"] = np.diff(np.append(starts, len(rows)))
    table["bytes"] = np.add.reduceat(rows.length.astype(np.int64), starts)
    if analysis.mark.any():
        for name, marks in COUNTED.items():
            table[name] = np.add.reduceat((analysis.mark & np.uint8(marks)) != 0, starts, dtype=np.int64)
    for name in ("rtt_p50_ns", "rtt_p99_ns", "rtt_max_ns", "handshake_ns"):
        table[name] = NEVER
    table["handshake_ns"][_conversation(starts, analysis.handshake_row)] = analysis.handshake_ns
    _round_trips(table, _conversation(starts, analysis.rtt_row), analysis.rtt_ns)
    return table


def _conversation(starts: NDArray[np.int64], row: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.searchsorted(starts, row, side="right") - 1


def _round_trips(table: NDArray[Any], talk: NDArray[np.int64], rtt_ns: NDArray[np.int64]) -> None:
    if not len(talk):
        return
    if int(rtt_ns.min()) >= 0 and int(rtt_ns.max()) < 1 << 40 and len(table) < 1 << 23:
        ordered = (talk << 40) | rtt_ns  # sorting one number is several times faster than sorting by two
        ordered.sort()
        ordered &= (1 << 40) - 1
    else:
        ordered = rtt_ns[np.lexsort((rtt_ns, talk))]
    counts = np.bincount(talk, minlength=len(table))
    begins = np.cumsum(counts) - counts
    table["rtt_samples"] = counts
    some = np.flatnonzero(counts)
    for name, p in (("rtt_p50_ns", 0.5), ("rtt_p99_ns", 0.99), ("rtt_max_ns", 1.0)):
        position = np.maximum(1, np.ceil(p * counts[some]).astype(np.int64))
        table[name][some] = ordered[begins[some] + position - 1]
