"""How much a series changed, how sure that is, and which of many changes to believe."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import special

from analytics.changepoints.series import Series


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """One figure before and after, with the interval of the difference; null where steps are too few to tell."""

    name: str
    before: float
    after: float
    low: float | None
    high: float | None


def moved_of(name: str, x: NDArray[np.float64], w: NDArray[np.float64], before: slice, after: slice) -> Moved:
    """Weighted means, and the interval of their difference from how the steps vary (ratio estimates, Welch's t)."""
    means, variances, sizes = [], [], []
    for part in (before, after):
        known = w[part] > 0
        v, u = x[part][known], w[part][known]
        m = len(v)
        mean = float(np.average(v, weights=u)) if m else 0.0
        rest = u * (v - mean)
        # Neighbours that are alike make means less certain: long-run variance up to the second neighbour (Bartlett).
        power = float(rest @ rest) + sum(2 * (1 - k / 3) * float(rest[k:] @ rest[:-k]) for k in (1, 2) if m > k)
        means.append(mean)
        variances.append(max(power, 0.0) / float(u.sum()) ** 2 * m / (m - 1) if m > 1 else np.inf)
        sizes.append(m)
    total = sum(variances)
    off = means[1] - means[0]
    if np.isfinite(total):
        freedom = total**2 / max(1e-300, sum(v**2 / (m - 1) for v, m in zip(variances, sizes, strict=True)))
        half = float(special.stdtrit(max(1.0, freedom), 0.975)) * float(np.sqrt(total))
        return Moved(name=name, before=means[0], after=means[1], low=off - half, high=off + half)
    return Moved(name=name, before=means[0], after=means[1], low=None, high=None)


def cramers_v(one: Series, before: slice, after: slice) -> float:
    """Cramer's V of the table of before and after by value: sqrt(chi-square / n), since one side of it has two rows."""
    table = np.stack([(one.plain[part] * one.weight[part, None]).sum(axis=0) for part in (before, after)])
    n = float(table.sum())
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0, keepdims=True) / n
    cells = np.divide((table - expected) ** 2, expected, out=np.zeros_like(table), where=expected > 0)
    return float(np.sqrt(cells.sum() / n))


def adjusted(p: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's q of each p."""
    n = len(p)
    order = np.argsort(p)
    q = np.empty(n)
    least = 1.0
    for rank in range(n, 0, -1):
        at = order[rank - 1]
        least = min(least, p[at] * n / rank)
        q[at] = least
    return [float(value) for value in q]
