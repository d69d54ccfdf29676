"""How far a quantile moved: its difference and ratio between two arms, with intervals.

The interval of one arm's quantile is Woodruff's (1952): an interval of the share below it, taken through the inverse of
the empirical distribution. The share's interval is Clopper and Pearson's on the effective number of messages (Korn and
Graubard 1998):

    n* = n / max(1, design effect at the quantile) * (z / t)^2      t with clusters - 1 degrees of freedom

Without clusters n* = n, and the interval is the distribution-free one of order statistics. Differences and ratios are
of independent draws from both sides' Beta(n* p + 1/2, n* (1 - p) + 1/2); the seed is fixed, so the answer is too. Arms
that share bad minutes make these intervals wider than they need to be, never narrower.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from analytics import buckets
from analytics.compare.arms import LEAST_CLUSTERS, Arm
from analytics.compare.exceedance import design_effect
from analytics.percentiles import CONFIDENCE, minimum_count

DRAWS = 4_000


@dataclass(frozen=True, slots=True)
class Level:
    """A quantile of one arm: where, how sure, on how many messages if they were independent."""

    value_ns: int
    low_ns: int
    high_ns: int
    error_ns: int
    effective: float


@dataclass(frozen=True, slots=True)
class Shift:
    """How a quantile of b stands to that of a; `ratio` is null where a's is not positive."""

    difference_ns: int
    difference_low_ns: int
    difference_high_ns: int
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None


def effective(arm: Arm, quantile: float) -> float:
    """How many independent messages say as much about the quantile as these."""
    if arm.clustering == "none" or len(arm.cluster) < LEAST_CLUSTERS:
        return float(arm.count)
    n = np.asarray(arm.n.sum(axis=1))
    keep = n > 0
    freedom = int(keep.sum()) - 1
    if freedom < 1:
        return float(arm.count)
    design = max(1.0, design_effect(arm.above(arm.quantile_bucket(quantile))[keep], n[keep]))
    tail = (1 + CONFIDENCE) / 2
    return float(arm.count / design * (special.ndtri(tail) / special.stdtrit(freedom, tail)) ** 2)


def level(arm: Arm, quantile: float) -> Level | str:
    """The quantile of an arm, or why it is refused."""
    least = minimum_count(quantile)
    if not arm.count:
        return f"{arm.name} has no messages"
    size = effective(arm, quantile)
    if size < least:
        independent = "" if size == arm.count else f", worth {size:,.0f} independent ones"
        return f"needs at least {least:,} samples; {arm.name} has {arm.count:,}{independent}"
    tail = (1 - CONFIDENCE) / 2
    hits = size * quantile
    low = special.betaincinv(hits, size - hits + 1, tail)
    high = special.betaincinv(hits + 1, size - hits, 1 - tail)
    at = arm.quantile_bucket(quantile)
    return Level(
        int(buckets.midpoint(at)),
        int(buckets.low(arm.quantile_bucket(float(low)))),
        int(buckets.high(arm.quantile_bucket(float(high)))),
        int(buckets.half_width(at)),
        size,
    )


def shift(a: Arm, b: Arm, quantile: float) -> Shift:
    """The difference and ratio of a quantile that neither side refuses."""
    random = np.random.default_rng(20_260_101)
    first, second = (_draws(arm, quantile, random) for arm in (a, b))
    tails = [100 * (1 - CONFIDENCE) / 2, 100 * (1 + CONFIDENCE) / 2]
    low, high = np.percentile(second - first, tails)
    at_a, at_b = (float(buckets.midpoint(arm.quantile_bucket(quantile))) for arm in (a, b))
    ratio = ratio_low = ratio_high = None
    if at_a > 0 and first.min() > 0:
        ratio = at_b / at_a
        ratio_low, ratio_high = (float(x) for x in np.percentile(second / first, tails))
    return Shift(round(at_b - at_a), round(low), round(high), ratio, ratio_low, ratio_high)


def _draws(arm: Arm, quantile: float, random: np.random.Generator) -> NDArray[np.float64]:
    size = effective(arm, quantile)
    return inverse(arm, random.beta(size * quantile + 0.5, size * (1 - quantile) + 0.5, DRAWS))


def inverse(arm: Arm, shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of the empirical distribution, linear inside a bucket: float64 in ns for shares of 0..1."""
    n = arm.by_bucket
    upto = np.cumsum(n)
    wanted = np.asarray(shares) * upto[-1]
    at = np.minimum(np.searchsorted(upto, wanted, side="left"), len(n) - 1)
    inside = np.clip((wanted - (upto[at] - n[at])) / np.maximum(n[at], 1), 0.0, 1.0)
    lows, highs = buckets.low(arm.bucket)[at], buckets.high(arm.bucket)[at]
    return np.asarray(lows + inside * (highs - lows), dtype=np.float64)
