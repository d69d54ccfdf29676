"""Receive-side scaling: which receive queue of its host's NIC each flow of the demo is on. Pure.

The hosts are those that receive through `links`. Their NICs are part of that user-space network; the kernel's
interfaces have no part in it. The addresses and ports are logical ones (RFC 5737, RFC 6676) that never change, so that
the same flow is always on the same queue; the sockets themselves are on 127.0.0.1. A real NIC does the same: the
Toeplitz hash of addresses and ports, whose low seven bits index an indirection table, filled round robin with queues.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Literal

QUEUES = 4  # of each host's NIC
_TABLE = tuple(entry % QUEUES for entry in range(128))  # the indirection table as drivers fill it by default
# The key of Microsoft's "Verifying the RSS Hash Calculation", which many drivers use.
MICROSOFT_KEY = bytes.fromhex(
    "6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa"
)  # fmt: skip


def toeplitz(data: bytes, key: bytes = MICROSOFT_KEY) -> int:
    """The 32-bit Toeplitz hash: for each bit that is set, the 32 bits of the key that begin there, exclusive-or.

    Source: Microsoft, "RSS Hashing Functions" (NdisHashFunctionToeplitz). Raises ValueError when the key is too short.
    """
    bits = 8 * len(key)
    if bits < 8 * len(data) + 32:
        raise ValueError(f"{len(data)} bytes take a key of at least {len(data) + 4} bytes, got {len(key)}")
    window, found = int.from_bytes(key), 0
    for at in range(8 * len(data)):
        if data[at // 8] >> (7 - at % 8) & 1:
            found ^= window >> (bits - 32 - at) & 0xFFFF_FFFF
    return found


def flow_hash(source: str, source_port: int, target: str, target_port: int) -> int:
    """The RSS hash of a TCP or UDP flow over IPv4: both addresses, then both ports, in network byte order."""
    addresses = IPv4Address(source).packed + IPv4Address(target).packed
    return toeplitz(addresses + source_port.to_bytes(2) + target_port.to_bytes(2))


def queue_of(hashed: int) -> int:
    """The receive queue of packets with this hash."""
    return _TABLE[hashed % len(_TABLE)]


@dataclass(frozen=True, slots=True)
class Flow:
    """One direction of a link of the demo, and the host that receives it. `name`.back is a connection's way back."""

    name: str
    host: str
    protocol: Literal["udp", "tcp"]
    source: str
    source_port: int
    target: str
    target_port: int

    @property
    def hash(self) -> int:
        """Its RSS hash."""
        return flow_hash(self.source, self.source_port, self.target, self.target_port)

    @property
    def queue(self) -> int:
        """The receive queue of its host that it is on."""
        return queue_of(self.hash)


_ADDRESS = {
    "engine": "192.0.2.20",
    "gateway-east": "192.0.2.31",
    "gateway-west": "192.0.2.32",
    "venue-east": "203.0.113.41",
    "venue-west": "203.0.113.42",
}
HOSTS = tuple(_ADDRESS)


def _connection(name: str, client: str, client_port: int, server: str, server_port: int) -> tuple[Flow, Flow]:
    """A connection's two ways: to the one that listens, and back."""
    near, far = (_ADDRESS[client], client_port), (_ADDRESS[server], server_port)
    return Flow(name, server, "tcp", *near, *far), Flow(f"{name}.back", client, "tcp", *far, *near)


_FLOWS = (
    Flow("line-a", "engine", "udp", "198.51.100.11", 26_477, "233.252.0.111", 26_477),
    Flow("line-b", "engine", "udp", "198.51.100.12", 26_477, "233.252.0.112", 26_477),
    *_connection("orders-east", "engine", 50_002, "gateway-east", 7_001),
    *_connection("orders-west", "engine", 50_004, "gateway-west", 7_001),
    *_connection("market-east", "gateway-east", 50_004, "venue-east", 9_001),
    *_connection("market-west", "gateway-west", 50_004, "venue-west", 9_001),
)
FLOWS = {flow.name: flow for flow in _FLOWS}


def on_queue(host: str, queue: int) -> list[Flow]:
    """The flows on a receive queue of a host; none is possible, as with any hash."""
    return [flow for flow in _FLOWS if flow.host == host and flow.queue == queue]


def used_queues(host: str) -> list[int]:
    """The queues of a host that carry a flow, in the order of its flows (the feed's line A is the engine's first)."""
    return list(dict.fromkeys(flow.queue for flow in _FLOWS if flow.host == host))
