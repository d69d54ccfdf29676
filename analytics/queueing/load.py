"""Load against latency, step by step of time: what knees and headroom are fitted to, and how sure the fit is.

Neighbouring steps are alike, so intervals come from resampling blocks of neighbours (Kuensch 1989), not single steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCKS = 30
RESAMPLES = 400


@dataclass(frozen=True, slots=True)
class Load:
    """Equal steps of `step_s` seconds, in time order, also those without messages.

    `start_s` is each step's start; `count` messages that started in it; `late` of them took longer than a threshold or
    never finished; `sum_ns` is what the finished ones took together and `finished` how many they are.
    """

    step_s: int
    start_s: NDArray[np.int64]
    count: NDArray[np.float64]
    late: NDArray[np.float64]
    sum_ns: NDArray[np.float64]
    finished: NDArray[np.float64]

    @property
    def rate_s(self) -> NDArray[np.float64]:
        """Messages per second."""
        return self.count / self.step_s

    @property
    def inside(self) -> NDArray[np.float64]:
        """Messages in the system at a time, by Little's law: rate times mean latency."""
        return self.rate_s * self.sum_ns / np.maximum(self.finished, 1) / 1e9

    def merged(self, least: int = 1_000, fewest: int = 20) -> Load:
        """Neighbours put together until steps have `least` messages on average, as long as `fewest` steps remain.

        The count of a short step strays from the load that made it, by 1 / sqrt(n), and fits to strayed loads are too
        flat: a queue then looks further from its end than it is.
        """
        n = len(self.count)
        every = min(max(1, round(least * n / max(1.0, float(self.count.sum())))), max(1, n // fewest))
        if every == 1:
            return self
        kept = n // every * every

        def total(values: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.asarray(values[:kept].reshape(-1, every).sum(axis=1), dtype=np.float64)

        return Load(
            self.step_s * every,
            self.start_s[:kept:every],
            total(self.count),
            total(self.late),
            total(self.sum_ns),
            total(self.finished),
        )


def resampled(steps: int, rng: np.random.Generator, *, blocks: int = BLOCKS, times: int = RESAMPLES) -> NDArray[Any]:
    """Weights float64[times, steps]: how often each step's block was drawn, blocks of neighbours drawn with return."""
    blocks = min(blocks, steps)
    of = np.arange(steps) * blocks // steps
    return rng.multinomial(blocks, np.full(blocks, 1 / blocks), size=times).astype(np.float64)[:, of]


def limits(values: NDArray[np.float64], confidence: float = 0.95) -> tuple[float, float]:
    """The interval that resampled values give; infinite ones count as larger than all others."""
    ranked = np.sort(np.where(np.isnan(values), np.inf, values))
    n = len(ranked)
    return float(ranked[int((1 - confidence) / 2 * n)]), float(ranked[min(n - 1, int((1 + confidence) / 2 * n))])
