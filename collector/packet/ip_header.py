"""IP headers of a whole block at once: IPv4 with options, IPv6 with its extension headers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collector.packet.block import Block, field
from collector.packet.link import IPV4, Network, Reason, Verdicts

Ints = NDArray[np.int64]

_EXTENSIONS = (0, 43, 60, 135, 139, 140)  # hop-by-hop, routing, destination, mobility, HIP, shim6: 8 (1 + n) bytes
_FRAGMENT, _AUTHENTICATION = 44, 51
_MOST_EXTENSIONS = 12


@dataclass(slots=True)
class IpHeaders:
    """IP headers on the way to `Headers`; `source` and `target` hold an address as (high, low) 64 bits."""

    row: Ints
    at: Ints
    version: Ints
    protocol: Ints
    ttl: Ints
    dscp: Ints
    l4: Ints
    ip_end: Ints
    fragment: NDArray[np.bool_]
    first: NDArray[np.bool_]
    source: tuple[Ints, Ints]
    target: tuple[Ints, Ints]

    def take(self, index: NDArray[np.bool_] | Ints) -> IpHeaders:
        """The packets at `index`."""
        columns: list[Any] = [getattr(self, name) for name in IpHeaders.__slots__]
        taken: list[Any] = [tuple(x[index] for x in c) if isinstance(c, tuple) else c[index] for c in columns]
        return IpHeaders(*taken)


def ip_headers(block: Block, verdicts: Verdicts, net: Network) -> IpHeaders:
    """Parse the IP headers of `net`; packets whose header cannot be followed are left out and marked."""
    six = net.ether != IPV4
    if not six.any():
        return _ipv4(block, verdicts, net)
    if six.all():
        return _ipv6(block, verdicts, net)
    return _merge(
        _ipv4(block, verdicts, Network(net.row[~six], net.at[~six], net.ether[~six])),
        _ipv6(block, verdicts, Network(net.row[six], net.at[six], net.ether[six])),
    )


def _merge(a: IpHeaders, b: IpHeaders) -> IpHeaders:
    order = np.argsort(np.concatenate([a.row, b.row]))
    joined: list[Any] = []
    for name in IpHeaders.__slots__:
        left, right = getattr(a, name), getattr(b, name)
        if isinstance(left, tuple):
            joined.append(tuple(np.concatenate([x, y])[order] for x, y in zip(left, right, strict=True)))
        else:
            joined.append(np.concatenate([left, right])[order])
    return IpHeaders(*joined)


def _ipv4(block: Block, verdicts: Verdicts, net: Network) -> IpHeaders:
    row, at = net.row, net.at
    good = verdicts.whole(row, at + 20)
    if not good.all():
        row, at = row[good], at[good]
    head = block.rows(row, at, 20)
    first = field(head, 0, "u1")
    size = (first & 15) * 4
    total = field(head, 2, ">u2")
    wire = np.maximum(block.origlen, block.caplen)[row] - at
    # A total length of 0 is what a capture sees before the NIC cuts a large segment: the frame says the length then.
    total = np.where(total == 0, wire, total)
    reason = np.zeros(len(row), dtype=np.int64)
    reason[total < size] = Reason.IP_TOTAL_LENGTH
    reason[size < 20] = Reason.IP_HEADER_LENGTH
    reason[first >> 4 != 4] = Reason.IP_VERSION
    total = _inside(verdicts, row, total, wire, Reason.IP_TOTAL_LENGTH)
    if reason.any():
        verdicts.mark(row[reason > 0], reason[reason > 0])
    fragment = field(head, 6, ">u2")
    ip = IpHeaders(
        row=row,
        at=at,
        version=np.full(len(row), 4, dtype=np.int64),
        protocol=field(head, 9, "u1"),
        ttl=field(head, 8, "u1"),
        dscp=field(head, 1, "u1") >> 2,
        l4=at + size,
        ip_end=at + total,
        fragment=(fragment & 0x3FFF) != 0,
        first=(fragment & 0x1FFF) == 0,
        source=(np.zeros(len(row), dtype=np.int64), field(head, 12, ">u4")),
        target=(np.zeros(len(row), dtype=np.int64), field(head, 16, ">u4")),
    )
    return ip if not reason.any() else ip.take(reason == 0)


def _inside(verdicts: Verdicts, row: Ints, total: Ints, wire: Ints, reason: Reason) -> Ints:
    """Cut an IP length to the packet it came in, as tshark does: what is there is still worth analysing."""
    beyond = total > wire
    if not beyond.any():
        return total
    verdicts.mark(row[beyond], reason)
    return np.minimum(total, wire)


def _ipv6(block: Block, verdicts: Verdicts, net: Network) -> IpHeaders:
    row, at = net.row, net.at
    good = verdicts.whole(row, at + 40)
    if not good.all():
        row, at = row[good], at[good]
    head = block.rows(row, at, 40)
    word = field(head, 0, ">u4")
    length = field(head, 4, ">u2")
    wire = np.maximum(block.origlen, block.caplen)[row] - at
    total = np.where(length == 0, wire, length + 40)  # 0: a jumbogram, or not yet cut by the NIC
    reason = np.zeros(len(row), dtype=np.int64)
    reason[word >> 28 != 6] = Reason.IP_VERSION
    total = _inside(verdicts, row, total, wire, Reason.IPV6_PAYLOAD_LENGTH)
    if reason.any():
        verdicts.mark(row[reason > 0], reason[reason > 0])
    ip = IpHeaders(
        row=row,
        at=at,
        version=np.full(len(row), 6, dtype=np.int64),
        protocol=field(head, 6, "u1"),
        ttl=field(head, 7, "u1"),
        dscp=(word >> 22) & 63,
        l4=at + 40,
        ip_end=at + total,
        fragment=np.zeros(len(row), dtype=np.bool_),
        first=np.ones(len(row), dtype=np.bool_),
        source=(field(head, 8, ">i8"), field(head, 16, ">i8")),
        target=(field(head, 24, ">i8"), field(head, 32, ">i8")),
    )
    if reason.any():
        ip = ip.take(reason == 0)
    return _extension_headers(block, verdicts, ip)


def _extension_headers(block: Block, verdicts: Verdicts, ip: IpHeaders) -> IpHeaders:
    """Step over IPv6 extension headers (RFC 8200, 4) in lockstep."""
    lost = np.zeros(len(ip.row), dtype=np.bool_)
    for step in range(_MOST_EXTENSIONS + 1):
        here = np.flatnonzero(np.isin(ip.protocol, (*_EXTENSIONS, _FRAGMENT, _AUTHENTICATION)) & ip.first & ~lost)
        if not len(here):
            break
        good = verdicts.whole(ip.row[here], ip.l4[here] + 8)
        lost[here[~good]] = True
        here = here[good]
        if step == _MOST_EXTENSIONS:
            verdicts.mark(ip.row[here], Reason.IPV6_EXTENSIONS)
            lost[here] = True
            break
        head = block.rows(ip.row[here], ip.l4[here], 8)
        kind, units = ip.protocol[here], field(head, 1, "u1")
        size = np.where(kind == _FRAGMENT, 8, np.where(kind == _AUTHENTICATION, 4 * (units + 2), 8 * (units + 1)))
        cut = kind == _FRAGMENT
        word = field(head, 2, ">u2")[cut]
        ip.fragment[here[cut]] = (word & 0xFFF9) != 0  # a fragment header may stand on a whole packet (RFC 8200, 5)
        ip.first[here[cut]] = (word >> 3) == 0
        ip.protocol[here] = field(head, 0, "u1")
        ip.l4[here] += size
        beyond = here[ip.l4[here] > ip.ip_end[here]]
        verdicts.mark(ip.row[beyond], Reason.IPV6_EXTENSIONS)
        lost[beyond] = True
    return ip if not lost.any() else ip.take(~lost)
