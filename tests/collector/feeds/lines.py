"""Long streams on two lines, made from message bodies by a seed, and what must be counted of them."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

REAL = os.environ.get("TAILSIGHT_REAL_DATA", "")


def bodies() -> list[bytes]:
    """The real ITCH messages where the folder is there, otherwise deletes of one order."""
    if not REAL:
        return [struct.pack(">cHH6sQ", b"D", n, 0, b"\0" * 6, n) for n in range(40)]
    from scapy.layers.inet import UDP
    from scapy.utils import rdpcap

    found = []
    for packet in rdpcap(str(Path(REAL) / "marketdata" / "nasdaq-itch50-moldudp64.pcap")):
        payload, at = bytes(packet[UDP].payload), 20
        while at < len(payload):
            (size,) = struct.unpack_from(">H", payload, at)
            found.append(payload[at + 2 : at + 2 + size])
            at += 2 + size
    return found


@dataclass
class Sent:
    line: int
    session: bytes
    low: int
    count: int
    at_ns: int
    payload: bytes
    changed: int = 0  # messages that say something else than on line 0


@dataclass
class Truth:
    """By the seed's own books, not by any state machine."""

    missing: list[int] = field(default_factory=lambda: [0, 0])
    missing_both: int = 0
    messages: list[int] = field(default_factory=lambda: [0, 0])
    messages_both: int = 0
    duplicates: list[int] = field(default_factory=lambda: [0, 0])
    reordered: list[int] = field(default_factory=lambda: [0, 0])
    won: list[int] = field(default_factory=lambda: [0, 0])
    pairs: int = 0
    divergent: int = 0


def streams(seed: int, datagrams: int = 3000, sessions: int = 3) -> tuple[list[Sent], Truth]:
    """Datagrams of both lines in order of arrival. Line 1 follows 3 us behind on average."""
    rng = np.random.default_rng(seed)
    source = bodies()
    sent: list[Sent] = []
    truth = Truth()
    now = 1_700_000_000_000_000_000
    for number in range(sessions):
        session = b"%010d" % (7 + number)
        low = 1
        arrivals: dict[int, dict[int, int]] = {}
        spoken: dict[int, list[Sent]] = {0: [], 1: []}
        for i in range(datagrams // sessions):
            now += int(rng.integers(10_000, 60_000))
            count = int(rng.integers(1, 12))
            chosen = [source[int(k)] for k in rng.integers(0, len(source), count)]
            edge = i in (0, datagrams // sessions - 1)  # what is lost there nobody can know of
            for line in (0, 1):
                if not edge and rng.random() < 0.02:
                    continue
                own = list(chosen)
                changed = 0
                if line and rng.random() < 0.005:
                    own[0] = own[0][:-1] + bytes([own[0][-1] ^ 1])
                    changed = 1
                at = now + line * int(rng.integers(1, 6000)) - int(rng.integers(0, 3000))
                if not edge and rng.random() < 0.01:
                    at += int(rng.integers(60_000, 400_000))  # overtaken by those behind it
                raw = b"".join(struct.pack(">H", len(b)) + b for b in own)
                one = Sent(line, session, low, count, at, struct.pack(">10sQH", session, low, count) + raw, changed)
                spoken[line].append(one)
                if not edge and rng.random() < 0.01:
                    again = Sent(line, session, low, count, at + int(rng.integers(1, 5000)), one.payload)
                    spoken[line].append(again)
                    truth.duplicates[line] += count
            low += count
        for line in (0, 1):
            spoken[line].sort(key=lambda s: s.at_ns)
            highest = 0
            seen: set[int] = set()
            for one in spoken[line]:
                for n in range(one.low, one.low + one.count):
                    if n not in seen and n < highest:
                        truth.reordered[line] += 1
                    seen.add(n)
                    arrivals.setdefault(n, {}).setdefault(line, one.at_ns)
                highest = max(highest, one.low + one.count)
            truth.messages[line] += len(seen)
            truth.missing[line] += low - 1 - len(seen)
        changed = {one.low for one in spoken[1] if one.changed}
        for n, by in arrivals.items():
            truth.won[min(by, key=lambda line: (by[line], line))] += 1
            truth.pairs += len(by) == 2
            truth.divergent += len(by) == 2 and n in changed
        truth.messages_both += len(arrivals)
        truth.missing_both += low - 1 - len(arrivals)
        sent += spoken[0] + spoken[1]
        now += 10_000_000
    sent.sort(key=lambda s: (s.at_ns, s.line))
    return sent, truth


def placed(
    sent: list[Sent],
) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """line, data, starts, lengths, times."""
    lengths = np.array([len(s.payload) for s in sent], dtype=np.int64)
    data = np.frombuffer(b"".join(s.payload for s in sent), np.uint8)
    return (
        np.array([s.line for s in sent], dtype=np.int64),
        data,
        np.cumsum(lengths) - lengths,
        lengths,
        np.array([s.at_ns for s in sent], dtype=np.int64),
    )
