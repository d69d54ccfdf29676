"""Order entry: the engine's connections to the gateways of all sites, and what it learns of its orders."""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping

import tailsight_probe as probe
from tailsight_probe import Mode, Outcome

from api.demo.labels import order_labels
from api.demo.market import SITE_OF
from api.demo.place import Place
from api.demo.stopping import Stop
from api.demo.streams import Address, Dialler
from api.demo.wire import FILL, REPORT, Fill, Order, Reason, Report

OUTCOMES = {Reason.ACCEPTED: Outcome.OK, Reason.VENUE_DOWN: Outcome.ERROR}


class Entry:
    """One connection per site; an order goes to its instrument's site."""

    def __init__(self, place: Place, gateways: Mapping[str, Address]) -> None:
        self._place = place
        self._egress = probe.point("app_egress", space="order")
        self._reported = probe.point("reported", space="order")
        self._filled = probe.point("filled", space="order")
        self._lines = {
            site: Dialler(address, self._on_frame, functools.partial(self._on_lost, site))
            for site, address in gateways.items()
        }
        self._open: dict[str, dict[int, Order]] = {site: {} for site in gateways}

    def start(self, stop: Stop) -> None:
        """Connect, and listen to reports until `stop`."""
        for site, line in self._lines.items():
            threading.Thread(target=line.run, args=(stop,), name=f"reports-{site}", daemon=True).start()

    def send(self, order: Order, mode: Mode) -> None:
        """Send an order; one that cannot be sent is reported as an error at once."""
        site = SITE_OF[order.instrument]
        payload = order.frame()
        self._open[site][order.id] = order
        self._place.stamp(self._egress, order.id, mode=mode, labels=order_labels(order))
        if not self._lines[site].send(payload):
            self._report(Report(order.id, Reason.VENUE_DOWN))

    def _on_frame(self, kind: bytes, body: bytes) -> None:
        if kind == REPORT:
            self._report(Report.decode(body))
        elif kind == FILL:
            self._place.stamp(self._filled, Fill.decode(body).id)

    def _on_lost(self, site: str) -> None:
        """What was on its way over the lost connection may or may not have arrived: nobody will report on it."""
        for number in list(self._open[site]):
            self._report(Report(number, Reason.VENUE_DOWN))

    def _report(self, report: Report) -> None:
        """Book the first report on an order; any thread may bring it."""
        if any(orders.pop(report.id, None) is not None for orders in self._open.values()):
            self._place.stamp(self._reported, report.id, outcome=OUTCOMES.get(report.reason, Outcome.REJECTED))
