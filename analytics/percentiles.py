"""Percentiles of counted latencies: what value, how wrong, how certain, or why none.

Pure arithmetic on a `Counts`: how many latencies lie in each bucket, and what buckets cannot hold exactly (minimum,
maximum, sum). Counts add; percentiles never do.

Rank of the p-quantile of N values:      r = max(1, ceil(p N))
Value:                                   midpoint of the bucket of the r-th smallest, clamped to the exact [min, max]
Distribution-free interval (1 - a):      ranks l = F^-1(a/2), u = F^-1(1 - a/2) + 1 of X ~ Binomial(N, p)
Least N with a bounded interval:         p^N <= a/2 and (1-p)^N <= a/2
(David and Nagaraja, Order Statistics, 7.1). The interval holds for independent latencies; inside a burst they are not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from analytics import buckets

CONFIDENCE = 0.95
# The names every answer has, and their quantiles.
QUANTILES: dict[str, float] = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999, "p99.99": 0.9999}


@dataclass(frozen=True, slots=True)
class Counts:
    """Latencies of one stage: `n[i]` of them in bucket `bucket[i]`, buckets ascending, every n > 0.

    `min_ns`, `max_ns` and `sum_ns` are exact. `unfinished` messages have no value: they took longer than anything that
    is known about them.
    """

    bucket: NDArray[np.int64]
    n: NDArray[np.int64]
    min_ns: int
    max_ns: int
    sum_ns: int
    unfinished: int = 0

    @property
    def count(self) -> int:
        """How many latencies there are."""
        return int(self.n.sum())

    @classmethod
    def of(cls, values: NDArray[Any], unfinished: int = 0) -> Counts:
        """The counts of latencies in nanoseconds, int64[n]."""
        v = np.asarray(values, dtype=np.int64)
        bucket, n = np.unique(buckets.index(v), return_counts=True)
        if not len(v):
            return cls(bucket, n.astype(np.int64), 0, 0, 0, unfinished)
        return cls(bucket, n.astype(np.int64), int(v.min()), int(v.max()), int(v.sum()), unfinished)


@dataclass(frozen=True, slots=True)
class Percentile:
    """One percentile, or the sentence that says why there is none.

    `error_ns` bounds the distance of `value_ns` to the true order statistic; `low_ns` and `high_ns` are the
    distribution-free interval. `with_unfinished_ns` is the percentile if every unfinished message counted as slower
    than all others; None: it would lie among the unfinished (longer than `max_ns`), or was refused.
    """

    name: str
    quantile: float
    value_ns: int | None
    error_ns: int | None = None
    error_relative: float | None = None
    low_ns: int | None = None
    high_ns: int | None = None
    with_unfinished_ns: int | None = None
    refused: str = ""


def percentile(counts: Counts, quantile: float, confidence: float = CONFIDENCE) -> Percentile:
    """The `quantile` (0 < quantile < 1) of `counts`. Raises ValueError for a quantile outside (0, 1)."""
    if not 0.0 < quantile < 1.0:
        raise ValueError(f"quantile must lie between 0 and 1, got {quantile!r}")
    name, total = _name(quantile), counts.count
    needed = minimum_count(quantile, confidence)
    if total < needed:
        return Percentile(
            name, quantile, None, refused=f"{name} needs at least {needed:,} samples, there are {total:,}"
        )
    cumulative = np.cumsum(counts.n)
    at = _bucket_at(counts, cumulative, rank(quantile, total))
    value = _value(counts, at)
    error = _edges(at)[3]
    lower, upper = interval_ranks(quantile, total, confidence)
    censored = total + counts.unfinished
    moved = rank(quantile, censored)
    return Percentile(
        name,
        quantile,
        value,
        error,
        abs(error / value) if value else (0.0 if not error else math.inf),
        max(_edges(_bucket_at(counts, cumulative, lower))[0], counts.min_ns),
        min(_edges(_bucket_at(counts, cumulative, upper))[1], counts.max_ns),
        None if moved > total else _value(counts, _bucket_at(counts, cumulative, moved)),
    )


def percentiles(counts: Counts, quantiles: dict[str, float] | None = None) -> dict[str, Percentile]:
    """`percentile` for each named quantile, by default p50 to p99.99."""
    return {name: percentile(counts, q) for name, q in (quantiles or QUANTILES).items()}


def rank(quantile: float, count: int) -> int:
    """max(1, ceil(p N)), with p taken as the decimal it was written as: 0.99 of 100 is rank 99, not 100."""
    return max(1, math.ceil(round(quantile * count, 6)))


def minimum_count(quantile: float, confidence: float = CONFIDENCE) -> int:
    """The least number of samples for which the two-sided interval is bounded on both sides.

    95 %: p99 368, p99.9 3,688, p99.99 36,887.
    """
    tail = (1.0 - confidence) / 2.0
    return math.ceil(math.log(tail) / math.log(max(quantile, 1.0 - quantile)))


@lru_cache(maxsize=4096)  # the stages of a path mostly have equal counts
def interval_ranks(quantile: float, count: int, confidence: float = CONFIDENCE) -> tuple[int, int]:
    """The 1-based ranks (l, u) whose order statistics enclose the quantile; clamped to 1..count."""
    tail = (1.0 - confidence) / 2.0
    lower = _binomial_inverse(tail, count, quantile)
    upper = _binomial_inverse(1.0 - tail, count, quantile) + 1
    return max(1, lower), min(count, upper)


def _binomial_inverse(level: float, count: int, quantile: float) -> int:
    """The smallest k with P(X <= k) >= level for X ~ Binomial(count, quantile)."""
    spread = math.sqrt(count * quantile * (1.0 - quantile))
    low = max(0, math.floor(count * quantile - 8 * spread) - 2)
    high = min(count, math.ceil(count * quantile + 8 * spread) + 2)
    while low < high:
        middle = (low + high) // 2
        if special.bdtr(middle, count, quantile) >= level:
            high = middle
        else:
            low = middle + 1
    return low


def _bucket_at(counts: Counts, cumulative: NDArray[np.int64], position: int) -> int:
    return int(counts.bucket[int(np.searchsorted(cumulative, position, side="left"))])


def _value(counts: Counts, bucket: int) -> int:
    return min(max(_edges(bucket)[2], counts.min_ns), counts.max_ns)


@lru_cache(maxsize=65_536)  # there are no more buckets
def _edges(bucket: int) -> tuple[int, int, int, int]:
    """Lowest value, highest value, midpoint and half width."""
    return (
        int(buckets.low(bucket)),
        int(buckets.high(bucket)),
        int(buckets.midpoint(bucket)),
        int(buckets.half_width(bucket)),
    )


def _name(quantile: float) -> str:
    return f"p{quantile * 100:.10g}"
