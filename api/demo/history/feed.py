"""The feed on the virtual clock: the market of one span of time as datagrams, each at its intended time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from api.demo.feed import LOT
from api.demo.history.engine import decoded
from api.demo.history.programs import Program
from api.demo.history.simulation import OrderPath
from api.demo.history.tape import Tape
from api.demo.market import SYMBOLS, Market
from api.demo.market_data import Datagram, Listing, Quote, feed_key, session_name

LISTING_NS = 1_000_000_000
_STAMP_NS = 700


class Feed:
    """Stamps and sends; also the end of a session that came from a fixture."""

    def __init__(self, path: OrderPath, send: Callable[[], int]) -> None:
        self._path = path
        self._tape: Tape = path.tape
        self._program: Program = path.program("feed", "feed")
        self._thread = self._program.thread()
        self._intended = self._program.spot("intended", "feed", self._thread)
        self._egress = self._program.spot("app_egress", "feed", self._thread)
        self._send = send
        self._begun_ns = 0

    def quotes(self, intended_ns: int, payload: bytes) -> None:
        """A datagram is meant to be sent at `intended_ns`; the thread gets to it when it does."""
        self._begun_ns = max(intended_ns + self._send(), self._begun_ns + 1)  # one after another
        self._path.events.at(self._begun_ns, self._thread, self._on_time, intended_ns, payload)

    def sent(self, sent_ns: int, payload: bytes, monotonic_ns: int) -> None:
        """A recorded datagram went out at `sent_ns`; its quotes' times are MONOTONIC, `monotonic_ns` behind."""
        datagram = decoded(payload)
        for number, message in enumerate(datagram.messages, datagram.sequence):
            if message[:1] == b"Q":
                self._tape.quotes += 1
                key, quote = feed_key(datagram.session, number), Quote.decode(message)
                intended_ns = min(quote.intended_ns + monotonic_ns, sent_ns)
                self._tape.stamp(self._program.shown(intended_ns), self._intended, key)
                self._tape.stamp(self._program.shown(sent_ns), self._egress, key)
        self._path.datagram(sent_ns, payload)

    def _on_time(self, now: int, intended_ns: int, payload: bytes) -> int:
        datagram = decoded(payload)
        for number, message in enumerate(datagram.messages, datagram.sequence):
            if message[:1] == b"Q":
                key = feed_key(datagram.session, number)
                self._tape.quotes += 1
                self._tape.stamp(self._program.shown(intended_ns), self._intended, key)
                self._tape.stamp(self._program.shown(now), self._egress, key)
                now += _STAMP_NS
        self._path.datagram(now, payload)
        return now


def sent(market: Market, begin_ns: int, end_ns: int) -> Iterator[tuple[int, bytes]]:
    """The datagrams of [begin_ns, end_ns): (when each is meant to be sent, its bytes).

    Reference data go out before a quote when they are a second old: between quotes nobody would read them.
    """
    session, following, edition = session_name(begin_ns // 1_000_000), 1, 0
    listed_ns = begin_ns - LISTING_NS
    for after_ns, quotes in market.sends():
        intended_ns = begin_ns + after_ns
        if intended_ns >= end_ns:
            return
        if intended_ns - listed_ns >= LISTING_NS:
            listed_ns += (intended_ns - listed_ns) // LISTING_NS * LISTING_NS
            edition += 1
            listings = [Listing(number, LOT, edition).encode() for number in range(len(SYMBOLS))]
            yield listed_ns, Datagram(session, following, listings).encode()
            following += len(listings)
        timed = [_at(quote, intended_ns) for quote in quotes]
        yield intended_ns, Datagram(session, following, [quote.encode() for quote in timed]).encode()
        following += len(timed)


def _at(quote: Quote, intended_ns: int) -> Quote:
    return Quote(quote.instrument, intended_ns, quote.bid, quote.bid_size, quote.ask, quote.ask_size)
