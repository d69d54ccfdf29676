"""Counters per flow and direction of one tap, from whole blocks, in bounded memory.

A flow is looked up by one gather in a table of slots; only flows not seen lately take a slower way. Measured: 20-40 ns
a packet.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collector.packet.headers import Headers
from collector.packet.live.tpacket import LiveBlock

Ints = NDArray[np.int64]

_SLOTS = 1 << 17
_FIRST_ROWS = 1 << 10
_NONE = np.iinfo(np.int64).max
_FLOW = np.dtype(
    [
        ("flow", "u8"),
        ("addresses", "u1", (32,)),
        ("ports", "u2", (2,)),
        ("protocol", "u1"),
        ("version", "u1"),
        ("vlan", "i4"),
        ("swapped", "u1"),
    ]
)


DIRECTIONS = ("in", "out", "")


@dataclass(slots=True)
class Period:
    """What directions of flows did in a period, as columns.

    Attributes:
        flow, side: the flow's name and which of its endpoints sent.
        source, target: addresses as text.
        vlan: -1 = none.
        direction: place in DIRECTIONS; the last one where both were seen.
        ttl_min, ttl_max, dscp_min, dscp_max: extremes within the period.
    """

    flow: NDArray[np.uint64]
    side: Ints
    source: list[str]
    target: list[str]
    source_port: NDArray[np.uint16]
    target_port: NDArray[np.uint16]
    protocol: NDArray[np.uint8]
    vlan: NDArray[np.int32]
    direction: Ints
    packets: Ints
    bytes: Ints
    first_ns: Ints
    last_ns: Ints
    ttl_min: NDArray[np.int16]
    ttl_max: NDArray[np.int16]
    dscp_min: NDArray[np.int16]
    dscp_max: NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class FlowEnds:
    """One direction of a flow."""

    source: str
    source_port: int
    target: str
    target_port: int
    protocol: int

    def __str__(self) -> str:
        ends = (self.source, self.source_port), (self.target, self.target_port)
        texts = [f"[{a}]:{p}" if ":" in a else f"{a}:{p}" for a, p in ends]
        names = {6: "tcp", 17: "udp", 1: "icmp", 58: "icmp6"}
        return f"{texts[0]} > {texts[1]} {names.get(self.protocol, self.protocol)}"


@dataclass(slots=True)
class RouteChange:
    """A flow's direction changed its TTL or DSCP for good: every packet of the period had the new value."""

    ends: FlowEnds
    at_ns: int  # of the first packet with the new value that is known: the first of the period
    what: str  # ttl | dscp
    before: int
    after: int


def hops(ttl: int) -> int:
    """How many routers a packet has passed, guessed from the next initial value in use: 64, 128 or 255."""
    return next(first for first in (64, 128, 255) if ttl <= first) - ttl


class LiveFlows:
    """The flows of one tap. Row `2 * i + side` of the counters is flow `i` from its endpoint `side`.

    Args:
        most: flows that are told apart. Packets of further ones are counted together (`other`).
    """

    def __init__(self, most: int = 65_536) -> None:
        self._most = most
        self._keys: NDArray[np.uint64] = np.zeros(_SLOTS, dtype=np.uint64)
        self._rows: NDArray[np.int32] = np.full(_SLOTS, -1, dtype=np.int32)
        self._known: dict[int, int] = {}  # flow name to number, for those whose slot is another's
        self._flows: NDArray[Any] = np.zeros(_FIRST_ROWS, dtype=_FLOW)
        self._count = 0
        self._texts: list[tuple[str, str]] = []
        self.other_packets = 0
        self.other_bytes = 0
        self._flows_last: Ints = np.zeros(_FIRST_ROWS, dtype=np.int64)
        self._reset(_FIRST_ROWS)
        self._settled: NDArray[np.int16] = np.full((2 * _FIRST_ROWS, 2), -1, dtype=np.int16)

    def __len__(self) -> int:
        return self._count

    def add(self, live: LiveBlock, headers: Headers) -> Ints:
        """Count a parsed block. Returns each packet's row (as in `headers`), -1 for those counted as other."""
        if not len(headers.row):
            return np.empty(0, dtype=np.int64)
        number = self._numbers(live, headers)
        inside = number >= 0
        row = 2 * number + headers.swapped
        length = np.maximum(live.block.origlen[headers.row], live.block.caplen[headers.row])
        ts_ns = live.block.ts_ns[headers.row]
        out = live.outgoing[headers.row]
        ttl, dscp = headers.ttl, headers.dscp
        if not inside.all():
            lost = ~inside
            self.other_packets += int(np.count_nonzero(lost))
            self.other_bytes += int(length[lost].sum())
            if lost.all():
                return np.full(len(number), -1, dtype=np.int64)
            kept = np.flatnonzero(inside)
            self._count_rows(row[kept], length[kept], ts_ns[kept], out[kept], ttl[kept], dscp[kept])
            return np.where(inside, row, -1)
        self._count_rows(row, length, ts_ns, out, ttl, dscp)
        return row

    def active(self) -> Ints:
        """The rows with packets since the last `turn`."""
        return np.flatnonzero(self._packets[: 2 * self._count])

    def period(self, row: Ints) -> Period:
        """What the rows did since the last `turn`."""
        number, side = row // 2, row % 2
        entry = self._flows[number]
        packets, out = self._packets[row], self._out[row]
        texts = [self._texts[n] for n in number.tolist()]
        sides = side.tolist()
        return Period(
            flow=entry["flow"],
            side=side,
            source=[text[s] for text, s in zip(texts, sides, strict=True)],
            target=[text[1 - s] for text, s in zip(texts, sides, strict=True)],
            source_port=entry["ports"][np.arange(len(row)), side],
            target_port=entry["ports"][np.arange(len(row)), 1 - side],
            protocol=entry["protocol"],
            vlan=entry["vlan"],
            direction=np.where(out == 0, 0, np.where(out == packets, 1, 2)),
            packets=packets,
            bytes=self._bytes[row],
            first_ns=self._first[row],
            last_ns=self._last[row],
            ttl_min=self._seen[0, row],
            ttl_max=self._seen[1, row],
            dscp_min=self._seen[2, row],
            dscp_max=self._seen[3, row],
        )

    def changes(self) -> Iterator[RouteChange]:
        """Directions that settled on another TTL or DSCP than before. Mixed periods settle nothing."""
        rows = 2 * self._count
        for column, (what, low, high) in enumerate((("ttl", 0, 1), ("dscp", 2, 3))):
            settled = (self._packets[:rows] > 0) & (self._seen[low, :rows] == self._seen[high, :rows])
            before = self._settled[:rows, column]
            moved = settled & (before >= 0) & (before != self._seen[low, :rows])
            for row in np.flatnonzero(moved).tolist():
                yield RouteChange(
                    self.ends(row), int(self._first[row]), what, int(before[row]), int(self._seen[low, row])
                )

    def turn(self, forget_before_ns: int) -> Ints | None:
        """Begin a new period; flows that were last seen before `forget_before_ns` are forgotten.

        Returns the new row of each old one, -1 for the forgotten; None where all stay.
        """
        rows = 2 * self._count
        active = self._packets[:rows] > 0
        for column, (low, high) in enumerate(((0, 1), (2, 3))):
            settled = active & (self._seen[low, :rows] == self._seen[high, :rows])
            self._settled[:rows, column][settled] = self._seen[low, :rows][settled]
        last = self._last.reshape(-1, 2)[: self._count].max(axis=1)
        ever = self._flows_last[: self._count]
        np.maximum(ever, last, out=ever)
        self.other_packets = self.other_bytes = 0
        stale = ever < forget_before_ns
        # When the table is full, whoever was silent in this period makes room.
        if self._count >= self._most:
            stale |= ~active.reshape(-1, 2).any(axis=1)
        moved: Ints | None = None
        if stale.any():
            moved = np.full(2 * self._count, -1, dtype=np.int64)
            kept = np.flatnonzero(~stale)
            moved[2 * kept] = 2 * np.arange(len(kept))
            moved[2 * kept + 1] = 2 * np.arange(len(kept)) + 1
            self._keep(kept)
        self._reset(len(self._flows))
        return moved

    def ends(self, row: int) -> FlowEnds:
        """Who sends to whom in a row."""
        entry, side = self._flows[row // 2], row % 2
        texts = self._texts[row // 2]
        ports = entry["ports"].tolist()
        return FlowEnds(texts[side], ports[side], texts[1 - side], ports[1 - side], int(entry["protocol"]))

    def _count_rows(self, row: Ints, length: Ints, ts_ns: Ints, out: NDArray[np.bool_], ttl: Ints, dscp: Ints) -> None:
        if (row == row[0]).all():
            self._count_one(int(row[0]), length, ts_ns, out)
            self._look_at(row, ttl, dscp)
            return
        rows = 2 * self._count
        self._packets[:rows] += np.bincount(row, minlength=rows)
        self._bytes[:rows] += np.bincount(row, weights=length, minlength=rows).astype(np.int64)
        # Times rise within a ring but for clock steps; the last assignment to a row stays.
        last = self._last
        last[row] = ts_ns
        first = self._first[row]
        if (ts_ns < first).any():
            backwards = row[::-1]
            self._first[backwards] = np.minimum(first[::-1], ts_ns[::-1])
        if out.any():
            self._out[:rows] += np.bincount(row[out], minlength=rows)
        self._look_at(row, ttl, dscp)

    def _count_one(self, row: int, length: Ints, ts_ns: Ints, out: NDArray[np.bool_]) -> None:
        """The same for packets of one row, as a feed's are."""
        self._packets[row] += len(length)
        self._bytes[row] += int(length.sum())
        self._out[row] += int(np.count_nonzero(out))
        self._last[row] = ts_ns[-1]
        self._first[row] = min(int(self._first[row]), int(ts_ns.min()))

    def _look_at(self, row: Ints, ttl: Ints, dscp: Ints) -> None:
        # A packet that looks as the last one of its row changes no extreme.
        look = (ttl << 8 | dscp).astype(np.int32)
        if (look == self._look[row]).all():
            return
        self._look[row] = look
        low, high, dscp_low, dscp_high = self._seen
        if (ttl < low[row]).any() or (ttl > high[row]).any():
            np.minimum.at(low, row, ttl.astype(np.int16))
            np.maximum.at(high, row, ttl.astype(np.int16))
        if (dscp < dscp_low[row]).any() or (dscp > dscp_high[row]).any():
            np.minimum.at(dscp_low, row, dscp.astype(np.int16))
            np.maximum.at(dscp_high, row, dscp.astype(np.int16))

    def _numbers(self, live: LiveBlock, headers: Headers) -> Ints:
        flow = headers.flow
        slot = (flow & np.uint64(_SLOTS - 1)).astype(np.int64)
        number = self._rows[slot].astype(np.int64)
        strange = (self._keys[slot] != flow) | (number < 0)
        if strange.any():
            where = np.flatnonzero(strange)
            names, first, inverse = np.unique(flow[where], return_index=True, return_inverse=True)
            found = np.array(
                [
                    self._number(int(name), live, headers, int(where[at]))
                    for name, at in zip(names.tolist(), first.tolist(), strict=True)
                ],
                dtype=np.int64,
            )
            number[where] = found[inverse]
        return number

    def _number(self, flow: int, live: LiveBlock, headers: Headers, at: int) -> int:
        known = self._known.get(flow)
        if known is not None:
            return known
        if self._count >= self._most:
            return -1
        number = self._count
        if number >= len(self._flows):
            self._grow()
        entry = self._flows[number]
        index = np.array([at])
        addresses = headers.endpoints(live.block, index)[0]
        ports = (int(headers.source_port[at]), int(headers.target_port[at]))
        if headers.swapped[at]:
            addresses, ports = np.concatenate([addresses[16:], addresses[:16]]), (ports[1], ports[0])
        entry["flow"], entry["addresses"], entry["ports"] = flow, addresses, ports
        entry["protocol"], entry["version"] = headers.protocol[at], headers.version[at]
        entry["vlan"] = max(-1, int(live.vlan[headers.row[at]]) & 0xFFF if live.vlan[headers.row[at]] >= 0 else -1)
        version = int(entry["version"])
        pair = _address(addresses[:16].tobytes(), version), _address(addresses[16:].tobytes(), version)
        self._texts.append(pair)
        self._count += 1
        slot = flow & (_SLOTS - 1)
        if self._rows[slot] < 0:
            self._keys[slot], self._rows[slot] = flow, number
        else:
            self._known[flow] = number
        return number

    def _reset(self, flows: int) -> None:
        rows = 2 * flows
        self._packets: Ints = np.zeros(rows, dtype=np.int64)
        self._bytes: Ints = np.zeros(rows, dtype=np.int64)
        self._out: Ints = np.zeros(rows, dtype=np.int64)
        self._first: Ints = np.full(rows, _NONE, dtype=np.int64)
        self._last: Ints = np.zeros(rows, dtype=np.int64)
        self._seen: NDArray[np.int16] = np.empty((4, rows), dtype=np.int16)
        self._seen[[0, 2]], self._seen[[1, 3]] = 256, -1
        self._look: NDArray[np.int32] = np.full(rows, -1, dtype=np.int32)

    def _grow(self) -> None:
        more = min(2 * len(self._flows), self._most) - len(self._flows)
        self._flows = np.concatenate([self._flows, np.zeros(more, dtype=_FLOW)])
        self._flows_last = np.concatenate([self._flows_last, np.zeros(more, dtype=np.int64)])
        zeros = np.zeros(2 * more, dtype=np.int64)
        self._packets, self._bytes, self._out, self._last = (
            np.concatenate([a, zeros]) for a in (self._packets, self._bytes, self._out, self._last)
        )
        self._first = np.concatenate([self._first, zeros + _NONE])
        fresh = np.empty((4, 2 * more), dtype=np.int16)
        fresh[[0, 2]], fresh[[1, 3]] = 256, -1
        self._seen = np.concatenate([self._seen, fresh], axis=1)
        self._look = np.concatenate([self._look, np.full(2 * more, -1, dtype=np.int32)])
        self._settled = np.concatenate([self._settled, np.full((2 * more, 2), -1, dtype=np.int16)])

    def _keep(self, kept: Ints) -> None:
        count = len(kept)
        self._flows[:count] = self._flows[kept]
        self._flows_last[:count] = self._flows_last[kept]
        rows = np.stack([2 * kept, 2 * kept + 1], axis=1).ravel()
        self._settled[: 2 * count] = self._settled[rows]
        self._settled[2 * count :] = -1
        self._texts = [self._texts[n] for n in kept.tolist()]
        self._flows[count:] = np.zeros(1, dtype=_FLOW)
        self._flows_last[count:] = 0
        self._count = count
        self._keys[:] = 0
        self._rows[:] = -1
        self._known = {}
        names = self._flows["flow"][:count]
        slots = (names & np.uint64(_SLOTS - 1)).astype(np.int64)
        _, once = np.unique(slots, return_index=True)
        self._keys[slots[once]], self._rows[slots[once]] = names[once], once
        for number in np.setdiff1d(np.arange(count), once).tolist():
            self._known[int(names[number])] = number


def _address(raw: bytes, version: int) -> str:
    return str(ipaddress.IPv4Address(raw[12:]) if version == 4 else ipaddress.IPv6Address(raw))
