"""Order entry: the engine's connections to the gateways of all sites, and what it learns of its orders.

Beside a site's main gateway there may be a canary, which gets a share of the orders, and a shadow, which gets copies
under keys of their own.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import tailsight_probe as probe
from tailsight_probe import Mode, Outcome

from api.demo.drop_copy import DropCopies
from api.demo.instances import SHADOW_SPACE, canary, shadows
from api.demo.labels import order_labels
from api.demo.market import SITE_OF
from api.demo.place import Place
from api.demo.stopping import Stop
from api.demo.streams import Address, Dialler
from api.demo.trial import Trial, Waiting, watched
from api.demo.wire import FILL, REPORT, Fill, Order, Reason, Report

_LOOK_S = 0.1
_DRAIN_NS = 1_000_000_000  # so long a gateway that is ending is listened to
OUTCOMES = {Reason.ACCEPTED: Outcome.OK, Reason.VENUE_DOWN: Outcome.ERROR}


@dataclass(frozen=True, slots=True)
class Origin:
    """What led to an order: the quotes' keys, when the deciding one was meant to be sent, how it was decided."""

    keys: Sequence[int]
    intended_ns: int
    mode: Mode
    data_age_ns: int | None


class Entry:
    """One connection per site; an order goes to its instrument's site."""

    def __init__(
        self, place: Place, gateways: Mapping[str, Address], copies: DropCopies, trial: Trial | None = None
    ) -> None:
        self._place = place
        self._trial = trial
        self._waiting = Waiting()
        self._watcher: threading.Thread | None = None
        self._copies = copies
        self._copied = probe.point("app_egress", space=SHADOW_SPACE["order"])
        self._beside: dict[str, tuple[Dialler, threading.Event]] = {}  # instance -> its line
        self._egress = probe.point("app_egress", space="order")
        self._reported = probe.point("reported", space="order")
        self._filled = probe.point("filled", space="order")
        self._lines = {
            site: Dialler(address, self._on_frame, functools.partial(self._on_lost, site))
            for site, address in gateways.items()
        }
        self._open: dict[str, dict[int, Order]] = {site: {} for site in gateways}
        self._stop: Stop | None = None

    def start(self, stop: Stop) -> None:
        """Connect, and listen to reports until `stop`."""
        self._stop = stop
        if self._trial is not None:
            self._waiting.start()
            self._watcher = watched(self._trial, stop)
        threading.Thread(target=self._watch, args=(stop,), name="routes", daemon=True).start()
        for site, line in self._lines.items():
            threading.Thread(target=line.run, args=(stop,), name=f"reports-{site}", daemon=True).start()

    def close(self) -> None:
        """Send what an experiment delays at once, and let the experiment's last assignments be told."""
        if self._trial is not None:
            self._waiting.close()
        if self._watcher is not None:
            self._watcher.join(timeout=2)

    def send(self, order: Order, origin: Origin) -> None:
        """Send an order, or have it wait where an experiment delays it."""
        if self._trial is not None:
            dose_ns = self._trial.dose_ns(probe.hash64("order", order.id), time.time_ns())
            if dose_ns:
                self._waiting.put(time.monotonic_ns() + dose_ns, functools.partial(self._send, order, origin))
                return
        self._send(order, origin)

    def _send(self, order: Order, origin: Origin) -> None:
        """Send an order now; one that cannot be sent is reported as an error at once."""
        site = SITE_OF[order.instrument]
        payload = order.frame()
        name, line = self._line(site, order.id) if self._place.routes else (site, self._lines[site])
        self._open[name][order.id] = order
        self._copies.sent(order, origin.intended_ns, origin.data_age_ns)
        self._place.stamp(self._egress, order.id, mode=origin.mode, labels=order_labels(order))
        if not line.send(payload):
            self._report(Report(order.id, Reason.VENUE_DOWN))
        if self._place.routes:
            self._copy(site, order, payload, origin)

    def _watch(self, stop: Stop) -> None:
        while not stop:
            self._look()
            time.sleep(_LOOK_S)

    def _look(self) -> None:
        """Connect to the instances that are there now, and let go of those that are gone."""
        wanted = {r.instance.id: r.instance for r in self._place.routes if r.instance.at.startswith("gateway-")}
        now_ns = time.time_ns()
        for name, instance in wanted.items():
            if name not in self._beside and not instance.ended(now_ns):
                lost = functools.partial(self._on_lost, name)
                heard = self._on_frame if instance.role == "canary" else _nothing
                line = Dialler(("127.0.0.1", instance.ports["orders"]), heard, lost)
                stop = threading.Event()
                self._open[name] = {}
                self._beside[name] = (line, stop)
                threading.Thread(target=line.run, args=(_Either(self._stop, stop),), name=name, daemon=True).start()
        for name in [name for name in self._beside if name not in wanted or wanted[name].ended(now_ns - _DRAIN_NS)]:
            self._beside.pop(name)[1].set()

    def _line(self, site: str, number: int) -> tuple[str, Dialler]:
        """The main gateway's line, or that of the canary whose share this order is in, by name."""
        found = canary(self._place.routes, f"gateway-{site}", probe.hash64("order", number), time.time_ns())
        if found and (beside := self._beside.get(found.id)) and beside[0].connected:
            return found.id, beside[0]
        return site, self._lines[site]

    def _copy(self, site: str, order: Order, payload: bytes, origin: Origin) -> None:
        """Send what a shadow gets; nobody listens to what it answers."""
        key = probe.hash64("order", order.id)
        for shadow in shadows(self._place.routes, f"gateway-{site}", key, time.time_ns()):
            beside = self._beside.get(shadow.id)
            if beside is None or not beside[0].connected:
                continue
            for parent in origin.keys:
                probe.link(parent, order.id, parent_space="feed", child_space=SHADOW_SPACE["order"])
            self._place.stamp(self._copied, order.id, mode=Mode.SHADOW, labels=order_labels(order))
            beside[0].send(payload)

    def _on_frame(self, kind: bytes, body: bytes) -> None:
        if kind == REPORT:
            self._report(Report.decode(body))
        elif kind == FILL:
            fill = Fill.decode(body)
            self._place.stamp(self._filled, fill.id)
            self._copies.filled(fill)

    def _on_lost(self, name: str) -> None:
        """What was on its way over the lost connection may or may not have arrived: nobody will report on it."""
        for number in list(self._open[name]):
            self._report(Report(number, Reason.VENUE_DOWN))

    def _report(self, report: Report) -> None:
        """Book the first report on an order; any thread may bring it."""
        order = next((found for orders in list(self._open.values()) if (found := orders.pop(report.id, None))), None)
        if order is not None:
            outcome = OUTCOMES.get(report.reason, Outcome.REJECTED)
            labels = order_labels(order, report.gateway, report.venue)
            self._place.stamp(self._reported, report.id, outcome=outcome, labels=labels)
            self._copies.reported(report)


class _Either:
    """A stop flag that two can raise."""

    def __init__(self, first: Stop | None, second: threading.Event) -> None:
        self._first, self._second = first, second

    def __bool__(self) -> bool:
        return bool(self._first) or self._second.is_set()


def _nothing(_kind: bytes, _body: bytes) -> None:
    """What is done with the answers of a shadow."""
