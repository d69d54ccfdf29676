"""The venue's side of an order: it rests or trades in a book per instrument, inside a price band. Pure."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from api.demo.wire import IMMEDIATE, Fill, Order, Reason, Report


@dataclass(slots=True)
class _Book:
    reference: float
    bids: list[tuple[int, int, int, int]] = field(default_factory=list)  # -price, arrival, quantity, order id
    asks: list[tuple[int, int, int, int]] = field(default_factory=list)  # price, arrival, quantity, order id


@dataclass(slots=True)
class Books:
    """The books of all instruments: price-time priority, bounded depth.

    An order further than `band` ticks from the reference price is rejected; the reference follows accepted and rejected
    prices alike, so that a market that has moved is followed.
    """

    instruments: int
    band: float = 8.0
    follow: float = 0.3
    depth: int = 1000
    _books: dict[int, _Book] = field(default_factory=dict)
    _arrivals: int = 0

    def submit(self, order: Order) -> Report:
        """Match or rest the order, and say what became of it."""
        return self.execute(order)[0]

    def execute(self, order: Order) -> tuple[Report, list[Fill]]:
        """As `submit`, with every trade it led to: first those of the order, each with that of the order it met."""
        if not 0 <= order.instrument < self.instruments:
            return Report(order.id, Reason.UNKNOWN_INSTRUMENT), []
        book = self._books.setdefault(order.instrument, _Book(order.price))
        away = order.price - book.reference
        book.reference += self.follow * away
        if abs(away) > self.band:
            return Report(order.id, Reason.PRICE_OUT_OF_BAND), []
        fills = self._match(book, order)
        left = order.quantity - sum(fill.quantity for fill in fills if fill.id == order.id)
        if left and order.offer != IMMEDIATE:
            self._rest(book, order, left)
        traded = [fill.price for fill in fills]
        return Report(order.id, Reason.ACCEPTED, traded[-1] if traded else order.price), fills

    def _match(self, book: _Book, order: Order) -> list[Fill]:
        """Trade against the best opposite prices; both sides' fills, pair by pair."""
        buying = order.side == b"B"
        opposite = book.asks if buying else book.bids
        left, fills = order.quantity, list[Fill]()
        while left and opposite:
            ranked, arrival, quantity, other = opposite[0]
            price = ranked if buying else -ranked
            if (price > order.price) if buying else (price < order.price):
                break
            heapq.heappop(opposite)
            if quantity > left:
                heapq.heappush(opposite, (ranked, arrival, quantity - left, other))
            traded = min(left, quantity)
            fills += [Fill(order.id, traded, price), Fill(other, traded, price)]
            left -= traded
        return fills

    def _rest(self, book: _Book, order: Order, left: int) -> None:
        own, ranked = (book.bids, -order.price) if order.side == b"B" else (book.asks, order.price)
        self._arrivals += 1
        heapq.heappush(own, (ranked, self._arrivals, left, order.id))
        if len(own) > self.depth:  # the worst-priced half goes, as at a session's end
            own[:] = heapq.nsmallest(self.depth // 2, own)
