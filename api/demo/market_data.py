"""Market data on plain bytes, over UDP.

It is MoldUDP64 (Nasdaq, version 1.00): a 20-byte big-endian header, then blocks of a 2-byte length and a message.
`sequence` is the first message's number; a count of 0 is a heartbeat that carries the next number, 0xFFFF ends the
session. Messages are quotes and, as ITCH's stock directory and stock trading action, listings and trading actions.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from api.demo.wire import WireError

_MOLD = struct.Struct(">10sQH")
_BLOCK = struct.Struct(">H")
_QUOTE = struct.Struct(">cHqIIII")  # 'Q', instrument, intended send time ns, bid, bid size, ask, ask size
_LISTING = struct.Struct(">cHII")  # 'D', instrument, lot, edition
_ACTION = struct.Struct(">cHcq4s")  # 'H', instrument, state, since when ns, reason

END_OF_SESSION = 0xFFFF


@dataclass(frozen=True, slots=True)
class Quote:
    """One market-data message: the best prices of an instrument, in ticks, and when it was meant to be sent."""

    instrument: int
    intended_ns: int  # CLOCK_MONOTONIC of the feed's host
    bid: int
    bid_size: int
    ask: int
    ask_size: int

    def encode(self) -> bytes:
        """The message as a MoldUDP64 block carries it."""
        return _QUOTE.pack(b"Q", self.instrument, self.intended_ns, self.bid, self.bid_size, self.ask, self.ask_size)

    @classmethod
    def decode(cls, body: bytes) -> Quote:
        """Raises WireError when `body` is no quote."""
        if len(body) != _QUOTE.size or body[:1] != b"Q":
            raise WireError(f"not a quote: {len(body)} bytes of type {body[:1]!r}")
        _, *fields = _QUOTE.unpack(body)
        return cls(*fields)


@dataclass(frozen=True, slots=True)
class Listing:
    """Reference data of an instrument, as the feed publishes it: the lot it trades in, and which edition this is."""

    instrument: int
    lot: int
    edition: int

    def encode(self) -> bytes:
        """The message as a MoldUDP64 block carries it."""
        return _LISTING.pack(b"D", self.instrument, self.lot, self.edition)

    @classmethod
    def decode(cls, body: bytes) -> Listing:
        """Raises WireError when `body` is no listing."""
        if len(body) != _LISTING.size or body[:1] != b"D":
            raise WireError(f"not a listing: {len(body)} bytes of type {body[:1]!r}")
        _, *fields = _LISTING.unpack(body)
        return cls(*fields)


@dataclass(frozen=True, slots=True)
class TradingAction:
    """Trading in an instrument is halted, or goes on; said when that begins, and of what is halted to a new session."""

    instrument: int
    halted: bool
    since_ns: int  # CLOCK_MONOTONIC of the feed's host, as a quote's intended time
    reason: bytes = b"LUDP"  # ITCH's code of a volatility pause

    def encode(self) -> bytes:
        """The message as a MoldUDP64 block carries it."""
        return _ACTION.pack(b"H", self.instrument, b"H" if self.halted else b"T", self.since_ns, self.reason)

    @classmethod
    def decode(cls, body: bytes) -> TradingAction:
        """Raises WireError when `body` is no trading action."""
        if len(body) != _ACTION.size or body[:1] != b"H":
            raise WireError(f"not a trading action: {len(body)} bytes of type {body[:1]!r}")
        _, instrument, state, since_ns, reason = _ACTION.unpack(body)
        if state not in (b"H", b"T"):
            raise WireError(f"a trading action's state is H or T, got {state!r}")
        return cls(instrument, state == b"H", since_ns, reason)


@dataclass(frozen=True, slots=True)
class Datagram:
    """One market-data packet: a session, the first message's sequence number, and the messages."""

    session: bytes
    sequence: int
    messages: Sequence[bytes]
    end: bool = False

    def encode(self) -> bytes:
        """The UDP payload."""
        count = END_OF_SESSION if self.end else len(self.messages)
        blocks = b"".join(_BLOCK.pack(len(message)) + message for message in self.messages)
        return _MOLD.pack(self.session.rjust(10), self.sequence, count) + blocks

    @classmethod
    def decode(cls, payload: bytes) -> Datagram:
        """Raises WireError when lengths and count do not agree."""
        if len(payload) < _MOLD.size:
            raise WireError(f"datagram of {len(payload)} bytes is shorter than its header")
        session, sequence, count = _MOLD.unpack_from(payload)
        if count == END_OF_SESSION:
            return cls(session.strip(), sequence, (), end=True)
        messages = []
        at = _MOLD.size
        for number in range(count):
            if at + 2 > len(payload):
                raise WireError(f"message {number} of {count} is missing")
            (length,) = _BLOCK.unpack_from(payload, at)
            at += 2 + length
            if at > len(payload):
                raise WireError(f"message {number} says {length} bytes and runs past the datagram")
            messages.append(payload[at - length : at])
        if at != len(payload):
            raise WireError(f"{len(payload) - at} bytes follow the last message")
        return cls(session.strip(), sequence, messages)


def feed_key(session: bytes, sequence: int) -> int:
    """One number for (session, sequence), because sequence numbers start over with each session.

    The session is its start in milliseconds, base 36; 32 bits of it come round after 49 days, long after a path's
    `max_age` has parted the messages.
    """
    return (int(session, 36) & 0xFFFF_FFFF) << 32 | sequence & 0xFFFF_FFFF


def session_name(start_ms: int) -> bytes:
    """A session's name, at most 10 characters: its start in milliseconds, base 36."""
    digits = ""
    while start_ms:
        start_ms, digit = divmod(start_ms, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return digits.encode() or b"0"
