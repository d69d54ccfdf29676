"""TCP and UDP sockets of chosen ports by sock_diag: queues, round trips, retransmissions, drops.

Cost: the kernel walks its socket tables, some 100 us per family and protocol with few sockets. Needs no privilege.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Collection
from dataclasses import dataclass

from collector.nic.netlink import Netlink, attributes

_BY_FAMILY = 20
_INFO, _SKMEMINFO = 2, 7
_REQUEST = struct.Struct("=BBBBI")  # family, protocol, extensions, pad, states; then the socket id
_ID = 48
_FIXED = struct.Struct("=BBBB")  # family, state, timer, retransmits
_TAIL = struct.Struct("=IIIII")  # expires, rqueue, wqueue, uid, inode
_ALL_STATES = 0xFFFFFFFF
LISTEN = 10


@dataclass(frozen=True, slots=True)
class Socket:
    """One socket. Times are None where the kernel keeps none (UDP, listening sockets)."""

    protocol: str
    cookie: int
    state: int
    local_port: int
    remote_port: int
    receive_bytes: int
    send_bytes: int
    drops: int
    rtt_ns: int | None = None
    min_rtt_ns: int | None = None
    retransmits: int | None = None
    unsent_bytes: int | None = None


def read_sockets(netlink: Netlink, ports: Collection[int]) -> list[Socket]:
    """The sockets with one of `ports` on either side. Raises NetlinkError."""
    wanted = frozenset(ports)
    found = []
    for protocol, number in (("tcp", socket.IPPROTO_TCP), ("udp", socket.IPPROTO_UDP)):
        extensions = 1 << (_SKMEMINFO - 1) | (1 << (_INFO - 1) if protocol == "tcp" else 0)
        for family in (socket.AF_INET, socket.AF_INET6):
            request = _REQUEST.pack(family, number, extensions, 0, _ALL_STATES) + bytes(_ID)
            for _, body in netlink.dump(_BY_FAMILY, request):
                one = parse_socket(protocol, body, wanted)
                if one is not None:
                    found.append(one)
    return found


def parse_socket(protocol: str, body: memoryview, wanted: Collection[int]) -> Socket | None:
    """One inet_diag_msg; None when it has none of the ports."""
    end = _FIXED.size + _ID + _TAIL.size
    if len(body) < end:
        return None
    source, target = struct.unpack_from(">HH", body, _FIXED.size)
    if source not in wanted and target not in wanted:
        return None
    state = body[1]
    (cookie,) = struct.unpack_from("=Q", body, _FIXED.size + _ID - 8)
    _, receive, send, _, _ = _TAIL.unpack_from(body, _FIXED.size + _ID)
    drops = 0
    rtt = least = again = unsent = None
    for kind, value in attributes(body[end:]):
        if kind == _SKMEMINFO and len(value) >= 36:
            drops = struct.unpack_from("=I", value, 32)[0]
        elif kind == _INFO and len(value) >= 152 and state != LISTEN:
            # struct tcp_info, <linux/tcp.h>: rtt 68, total_retrans 100, notsent_bytes 144, min_rtt 148; us.
            rtt_us, (again,) = struct.unpack_from("=I", value, 68)[0], struct.unpack_from("=I", value, 100)
            unsent, least_us = struct.unpack_from("=II", value, 144)
            rtt = rtt_us * 1_000
            least = None if least_us == 0xFFFFFFFF else least_us * 1_000  # ~0: never measured
    return Socket(protocol, cookie, state, source, target, receive, send, drops, rtt, least, again, unsent)
