"""What the engine and the inference step say to each other, one datagram each: a question and a signal."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from api.demo.market_data import Quote
from api.demo.wire import WireError

_KEY = struct.Struct(">Q")
_SIGNAL = struct.Struct(">QHdH")  # key, instrument, score, version


@dataclass(frozen=True, slots=True)
class Question:
    """A quote under its key: what will its price do?"""

    key: int
    quote: Quote

    def encode(self) -> bytes:
        """The datagram."""
        return _KEY.pack(self.key) + self.quote.encode()

    @classmethod
    def decode(cls, payload: bytes) -> Question:
        """Raises WireError when `payload` is no question."""
        if len(payload) < _KEY.size:
            raise WireError(f"a question starts with a key of {_KEY.size} bytes, got {len(payload)}")
        return cls(_KEY.unpack_from(payload)[0], Quote.decode(payload[_KEY.size :]))


@dataclass(frozen=True, slots=True)
class Signal:
    """The answer: how far the price is expected to move, in ticks; and which version says so."""

    key: int
    instrument: int
    score: float
    version: int = 0

    def encode(self) -> bytes:
        """The datagram."""
        return _SIGNAL.pack(self.key, self.instrument, self.score, self.version)

    @classmethod
    def decode(cls, payload: bytes) -> Signal:
        """Raises WireError when `payload` is no signal."""
        if len(payload) != _SIGNAL.size:
            raise WireError(f"a signal has {_SIGNAL.size} bytes, got {len(payload)}")
        return cls(*_SIGNAL.unpack(payload))
