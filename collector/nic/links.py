"""Counters of interfaces (RTM_GETSTATS) and levels of their queueing disciplines (RTM_GETQDISC). 6 us per dump."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from collector.nic.netlink import Netlink, attributes

_GETSTATS, _GETQDISC = 94, 38
_LINK_64, _KIND, _STATS2, _BASIC, _QUEUE, _PACKETS64 = 1, 1, 7, 1, 3, 8
_IF_STATS = struct.Struct("=BBHII")
_TC = struct.Struct("=BBHiIII")
# struct rtnl_link_stats64, <linux/if_link.h>, in its order.
LINK_FIELDS = (
    "rx_packets", "tx_packets", "rx_bytes", "tx_bytes", "rx_errors", "tx_errors", "rx_dropped", "tx_dropped",
    "multicast", "collisions", "rx_length_errors", "rx_over_errors", "rx_crc_errors", "rx_frame_errors",
    "rx_fifo_errors", "rx_missed_errors", "tx_aborted_errors", "tx_carrier_errors", "tx_fifo_errors",
    "tx_heartbeat_errors", "tx_window_errors", "rx_compressed", "tx_compressed", "rx_nohandler",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Qdisc:
    """One queueing discipline: what has left it, what waits in it, and what it threw away."""

    ifindex: int
    kind: str
    handle: int
    parent: int
    sent_bytes: int
    sent_packets: int
    backlog_packets: int
    backlog_bytes: int
    drops: int
    requeues: int
    overlimits: int

    @property
    def name(self) -> str:
        """Its handle as tc prints it; the parent's class where it has none of its own."""
        number = self.handle or self.parent
        return f"{number >> 16:x}:" if self.handle else f"parent {number >> 16:x}:{number & 0xFFFF:x}"


def interfaces() -> dict[int, str]:
    """Names of the interfaces of this network namespace by index."""
    return dict(socket.if_nameindex())


def read_links(netlink: Netlink) -> dict[int, Mapping[str, int]]:
    """All counters of every interface, by index. Raises NetlinkError."""
    request = _IF_STATS.pack(0, 0, 0, 0, 1 << (_LINK_64 - 1))
    found: dict[int, Mapping[str, int]] = {}
    for _, body in netlink.dump(_GETSTATS, request):
        if len(body) < _IF_STATS.size:
            continue
        index = _IF_STATS.unpack_from(body)[3]
        for kind, value in attributes(body[_IF_STATS.size :]):
            if kind == _LINK_64:
                n = min(len(value) // 8, len(LINK_FIELDS))
                found[index] = dict(zip(LINK_FIELDS, struct.unpack_from(f"={n}Q", value), strict=False))
    return found


def read_qdiscs(netlink: Netlink) -> list[Qdisc]:
    """Every queueing discipline. Raises NetlinkError."""
    return [q for _, body in netlink.dump(_GETQDISC, _TC.pack(0, 0, 0, 0, 0, 0, 0)) if (q := parse_qdisc(body))]


def parse_qdisc(body: memoryview) -> Qdisc | None:
    """One RTM_NEWQDISC; None for one without statistics."""
    if len(body) < _TC.size:
        return None
    _, _, _, index, handle, parent, _ = _TC.unpack_from(body)
    kind, basic, packets, queue = "", (0, 0), None, None
    for name, value in attributes(body[_TC.size :]):
        if name == _KIND:
            kind = bytes(value).rstrip(b"\0").decode("ascii", "replace")
        elif name == _STATS2:
            for inner, content in attributes(value):
                if inner == _BASIC and len(content) >= 12:
                    basic = struct.unpack_from("=QI", content)
                elif inner == _PACKETS64 and len(content) >= 8:
                    packets = struct.unpack_from("=Q", content)[0]
                elif inner == _QUEUE and len(content) >= 20:
                    queue = struct.unpack_from("=5I", content)
    if queue is None:
        return None
    sent = basic[1] if packets is None else packets
    length, backlog, drops, requeues, overlimits = queue
    return Qdisc(index, kind, handle, parent, basic[0], sent, length, backlog, drops, requeues, overlimits)
