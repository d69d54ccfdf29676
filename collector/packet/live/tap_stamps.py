"""Stamps at the point `tap`: identifiers found in packets by rules or by decoders, as columns of STAMPS.

A stamp lies where the kernel (or the NIC) took the packet's time. Its `service` is the tap's name, so that two taps are
two ends of a path's stage. Measured: about 0.2 us a stamp.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from collector.clock import ClockReading
from collector.keys import hash64_ints, xxh64_rows
from collector.packet.block import rows_at
from collector.packet.headers import TCP, UDP, Headers
from collector.packet.live.settings import KeyRule
from collector.packet.live.tpacket import LiveBlock
from collector.record import STAMPS, Columns

Ints = NDArray[np.int64]

POINT = "tap"
_PROTOCOLS = {"udp": UDP, "tcp": TCP}
_U32_MAX = 0xFFFFFFFF


class Decoded(Protocol):
    """What a decoder found: `key[i]` is that of a message in the payload `row[i]` of those given."""

    row: Ints
    key: NDArray[np.uint64]


class Decodes(Protocol):
    """A protocol decoder, as in `collector.decode`."""

    def decode(self, data: NDArray[np.uint8], starts: Ints, lengths: Ints) -> Decoded:
        """The messages of the payloads `data[starts[i] : starts[i] + lengths[i]]`."""


@dataclass(frozen=True, slots=True)
class DecoderRule:
    """Payloads that a decoder is given: those of a transport protocol with one of `ports` at either end."""

    decoder: Decodes
    ports: tuple[int, ...]
    protocol: str = "udp"
    direction: str = "both"


Rules = Sequence[KeyRule | DecoderRule]


@dataclass(slots=True)
class Found:
    """Stamps of one poll on the way to columns."""

    ts_ns: list[Ints] = field(default_factory=list)
    key: list[NDArray[np.uint64]] = field(default_factory=list)
    service: list[NDArray[np.uint16]] = field(default_factory=list)
    kind: list[NDArray[np.uint8]] = field(default_factory=list)  # bit 0: outgoing, bit 1: hardware
    services: dict[str, int] = field(default_factory=dict)
    short: int = 0  # packets of a rule whose identifier lies beyond what was captured


def stamp(found: Found, tap: str, live: LiveBlock, headers: Headers, rules: Rules) -> None:
    """Apply the rules to a parsed block."""
    for rule in rules:
        row = _matching(rule, live, headers)
        if not len(row):
            continue
        packet = headers.row[row]
        start = live.block.offset[packet] + headers.payload[row]
        length = np.minimum(headers.payload_len[row], live.block.caplen[packet] - headers.payload[row])
        if isinstance(rule, DecoderRule):
            decoded = rule.decoder.decode(live.block.data, start, np.maximum(length, 0))
            packet, keys = packet[decoded.row], decoded.key
        else:
            good = length >= rule.offset + rule.width
            found.short += len(good) - int(np.count_nonzero(good))
            packet = packet[good]
            keys = _keys(rule, rows_at(live.block.data, start[good] + rule.offset, rule.width))
        if not len(packet):
            continue
        code = found.services.setdefault(tap, len(found.services))
        found.ts_ns.append(live.block.ts_ns[packet])
        found.key.append(keys)
        found.service.append(np.full(len(packet), code, dtype="<u2"))
        found.kind.append(live.outgoing[packet].astype(np.uint8) + np.uint8(2) * live.hardware[packet].astype(np.uint8))


def columns(found: Found, host: str, clock: ClockReading, labels: Mapping[tuple[str, int], int]) -> Columns | None:
    """The stamps as columns; `labels` names the label set of each (tap, kind). None without stamps."""
    if not found.ts_ns:
        return None
    ts_ns, service, kind = np.concatenate(found.ts_ns), np.concatenate(found.service), np.concatenate(found.kind)
    n = len(ts_ns)
    sets = np.zeros((len(found.services), 4), dtype="<u8")
    for tap, code in found.services.items():
        for number in range(4):
            sets[code, number] = labels.get((tap, number), 0)
    hardware = kind >= 2
    bound = clock.error_ns
    unknown = hardware if bound is not None and bound <= _U32_MAX else np.ones(n, dtype=np.bool_)
    zeros: dict[str, NDArray[Any]] = {
        name: np.zeros(n, dtype=STAMPS.column(name).kind.dtype)
        for name in ("point", "host", "thread", "depth", "outcome", "mode", "cache", "data_age_ns")
    }
    return Columns(
        STAMPS,
        {
            **zeros,
            "ts_ns": ts_ns,
            "key": np.concatenate(found.key).astype("<u8", copy=False),
            "service": service,
            "clock": hardware.astype("<u2"),
            "error_ns": np.where(unknown, 0, bound or 0).astype("<u4"),
            "label_set": sets[service, kind],
        },
        {"point": [POINT], "host": [host], "service": list(found.services), "clock": ["realtime", "phc"]},
        {"error_ns": unknown, "depth": np.ones(n, dtype=np.bool_), "data_age_ns": np.ones(n, dtype=np.bool_)},
    )


def _matching(rule: KeyRule | DecoderRule, live: LiveBlock, headers: Headers) -> Ints:
    hit = (headers.protocol == _PROTOCOLS[rule.protocol]) & (headers.payload >= 0) & ~headers.fragment
    ports = np.zeros(len(hit), dtype=np.bool_)
    for port in rule.ports:
        ports |= (headers.source_port == port) | (headers.target_port == port)
    hit &= ports & (headers.payload_len > 0)
    if rule.direction != "both":
        hit &= live.outgoing[headers.row] == (rule.direction == "out")
    return np.flatnonzero(hit)


def _keys(rule: KeyRule, rows: NDArray[np.uint8]) -> NDArray[np.uint64]:
    if not len(rows):
        return np.empty(0, dtype=np.uint64)
    if rule.kind == "integer":
        wide = np.zeros((len(rows), 8), dtype=np.uint8)
        wide[:, : rule.width] = rows if rule.endian == "little" else rows[:, ::-1]
        return hash64_ints(rule.space, wide.view("<u8")[:, 0])
    prefix = np.frombuffer(rule.space.encode() + b"\0", dtype=np.uint8)
    return xxh64_rows(np.concatenate([np.broadcast_to(prefix, (len(rows), len(prefix))), rows], axis=1))
