"""The order path's glue on the virtual clock: what the programs do between their sockets, as events.

Each handler does what a program's thread does with one message: it asks the pure logic, stamps where the program
stamps, and hands on. `begun_ns` is when the thread takes the message up; it returns when the thread is free again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tailsight_probe import Outcome

from api.demo.arbitration import Arbiter, Numbered
from api.demo.book import Books
from api.demo.desk import Desk, Ready
from api.demo.drop_copy import Copy, Filled, Reported, Sent
from api.demo.faults import Fault
from api.demo.history.network import HEADERS, Link
from api.demo.history.programs import Program
from api.demo.history.tape import Tape
from api.demo.history.virtual import Draws, Events
from api.demo.inference import QUEUE_SIZE as QUESTIONS
from api.demo.market import PAIRS, PRIORITY_OF, SITE_OF, SITES, SYMBOLS
from api.demo.market_data import Datagram, Listing, Quote, feed_key
from api.demo.model import Features, Model
from api.demo.quantiles import Quantiles
from api.demo.routing import Router
from api.demo.signals import Question, Signal
from api.demo.strategy import Strategy
from api.demo.wire import OFFERS, Fill, Order, Reason, Report

OUTCOMES = {Reason.ACCEPTED: Outcome.OK, Reason.VENUE_DOWN: Outcome.ERROR}
_STAMP_NS = 700  # between two stamps of one loop
_ORDER_BYTES, _REPORT_BYTES, _FILL_BYTES = 20 + HEADERS, 13 + HEADERS, 16 + HEADERS


@dataclass(frozen=True, slots=True)
class Done:
    """One order as it ended: what a business outcome can be computed from."""

    id: int
    quote_key: int
    intended_ns: int
    sent_ns: int
    reported_ns: int
    order: Order
    reason: Reason
    price: int  # of the report
    degraded: bool
    filled: int  # how much of it by then


class OrderPath:
    """Everything behind the feed: `feed` puts its datagrams in, `run` lets time pass."""

    def __init__(
        self, tape: Tape, profile: Mapping[str, Quantiles], faults: Sequence[Fault], seed: int, first_order: int
    ) -> None:
        self.tape = tape
        self.events = Events()
        self.draws = draws = Draws(profile, seed)
        self._faults, self._seed = faults, seed
        self.lines = {name: Link(name, faults, draws, seed) for name in ("line-a", "line-b")}
        engine = self._program("engine", "engine")
        self._engine = engine
        self._receive, self._decides = engine.thread(), engine.thread()
        self._arrived = {name: engine.spot(f"arrived_{name[-1]}", "feed", self._receive) for name in self.lines}
        self._in_socket = engine.spot("kernel_rx", "feed", self._receive)
        self._ingress, self._transform, self._signalled, self._ready = (
            engine.spot(point, "feed", self._receive)
            for point in ("app_ingress", "app_transform", "signalled", "ready")
        )
        self._dequeued, self._decision = (
            engine.spot(point, "feed", self._decides) for point in ("dequeued", "app_decision")
        )
        self._sent = engine.spot("app_egress", "order", self._decides)
        self._arbiter, self._desk = Arbiter(), Desk(Strategy(pairs=PAIRS))
        self._timer_ns: int | None = None
        self.intended_behind_ns = 0  # of the quotes' intended times, where they are of another clock
        self._ready_ns: dict[int, int] = {}
        self._next_order = first_order
        self._open: dict[int, tuple[Order, int, int, int, bool]] = {}
        self._filled: dict[int, int] = {}
        self.done: list[Done] = []
        self.copies: list[tuple[int, Copy]] = []  # what the engine tells the back office, and when
        self._draw = {name: draws.of(name) for name in profile if "-" not in name}
        self._inference = _Inference(self)
        self._sites = {site: _Site(self, site) for site in SITES}
        self._quote_labels = [
            tape.labels(f'{{"priority":"{priority}","symbol":"{symbol}"}}')
            for symbol, priority in zip(SYMBOLS, PRIORITY_OF, strict=True)
        ]
        self._order_labels: dict[tuple[int, bytes], int] = {}

    def _program(self, name: str, service: str) -> Program:
        return Program(name, service, self.tape, self._faults, self._seed)

    def link(self, name: str) -> Link:
        """One direction of a link."""
        return Link(name, self._faults, self.draws, self._seed)

    def delay(self, name: str) -> Callable[[], int]:
        """Draws of a step's duration."""
        return self._draw[name]

    def order_labels(self, order: Order) -> int:
        """The label set of an order."""
        key = (order.instrument, order.offer)
        if key not in self._order_labels:
            symbol, priority, site = (table[order.instrument] for table in (SYMBOLS, PRIORITY_OF, SITE_OF))
            text = f'{{"offer":"{OFFERS[order.offer]}","priority":"{priority}","site":"{site}","symbol":"{symbol}"}}'
            self._order_labels[key] = self.tape.labels(text)
        return self._order_labels[key]

    def datagram(self, sent_ns: int, payload: bytes) -> None:
        """A datagram goes out over both lines."""
        for name, link in self.lines.items():
            arrives_ns = link.arrives_ns(len(payload), sent_ns)
            if arrives_ns is not None:
                self.events.at(arrives_ns, self._receive, self._on_line, name, payload, arrives_ns)

    def _on_line(self, now: int, line: str, payload: bytes, came_ns: int) -> int:
        datagram = Datagram.decode(payload)
        for number, message in enumerate(datagram.messages, datagram.sequence):
            if message[:1] == b"Q":
                key = feed_key(datagram.session, number)
                self.tape.stamp(self._engine.shown(now), self._arrived[line], key)
                now += _STAMP_NS
                if not self._arbiter.knows(datagram.session, number):  # it lay in the socket while the thread worked
                    self.tape.stamp(self._engine.shown(came_ns), self._in_socket, key)
        now = self._take_in(now, self._arbiter.receive(datagram, now))
        self._set_timer()
        return now

    def _take_in(self, now: int, fresh: list[Numbered]) -> int:
        engine, tape = self._engine, self.tape
        for number, message in fresh:
            if message[:1] == b"D":
                self._desk.on_listing(Listing.decode(message), now)
                continue
            key = feed_key(self._arbiter.session, number)
            now += self._draw["engine.arbitrate"]()
            tape.stamp(engine.shown(now), self._ingress, key)
            quote = Quote.decode(message)
            now = engine.locked(now)
            depth, admitted = self._desk.on_quote(key, quote, now)
            now += self._draw["engine.transform"]()
            outcome = Outcome.UNSET if admitted else Outcome.SHED
            labels = self._quote_labels[quote.instrument]
            tape.stamp_with(engine.shown(now), self._transform, key, depth=depth, outcome=outcome, labels=labels)
            if admitted:
                self._inference.ask(now, Question(key, quote))
        return now

    def _set_timer(self) -> None:
        """Have the receiving thread look again when a missing number or a signal has been waited for long enough."""
        dues = [due for due in (self._arbiter.due_ns(), self._desk.due_ns()) if due is not None]
        if dues and (self._timer_ns is None or min(dues) < self._timer_ns):
            self._timer_ns = min(dues)
            self.events.at(self._timer_ns, self._receive, self._on_timer, self._timer_ns)

    def _on_timer(self, now: int, set_for_ns: int) -> int:
        if self._timer_ns == set_for_ns:
            self._timer_ns = None
        now = self._take_in(now, self._arbiter.expire(now))
        for late in self._desk.on_time(now):
            now = self._go_on(now, late)
        self._set_timer()
        return now

    def on_signal(self, now: int, signal: Signal) -> int:
        """The receiving thread has a signal in hand."""
        now = self._engine.locked(now)
        ready = self._desk.on_signal(signal, now)
        outcome = Outcome.TIMEOUT if ready is None else Outcome.UNSET
        self.tape.stamp_with(self._engine.shown(now), self._signalled, signal.key, outcome=outcome)
        return self._go_on(now + self._draw["engine.ready"](), ready) if ready is not None else now

    def signal_arrives(self, sent_ns: int, signal: Signal) -> None:
        """A signal is on its way."""
        self.events.at(sent_ns + self._draw["signal"](), self._receive, self.on_signal, signal)

    def _go_on(self, now: int, ready: Ready) -> int:
        found = ready.signal
        self.tape.stamp_with(
            self._engine.shown(now), self._ready, ready.key,
            depth=ready.depth, cache=found.state, data_age_ns=found.age_ns,
        )  # fmt: skip
        self._ready_ns[ready.key] = now
        self.events.at(now + self._draw["engine.wake"](), self._decides, self._decide)
        return now

    def _decide(self, now: int) -> int:
        engine, tape = self._engine, self.tape
        free_ns = engine.locked(engine.stalled(now))
        if free_ns > now:
            return self.events.hold(free_ns, self._decides, self._decide)
        batch = self._desk.take()
        if not batch:
            return now  # it was conflated into an earlier batch
        # What came while the receiving thread was at work is in the queue once that thread has put it there.
        now = max(now, *(self._ready_ns.pop(ready.key) for ready in batch), 0)
        for ready in batch:
            tape.stamp(engine.shown(now), self._dequeued, ready.key)
            now += _STAMP_NS if len(batch) > 1 else 0
        last = batch[-1]
        now = engine.touched("feed", last.key, now)
        behind_ns = engine.behind_ns("feed", last.key, now)
        now = engine.locked(now)
        decision = self._desk.decide(batch, now, listing_older_by_ns=behind_ns)
        now += self._draw["engine.decide"]()
        for key in decision.keys:
            tape.stamp_with(
                engine.shown(now), self._decision, key, cache=decision.cache, data_age_ns=decision.data_age_ns
            )
        degraded = decision.mode.name != "NORMAL"
        for intent in decision.intents:
            order = Order(self._next_order, intent.instrument, intent.side, intent.quantity, intent.price, intent.offer)
            self._next_order += 1
            for key in decision.keys:
                tape.link(now, key, order.id)
            now += self._draw["engine.send"]()
            self._open[order.id] = (order, last.key, last.quote.intended_ns, now, degraded)
            sent = Sent(order, now, now, last.quote.intended_ns + self.intended_behind_ns, decision.data_age_ns)
            self.copies.append((now, sent))
            tape.stamp_with(engine.shown(now), self._sent, order.id, labels=self.order_labels(order))
            self._sites[SITE_OF[order.instrument]].order_arrives(now, order)
        return now

    def note_fill(self, now: int, fill: Fill) -> None:
        """The engine is told of a trade."""
        self.copies.append((now, Filled(fill)))
        self._filled[fill.id] = self._filled.get(fill.id, 0) + fill.quantity

    def note_report(self, now: int, report: Report) -> bool:
        """The engine is told of an order; False when it knew already."""
        opened = self._open.pop(report.id, None)
        if opened is None:
            return False
        self.copies.append((now, Reported(report, now, now)))
        order, key, intended_ns, sent_ns, degraded = opened
        filled = self._filled.get(report.id, 0)
        self.done.append(
            Done(order.id, key, intended_ns, sent_ns, now, order, report.reason, report.price, degraded, filled)
        )
        return True


class _Inference:
    """The inference step: one thread ingests, one works."""

    def __init__(self, path: OrderPath) -> None:
        self._path = path
        self._program = program = path._program("inference", "inference")
        self._ingests, self._works = program.thread(), program.thread()
        self._ingress = program.spot("app_ingress", "feed", self._ingests)
        self._dequeued, self._featured, self._modelled, self._egress = (
            program.spot(point, "feed", self._works) for point in ("dequeued", "featured", "modelled", "app_egress")
        )
        self._features, self._model = Features(), Model()
        self._queued = 0

    def ask(self, sent_ns: int, question: Question) -> None:
        """A question is on its way."""
        self._path.events.at(sent_ns + self._path.delay("question")(), self._ingests, self._ingest, question)

    def _ingest(self, now: int, question: Question) -> int:
        full = self._queued >= QUESTIONS
        self._path.tape.stamp_with(
            self._program.shown(now), self._ingress, question.key, depth=self._queued,
            outcome=Outcome.SHED if full else Outcome.UNSET,
            labels=self._path._quote_labels[question.quote.instrument],
        )  # fmt: skip
        if not full:
            self._queued += 1
            self._path.events.at(now + self._path.delay("inference.ingest")(), self._works, self._work, question)
        return now + _STAMP_NS

    def _work(self, now: int, question: Question) -> int:
        path, program, key = self._path, self._program, question.key
        stamp, shown = path.tape.stamp, program.shown
        free_ns = program.stalled(now)
        if free_ns > now:
            return path.events.hold(free_ns, self._works, self._work, question)
        self._queued -= 1
        stamp(shown(now), self._dequeued, key)
        features = self._features.update(question.quote)
        now += path.delay("inference.feature")()
        stamp(shown(now), self._featured, key)
        now = program.touched("feed", key, now)
        score = self._model.score(features)
        now += path.delay("inference.model")()
        stamp(shown(now), self._modelled, key)
        now += path.delay("inference.delivery")()
        stamp(shown(now), self._egress, key)
        path.signal_arrives(now, Signal(key, question.quote.instrument, score))
        return now


class _Site:
    """One site: its gateway, its venue, and the links to and between them."""

    def __init__(self, path: OrderPath, site: str) -> None:
        self._path = path
        self._gateway, self._venue = (path._program(f"{name}-{site}", name) for name in ("gateway", "venue"))
        self._orders, self._market, self._reports, self._answers = (
            path.link(name)
            for name in (f"orders-{site}", f"market-{site}", f"orders-{site}.back", f"market-{site}.back")
        )
        self._takes, self._hears, self._trades = self._gateway.thread(), self._gateway.thread(), self._venue.thread()
        self._listens = path._engine.thread()
        self._ingress, self._egress = (
            self._gateway.spot(point, "order", self._takes) for point in ("app_ingress", "app_egress")
        )
        self._acknowledged, self._fill_received = (
            self._gateway.spot(point, "order", self._hears) for point in ("acknowledged", "fill_received")
        )
        self._venue_ingress, self._venue_egress, self._traded = (
            self._venue.spot(point, "order", self._trades) for point in ("app_ingress", "app_egress", "traded")
        )
        self._reported, self._filled = (
            path._engine.spot(point, "order", self._listens) for point in ("reported", "filled")
        )
        self._router: Router[str] = Router()
        self._books = Books(len(SYMBOLS))

    def order_arrives(self, sent_ns: int, order: Order) -> None:
        """An order is on its way to the gateway."""
        self._send(self._orders, _ORDER_BYTES, sent_ns, self._takes, self._on_order, order)

    def _send(self, link: Link, size: int, sent_ns: int, thread: object, handler: object, what: object) -> None:
        arrives_ns = link.arrives_ns(size, sent_ns)
        if arrives_ns is not None:  # a stream loses nothing, but its sender may give up
            self._path.events.at(arrives_ns, thread, handler, what)  # type: ignore[arg-type] # of this class alone

    def _on_order(self, now: int, order: Order) -> int:
        gateway, tape = self._gateway, self._path.tape
        tape.stamp_with(gateway.shown(now), self._ingress, order.id, labels=self._path.order_labels(order))
        now = gateway.touched("order", order.id, now)
        refusal = self._router.on_order(order, "engine", now)
        now += self._path.delay("gateway.check")()
        if refusal is not None:
            self._send(self._reports, _REPORT_BYTES, now, self._listens, self._on_report, refusal)
            return now
        tape.stamp(gateway.shown(now), self._egress, order.id)
        self._send(self._market, _ORDER_BYTES, now, self._trades, self._on_venue, order)
        return now

    def _on_venue(self, now: int, order: Order) -> int:
        venue, tape = self._venue, self._path.tape
        tape.stamp_with(venue.shown(now), self._venue_ingress, order.id, labels=self._path.order_labels(order))
        now = venue.touched("order", order.id, now)
        report, fills = self._books.execute(order)
        now += self._path.delay("venue.match")()
        outcome = Outcome.OK if report.reason is Reason.ACCEPTED else Outcome.REJECTED
        tape.stamp_with(venue.shown(now), self._venue_egress, order.id, outcome=outcome)
        self._send(self._answers, _REPORT_BYTES, now, self._hears, self._on_answer, report)
        for fill in fills:
            now += self._path.delay("venue.trade")()
            tape.stamp(venue.shown(now), self._traded, fill.id)
            self._send(self._answers, _FILL_BYTES, now, self._hears, self._on_fill, fill)
        return now

    def _on_answer(self, now: int, report: Report) -> int:
        self._path.tape.stamp(self._gateway.shown(now), self._acknowledged, report.id)
        if self._router.on_report(report) is not None:
            self._send(self._reports, _REPORT_BYTES, now, self._listens, self._on_report, report)
        return now + _STAMP_NS

    def _on_fill(self, now: int, fill: Fill) -> int:
        self._path.tape.stamp(self._gateway.shown(now), self._fill_received, fill.id)
        if self._router.on_fill(fill) is not None:
            self._send(self._reports, _FILL_BYTES, now, self._listens, self._on_filled, fill)
        return now + _STAMP_NS

    def _on_report(self, now: int, report: Report) -> int:
        if self._path.note_report(now, report):
            outcome = OUTCOMES.get(report.reason, Outcome.REJECTED)
            self._path.tape.stamp_with(self._path._engine.shown(now), self._reported, report.id, outcome=outcome)
        return now + _STAMP_NS

    def _on_filled(self, now: int, fill: Fill) -> int:
        self._path.tape.stamp(self._path._engine.shown(now), self._filled, fill.id)
        self._path.note_fill(now, fill)
        return now + _STAMP_NS
