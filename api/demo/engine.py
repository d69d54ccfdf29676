"""`python -m api.demo.engine`: feed handler, decision desk, order entry; quotes in over UDP, orders out over TCP.

The receiving thread arbitrates the feed's lines, admits quotes or sheds them, asks the inference step, and makes quotes
ready when their signals come or do not come in time. The deciding thread turns them into orders. A message's identity
changes there, from (session, sequence) to order id.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable

import tailsight_probe as probe
from tailsight_probe import Mode, Outcome
from tailsight_probe.sockets import SocketStamps

from api.demo.arbitration import Arbiter, Numbered
from api.demo.desk import Desk, Ready
from api.demo.drop_copy import DropCopies
from api.demo.entry import Entry, Origin
from api.demo.experiments import Experiments
from api.demo.instances import SHADOW_SPACE, canary, owner, shadows
from api.demo.kernel_stamps import kernel_stamps
from api.demo.labels import quote_labels
from api.demo.market import PAIRS, SITES, SYMBOLS
from api.demo.market_data import Datagram, Listing, Quote, feed_key
from api.demo.place import Place
from api.demo.signals import Question, Signal
from api.demo.stopping import Stop
from api.demo.strategy import Strategy
from api.demo.streams import Address
from api.demo.trial import Trial
from api.demo.wire import Order, WireError

QUEUE_SIZE = 64
_MOST_ANSWERS = 10_000
_POLL_S = 0.2
_READ = 65_536
Reader = Callable[[bytes, int | None], None]  # of a datagram, and when the kernel took it

log = logging.getLogger(__name__)


class Engine:
    """The quotes' way through one process. `run` receives; decisions and reports have threads of their own."""

    def __init__(self, place: Place, desk: Desk, entry: Entry, inference: Address) -> None:
        self._place = place
        points = ("app_ingress", "app_transform", "signalled", "ready", "dequeued", "app_decision")
        self._ingress, self._transform, self._signalled, self._ready, self._dequeued, self._decision = (
            probe.point(name, space="feed") for name in points
        )
        self._desk = desk
        self._entry = entry
        self._arbiter = Arbiter()
        self._work = threading.Semaphore(0)
        # Order ids must not come again after a restart: the upper half is the start in milliseconds.
        self._ids = itertools.count((time.time_ns() // 1_000_000 & 0xFFFF_FFFF) << 32 | 1)
        self._inference = inference
        self._answered: dict[int, int] = {}  # quote -> the version of the inference step that answered
        self._shadow_transform, self._shadow_signalled = (
            probe.point(name, space=SHADOW_SPACE["feed"]) for name in ("app_transform", "signalled")
        )
        self._mirror = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)  # where shadows answer: it ends there
        self._mirror.bind(("127.0.0.1", 0))
        self._selector = selectors.SelectSelector()  # it waits for microseconds, epoll for milliseconds

    def listen(self, lines: list[Address], signals: Address) -> None:
        """Open the ports of the feed's lines (A, B) and of the signals."""
        for letter, address in zip("ab", lines, strict=True):
            line = self._open(address)
            stamps = kernel_stamps(self._place, line, "feed", f"line {letter}")
            self._take(line, self._line_reader(probe.point(f"arrived_{letter}", space="feed"), stamps), stamps)
        self._questions = self._open(signals)
        self._take(self._questions, self._on_signal)
        self._take(self._mirror, self._on_shadow)

    def run(self, stop: Stop) -> None:
        """Receive until `stop`, then let the decisions drain."""
        decisions = threading.Thread(target=self._decide, args=(stop,), name="decision")
        decisions.start()
        self._entry.start(stop)
        while not stop:
            for key, _ in self._selector.select(self._wait_s()):
                receive, reader = key.data
                payload, came_ns = receive()
                try:
                    reader(payload, came_ns)
                except WireError as error:
                    log.warning("datagram of %d bytes refused: %s", len(payload), error)
            now_ns = time.monotonic_ns()
            self._take_in(self._arbiter.expire(now_ns))
            with self._place.lock:
                ready = self._desk.on_time(now_ns)
            for late in ready:
                self._go_on(late)
        self._work.release()
        decisions.join(timeout=2)
        self._entry.close()
        missed, repeated = self._arbiter.missed, self._arbiter.repeated
        log.info("missed %d, refused %d repeated messages; %d signals late", missed, repeated, self._desk.late)

    def _open(self, address: Address) -> socket.socket:
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        receiver.bind(address)
        return receiver

    def _take(self, sock: socket.socket, reader: Reader, stamps: SocketStamps | None = None) -> None:
        """Have `reader` read what comes, with the kernel's time of it where `stamps` tell it."""

        def plain() -> tuple[bytes, None]:
            return sock.recv(_READ), None

        receive = plain if stamps is None else functools.partial(stamps.recv, _READ)
        self._selector.register(sock, selectors.EVENT_READ, (receive, reader))

    def _wait_s(self) -> float:
        dues = [due for due in (self._arbiter.due_ns(), self._desk.due_ns()) if due is not None]
        return max(0.0, min([_POLL_S, *((due - time.monotonic_ns()) * 1e-9 for due in dues)]))

    def _line_reader(self, arrived: object, stamps: SocketStamps | None) -> Reader:
        def read(payload: bytes, came_ns: int | None) -> None:
            if not payload:  # the network asks whether somebody listens
                return
            datagram = Datagram.decode(payload)
            for number, message in enumerate(datagram.messages, datagram.sequence):
                if message[:1] == b"Q" and self._ours(key := feed_key(datagram.session, number), message):
                    self._place.stamp(arrived, key)
                    if stamps is not None and not self._arbiter.knows(datagram.session, number):
                        stamps.received(key, came_ns)
            self._take_in(self._arbiter.receive(datagram, time.monotonic_ns()))

        return read

    def _take_in(self, fresh: list[Numbered]) -> None:
        for number, message in fresh:
            if message[:1] == b"D":
                listing = Listing.decode(message)
                with self._place.lock:
                    self._desk.on_listing(listing, time.monotonic_ns())
                continue
            if message[:1] == b"H":  # nothing to decide on: a halted instrument has no quotes
                continue
            key = feed_key(self._arbiter.session, number)
            if not self._ours(key, message):
                continue
            self._place.stamp(self._ingress, key)
            quote = Quote.decode(message)
            if quote.instrument >= len(SYMBOLS):
                raise WireError(f"instrument {quote.instrument} is unknown; there are {len(SYMBOLS)}")
            with self._place.lock:
                depth, admitted = self._desk.on_quote(key, quote, time.monotonic_ns())
            outcome = None if admitted else Outcome.SHED
            self._place.stamp(self._transform, key, depth=depth, outcome=outcome, labels=quote_labels(quote.instrument))
            if admitted:
                self._ask(key, quote)

    def _ours(self, key: int, message: bytes) -> bool:
        """Whether this instance is the one that the quote goes to; all of them hear every quote."""
        instance, routes = self._place.instance, self._place.routes
        if not routes:
            return instance is None
        sent_ns = Quote.decode(message).intended_ns
        return owner(routes, "engine", probe.hash64("feed", key), sent_ns) == (instance.id if instance else "")

    def _ask(self, key: int, quote: Quote) -> None:
        """Ask the inference step; when nobody infers there, the desk's patience ends."""
        question, target = Question(key, quote).encode(), self._inference
        if routes := self._place.routes:
            hashed, now_ns = probe.hash64("feed", key), time.time_ns()
            if found := canary(routes, "inference", hashed, now_ns):
                target = (target[0], found.ports["questions"])
            for shadow in shadows(routes, "inference", hashed, now_ns):
                labels = quote_labels(quote.instrument)
                self._place.stamp(self._shadow_transform, key, mode=Mode.SHADOW, labels=labels)
                self._mirror.sendto(question, (target[0], shadow.ports["questions"]))
        self._questions.sendto(question, target)

    def _on_shadow(self, payload: bytes, _came_ns: int | None) -> None:
        """What a shadow answers goes no further."""
        self._place.stamp(self._shadow_signalled, Signal.decode(payload).key, mode=Mode.SHADOW)

    def _on_signal(self, payload: bytes, _came_ns: int | None) -> None:
        signal = Signal.decode(payload)
        self._answered[signal.key] = signal.version
        with self._place.lock:
            ready = self._desk.on_signal(signal, time.monotonic_ns())
        if ready is None or len(self._answered) > _MOST_ANSWERS:
            self._answered.pop(next(iter(self._answered)) if ready else signal.key, None)
        self._place.stamp(self._signalled, signal.key, outcome=Outcome.TIMEOUT if ready is None else None)
        if ready is not None:
            self._go_on(ready)

    def _go_on(self, ready: Ready) -> None:
        found = ready.signal
        self._place.stamp(
            self._ready, ready.key, depth=ready.depth, mode=ready.mode, cache=found.state, data_age_ns=found.age_ns
        )
        self._work.release()

    def _decide(self, stop: Stop) -> None:
        while True:
            self._work.acquire()
            self._place.stall()
            with self._place.lock:
                batch = self._desk.take()
            if not batch:
                if stop:
                    return
                continue  # it was conflated into an earlier batch
            for ready in batch:
                self._place.stamp(self._dequeued, ready.key)
            self._decide_on(batch)

    def _decide_on(self, batch: list[Ready]) -> None:
        place, last, began = self._place, batch[-1], time.thread_time_ns()
        place.touch("feed", last.key)
        behind_ns = place.staleness_ns("feed", last.key)
        with place.lock:
            decision = self._desk.decide(batch, time.monotonic_ns(), listing_older_by_ns=behind_ns)
        place.lengthen("feed", last.key, began)
        for key in decision.keys:
            labels = quote_labels(last.quote.instrument, self._answered.pop(key, 0))
            place.stamp(
                self._decision, key, mode=decision.mode, cache=decision.cache, data_age_ns=decision.data_age_ns,
                labels=labels,
            )  # fmt: skip
        origin = Origin(decision.keys, last.quote.intended_ns, decision.mode, decision.data_age_ns)
        for intent in decision.intents:
            order = Order(next(self._ids), intent.instrument, intent.side, intent.quantity, intent.price, intent.offer)
            for key in decision.keys:
                probe.link(key, order.id, parent_space="feed", child_space="order")
            self._entry.send(order, origin)


def main() -> None:
    """Read the arguments and run until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--line", type=int, action="append", required=True, help="UDP ports of lines A and B")
    parser.add_argument("--signals", type=int, required=True, help="UDP port for signals on 127.0.0.1")
    parser.add_argument("--inference", type=int, required=True, help="UDP port of the inference step")
    parser.add_argument("--gateway", type=int, action="append", required=True, help="TCP port of each site's gateway")
    parser.add_argument("--copies", type=int, default=None, help="UDP port of the back office")
    Place.arguments(parser)
    parser.add_argument("--queue", type=int, default=QUEUE_SIZE, help="quotes of a class that may wait; more are shed")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    place = Place.of("engine", "engine", options)
    local = "127.0.0.1"
    copies = DropCopies((local, options.copies) if options.copies else None)
    gateways = {site: (local, port) for site, port in zip(SITES, options.gateway, strict=True)}
    # Canaries take no part: an experiment has one budget, and one process that counts it.
    trial = None if options.instance else Trial(Experiments(options.control))
    entry = Entry(place, gateways, copies, trial)
    engine = Engine(place, Desk(Strategy(pairs=PAIRS), options.queue), entry, (local, options.inference))
    engine.listen([(local, port) for port in options.line], (local, options.signals))
    place.start()
    engine.run(Stop())


if __name__ == "__main__":
    main()
