"""TCP analysis of live traffic: the file analysis applied piece by piece, with bounded memory.

The definitions are those of `collector.packet.tcp_analysis`. A piece is analysed together with the last packets of each
of its flows from before (`CONTEXT`), and only what is new is counted. Figures differ from those of one whole analysis
where a verdict rests on something further back: a round trip over more than CONTEXT packets is not sampled, and once
the handshake lies further back, out of order means within 3 ms. Beyond `most` packets in a period whole flows are left
out, by their name, and have no TCP figures at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collector.packet.conversations import COUNTED, pieces
from collector.packet.tcp_analysis import analyse_tcp
from collector.packet.tcp_rows import TcpRows, by_flow

CONTEXT = 128  # packets of a flow that are looked back at
_PIECE = 32_768
_FORGET_NS = 60_000_000_000

TCP_FIGURES = np.dtype(
    [
        ("flow", "u8"),
        ("side", "u1"),
        *((name, "i8") for name in COUNTED),
        ("handshake_ns", "i8"),
        ("rtt_samples", "i8"),
        ("rtt_min_ns", "i8"),
        ("rtt_p50_ns", "i8"),
        ("rtt_p99_ns", "i8"),
        ("rtt_max_ns", "i8"),
    ]
)


@dataclass(slots=True)
class _Sums:
    """What the pieces of a period came to."""

    rows: list[NDArray[Any]] = field(default_factory=list)  # TCP_FIGURES without percentiles
    ends: list[NDArray[np.uint64]] = field(default_factory=list)  # of round trips: the flow,
    sides: list[NDArray[np.uint8]] = field(default_factory=list)  # the side that sent the segment,
    rtt_ns: list[NDArray[np.int64]] = field(default_factory=list)


class TcpStream:
    """Takes TCP packets in capture order; `most` bounds how many are analysed in a period."""

    def __init__(self, most: int = 1_000_000) -> None:
        self._most = most
        self._parts: list[TcpRows] = []
        self._held = 0
        self._context = TcpRows.join([])
        self._sums = _Sums()
        self._seen = 0
        self._bits = 0  # flows whose name starts with so many zero bits are analysed
        self.share = 1.0

    def add(self, rows: TcpRows) -> None:
        """Take packets. A piece is analysed as soon as it is large enough."""
        if self._bits:
            rows = rows.take(self._analysed(rows.flow))
        if not len(rows):
            return
        self._parts.append(rows)
        self._held += len(rows)
        self._seen += len(rows)
        while self._seen > self._most:
            self._thin()
        if self._held >= _PIECE:
            self._analyse()

    def analysed(self, flow: int) -> bool:
        """Whether a flow's figures are complete in this period."""
        return bool(flow >> (64 - self._bits) == 0) if self._bits else True

    def turn(self) -> NDArray[Any]:
        """The figures of the period, TCP_FIGURES per flow and side, and begin a new one. -1: not measured."""
        self._analyse()
        sums, self._sums = self._sums, _Sums()
        self.share = 1.0 / (1 << self._bits)
        out = _merged(sums)
        if self._bits:
            out = out[self._analysed(out["flow"])]
        return out

    def next_period(self) -> None:
        """Analyse all flows again, until there are too many. Call it when `analysed` has been asked."""
        self._bits = 0
        self._seen = 0

    def _analysed(self, flow: NDArray[np.uint64]) -> NDArray[np.bool_]:
        kept: NDArray[np.bool_] = flow >> np.uint64(64 - self._bits) == 0
        return kept

    def _thin(self) -> None:
        self._bits += 1
        before = self._held
        self._parts = [part.take(self._analysed(part.flow)) for part in self._parts]
        self._held = sum(map(len, self._parts))
        self._context = self._context.take(self._analysed(self._context.flow))
        sums = self._sums
        for n, ends in enumerate(sums.ends):
            kept = self._analysed(ends)
            sums.ends[n], sums.sides[n], sums.rtt_ns[n] = ends[kept], sums.sides[n][kept], sums.rtt_ns[n][kept]
        sums.rows = [rows[self._analysed(rows["flow"])] for rows in sums.rows]
        # What is left of what was seen; without knowing it exactly for the parts analysed, half of them.
        self._seen = self._held + (self._seen - before) // 2
        if self._bits > 40:  # one flow alone exceeds the bound: it is left out too
            self._seen = 0

    def _analyse(self) -> None:
        if not self._held:
            return
        new = TcpRows.join(self._parts)
        self._parts, self._held = [], 0
        last_ns = int(new.ts_ns[-1])
        old = self._context
        # Only the context of flows that go on is looked at; the rest waits.
        goes_on = np.isin(old.flow, new.flow)
        rows = by_flow(TcpRows.join([old.take(goes_on), new]))
        names, counts = np.unique(old.flow[goes_on], return_counts=True)
        for piece in pieces(rows):
            self._count(piece, _is_new(piece, names, counts))
        waiting = old.take(~goes_on & (old.ts_ns > last_ns - _FORGET_NS))
        self._context = TcpRows.join([waiting, _tails(rows)])
        if len(self._context) > self._most:
            self._context = self._context.take(slice(len(self._context) - self._most, None))

    def _count(self, rows: TcpRows, new: NDArray[np.bool_]) -> None:
        analysis = analyse_tcp(rows)
        change = np.ones(len(rows), dtype=np.bool_)
        change[1:] = rows.flow[1:] != rows.flow[:-1]
        flow_number = np.cumsum(change) - 1
        place = 2 * flow_number + rows.side
        flows = rows.flow[change]
        table = np.zeros(2 * len(flows), dtype=TCP_FIGURES)
        table["flow"], table["side"] = np.repeat(flows, 2), np.tile(np.array([0, 1], dtype=np.uint8), len(flows))
        table["handshake_ns"] = -1
        mark = np.where(new, analysis.mark, np.uint8(0))
        if mark.any():
            for name, marks in COUNTED.items():
                table[name] = np.bincount(place[(mark & np.uint8(marks)) != 0], minlength=len(table))
        fresh = new[analysis.handshake_row]
        table["handshake_ns"][place[analysis.handshake_row[fresh]]] = analysis.handshake_ns[fresh]
        self._sums.rows.append(table)
        fresh = new[analysis.rtt_row]
        row = analysis.rtt_row[fresh]
        self._sums.ends.append(rows.flow[row])
        self._sums.sides.append(np.uint8(1) - rows.side[row])
        self._sums.rtt_ns.append(analysis.rtt_ns[fresh])


def _is_new(rows: TcpRows, names: NDArray[np.uint64], counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Rows behind the first `counts` of each flow of `names`; rows are sorted by flow."""
    new = np.ones(len(rows), dtype=np.bool_)
    if len(names):
        starts = np.searchsorted(rows.flow, names)
        here = (starts < len(rows)) & (rows.flow[np.minimum(starts, len(rows) - 1)] == names)
        for start, count in zip(starts[here].tolist(), counts[here].tolist(), strict=True):
            new[start : start + count] = False
    return new


def _tails(rows: TcpRows) -> TcpRows:
    """The last CONTEXT rows of each flow."""
    last = np.ones(len(rows), dtype=np.bool_)
    last[:-1] = rows.flow[1:] != rows.flow[:-1]
    ends = np.flatnonzero(last)
    behind = ends[np.searchsorted(ends, np.arange(len(rows)))]
    return rows.take(np.flatnonzero(behind - np.arange(len(rows)) < CONTEXT))


def _merged(sums: _Sums) -> NDArray[Any]:
    if not sums.rows:
        return np.zeros(0, dtype=TCP_FIGURES)
    rows = np.concatenate(sums.rows)
    ends, sides = np.concatenate(sums.ends), np.concatenate(sums.sides)
    rtt_ns = np.concatenate(sums.rtt_ns)
    names, place = np.unique(rows["flow"], return_inverse=True)
    place = 2 * place + rows["side"]
    out = np.zeros(2 * len(names), dtype=TCP_FIGURES)
    out["flow"], out["side"] = np.repeat(names, 2), np.tile(np.array([0, 1], dtype=np.uint8), len(names))
    for name in COUNTED:
        out[name] = np.bincount(place, weights=rows[name], minlength=len(out))
    for name in ("handshake_ns", "rtt_min_ns", "rtt_p50_ns", "rtt_p99_ns", "rtt_max_ns"):
        out[name] = -1
    np.maximum.at(out["handshake_ns"], place, rows["handshake_ns"])
    if len(rtt_ns):
        talk = 2 * np.searchsorted(names, ends) + sides
        ordered = rtt_ns[np.lexsort((rtt_ns, talk))]
        counts = np.bincount(talk, minlength=len(out))
        begins = np.cumsum(counts) - counts
        some = np.flatnonzero(counts)
        out["rtt_samples"] = counts
        out["rtt_min_ns"][some] = ordered[begins[some]]
        for name, p in (("rtt_p50_ns", 0.5), ("rtt_p99_ns", 0.99), ("rtt_max_ns", 1.0)):
            position = np.maximum(1, np.ceil(p * counts[some]).astype(np.int64))
            out[name][some] = ordered[begins[some] + position - 1]
    return out
