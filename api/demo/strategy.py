"""The decision: quotes in, orders out. Plain arithmetic, no clocks, no sockets.

Per instrument a fast and a slow moving average of the mid price; where they part by `threshold` ticks or more, buy or
sell; where they part by twice that, hedge in the paired instrument too. Some quotes lead to no order, some to one, few
to two.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from api.demo.market_data import Quote
from api.demo.wire import IMMEDIATE, LIMIT


@dataclass(frozen=True, slots=True)
class Intent:
    """An order to be: everything but its number."""

    instrument: int
    side: bytes
    quantity: int
    price: int
    offer: bytes = LIMIT


@dataclass(slots=True)
class _Averages:
    fast: float
    slow: float


@dataclass(slots=True)
class Strategy:
    """Decides on quotes, one at a time, from what it has seen before."""

    threshold: float = 4.0  # ticks between the averages
    fast: float = 0.5  # weight of the newest mid price
    slow: float = 0.05
    lot: int = 100
    pairs: dict[int, int] = field(default_factory=dict)  # instrument -> the one that hedges it
    _seen: dict[int, _Averages] = field(default_factory=dict)
    _last: dict[int, Quote] = field(default_factory=dict)

    def observe(self, quote: Quote) -> float:
        """Take a quote in; how far the averages have parted, in ticks."""
        mid = (quote.bid + quote.ask) / 2
        averages = self._seen.setdefault(quote.instrument, _Averages(mid, mid))
        averages.fast += self.fast * (mid - averages.fast)
        averages.slow += self.slow * (mid - averages.slow)
        self._last[quote.instrument] = quote
        return averages.fast - averages.slow

    def decide(self, quote: Quote, *, lean: float = 0.0, lot: int | None = None) -> list[Intent]:
        """The orders this quote leads to: none, one or two. `lean` is the move expected, in ticks."""
        parted = self.observe(quote) + lean
        if abs(parted) < self.threshold:
            return []
        big = abs(parted) >= 2 * self.threshold
        lot = self.lot if lot is None else lot
        quantity = lot * (1 + int(abs(parted)))
        intents = [_cross(quote, b"B" if parted > 0 else b"S", quantity, IMMEDIATE if big else LIMIT)]
        hedge = self._last.get(self.pairs.get(quote.instrument, -1))
        if big and hedge is not None:
            intents.append(_cross(hedge, b"S" if parted > 0 else b"B", lot))
        return intents


def _cross(quote: Quote, side: bytes, quantity: int, offer: bytes = LIMIT) -> Intent:
    """An order that takes the other side's best price."""
    return Intent(quote.instrument, side, quantity, quote.ask if side == b"B" else quote.bid, offer)
