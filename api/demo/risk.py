"""The gateway's check before an order leaves the house: size, value, rate. Pure: the time is passed in."""

from __future__ import annotations

from dataclasses import dataclass, field

from api.demo.wire import Order, Reason


@dataclass(slots=True)
class RiskGate:
    """Limits per order, and a token bucket per instrument."""

    max_quantity: int = 1_200
    max_value: int = 20_000_000  # quantity x price in ticks
    rate_per_s: float = 200.0
    burst: float = 50.0
    _tokens: dict[int, tuple[float, int]] = field(default_factory=dict)  # instrument -> tokens, when (ns)

    def check(self, order: Order, now_ns: int) -> Reason:
        """ACCEPTED, or the first limit the order breaks."""
        if order.quantity > self.max_quantity:
            return Reason.TOO_LARGE
        if order.quantity * order.price > self.max_value:
            return Reason.TOO_COSTLY
        tokens, since = self._tokens.get(order.instrument, (self.burst, now_ns))
        tokens = min(self.burst, tokens + (now_ns - since) * 1e-9 * self.rate_per_s)
        allowed = tokens >= 1
        self._tokens[order.instrument] = (tokens - 1 if allowed else tokens, now_ns)
        return Reason.ACCEPTED if allowed else Reason.TOO_FAST
