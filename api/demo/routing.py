"""The gateway's book-keeping: which engine sent which order, the risk gate, and where reports and fills go. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from api.demo.risk import RiskGate
from api.demo.wire import Fill, Order, Reason, Report

P = TypeVar("P")


@dataclass(slots=True)
class Router(Generic[P]):
    """Orders under way. `P` names whoever sent an order; the last `remembered` orders can still be filled."""

    risk: RiskGate = field(default_factory=RiskGate)
    remembered: int = 10_000
    _open: dict[int, P] = field(default_factory=dict)  # sent to the venue, not reported on
    _working: dict[int, P] = field(default_factory=dict)  # accepted, may be filled

    def on_order(self, order: Order, sender: P, now_ns: int) -> Report | None:
        """The refusal to send back, None when the order may go to the venue."""
        reason = self.risk.check(order, now_ns)
        if reason is not Reason.ACCEPTED:
            return Report(order.id, reason)
        self._open[order.id] = sender
        return None

    def on_report(self, report: Report) -> P | None:
        """Whom to tell, None when nobody waits for it."""
        sender = self._open.pop(report.id, None)
        if sender is not None and report.reason is Reason.ACCEPTED:
            self._working[report.id] = sender
            if len(self._working) > self.remembered:
                del self._working[next(iter(self._working))]
        return sender

    def on_fill(self, fill: Fill) -> P | None:
        """Whom to tell, None when the order is not remembered."""
        return self._working.get(fill.id)

    def on_venue_lost(self) -> list[tuple[P, Report]]:
        """Orders that were on their way may or may not have arrived: say so instead of keeping silent."""
        told = [(sender, Report(number, Reason.VENUE_DOWN)) for number, sender in self._open.items()]
        self._open.clear()
        return told
