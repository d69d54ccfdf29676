"""`python -m api.demo.venue`: one site's exchange: takes orders over TCP, matches them, reports on each, and fills."""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace

import tailsight_probe as probe
from tailsight_probe import Outcome

from api.demo.book import Books
from api.demo.labels import order_labels
from api.demo.market import SITES, SYMBOLS
from api.demo.place import Place
from api.demo.stopping import Stop
from api.demo.streams import Address, Listener, Peer
from api.demo.wire import ORDER, Order, Reason

log = logging.getLogger(__name__)
_REMEMBERED = 20_000


class Venue:
    """Books of all instruments, any number of gateways; a fill goes to the gateway its order came from."""

    def __init__(self, place: Place, listen: Address) -> None:
        self._place = place
        self._ingress = probe.point("app_ingress", space="order")
        self._egress = probe.point("app_egress", space="order")
        self._traded = probe.point("traded", space="order")
        self._books = Books(len(SYMBOLS))
        self._senders: dict[int, Peer] = {}
        self._gateways = Listener(listen, self._on_order)

    def run(self, stop: Stop) -> None:
        """Serve until `stop`."""
        self._gateways.run(stop)

    def _on_order(self, gateway: Peer, kind: bytes, body: bytes) -> None:
        if kind != ORDER:
            return
        order = Order.decode(body)
        self._place.stamp(self._ingress, order.id, labels=order_labels(order))
        self._place.touch("order", order.id)
        report, fills = self._books.execute(order)
        self._senders[order.id] = gateway
        if len(self._senders) > _REMEMBERED:
            del self._senders[next(iter(self._senders))]
        payload = replace(report, venue=self._place.version).frame()
        outcome = Outcome.OK if report.reason is Reason.ACCEPTED else Outcome.REJECTED
        self._place.stamp(self._egress, order.id, outcome=outcome)
        gateway.send(payload)
        for fill in fills:
            sender = self._senders.get(fill.id)
            if sender is not None:
                payload = fill.frame()
                self._place.stamp(self._traded, fill.id)
                sender.send(payload)


def main() -> None:
    """Read the arguments and run until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--site", choices=SITES, required=True, help="where it stands")
    parser.add_argument("--listen", type=int, required=True, help="TCP port for gateways on 127.0.0.1")
    Place.arguments(parser)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    place = Place.of(f"venue-{options.site}", "venue", options)
    place.start()
    Venue(place, ("127.0.0.1", options.listen)).run(Stop())


if __name__ == "__main__":
    main()
