"""`python -m api.demo.gateway`: one site's orders from engines, a risk check, on to the venue, and the answers back."""

from __future__ import annotations

import argparse
import logging
import threading
import time
from dataclasses import replace

from api.demo.kernel_stamps import kernel_stamps
from api.demo.labels import order_labels
from api.demo.market import SITES
from api.demo.place import Place
from api.demo.routing import Router
from api.demo.stopping import Stop
from api.demo.streams import Address, Dialler, Listener, Peer
from api.demo.wire import FILL, ORDER, REPORT, Fill, Order, Reason, Report

log = logging.getLogger(__name__)


class Gateway:
    """Between the engines of the house and one venue."""

    def __init__(self, place: Place, listen: Address, venue: Address) -> None:
        self._place = place
        names = ("app_ingress", "app_egress", "acknowledged", "fill_received")
        self._ingress, self._egress, self._acknowledged, self._fill_received = (
            place.point(name, "order") for name in names
        )
        self._router: Router[Peer] = Router()
        self._engines = Listener(listen, self._on_order)
        self._venue = Dialler(
            venue, self._on_answer, self._on_venue_lost, lambda sock: kernel_stamps(place, sock, "order", "venue")
        )

    def run(self, stop: Stop) -> None:
        """Serve until `stop`."""
        if self._place.shadow:  # nothing of what it does must reach the venue
            self._engines.run(stop)
            return
        venue = threading.Thread(target=self._venue.run, args=(stop,), name="venue", daemon=True)
        venue.start()
        self._engines.run(stop)
        venue.join(timeout=2)

    def _on_order(self, engine: Peer, kind: bytes, body: bytes) -> None:
        if kind != ORDER:
            return
        began = time.thread_time_ns()
        order = Order.decode(body)
        self._place.stamp(self._ingress, order.id, labels=order_labels(order))
        self._place.touch("order", order.id)
        with self._place.lock:
            refusal = self._router.on_order(order, engine, time.monotonic_ns())
        self._place.lengthen("order", order.id, began)
        if refusal is not None:
            if not self._place.shadow:
                engine.send(self._signed(refusal))
            return
        payload = order.frame()
        self._place.stamp(self._egress, order.id)
        if self._place.shadow:
            with self._place.lock:
                self._router.on_report(Report(order.id, Reason.VENUE_DOWN))  # nobody will report on it
            return
        if not self._venue.send(payload, order.id):
            self._answer(Report(order.id, Reason.VENUE_DOWN))

    def _on_answer(self, kind: bytes, body: bytes) -> None:
        if kind == REPORT:
            report = Report.decode(body)
            self._place.stamp(self._acknowledged, report.id)
            self._answer(report)
        elif kind == FILL:
            fill = Fill.decode(body)
            self._place.stamp(self._fill_received, fill.id)
            with self._place.lock:
                engine = self._router.on_fill(fill)
            if engine is not None:
                engine.send(fill.frame())

    def _answer(self, report: Report) -> None:
        with self._place.lock:
            engine = self._router.on_report(report)
        if engine is not None:
            engine.send(self._signed(report))

    def _signed(self, report: Report) -> bytes:
        """The report's frame, with our version in it."""
        return replace(report, gateway=self._place.version).frame()

    def _on_venue_lost(self) -> None:
        with self._place.lock:
            told = self._router.on_venue_lost()
        for engine, report in told:
            engine.send(self._signed(report))


def main() -> None:
    """Read the arguments and run until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--site", choices=SITES, required=True, help="where it stands")
    parser.add_argument("--listen", type=int, required=True, help="TCP port for engines on 127.0.0.1")
    parser.add_argument("--venue", type=int, required=True, help="TCP port of the venue on 127.0.0.1")
    Place.arguments(parser)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    place = Place.of(f"gateway-{options.site}", "gateway", options)
    gateway = Gateway(place, ("127.0.0.1", options.listen), ("127.0.0.1", options.venue))
    place.start()
    gateway.run(Stop())


if __name__ == "__main__":
    main()
