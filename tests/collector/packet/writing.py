"""Capture files written for tests: packets as (time in ns, bytes), in every format the reader knows."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

Packet = tuple[int, bytes]
START = 1_700_000_000_000_000_000


def pcap(packets: Iterable[Packet], order: str = "<", nano: bool = True, link: int = 1, snaplen: int = 65_535) -> bytes:
    tick = 1 if nano else 1_000
    out = [struct.pack(order + "IHHiIII", 0xA1B23C4D if nano else 0xA1B2C3D4, 2, 4, 0, 0, snaplen, link)]
    for ts, data in packets:
        seconds, ns = divmod(ts, 1_000_000_000)
        out.append(struct.pack(order + "IIII", seconds, ns // tick, len(data), len(data)) + data)
    return b"".join(out)


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    body += bytes(-len(body) % 4)
    size = 12 + len(body)
    return struct.pack(order + "II", kind, size) + body + struct.pack(order + "I", size)


def option(code: int, value: bytes, order: str = "<") -> bytes:
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def section(order: str = "<") -> bytes:
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(
    link: int = 1, resolution: int | None = None, offset_s: int = 0, order: str = "<", snap: int = 0
) -> bytes:
    body = struct.pack(order + "HHI", link, 0, snap)
    if resolution is not None:
        body += option(9, bytes([resolution]), order)
    if offset_s:
        body += option(14, struct.pack(order + "q", offset_s), order)
    return block(1, body + option(0, b"", order), order)


def enhanced(number: int, ticks: int, data: bytes, order: str = "<", origlen: int | None = None) -> bytes:
    head = struct.pack(
        order + "IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data) if origlen is None else origlen
    )
    return block(6, head + data, order)


def pcapng(packets: Sequence[Packet], order: str = "<") -> bytes:
    """One section, one Ethernet interface with nanoseconds."""
    return (
        section(order)
        + interface(resolution=9, order=order)
        + b"".join(enhanced(0, ts, data, order) for ts, data in packets)
    )


def erf(packets: Iterable[Packet], extensions: int = 0) -> bytes:
    out = []
    for ts, data in packets:
        seconds, ns = divmod(ts, 1_000_000_000)
        time = (seconds << 32) | ((ns << 32) // 1_000_000_000 + 1)
        more = b"".join(bytes([0x80 if i < extensions - 1 else 0]) + bytes(7) for i in range(extensions))
        size = 16 + len(more) + 2 + len(data)
        head = struct.pack("<QBB", time, 2 | (0x80 if extensions else 0), 4)
        out.append(head + struct.pack(">HHH", size, 0, len(data)) + more + bytes(2) + data)
    return b"".join(out)


def tcp4(
    seq: int = 0,
    ack: int = 0,
    flags: int = 0x10,
    payload: bytes = b"",
    window: int = 1000,
    forward: bool = True,
    ports: tuple[int, int] = (1234, 80),
) -> bytes:
    """An Ethernet frame with IPv4 and TCP, without check sums."""
    source, target = (b"\x0a\0\0\x01", b"\x0a\0\0\x02") if forward else (b"\x0a\0\0\x02", b"\x0a\0\0\x01")
    sport, dport = ports if forward else ports[::-1]
    tcp = struct.pack(">HHIIBBHHH", sport, dport, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, 0x50, flags, window, 0, 0)
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 40 + len(payload), 0, 0, 64, 6, 0) + source + target
    return bytes(12) + b"\x08\0" + ip + tcp + payload
