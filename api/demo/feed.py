"""`python -m api.demo.feed`: sends the market as MoldUDP64 over lines A and B, each datagram at its intended time."""

from __future__ import annotations

import argparse
import contextlib
import logging
import socket
import time
from collections.abc import Callable
from dataclasses import replace

import tailsight_probe as probe

from api.demo.market import SYMBOLS, Market
from api.demo.market_data import Datagram, Listing, TradingAction, feed_key, session_name
from api.demo.place import Place
from api.demo.profile import OPEN_S, PROFILES, profile
from api.demo.stopping import Stop
from api.demo.streams import Address

LOT = 100
_FIRST_BEAT_S = 0.05
_PATIENCE_S = 10.0
_BEAT_NS = 250_000_000
_LISTING_NS = 1_000_000_000

log = logging.getLogger(__name__)


class Feed:
    """One market's feed: a session, its numbers, and a socket per line."""

    def __init__(self, place: Place, lines: list[Address], market: Callable[[], Market]) -> None:
        self._place = place
        self._intended = probe.point("intended", space="feed")
        self._egress = probe.point("app_egress", space="feed")
        self._market = market
        self._lines = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in lines]
        for line, target in zip(self._lines, lines, strict=True):
            line.connect(target)
        self._session = session_name(time.time_ns() // 1_000_000)
        self._next = 1
        self._edition = 0
        self._listed_ns = 0

    def run(self, stop: Stop) -> None:
        """Send until `stop`, then end the session. Once it has begun it never waits for a receiver."""
        self._await_receiver(stop)
        start_ns = time.monotonic_ns()
        market = self._market()
        actions = market.actions()
        action = next(actions, None)
        for after_ns, quotes in market.sends():
            while action is not None and action[0] <= after_ns and not stop:
                self._wait(stop, start_ns + action[0])
                _, instrument, halted, since_ns = action
                self._act(TradingAction(instrument, halted, start_ns + since_ns))
                action = next(actions, None)
            intended_ns = start_ns + after_ns
            self._wait(stop, intended_ns)
            if stop:
                break
            messages = [replace(quote, intended_ns=intended_ns).encode() for quote in quotes]
            payload = Datagram(self._session, self._next, messages).encode()
            numbers = range(self._next, self._next + len(messages))
            self._next = numbers.stop
            for key in (feed_key(self._session, number) for number in numbers):
                self._place.stamp_at(intended_ns, self._intended, key)
                self._place.stamp(self._egress, key)
            self._send(payload)
        for _ in range(2):  # the end may get lost as any datagram may
            self._send(Datagram(self._session, self._next, (), end=True).encode())
        log.info("session %s ended after %d messages", self._session.decode(), self._next - 1)

    def _wait(self, stop: Stop, until_ns: int) -> None:
        """Sleep until then; meanwhile heartbeats and reference data go out, in a halt too."""
        while not stop:
            now_ns = time.monotonic_ns()
            if now_ns - self._listed_ns >= _LISTING_NS:
                self._listed_ns = now_ns
                self._list()
            if until_ns - now_ns <= _BEAT_NS:
                stop.sleep_until_ns(until_ns)
                return
            stop.sleep_until_ns(now_ns + _BEAT_NS)
            self._send(Datagram(self._session, self._next, ()).encode())

    def _act(self, action: TradingAction) -> None:
        """Say that an instrument is halted, or traded again."""
        log.info("%s is %s", SYMBOLS[action.instrument], "halted" if action.halted else "traded again")
        self._send(Datagram(self._session, self._next, [action.encode()]).encode())
        self._next += 1

    def _list(self) -> None:
        """Publish the reference data of all instruments."""
        self._edition += 1
        messages = [Listing(number, LOT, self._edition).encode() for number in range(len(SYMBOLS))]
        self._send(Datagram(self._session, self._next, messages).encode())
        self._next += len(messages)

    def _await_receiver(self, stop: Stop) -> None:
        """Send heartbeats until somebody listens, at most `_PATIENCE_S`: the session's first quotes should be heard."""
        heartbeat = Datagram(self._session, self._next, ()).encode()
        heard = 0
        for _ in range(round(_PATIENCE_S / _FIRST_BEAT_S)):
            try:
                for line in self._lines:
                    line.send(heartbeat)
                heard += 1
            except ConnectionRefusedError:  # the kernel's answer to the heartbeat before
                heard = 0
            if heard == 2 or stop:
                return
            time.sleep(_FIRST_BEAT_S)

    def _send(self, payload: bytes) -> None:
        for line in self._lines:
            with contextlib.suppress(ConnectionRefusedError):  # nobody listens now (ICMP says so); an open loop goes on
                line.send(payload)


def main() -> None:
    """Read the arguments and run until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--line", type=int, action="append", required=True, help="UDP port of a line on 127.0.0.1")
    Place.arguments(parser)
    parser.add_argument("--rate", type=float, default=200.0, help="quotes per second on average")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same market")
    parser.add_argument("--profile", choices=PROFILES, default="flat", help="how the load of a day goes")
    parser.add_argument("--compression", type=float, default=1.0, help="how many times faster the day goes by")
    parser.add_argument("--epoch", type=int, default=time.time_ns(), help="when the day began, CLOCK_REALTIME ns")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    place = Place.of("feed", "feed", options)
    place.start()
    day = profile(options.profile, options.seed, len(SYMBOLS))

    def market() -> Market:
        """The market where its day stands now: a feed that was started again goes on in it."""
        at_s = OPEN_S + (time.time_ns() - options.epoch) * 1e-9 * options.compression
        return Market(options.rate, options.seed, day, options.compression, at_s)

    Feed(place, [("127.0.0.1", port) for port in options.line], market).run(Stop())


if __name__ == "__main__":
    main()
