"""One site on the virtual clock: its gateway and what runs beside it, its venue, and the links to and between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tailsight_probe import Outcome, hash64

from api.demo.book import Books
from api.demo.history.network import HEADERS, Link
from api.demo.instances import Instance, canary, shadows
from api.demo.market import SYMBOLS
from api.demo.routing import Router
from api.demo.wire import Fill, Order, Reason, Report

if TYPE_CHECKING:
    from api.demo.history.engine import Engine
    from api.demo.history.simulation import OrderPath

OUTCOMES = {Reason.ACCEPTED: Outcome.OK, Reason.VENUE_DOWN: Outcome.ERROR}
_STAMP_NS = 700
_ORDER_BYTES, _REPORT_BYTES, _FILL_BYTES = 20 + HEADERS, 13 + HEADERS, 16 + HEADERS


class Gateway:
    """The main gateway, a canary of it, or a shadow: one thread takes orders, one hears the venue."""

    def __init__(self, path: OrderPath, site: str, instance: Instance | None = None) -> None:
        self.program = program = path.program(f"gateway-{site}", "gateway", instance)
        self.takes, self.hears = program.thread(), program.thread()
        self.ingress, self.egress = (
            program.spot(point, "order", self.takes) for point in ("app_ingress", "app_egress")
        )
        self.acknowledged, self.fill_received = (
            program.spot(point, "order", self.hears) for point in ("acknowledged", "fill_received")
        )
        self.router: Router[Engine] = Router()


class _Ear:
    """The thread of an engine that hears what comes back from a site."""

    def __init__(self, engine: Engine) -> None:
        self.program = engine.program
        self.thread = engine.program.thread()
        self.reported, self.filled = (
            engine.program.spot(point, "order", self.thread) for point in ("reported", "filled")
        )


class Site:
    """Orders go to the gateway, or to the canary that has them; all gateways share the site's links and its venue."""

    def __init__(self, path: OrderPath, site: str) -> None:
        self._path, self._place = path, f"gateway-{site}"
        self._venue = path.program(f"venue-{site}", "venue")
        self._orders, self._market, self._reports, self._answers = (
            path.link(name)
            for name in (f"orders-{site}", f"market-{site}", f"orders-{site}.back", f"market-{site}.back")
        )
        self._gateway = Gateway(path, site)
        self._beside = {
            one.id: Gateway(path, site, one)
            for role in ("canary", "shadow")
            for one in path.beside.at(self._place, role)
        }
        self._trades = self._venue.thread()
        self._venue_ingress, self._venue_egress, self._traded = (
            self._venue.spot(point, "order", self._trades) for point in ("app_ingress", "app_egress", "traded")
        )
        self._ears = {engine.name: _Ear(engine) for engine in path.engines}
        self._senders: dict[int, Gateway] = {}  # of orders that the venue has had
        self._books = Books(len(SYMBOLS))

    def order_arrives(self, sent_ns: int, order: Order, engine: Engine, shadow: Gateway | None = None) -> None:
        """An order of `engine` (or the copy that a shadow gets) is on its way to the gateway."""
        gateway = shadow or self._gateway
        if shadow is None and self._beside:
            found = canary(self._path.beside.routes, self._place, hash64("order", order.id), sent_ns)
            gateway = self._beside[found.id] if found else gateway
        self._send(self._orders, _ORDER_BYTES, sent_ns, gateway.takes, self._on_order, gateway, order, engine)

    def copies_to(self, order: Order, now: int) -> list[Gateway]:
        """The shadows that get a copy of the order."""
        if not self._beside:
            return []
        found = shadows(self._path.beside.routes, self._place, hash64("order", order.id), now)
        return [self._beside[one.id] for one in found]

    def _send(self, link: Link, size: int, sent_ns: int, thread: object, handler: object, *what: object) -> None:
        arrives_ns = link.arrives_ns(size, sent_ns)
        if arrives_ns is not None:  # a stream loses nothing, but its sender may give up
            self._path.events.at(arrives_ns, thread, handler, *what)  # type: ignore[arg-type] # of this class alone

    def _on_order(self, now: int, gateway: Gateway, order: Order, engine: Engine) -> int:
        program, tape = gateway.program, self._path.tape
        labels = self._path.order_labels(order, program.version(now))
        tape.stamp_with(program.shown(now), gateway.ingress, order.id, labels=labels)
        now = program.touched("order", order.id, now)
        refusal = gateway.router.on_order(order, engine, now)
        took_ns = self._path.delay("gateway.check")()
        now = program.lengthened("order", order.id, took_ns, now + took_ns)
        if refusal is not None:
            if not program.shadow:
                self._report(now, gateway, engine, refusal, "")
            return now
        tape.stamp(program.shown(now), gateway.egress, order.id)
        if program.shadow:  # nothing of what it does reaches the venue: nobody will report on it
            gateway.router.on_report(Report(order.id, Reason.VENUE_DOWN))
            return now
        self._send(self._market, _ORDER_BYTES, now, self._trades, self._on_venue, gateway, order)
        return now

    def _on_venue(self, now: int, gateway: Gateway, order: Order) -> int:
        venue, tape = self._venue, self._path.tape
        labels = self._path.order_labels(order, venue.version(now))
        tape.stamp_with(venue.shown(now), self._venue_ingress, order.id, labels=labels)
        now = venue.touched("order", order.id, now)
        self._senders[order.id] = gateway
        report, fills = self._books.execute(order)
        now += self._path.delay("venue.match")()
        outcome = Outcome.OK if report.reason is Reason.ACCEPTED else Outcome.REJECTED
        tape.stamp_with(venue.shown(now), self._venue_egress, order.id, outcome=outcome)
        told = venue.version(now)
        self._send(self._answers, _REPORT_BYTES, now, gateway.hears, self._on_answer, gateway, report, told)
        for fill in fills:
            sender = self._senders.get(fill.id)
            if sender is not None:
                now += self._path.delay("venue.trade")()
                tape.stamp(venue.shown(now), self._traded, fill.id)
                self._send(self._answers, _FILL_BYTES, now, sender.hears, self._on_fill, sender, fill)
        return now

    def _on_answer(self, now: int, gateway: Gateway, report: Report, venue: str) -> int:
        self._path.tape.stamp(gateway.program.shown(now), gateway.acknowledged, report.id)
        engine = gateway.router.on_report(report)
        if engine is not None:
            self._report(now, gateway, engine, report, venue)
        return now + _STAMP_NS

    def _report(self, now: int, gateway: Gateway, engine: Engine, report: Report, venue: str) -> None:
        ear, signed = self._ears[engine.name], gateway.program.version(now)
        self._send(self._reports, _REPORT_BYTES, now, ear.thread, self._on_report, ear, report, signed, venue)

    def _on_fill(self, now: int, gateway: Gateway, fill: Fill) -> int:
        self._path.tape.stamp(gateway.program.shown(now), gateway.fill_received, fill.id)
        engine = gateway.router.on_fill(fill)
        if engine is not None:
            ear = self._ears[engine.name]
            self._send(self._reports, _FILL_BYTES, now, ear.thread, self._on_filled, ear, fill)
        return now + _STAMP_NS

    def _on_report(self, now: int, ear: _Ear, report: Report, gateway: str, venue: str) -> int:
        order = self._path.note_report(now, report)
        if order is not None:
            outcome = OUTCOMES.get(report.reason, Outcome.REJECTED)
            labels = self._path.order_labels(order, ear.program.version(now), gateway, venue)
            self._path.tape.stamp_with(ear.program.shown(now), ear.reported, report.id, outcome=outcome, labels=labels)
        return now + _STAMP_NS

    def _on_filled(self, now: int, ear: _Ear, fill: Fill) -> int:
        self._path.tape.stamp(ear.program.shown(now), ear.filled, fill.id)
        self._path.note_fill(now, fill)
        return now + _STAMP_NS
