"""The inference step's arithmetic: features of the latest quotes, and a small network over them. Pure."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

from api.demo.market_data import Quote

_HIDDEN = 12
_FEATURES = 4


@dataclass(slots=True)
class _Seen:
    mid: float
    trend: float = 0.0
    variance: float = 1.0


@dataclass(slots=True)
class Features:
    """Features of each instrument's quotes, from what has been seen before."""

    _seen: dict[int, _Seen] = field(default_factory=dict)

    def update(self, quote: Quote) -> tuple[float, float, float, float]:
        """Imbalance of the sizes, move, trend and spread, the last three in units of the recent deviation."""
        mid = (quote.bid + quote.ask) / 2
        seen = self._seen.setdefault(quote.instrument, _Seen(mid))
        move = mid - seen.mid
        seen.mid = mid
        seen.trend += 0.2 * (move - seen.trend)
        seen.variance += 0.05 * (move * move - seen.variance)
        deviation = math.sqrt(max(seen.variance, 1e-6))
        imbalance = (quote.bid_size - quote.ask_size) / max(1, quote.bid_size + quote.ask_size)
        return imbalance, move / deviation, seen.trend / deviation, (quote.ask - quote.bid) / deviation


class Model:
    """One hidden layer, tanh; the weights come from a seed, as a trained model's come from a file."""

    def __init__(self, seed: int = 1) -> None:
        rng = random.Random(seed)  # noqa: S311 - weights, not secrets
        self._hidden = [[rng.gauss(0, 0.5) for _ in range(_FEATURES + 1)] for _ in range(_HIDDEN)]
        self._out = [rng.gauss(0, 0.5) for _ in range(_HIDDEN)]

    def score(self, features: tuple[float, float, float, float]) -> float:
        """The move expected, in ticks."""
        a, b, c, d = features
        moved = 0.0
        for (of_a, of_b, of_c, of_d, bias), weight in zip(self._hidden, self._out, strict=True):
            moved += weight * math.tanh(of_a * a + of_b * b + of_c * c + of_d * d + bias)
        return moved
