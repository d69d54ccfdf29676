"""The engine on the virtual clock: arbitration, admission, the wait for a signal, the decision, order entry."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from tailsight_probe import Mode, Outcome, hash64

from api.demo.arbitration import Arbiter, Numbered
from api.demo.desk import Desk, Ready
from api.demo.instances import Instance, canary, owner, shadows
from api.demo.market import PAIRS, SITE_OF
from api.demo.market_data import Datagram, Listing, Quote, feed_key
from api.demo.signals import Question, Signal
from api.demo.strategy import Strategy
from api.demo.wire import Order

if TYPE_CHECKING:
    from api.demo.history.simulation import OrderPath

STAMP_NS = 700  # between two stamps of one loop


@lru_cache(maxsize=256)
def decoded(payload: bytes) -> Datagram:
    """A datagram: sent once, and received from two lines at about the same time. Raises WireError."""
    return Datagram.decode(payload)


class Engine:
    """The main engine, or a canary of it: all hear every quote, each takes its own."""

    def __init__(self, path: OrderPath, instance: Instance | None = None) -> None:
        self._path = path
        self.program = program = path.program("engine", "engine", instance)
        self.name = instance.id if instance else ""
        self._shared = any(routed.instance.at == "engine" for routed in path.beside.routes)
        self.receives, self._decides = program.thread(), program.thread()
        self._arrived = {name: program.spot(f"arrived_{name[-1]}", "feed", self.receives) for name in path.lines}
        self._in_socket = program.spot("kernel_rx", "feed", self.receives)
        self._ingress, self._transform, self._signalled, self._ready = (
            program.spot(point, "feed", self.receives)
            for point in ("app_ingress", "app_transform", "signalled", "ready")
        )
        self._shadow_transform, self._shadow_signalled = (
            program.copied(point, "feed", self.receives) for point in ("app_transform", "signalled")
        )
        self._dequeued, self._decision = (
            program.spot(point, "feed", self._decides) for point in ("dequeued", "app_decision")
        )
        self._sent = program.spot("app_egress", "order", self._decides)
        self._copied = program.copied("app_egress", "order", self._decides)
        self._arbiter, self._desk = Arbiter(), Desk(Strategy(pairs=PAIRS))
        self._timer_ns: int | None = None
        self._ready_ns: dict[int, int] = {}
        self._answered: dict[int, str] = {}  # quote -> the version of the inference step that answered

    def on_line(self, now: int, line: str, payload: bytes, came_ns: int) -> int:
        """The receiving thread has a datagram of a line, which came to its socket at `came_ns`."""
        datagram = decoded(payload)
        for number, message in enumerate(datagram.messages, datagram.sequence):
            if message[:1] == b"Q" and self._ours(key := feed_key(datagram.session, number), message):
                self._path.tape.stamp(self.program.shown(now), self._arrived[line], key)
                now += STAMP_NS
                if not self._arbiter.knows(datagram.session, number):  # it lay in the socket while the thread worked
                    self._path.tape.stamp(self.program.shown(came_ns), self._in_socket, key)
        now = self._take_in(now, self._arbiter.receive(datagram, now))
        self._set_timer()
        return now

    def _ours(self, key: int, message: bytes) -> bool:
        """Whether this instance is the one that the quote goes to."""
        if not self._shared:
            return True
        sent_ns = Quote.decode(message).intended_ns + self._path.intended_behind_ns
        return owner(self._path.beside.routes, "engine", hash64("feed", key), sent_ns) == self.name

    def _take_in(self, now: int, fresh: list[Numbered]) -> int:
        program, path = self.program, self._path
        for number, message in fresh:
            if message[:1] == b"D":
                self._desk.on_listing(Listing.decode(message), now)
                continue
            if message[:1] == b"H":  # nothing to decide on: a halted instrument has no quotes
                continue
            key = feed_key(self._arbiter.session, number)
            if not self._ours(key, message):
                continue
            now += path.delay("engine.arbitrate")()
            path.tape.stamp(program.shown(now), self._ingress, key)
            quote = Quote.decode(message)
            now = program.locked(now)
            depth, admitted = self._desk.on_quote(key, quote, now)
            now += path.delay("engine.transform")()
            outcome = Outcome.UNSET if admitted else Outcome.SHED
            labels = path.quote_labels(quote.instrument, program.version(now))
            path.tape.stamp_with(
                program.shown(now), self._transform, key, depth=depth, outcome=outcome, labels=labels
            )  # fmt: skip
            if admitted:
                self._ask(now, Question(key, quote), labels)
        return now

    def _ask(self, now: int, question: Question, labels: int) -> None:
        """Ask the inference step, or the canary that has this quote; shadows get copies."""
        path, asked = self._path, self._path.inference
        if path.inference_beside:
            hashed, routes = hash64("feed", question.key), path.beside.routes
            if found := canary(routes, "inference", hashed, now):
                asked = path.inference_beside[found.id]
            for shadow in shadows(routes, "inference", hashed, now):
                path.tape.stamp_with(self.program.shown(now), self._shadow_transform, question.key, labels=labels)
                path.inference_beside[shadow.id].ask(now, question, self)
        asked.ask(now, question, self)

    def _set_timer(self) -> None:
        """Have the receiving thread look again when a missing number or a signal has been waited for long enough."""
        dues = [due for due in (self._arbiter.due_ns(), self._desk.due_ns()) if due is not None]
        if dues and (self._timer_ns is None or min(dues) < self._timer_ns):
            self._timer_ns = min(dues)
            self._path.events.at(self._timer_ns, self.receives, self._on_timer, self._timer_ns)

    def _on_timer(self, now: int, set_for_ns: int) -> int:
        if self._timer_ns == set_for_ns:
            self._timer_ns = None
        now = self._take_in(now, self._arbiter.expire(now))
        for late in self._desk.on_time(now):
            now = self._go_on(now, late)
        self._set_timer()
        return now

    def on_signal(self, now: int, signal: Signal, version: str) -> int:
        """The receiving thread has a signal in hand, from an inference step of that version."""
        now = self.program.locked(now)
        ready = self._desk.on_signal(signal, now)
        outcome = Outcome.TIMEOUT if ready is None else Outcome.UNSET
        self._path.tape.stamp_with(self.program.shown(now), self._signalled, signal.key, outcome=outcome)
        if ready is None:
            return now
        self._answered[signal.key] = version
        return self._go_on(now + self._path.delay("engine.ready")(), ready)

    def on_shadow(self, now: int, signal: Signal, _version: str) -> int:
        """What a shadow answers goes no further."""
        self._path.tape.stamp(self.program.shown(now), self._shadow_signalled, signal.key)
        return now

    def _go_on(self, now: int, ready: Ready) -> int:
        found = ready.signal
        self._path.tape.stamp_with(
            self.program.shown(now), self._ready, ready.key,
            depth=ready.depth, cache=found.state, data_age_ns=found.age_ns,
        )  # fmt: skip
        self._ready_ns[ready.key] = now
        self._path.events.at(now + self._path.delay("engine.wake")(), self._decides, self._decide)
        return now

    def _decide(self, now: int) -> int:
        program, tape, path = self.program, self._path.tape, self._path
        free_ns = program.locked(program.stalled(now))
        if free_ns > now:
            return path.events.hold(free_ns, self._decides, self._decide)
        batch = self._desk.take()
        if not batch:
            return now  # it was conflated into an earlier batch
        # What came while the receiving thread was at work is in the queue once that thread has put it there.
        now = max(now, *(self._ready_ns.pop(ready.key) for ready in batch), 0)
        for ready in batch:
            tape.stamp(program.shown(now), self._dequeued, ready.key)
            now += STAMP_NS if len(batch) > 1 else 0
        last = batch[-1]
        now = program.touched("feed", last.key, now)
        behind_ns = program.behind_ns("feed", last.key, now)
        now = program.locked(now)
        decision = self._desk.decide(batch, now, listing_older_by_ns=behind_ns)
        took_ns = path.delay("engine.decide")()
        now = program.lengthened("feed", last.key, took_ns, now + took_ns)
        version = program.version(now)
        for key in decision.keys:
            labels = path.quote_labels(last.quote.instrument, version, self._answered.pop(key, ""))
            tape.stamp_with(
                program.shown(now), self._decision, key,
                cache=decision.cache, data_age_ns=decision.data_age_ns, labels=labels,
            )  # fmt: skip
        degraded = decision.mode is not Mode.NORMAL
        for intent in decision.intents:
            number = next(path.order_ids)
            order = Order(number, intent.instrument, intent.side, intent.quantity, intent.price, intent.offer)
            for key in decision.keys:
                tape.link(now, key, order.id)
            now = self._send(now, order, decision.keys, last, degraded, decision.data_age_ns)
        return now

    def _send(
        self, now: int, order: Order, keys: list[int], last: Ready, degraded: bool, data_age_ns: int | None
    ) -> int:
        path, program = self._path, self.program
        now += path.delay("engine.send")()
        path.note_sent(order, last, now, degraded, data_age_ns)
        labels = path.order_labels(order, program.version(now))
        path.tape.stamp_with(program.shown(now), self._sent, order.id, labels=labels)
        site = path.sites[SITE_OF[order.instrument]]
        site.order_arrives(now, order, self)
        for gateway in site.copies_to(order, now):
            for key in keys:
                path.tape.link(now, key, order.id, "shadow-order")
            path.tape.stamp_with(program.shown(now), self._copied, order.id, labels=labels)
            site.order_arrives(now, order, self, gateway)
        return now
