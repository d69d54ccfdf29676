"""What an American option costs, and whether it is quoted. Pure."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

RIGHTS = ("call", "put")
MOST_DAYS = 365
MOST_QUANTITY = 500  # contracts; a larger request is for a person to answer
LEAST_PRICE = 0.05
_YEAR_DAYS = 365.0
_LEAST_HALF_SPREAD = 0.01
_HALF_SPREAD = 0.005  # of the price, for few contracts


class RequestError(ValueError):
    """A request for a quote that makes no sense; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What an instrument is priced with: the spot price, and volatility and interest per year as shares."""

    spot: float
    volatility: float
    interest: float


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for: so many contracts of an option on `symbol` that ends in `days`."""

    symbol: str
    right: str
    strike: float
    days: int
    quantity: int

    @classmethod
    def decode(cls, body: bytes) -> Request:
        """From JSON. Raises RequestError, naming the field that is wrong."""
        try:
            given = json.loads(body)
        except (ValueError, RecursionError):
            raise RequestError("the body is not JSON") from None
        if not isinstance(given, dict):
            raise RequestError("the body is not a JSON object")
        symbol, right = given.get("symbol"), given.get("right")
        if not isinstance(symbol, str) or not 0 < len(symbol) <= 16:
            raise RequestError("symbol: must be a text of 1 to 16 characters")
        if right not in RIGHTS:
            raise RequestError(f"right: must be one of {', '.join(RIGHTS)}")
        strike = given.get("strike")
        if isinstance(strike, bool) or not isinstance(strike, int | float) or not 0 < strike <= 1e6:
            raise RequestError("strike: must be a number above 0 and at most 1000000")
        whole = {}
        for name, most in (("days", MOST_DAYS), ("quantity", 1_000_000)):
            value = given.get(name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
                raise RequestError(f"{name}: must be a whole number from 1 to {most}")
            whole[name] = value
        return cls(symbol, right, float(strike), whole["days"], whole["quantity"])

    def encode(self) -> bytes:
        """As `decode` reads it."""
        fields = {name: getattr(self, name) for name in ("symbol", "right", "strike", "days", "quantity")}
        return json.dumps(fields).encode()


@dataclass(frozen=True, slots=True)
class Decision:
    """Quoted with both sides, or declined for a reason."""

    quoted: bool
    reason: str
    bid: float = 0.0
    ask: float = 0.0

    def encode(self) -> bytes:
        """As JSON."""
        body: dict[str, object] = {"decision": "quoted" if self.quoted else "declined", "reason": self.reason}
        return json.dumps(body | ({"bid": self.bid, "ask": self.ask} if self.quoted else {})).encode()


def steps_of(days: int) -> int:
    """How many steps the tree gets: longer options need more, and take longer."""
    return 20 + days // 5


def price(request: Request, terms: Terms) -> float:
    """The value of one American option in the spot's currency, by a binomial tree.

    Cox, Ross, Rubinstein: Option pricing, a simplified approach. J. Financial Economics 7 (1979) 229-263.
    """
    steps = steps_of(request.days)
    step_years = request.days / _YEAR_DAYS / steps
    up = math.exp(terms.volatility * math.sqrt(step_years))
    discount = math.exp(-terms.interest * step_years)
    rises = (1 / discount - 1 / up) / (up - 1 / up)
    sign = 1.0 if request.right == "call" else -1.0
    spots = [terms.spot * up ** (2 * n - steps) for n in range(steps + 1)]
    values = [max(0.0, sign * (spot - request.strike)) for spot in spots]
    for step in range(steps - 1, -1, -1):
        spots = [spots[n] * up for n in range(step + 1)]
        values = [
            max(sign * (spots[n] - request.strike), discount * (rises * values[n + 1] + (1 - rises) * values[n]))
            for n in range(step + 1)
        ]
    return values[0]


def decide(request: Request, value: float) -> Decision:
    """Whether to quote at this value, and both sides around it: wider for more contracts."""
    if request.quantity > MOST_QUANTITY:
        return Decision(False, f"more than {MOST_QUANTITY} contracts")
    if value < LEAST_PRICE:
        return Decision(False, f"worth less than {LEAST_PRICE}")
    half = max(_LEAST_HALF_SPREAD, _HALF_SPREAD * value * (1 + request.quantity / MOST_QUANTITY))
    return Decision(True, "within limits", round(max(0.01, value - half), 4), round(value + half, 4))
