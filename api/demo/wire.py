"""Orders, reports and fills on plain bytes, over TCP.

They are packets as in SoupBinTCP: a 2-byte big-endian length that does not count itself, a type byte, a body.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

_ORDER = struct.Struct(">QHcIIc")  # order id, instrument, side, quantity, price, offer
_REPORT = struct.Struct(">QBIHH")  # order id, reason, executed price, versions of gateway and venue
_FILL = struct.Struct(">QII")  # order id, quantity, price
_FRAME = struct.Struct(">Hc")

MAX_FRAME = 1024

ORDER, REPORT, FILL, HEARTBEAT = b"O", b"R", b"F", b"H"
LIMIT, IMMEDIATE = b"L", b"I"  # an order that may rest, one that trades at once or not at all
OFFERS = {LIMIT: "limit", IMMEDIATE: "immediate"}


class WireError(ValueError):
    """Bytes that do not follow the protocol; the message says where."""


class Reason(IntEnum):
    """What a report says of its order: accepted, or why not."""

    ACCEPTED = 0
    TOO_LARGE = 1
    TOO_COSTLY = 2
    TOO_FAST = 3
    PRICE_OUT_OF_BAND = 4
    UNKNOWN_INSTRUMENT = 5
    VENUE_DOWN = 6


@dataclass(frozen=True, slots=True)
class Order:
    """An order as the engine sends it; `side` is b"B" or b"S", the price is in ticks, `offer` LIMIT or IMMEDIATE."""

    id: int
    instrument: int
    side: bytes
    quantity: int
    price: int
    offer: bytes = LIMIT

    def body(self) -> bytes:
        """The order as the body of a frame."""
        return _ORDER.pack(self.id, self.instrument, self.side, self.quantity, self.price, self.offer)

    def frame(self) -> bytes:
        """The order as one frame of the stream."""
        return frame(ORDER, self.body())

    @classmethod
    def decode(cls, body: bytes) -> Order:
        """Raises WireError when `body` is no order."""
        if len(body) != _ORDER.size:
            raise WireError(f"an order has {_ORDER.size} bytes, got {len(body)}")
        order = cls(*_ORDER.unpack(body))
        if order.side not in (b"B", b"S"):
            raise WireError(f"order {order.id} has side {order.side!r}, want b'B' or b'S'")
        if order.offer not in OFFERS:
            raise WireError(f"order {order.id} has offer {order.offer!r}, want b'L' or b'I'")
        return order


@dataclass(frozen=True, slots=True)
class Report:
    """What the gateway or the venue says of an order, and which versions of the two said it (0: it did not)."""

    id: int
    reason: Reason
    price: int = 0
    gateway: int = 0
    venue: int = 0

    def body(self) -> bytes:
        """The report as the body of a frame."""
        return _REPORT.pack(self.id, self.reason, self.price, self.gateway, self.venue)

    def frame(self) -> bytes:
        """The report as one frame of the stream."""
        return frame(REPORT, self.body())

    @classmethod
    def decode(cls, body: bytes) -> Report:
        """Raises WireError when `body` is no report."""
        if len(body) != _REPORT.size:
            raise WireError(f"a report has {_REPORT.size} bytes, got {len(body)}")
        number, reason, *rest = _REPORT.unpack(body)
        try:
            return cls(number, Reason(reason), *rest)
        except ValueError as error:
            raise WireError(f"report of order {number} has unknown reason {reason}") from error


@dataclass(frozen=True, slots=True)
class Fill:
    """A trade of an order: how much of it, at which price."""

    id: int
    quantity: int
    price: int

    def body(self) -> bytes:
        """The fill as the body of a frame."""
        return _FILL.pack(self.id, self.quantity, self.price)

    def frame(self) -> bytes:
        """The fill as one frame of the stream."""
        return frame(FILL, self.body())

    @classmethod
    def decode(cls, body: bytes) -> Fill:
        """Raises WireError when `body` is no fill."""
        if len(body) != _FILL.size:
            raise WireError(f"a fill has {_FILL.size} bytes, got {len(body)}")
        return cls(*_FILL.unpack(body))


def frame(kind: bytes, body: bytes = b"") -> bytes:
    """One frame of the order stream."""
    return _FRAME.pack(1 + len(body), kind) + body


class Frames:
    """Cuts a TCP stream into frames; holds what is not yet whole."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield (type, body) of every frame that `data` completes. Raises WireError on an impossible length."""
        held = self._held + data
        at = 0
        try:
            while len(held) - at >= _FRAME.size:
                length, kind = _FRAME.unpack_from(held, at)
                if not 1 <= length <= MAX_FRAME:
                    raise WireError(f"frame length {length}, want 1..{MAX_FRAME}")
                if len(held) - at < 2 + length:
                    break
                body = held[at + _FRAME.size : at + 2 + length]
                at += 2 + length
                yield kind, body
        finally:
            self._held = held[at:]
