"""How much a percentile has moved between two periods, and how sure that is: whole days are drawn again.

Messages of one burst are not independent, so that an interval that takes them for independent is too narrow. Days (or
hours of a short period) of both periods are drawn with replacement, the percentile of each draw is taken from its
summed counts, and the interval is that of the differences' standard error, by Student's t with as many degrees of
freedom as the period with fewer days has, minus one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analytics import buckets
from analytics.percentiles import minimum_count, rank

LEAST_PARTS = 4
_DRAWS = 400

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Shift:
    """After minus before in ns, with its 95 % interval."""

    change_ns: int
    low_ns: int
    high_ns: int

    @property
    def seen(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low_ns > 0 or self.high_ns < 0


def shift(now: Counts, before: Counts, bucket: NDArray[Any], quantile: float, seed: int = 1) -> Shift | None:
    """The change of a percentile from counts int64[parts, buckets] over `bucket` (ascending indices).

    None where either period has fewer than 4 parts with messages, or too few messages for the percentile.
    """
    from scipy.special import stdtrit

    now, before = (one[one.sum(axis=1) > 0] for one in (now, before))
    parts = min(len(now), len(before))
    if parts < LEAST_PARTS or min(int(now.sum()), int(before.sum())) < minimum_count(quantile):
        return None
    middle, width = buckets.midpoint(bucket), buckets.half_width(bucket)
    rng = np.random.default_rng(seed)
    spread = math.hypot(*(_error(one, middle, quantile, rng) for one in (now, before)))
    at = [_index(one.sum(axis=0), quantile) for one in (now, before)]
    change = int(middle[at[0]] - middle[at[1]])
    # A count knows a value to half a bucket.
    half = float(stdtrit(parts - 1, 0.975)) * spread + float(width[at].sum())
    return Shift(change, round(change - half), round(change + half))


def _error(counts: Counts, middle: NDArray[Any], quantile: float, rng: np.random.Generator) -> float:
    parts = len(counts)
    times = rng.multinomial(parts, np.full(parts, 1 / parts), _DRAWS)
    drawn = np.array([middle[_index(one @ counts, quantile)] for one in times], dtype=np.float64)
    return float(drawn.std(ddof=1) * np.sqrt(parts / (parts - 1)))


def _index(counts: Counts, quantile: float) -> int:
    cumulative = np.cumsum(counts)
    return int(np.searchsorted(cumulative, rank(quantile, int(cumulative[-1])), side="left"))
