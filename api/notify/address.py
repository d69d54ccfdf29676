"""Where a notification may be sent: which addresses a URL may lead to, decided once and then connected to.

A name is resolved once per try, every address it has is checked, and the connection goes to one of those: a name that
resolves to something else a moment later gains nothing.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class Destination(Protocol):
    """Whom to reach: a target of alerts, or a watcher."""

    @property
    def kind(self) -> str:
        """`webhook` where the address is checked."""

    @property
    def url(self) -> str:
        """Its URL."""

    @property
    def ports(self) -> tuple[int, ...]:
        """Ports that it may have."""

    @property
    def allow_loopback(self) -> bool:
        """Whether it may be on this host."""

    @property
    def allow_private(self) -> bool:
        """Whether it may be in a private network."""


class RefusedError(Exception):
    """An address that a notification may not go to."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where to connect, and what to ask for there. `host` is what certificates and the Host header name."""

    address: str
    port: int
    host: str
    path: str
    tls: bool

    @property
    def authority(self) -> str:
        """The Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


def place(target: Destination, path: str = "") -> Place:
    """Where `target` is now; `path` is added to its URL. Raises RefusedError, or OSError when it has no address."""
    parts = urlsplit(target.url)
    tls, host = parts.scheme == "https", parts.hostname or ""
    port = parts.port or (443 if tls else 80)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [ipaddress.ip_address(str(one[4][0]).partition("%")[0]) for one in found]
    if target.kind == "webhook":
        for address in addresses:
            allowed(target, address, port, tls=tls)
    asked = parts.path.rstrip("/") + path if path else parts.path or "/"
    return Place(str(addresses[0]), port, host, asked + (f"?{parts.query}" if parts.query else ""), tls)


def allowed(target: Destination, address: Ip, port: int, *, tls: bool) -> None:
    """Raise RefusedError where a webhook may not connect to."""
    real = _inner(address)
    if real.is_loopback and target.allow_loopback:
        return
    if not tls:
        raise RefusedError("the webhook's URL must be https; http is for loopback with allow_loopback")
    if port not in target.ports:
        raise RefusedError(f"port {port} is none of the webhook's ports {list(target.ports)}")
    if real.is_global and not real.is_multicast:
        return
    # `is_private` also holds for loopback, link-local and other special ranges: only networks of one's own are meant.
    own = real.is_private and not (
        real.is_loopback or real.is_link_local or real.is_unspecified or real.is_reserved or real.is_multicast
    )
    if own and target.allow_private:
        return
    raise RefusedError(f"{address} is no public address; allow_private or allow_loopback would allow some others")


def _inner(address: Ip) -> Ip:
    """The IPv4 address inside an IPv6 one that carries one."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return address.ipv4_mapped
        if address.sixtofour:
            return address.sixtofour
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address
