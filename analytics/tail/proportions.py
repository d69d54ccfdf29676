"""Two shares compared: how far apart, how sure, and how many such comparisons can be wrong.

Interval of a difference: Newcombe, Interval estimation for the difference between independent proportions, Statistics
in Medicine 17 (1998), method 10 (from Wilson's score intervals). Test: Fisher's exact test, one-sided. False
discoveries: Benjamini and Hochberg, Journal of the Royal Statistical Society B 57 (1995); few tests: Holm (1979).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Floats = NDArray[np.float64]


def wilson(hits: ArrayLike, of: ArrayLike, confidence: float) -> tuple[Floats, Floats]:
    """Wilson's score interval of hits / of; [0, 1] where there is nothing."""
    k, n = np.asarray(hits, dtype=np.float64), np.asarray(of, dtype=np.float64)
    z2 = float(stats.norm.ppf((1 + confidence) / 2)) ** 2
    safe = np.maximum(n, 1e-12)
    p = np.clip(k / safe, 0, 1)
    middle = (p + z2 / (2 * safe)) / (1 + z2 / safe)
    half = np.sqrt(z2 * (p * (1 - p) / safe + z2 / (4 * safe * safe))) / (1 + z2 / safe)
    return np.where(n > 0, np.clip(middle - half, 0, 1), 0.0), np.where(n > 0, np.clip(middle + half, 0, 1), 1.0)


def difference(
    hits: ArrayLike, of: ArrayLike, other: ArrayLike, other_of: ArrayLike, confidence: float
) -> tuple[Floats, Floats, Floats]:
    """hits / of - other / other_of, with Newcombe's interval."""
    k1, n1, k2, n2 = (np.asarray(value, dtype=np.float64) for value in (hits, of, other, other_of))
    p1, p2 = k1 / np.maximum(n1, 1e-12), k2 / np.maximum(n2, 1e-12)
    (l1, u1), (l2, u2) = wilson(k1, n1, confidence), wilson(k2, n2, confidence)
    d = p1 - p2
    return d, d - np.sqrt((p1 - l1) ** 2 + (u2 - p2) ** 2), d + np.sqrt((u1 - p1) ** 2 + (p2 - l2) ** 2)


def more(hits: ArrayLike, of: ArrayLike, other: ArrayLike, other_of: ArrayLike) -> Floats:
    """One-sided p-values of "the first share is larger": the hypergeometric tail of the rounded counts."""
    k1, n1, k2, n2 = (np.rint(np.asarray(v, dtype=np.float64)).astype(np.int64) for v in (hits, of, other, other_of))
    k1, k2 = np.minimum(k1, n1), np.minimum(k2, n2)
    out: Floats = np.atleast_1d(stats.hypergeom.sf(k1 - 1, n1 + n2, k1 + k2, n1)).astype(np.float64)
    return np.clip(np.nan_to_num(out, nan=1.0), 0.0, 1.0)


def benjamini_hochberg(p: Floats) -> Floats:
    """Adjusted p-values: rejecting those up to x keeps the expected share of false ones among them at x at most."""
    n = len(p)
    if not n:
        return p
    order = np.argsort(p)
    scaled = p[order] * n / np.arange(1, n + 1)
    out = np.empty(n)
    out[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return out


def holm(p: Floats) -> Floats:
    """Adjusted p-values: rejecting those up to x keeps the chance of any false one at x at most."""
    n = len(p)
    order = np.argsort(p)
    out = np.empty(n)
    out[order] = np.minimum(np.maximum.accumulate(p[order] * (n - np.arange(n))), 1.0)
    return out
