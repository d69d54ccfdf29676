"""Ring blocks as the kernel writes them, made from frames."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from collector.packet.live.tpacket import SLACK

MAC = 82


@dataclass(frozen=True)
class Frame:
    data: bytes
    ts_ns: int = 1_700_000_000_000_000_000
    wire: int | None = None
    outgoing: bool = False
    vlan: int | None = None
    hardware: bool = False


def ring_block(frames: Sequence[Frame], size: int = 1 << 20) -> NDArray[np.uint8]:
    """A block descriptor with these frames, padded to `size`, and the slack behind it."""
    parts = []
    for number, frame in enumerate(frames):
        status = 1 | (1 << 31 if frame.hardware else 1 << 29) | (0x50 if frame.vlan is not None else 0)
        length = (MAC + len(frame.data) + 7) // 8 * 8
        head = struct.pack(
            "<IIIIIIHHIIHHQ",
            0 if number + 1 == len(frames) else length,
            frame.ts_ns // 10**9,
            frame.ts_ns % 10**9,
            len(frame.data),
            len(frame.data) if frame.wire is None else frame.wire,
            status,
            MAC,
            MAC + 14,
            0,
            frame.vlan or 0,
            0x8100,
            0,
            0,
        )
        address = struct.pack("<HHiHBB8s", 17, 8, 2, 1, 4 if frame.outgoing else 0, 6, b"")
        parts.append((head + address).ljust(MAC, b"\0") + frame.data.ljust(length - MAC, b"\0"))
    body = b"".join(parts)
    first, last = (frames[0].ts_ns, frames[-1].ts_ns) if frames else (0, 0)
    head = struct.pack(
        "<IIIIIIQIIII", 1, 48, 1, len(frames), 48, 48 + len(body), 1,
        first // 10**9, first % 10**9, last // 10**9, last % 10**9,
    )  # fmt: skip
    assert len(head) + len(body) <= size
    return np.frombuffer((head + body).ljust(size + SLACK, b"\0"), dtype=np.uint8).copy()
