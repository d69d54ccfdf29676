"""Whether more messages of one side are slow: how many exceed a threshold, out of how many.

A test of location is blind to what happens to one message in a hundred; the share above a high quantile of both sides
pooled is not. Two p-values, and the larger one counts:

- Fisher's exact test of the 2x2 table, which takes messages as independent (with more than 500 expected in every cell
  the score test, which then says the same);
- where clusters are known, the ratio estimator's cluster-robust one (Cochran, Sampling Techniques, 6.3): with
  p = sum k_c / sum n_c on each side, cluster c moves the difference by e_c = (k_c - p n_c) / N, those of b minus those
  of a where both have it, Var = C/(C-1) sum e_c^2, and the difference over its standard error is t with C-1 degrees of
  freedom (with no cluster in common those of the smaller side).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from analytics.compare.arms import LEAST_CLUSTERS, Ints

_LARGE = 500.0


@dataclass(frozen=True, slots=True)
class Exceedance:
    """Shares of both sides and how surprising their difference is.

    `p_value` is two-sided, `p_clustered` null without clusters. `design` says how many times the variance of
    independent messages the difference has.
    """

    a: int
    a_total: int
    b: int
    b_total: int
    p_value: float
    p_fisher: float
    p_clustered: float | None
    design: float

    @property
    def difference(self) -> float:
        """Share of b minus share of a."""
        return self.b / self.b_total - self.a / self.a_total


def compare(
    k_a: Ints, n_a: Ints, k_b: Ints, n_b: Ints, cluster_a: Sequence[str] = (), cluster_b: Sequence[str] = ()
) -> Exceedance:
    """Compare k_a of n_a with k_b of n_b, per cluster: int64[clusters]. Without names they are one each."""
    a, total_a, b, total_b = (int(x.sum()) for x in (k_a, n_a, k_b, n_b))
    exact = fisher(a, total_a, b, total_b)
    clustered, design = None, 1.0
    if min(len(cluster_a), len(cluster_b)) >= LEAST_CLUSTERS:
        clustered, design = _clustered(k_a, n_a, k_b, n_b, cluster_a, cluster_b)
    return Exceedance(
        a, total_a, b, total_b, exact if clustered is None else max(exact, clustered), exact, clustered, design
    )


def fisher(a: int, total_a: int, b: int, total_b: int) -> float:
    """Two-sided p-value that both shares are one."""
    total, hits = total_a + total_b, a + b
    if not hits or hits == total or not total_a or not total_b:
        return 1.0
    least = min(total_a, total_b) * min(hits, total - hits) / total
    if least > _LARGE:
        share = hits / total
        error = math.sqrt(share * (1 - share) * (1 / total_a + 1 / total_b))
        return float(2 * special.ndtr(-abs(b / total_b - a / total_a) / error))
    return float(stats.fisher_exact([[a, total_a - a], [b, total_b - b]])[1])


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided exact p-value for pairs: of the pairs that differ, each side is as often the one that exceeds."""
    if not only_a + only_b:
        return 1.0
    return float(stats.binomtest(only_b, only_a + only_b, 0.5).pvalue)


def design_effect(k: Ints, n: Ints) -> float:
    """Variance of the share sum k / sum n over that of independent messages; 1 where it cannot be told."""
    total = int(n.sum())
    share = float(k.sum()) / total if total else 0.0
    if not 0 < share < 1 or len(n) < 2:
        return 1.0
    moved = (k - share * n) / total
    return float(len(n) / (len(n) - 1) * (moved**2).sum() / (share * (1 - share) / total))


def detectable(
    share: float, total_a: int, total_b: int, alpha: float, power: float = 0.8, design: float = 1.0
) -> float:
    """The smallest difference of shares that a test at `alpha` finds with `power` (normal approximation)."""
    if not total_a or not total_b:
        return math.inf
    error = math.sqrt(max(1.0, design) * share * (1 - share) * (1 / total_a + 1 / total_b))
    return float((special.ndtri(1 - alpha / 2) + special.ndtri(power)) * error)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: at most `alpha` of all families have a wrong one below alpha."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.ones(len(p_values))
    largest = 0.0
    for step, at in enumerate(order):
        largest = max(largest, min(1.0, p_values[at] * (len(p_values) - step)))
        adjusted[at] = largest
    return [float(p) for p in adjusted]


def _clustered(
    k_a: Ints, n_a: Ints, k_b: Ints, n_b: Ints, cluster_a: Sequence[str], cluster_b: Sequence[str]
) -> tuple[float | None, float]:
    share_a, share_b = k_a.sum() / n_a.sum(), k_b.sum() / n_b.sum()
    moved = dict.fromkeys((*cluster_a, *cluster_b), 0.0)
    for names, k, n, share, sign in ((cluster_a, k_a, n_a, share_a, -1), (cluster_b, k_b, n_b, share_b, 1)):
        each: NDArray[np.float64] = sign * (k - share * n) / n.sum()
        for name, value in zip(names, each.tolist(), strict=True):
            moved[name] += value
    clusters = len(moved)
    shared = clusters < len(cluster_a) + len(cluster_b)
    freedom = clusters - 1 if shared else min(len(cluster_a), len(cluster_b)) - 1
    variance = clusters / (clusters - 1) * float(sum(e * e for e in moved.values()))
    pooled = (k_a.sum() + k_b.sum()) / (n_a.sum() + n_b.sum())
    independent = pooled * (1 - pooled) * (1 / n_a.sum() + 1 / n_b.sum())
    if not variance or not independent:  # all clusters alike: they say nothing about how they vary
        return None, 1.0
    t = abs(share_b - share_a) / math.sqrt(variance)
    return float(2 * special.stdtr(freedom, -t)), float(variance / independent)
