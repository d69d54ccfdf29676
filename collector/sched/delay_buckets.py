"""Delays in HdrHistogram's log-linear buckets, and percentiles from them.

The index is that of the whole product (docs/architecture.md, "Numbers"): 7 sub-bucket bits, so 128 buckets per power
of two, width 0.78 %, error of a midpoint 0.39 %. `runq_program` computes the same index inside the kernel.

    v < 256:  index = v
    else:     shift = floor(log2 v) - 7,  index = 128 shift + (v >> shift)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SUB_BUCKETS = 128
MAX_EXPONENT = 36  # 2^36 ns = 68.7 s; anything longer is counted in the last bucket, the maximum stays exact
BUCKETS = (MAX_EXPONENT - 8) * SUB_BUCKETS + 2 * SUB_BUCKETS
CONFIDENCE = 0.95


def bucket_index(delay_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """The bucket of every delay (ns, not negative): int64[n] in, int64[n] out."""
    clamped: NDArray[np.int64] = np.minimum(delay_ns, np.int64((1 << MAX_EXPONENT) - 1))
    # frexp is exact below 2^53 and gives the bit length without a logarithm's rounding.
    bits = np.frexp(clamped.astype(np.float64))[1].astype(np.int64)
    shift = np.maximum(bits - 8, np.int64(0))
    index: NDArray[np.int64] = shift * SUB_BUCKETS + (clamped >> shift)
    return index


def bucket_bounds(index: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The lowest and highest delay (ns) that falls into each bucket."""
    shift = np.maximum(index // SUB_BUCKETS - 1, np.int64(0))
    low = (index - shift * SUB_BUCKETS) << shift
    return low, low + (np.int64(1) << shift) - 1


@dataclass(frozen=True, slots=True)
class Quantile:
    """A percentile of counted delays, or why there is none."""

    value_ns: float | None
    refused: str = ""


def quantile(counts: NDArray[np.integer], p: float, max_ns: int) -> Quantile:
    """The p-quantile: the midpoint of the bucket that holds rank max(1, ceil(p n)), at most `max_ns`.

    Refused below ln((1 - confidence) / 2) / ln(p) samples: with fewer, the distribution-free 95 % interval of order
    statistics (David and Nagaraja, Order Statistics, 7.1) has no upper end inside the sample.
    """
    total = int(counts.sum())
    needed = samples_needed(p)
    if total < needed:
        return Quantile(None, f"p{100 * p:g} needs at least {needed:,} samples, there are {total:,}")
    rank = max(1, math.ceil(round(p * total, 6)))
    index = int(np.searchsorted(np.cumsum(counts), rank))
    low, high = bucket_bounds(np.array([index]))
    return Quantile(min((int(low[0]) + int(high[0])) / 2, float(max_ns)))


def samples_needed(p: float) -> int:
    """The smallest sample for which `quantile` answers."""
    return math.ceil(math.log((1 - CONFIDENCE) / 2) / math.log(p))
