"""The feed on the virtual clock: the market of one span of time as datagrams, each at its intended time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from api.demo.feed import LOT
from api.demo.history.engine import decoded
from api.demo.history.programs import Program
from api.demo.history.simulation import OrderPath
from api.demo.history.tape import Tape
from api.demo.market import SYMBOLS, Market
from api.demo.market_data import Datagram, Listing, Quote, TradingAction, feed_key, session_name

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
        self._halted_ns: dict[int, int] = {}

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
            elif message[:1] == b"H":
                self._tell(TradingAction.decode(message), datagram.sequence == 1)
        self._path.datagram(now, payload)
        return now

    def _tell(self, action: TradingAction, known: bool) -> None:
        """Record a halt or its end, as those who follow a feed do; what was halted when a session begins is known."""
        about: dict[str, str] = {"channel": "feed", "instrument": SYMBOLS[action.instrument]}
        if action.halted:
            self._halted_ns[action.instrument] = action.since_ns
        elif (since_ns := self._halted_ns.pop(action.instrument, None)) is not None:
            about["halted_ns"] = str(action.since_ns - since_ns)
        if not known:
            words = f"{about['instrument']} is {'halted' if action.halted else 'traded again'}"
            self._tape.event(action.since_ns, "feed", "halt" if action.halted else "resume", words, about)


def sent(market: Market, begin_ns: int, end_ns: int) -> Iterator[tuple[int, bytes]]:
    """The datagrams of [begin_ns, end_ns): (when each is meant to be sent, its bytes).

    Reference data go out before a quote when they are a second old: between quotes nobody would read them.
    """
    session, following, edition = session_name(begin_ns // 1_000_000), 1, 0
    listed_ns = begin_ns - LISTING_NS
    for after_ns, messages in _merged(market, begin_ns):
        intended_ns = begin_ns + after_ns
        if intended_ns >= end_ns:
            return
        if intended_ns - listed_ns >= LISTING_NS and isinstance(messages[0], Quote):
            listed_ns += (intended_ns - listed_ns) // LISTING_NS * LISTING_NS
            edition += 1
            listings = [Listing(number, LOT, edition).encode() for number in range(len(SYMBOLS))]
            yield listed_ns, Datagram(session, following, listings).encode()
            following += len(listings)
        yield intended_ns, Datagram(session, following, [message.encode() for message in messages]).encode()
        following += len(messages)


def _merged(market: Market, begin_ns: int) -> Iterator[tuple[int, Sequence[Quote | TradingAction]]]:
    """The messages of each datagram: what is halted at the begin first, then all as it is meant to be sent."""
    actions = market.actions()
    action = next(actions, None)
    opening: list[TradingAction] = []
    while action is not None and action[0] == 0:
        opening.append(TradingAction(action[1], action[2], begin_ns + action[3]))
        action = next(actions, None)
    if opening:
        yield 0, opening
    for after_ns, quotes in market.sends():
        while action is not None and action[0] <= after_ns:
            yield action[0], [TradingAction(action[1], action[2], begin_ns + action[3])]
            action = next(actions, None)
        yield after_ns, [_at(quote, begin_ns + after_ns) for quote in quotes]


def _at(quote: Quote, intended_ns: int) -> Quote:
    return Quote(quote.instrument, intended_ns, quote.bid, quote.bid_size, quote.ask, quote.ask_size)
