"""The back office's book-keeping: drop copies in, settled orders out. Pure: every time comes with an event.

An order is settled `SETTLE_NS` after its report, with what has been filled until then, or `UNREPORTED_NS` after it was
sent when nobody reports on it. Only then the customer reacts.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

from tailsight_probe import hash64

from api.demo.drop_copy import Copy, Filled, Reported, Sent
from api.demo.market import SITE_OF, SYMBOLS
from api.demo.outcome_rule import Experience, LoadMeter, OutcomeRule, customer_of, react
from api.demo.wire import OFFERS, Reason

SETTLE_NS = 2_000_000_000
UNREPORTED_NS = 10_000_000_000
MOST_OPEN = 50_000


@dataclass(frozen=True, slots=True)
class Settled:
    """One row of the blotter; docs/demo.md describes the columns, which are these fields in this order."""

    order_id: str
    message_key: str
    sent_ns: int
    reported_ns: int | None
    trading_second: int
    symbol: str
    site: str
    offer_type: str
    side: str
    quantity: int
    price_ticks: int
    cohort: str
    channel: str
    region: str
    status: str
    reason: str
    success: int
    filled_quantity: int
    average_price_ticks: float | None
    slippage_ticks: float | None
    converted: int
    revenue_cents: int


@dataclass(slots=True)
class _Open:
    sent: Sent
    load: float
    report: Reported | None = None
    filled: int = 0
    notional: int = 0


@dataclass(slots=True)
class Blotter:
    """Orders that are not settled yet. `day_s` gives the second of the trading day for a time (REALTIME, ns)."""

    rule: OutcomeRule
    load: LoadMeter
    day_s: Callable[[int], float]
    unknown: int = 0  # copies of orders that were never heard of, or long ago
    pushed_out: int = 0  # orders that were settled early, because too many were open
    _open: dict[int, _Open] = field(default_factory=dict)
    _due: list[tuple[int, int]] = field(default_factory=list)  # when, order

    def take(self, copy: Copy) -> None:
        """Book one event."""
        if isinstance(copy, Sent):
            self._open[copy.order.id] = _Open(copy, self.load.sent(copy.at_ns))
            heapq.heappush(self._due, (copy.at_ns + UNREPORTED_NS, copy.order.id))
            return
        number = copy.report.id if isinstance(copy, Reported) else copy.fill.id
        order = self._open.get(number)
        if order is None:
            self.unknown += 1
        elif isinstance(copy, Filled):
            order.filled += copy.fill.quantity
            order.notional += copy.fill.quantity * copy.fill.price
        elif order.report is None:
            order.report = copy
            heapq.heappush(self._due, (copy.at_ns + SETTLE_NS, number))

    def settle(self, now_ns: int) -> list[Settled]:
        """The orders whose time has come."""
        rows = []
        while self._due and (self._due[0][0] <= now_ns or len(self._open) > MOST_OPEN):
            at_ns, number = heapq.heappop(self._due)
            order = self._open.get(number)
            if order is None:
                continue  # settled after its report
            self.pushed_out += at_ns > now_ns
            del self._open[number]
            rows.append(self._settled(order))
        return rows

    def close(self) -> list[Settled]:
        """All that is left, as the day ends."""
        rows = [self._settled(order) for order in self._open.values()]
        self._open.clear()
        self._due.clear()
        return rows

    def _settled(self, open_: _Open) -> Settled:
        order, sent, reported = open_.sent.order, open_.sent, open_.report
        reason = reported.report.reason if reported else None
        accepted = reason is Reason.ACCEPTED
        day_s = self.day_s(sent.at_ns)
        known = 0 <= order.instrument < len(SYMBOLS)
        filled = min(open_.filled, order.quantity)
        average = open_.notional / open_.filled if open_.filled else None
        against = 1 if order.side == b"B" else -1
        customer = customer_of(self.rule, order.id, day_s)
        seen = Experience(
            latency_ns=reported.monotonic_ns - sent.intended_ns if reported else None,
            data_age_ns=sent.data_age_ns,
            load=open_.load,
            day_s=day_s,
            offer_type=OFFERS[order.offer],
            accepted=accepted,
            filled_notional=open_.notional,
        )
        reaction = react(self.rule, order.id, customer, seen)
        return Settled(
            order_id=str(order.id),
            message_key=f"0x{hash64('order', order.id):016x}",
            sent_ns=sent.at_ns,
            reported_ns=reported.at_ns if reported else None,
            trading_second=int(day_s),
            symbol=SYMBOLS[order.instrument] if known else "",
            site=SITE_OF[order.instrument] if known else "",
            offer_type=seen.offer_type,
            side="buy" if order.side == b"B" else "sell",
            quantity=order.quantity,
            price_ticks=order.price,
            cohort=customer.cohort,
            channel=customer.channel,
            region=customer.region,
            status=_status(reason),
            reason="" if reason is None else reason.name.lower(),
            success=int(accepted),
            filled_quantity=filled,
            average_price_ticks=average,
            slippage_ticks=None if average is None else against * (average - order.price),
            converted=int(reaction.converted),
            revenue_cents=reaction.revenue_cents,
        )


def _status(reason: Reason | None) -> str:
    if reason is None:
        return "unreported"
    return {Reason.ACCEPTED: "accepted", Reason.VENUE_DOWN: "error"}.get(reason, "rejected")
