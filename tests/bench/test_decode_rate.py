"""How fast messages are decoded and feeds followed, against scapy dissecting the same bytes in the same run.

CPU time counts. Rounds are interleaved, the fastest of each counts. scapy takes the beginning of the same datagrams.
The bodies are the real files' where TAILSIGHT_REAL_DATA names them.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scapy.packet import Packet

from collector.decode import registry
from collector.feeds.channel import Channel
from tests.collector.decode.test_blocks import one_of, sample
from tests.collector.decode.test_fix import order

pytestmark = [pytest.mark.bench, pytest.mark.timeout(600)]

REAL = os.environ.get("TAILSIGHT_REAL_DATA", "")
FILES = {
    "itch": ("nasdaq-itch50-moldudp64",),
    "cme": ("cme-mdp3-trade-summary", "cme-mdp3-incremental-refresh-book"),
    "iex": ("iex-deep-plus-all-message-types",),
}
DATAGRAMS, SCAPY, ROUNDS = 16_384, 100, 5
GOAL = 100.0


def payloads(name: str) -> list[bytes]:
    """Datagrams of a protocol: the real ones, or those of the unit tests."""
    if REAL and name in FILES:
        from scapy.layers.inet import UDP
        from scapy.utils import rdpcap

        files = [Path(REAL) / "marketdata" / f"{file}.pcap" for file in FILES[name]]
        return [bytes(p[UDP].payload) for file in files for p in rdpcap(str(file))]
    if name == "fix":
        return [b"".join(order(n) for n in range(1, 20_000))]
    return [sample(name, np.random.default_rng(1))]


def fastest(work: Callable[[], Any]) -> float:
    before = time.process_time()
    work()
    return time.process_time() - before


@pytest.mark.parametrize("name", ["itch", "cme", "iex", "demo", "fix"])
def test_decoding_against_scapy(name: str) -> None:
    parts = payloads(name)
    many = [parts[i % len(parts)] for i in range(DATAGRAMS if name != "fix" else 1)]
    data, starts, lengths = one_of(many)
    bare, whole = registry.make(name, keys=False, digests=False), registry.make(name)
    messages = len(whole.decode(data, starts, lengths).message_at)
    cls: type[Packet] | None = getattr(getattr(whole, "protocol", None), "packet", None)
    few = many[:SCAPY]
    peer_messages = len(whole.decode(*one_of(few)).message_at)
    best: dict[str, float] = {}
    for _ in range(ROUNDS):
        for label, work, count in (
            ("fields", lambda: bare.decode(data, starts, lengths), messages),
            ("with keys and digests", lambda: whole.decode(data, starts, lengths), messages),
            ("scapy", (lambda: [cls(p) for p in few]) if cls else None, peer_messages),
        ):
            if work is not None:
                best[label] = min(best.get(label, 1e9), fastest(work) / count)
    for label, seconds in best.items():
        print(f"{name}: {label}: {1e9 * seconds:.0f} ns a message")  # noqa: T201 - what a bench is for
    if "scapy" in best:
        ratio = best["scapy"] / best["with keys and digests"]
        print(f"{name}: {ratio:.0f}x scapy, {best['scapy'] / best['fields']:.0f}x fields alone")  # noqa: T201
        assert ratio >= GOAL


def test_following_two_lines() -> None:
    body = struct.pack(">cHH6sQ", b"D", 7, 0, b"\0" * 6, 5)
    block = struct.pack(">H", len(body)) + body
    parts = [struct.pack(">10sQH", b"0000000001", 1 + 3 * i, 3) + 3 * block for i in range(DATAGRAMS)]
    data, starts, lengths = one_of([p for p in parts for _ in (0, 1)])
    line = np.tile([0, 1], DATAGRAMS)
    times = np.arange(len(line), dtype=np.int64) * 1000
    best = {"decode": 1e9, "all": 1e9}
    for _ in range(ROUNDS):
        channel = Channel("c", ("A", "B"), registry.make("itch", keys=False))
        best["all"] = min(best["all"], fastest(lambda c=channel: c.take(line, data, starts, lengths, times)))  # type: ignore[misc]
        decoder = registry.make("itch", keys=False)
        best["decode"] = min(best["decode"], fastest(lambda d=decoder: d.decode(data, starts, lengths)))  # type: ignore[misc]
    for label, seconds in best.items():
        each = 1e9 * seconds / len(line)
        print(f"two lines: {label}: {each:.0f} ns a datagram of 3 messages")  # noqa: T201
