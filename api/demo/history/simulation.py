"""The order path's glue on the virtual clock: what the programs do between their sockets, as events.

Each handler does what a program's thread does with one message: it asks the pure logic, stamps where the program
stamps, and hands on. `now` is when the thread takes the message up; it returns when the thread is free again.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from api.demo.desk import Ready
from api.demo.drop_copy import Copy, Filled, Reported, Sent
from api.demo.faults import Fault
from api.demo.history.beside import Beside, deployed
from api.demo.history.engine import Engine
from api.demo.history.inference import Inference
from api.demo.history.network import CrossTraffic, Link
from api.demo.history.programs import Program
from api.demo.history.site import Site
from api.demo.history.tape import Tape
from api.demo.history.virtual import Draws, Events
from api.demo.instances import Instance
from api.demo.market import PRIORITY_OF, SITE_OF, SITES, SYMBOLS
from api.demo.quantiles import Quantiles
from api.demo.wire import OFFERS, Fill, Order, Reason, Report


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
    """Everything behind the feed: `datagram` puts its datagrams in, `events.run` lets time pass.

    `beside` are the canaries and shadows, and the programs' versions; without it there are the versions that bad
    deploys among `faults` bring. `busy` is how busy the market is at a time: orders wait behind
    the rest of its traffic.
    """

    def __init__(
        self,
        tape: Tape,
        profile: Mapping[str, Quantiles],
        faults: Sequence[Fault],
        seed: int,
        first_order: int,
        beside: Beside | None = None,
        busy: Callable[[int], float] | None = None,
    ) -> None:
        self.tape = tape
        self.events = Events()
        self.beside = beside or deployed(faults)
        self._draws = Draws(profile, seed)
        self._faults, self._seed, self._busy = faults, seed, busy
        self._draw = {name: self._draws.of(name) for name in profile if "-" not in name}
        self._labels: dict[tuple[object, ...], int] = {}
        self.lines = {name: self.link(name) for name in ("line-a", "line-b")}
        self.intended_behind_ns = 0  # of the quotes' intended times, where they are of another clock
        self.order_ids = itertools.count(first_order)
        self._open: dict[int, tuple[Order, int, int, int, bool]] = {}
        self._filled: dict[int, int] = {}
        self.done: list[Done] = []
        self.copies: list[tuple[int, Copy]] = []  # what the engine tells the back office, and when
        self.engines = [Engine(self, one) for one in (None, *self.beside.at("engine", "canary"))]
        self.inference = Inference(self)
        self.inference_beside = {
            one.id: Inference(self, one) for role in ("canary", "shadow") for one in self.beside.at("inference", role)
        }
        self.sites = {site: Site(self, site) for site in SITES}

    def program(self, name: str, service: str, instance: Instance | None = None) -> Program:
        """A program, or an instance beside it."""
        versions = self.beside.timeline(name, instance)
        return Program(name, service, self.tape, self._faults, self._seed, instance, versions)

    def link(self, name: str) -> Link:
        """One direction of a link."""
        crowded = self._busy is not None and name in ("orders-east", "orders-west")
        others = CrossTraffic(self._busy, f"{self._seed}/{name}") if crowded and self._busy else None
        return Link(name, self._faults, self._draws, self._seed, others)

    def delay(self, name: str) -> Callable[[], int]:
        """Draws of a step's duration."""
        return self._draw[name]

    def quote_labels(self, instrument: int, version: str, inference: str = "") -> int:
        """The label set of a quote: `version` of the program that stamps, `inference` of the step that answered."""
        key = (instrument, version, inference)
        if key not in self._labels:
            said = {"symbol": SYMBOLS[instrument], "priority": PRIORITY_OF[instrument], "version": version}
            self._labels[key] = self._label_set(said, inference=inference)
        return self._labels[key]

    def order_labels(self, order: Order, version: str, gateway: str = "", venue: str = "") -> int:
        """The label set of an order; `gateway` and `venue` are the versions of those that reported on it."""
        key = (order.instrument, order.offer, version, gateway, venue)
        if key not in self._labels:
            symbol, priority, site = (table[order.instrument] for table in (SYMBOLS, PRIORITY_OF, SITE_OF))
            said = {"symbol": symbol, "priority": priority, "site": site, "offer": OFFERS[order.offer]}
            self._labels[key] = self._label_set({**said, "version": version}, gateway=gateway, venue=venue)
        return self._labels[key]

    def _label_set(self, said: Mapping[str, str], **more: str) -> int:
        words = {**said, **{name: version for name, version in more.items() if version}}
        return self.tape.labels(json.dumps(words, sort_keys=True, separators=(",", ":")))

    def datagram(self, sent_ns: int, payload: bytes) -> None:
        """A datagram goes out over both lines; all engines hear it."""
        for name, link in self.lines.items():
            arrives_ns = link.arrives_ns(len(payload), sent_ns)
            if arrives_ns is not None:
                for engine in self.engines:
                    self.events.at(arrives_ns, engine.receives, engine.on_line, name, payload, arrives_ns)

    def note_sent(self, order: Order, last: Ready, now: int, degraded: bool, data_age_ns: int | None) -> None:
        """An engine sends an order; `last` is the quote that decided."""
        intended_ns = last.quote.intended_ns
        self._open[order.id] = (order, last.key, intended_ns, now, degraded)
        self.copies.append((now, Sent(order, now, now, intended_ns + self.intended_behind_ns, data_age_ns)))

    def note_fill(self, now: int, fill: Fill) -> None:
        """An engine is told of a trade."""
        self.copies.append((now, Filled(fill)))
        self._filled[fill.id] = self._filled.get(fill.id, 0) + fill.quantity

    def note_report(self, now: int, report: Report) -> Order | None:
        """An engine is told of its order, which is returned; None when it knew already."""
        opened = self._open.pop(report.id, None)
        if opened is None:
            return None
        self.copies.append((now, Reported(report, now, now)))
        order, key, intended_ns, sent_ns, degraded = opened
        filled = self._filled.get(report.id, 0)
        self.done.append(
            Done(order.id, key, intended_ns, sent_ns, now, order, report.reason, report.price, degraded, filled)
        )
        return order
