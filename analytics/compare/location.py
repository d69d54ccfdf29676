"""Whether the whole distribution moved: Mann and Whitney's test on counts. It is blind to the tail alone.

With ties by bucket: U = sum_k b_k (A_below(k) + a_k / 2), mean ab/2, variance
ab/12 ((N + 1) - sum_k (t_k^3 - t_k) / (N (N - 1))) with t_k = a_k + b_k (Lehmann, Nonparametrics, 1.4).
"""

from __future__ import annotations

import math

import numpy as np
from scipy import special

from analytics.compare.arms import Arm, together


def mann_whitney(a: Arm, b: Arm) -> tuple[float, float]:
    """The chance that a message of b is slower than one of a (ties count half), and the two-sided p-value."""
    _, n_a, n_b = together(a, b)
    first, second = n_a.astype(np.float64), n_b.astype(np.float64)
    total_a, total_b = first.sum(), second.sum()
    total = total_a + total_b
    if not total_a or not total_b:
        return 0.5, 1.0
    u = float((second * (np.cumsum(first) - first / 2)).sum())
    tied = first + second
    variance = total_a * total_b / 12 * (total + 1 - float((tied**3 - tied).sum()) / (total * max(1.0, total - 1)))
    slower = float(u / (total_a * total_b))
    if variance <= 0:
        return slower, 1.0
    return slower, float(2 * special.ndtr(-abs(u - total_a * total_b / 2) / math.sqrt(variance)))
