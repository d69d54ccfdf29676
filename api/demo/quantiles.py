"""A distribution of durations as quantiles, and the value in between. Pure."""

from __future__ import annotations

from bisect import bisect_right

Quantiles = tuple[tuple[float, int], ...]  # (quantile 0 to 1, nanoseconds), both ascending


def value_at(quantiles: Quantiles, quantile: float) -> int:
    """The nanoseconds at a quantile (0 to 1), by linear interpolation."""
    i = bisect_right(quantiles, quantile, key=lambda row: row[0])
    if i == 0:
        return quantiles[0][1]
    if i == len(quantiles):
        return quantiles[-1][1]
    (q0, a), (q1, b) = quantiles[i - 1], quantiles[i]
    return round(a + (b - a) * (quantile - q0) / (q1 - q0))
