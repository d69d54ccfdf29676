"""Comparing only what is alike: within-stratum slopes with errors by cluster.

`y = b x + controls + one level per stratum + error`, where errors of one cluster (a block of time, an assigned unit)
may depend on each other in any way. With 30 clusters and more the interval is b +- t(G-1) se with the sandwich of
clusters (CR1, as Stata and statsmodels). With fewer that is too narrow, and the interval is the set of slopes that the
restricted wild cluster bootstrap does not reject (Cameron, Gelbach and Miller 2008; six-point weights of Webb 2014).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analytics.compare.arms import LEAST_CLUSTERS
from analytics.money.effects import (
    LEVEL,
    Design,
    Effect,
    Floats,
    Ints,
    SensitivityError,
    Words,
    critical,
    estimated,
    finite,
    interval_of,
    refused,
)

WILD_BELOW = 30
_DRAWS = 999
_WEBB = np.sqrt(np.array([1.5, 1.0, 0.5])).tolist()


@dataclass(frozen=True, slots=True)
class Within:
    """Columns with their stratum's mean (and the controls) taken out, on the rows that can say something.

    `y`, `x` float64[n]; `z` float64[n, instruments]; `q` float64[n, controls] orthonormal; `kept` is of
    the rows given. `parameters` counts everything that was fitted beside the slope.
    """

    y: Floats
    x: Floats
    z: Floats
    q: Floats
    cluster: Ints
    stratum: Ints
    kept: NDArray[np.bool_]
    parameters: int

    @property
    def clusters(self) -> int:
        """How many clusters the rows belong to."""
        return int(self.cluster.max()) + 1 if len(self.cluster) else 0

    @property
    def strata(self) -> int:
        """How many strata have rows."""
        return int(self.stratum.max()) + 1 if len(self.stratum) else 0

    def correction(self) -> float:
        """CR1: G/(G-1) (n-1)/(n-k)."""
        g, n = self.clusters, len(self.y)
        return g / (g - 1) * (n - 1) / (n - self.parameters - 1)


def codes(*columns: NDArray[np.generic] | Sequence[object]) -> Ints:
    """One code per combination of the columns' values, from 0: the strata of segment x hour x load decile."""
    combined = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        _, at = np.unique(np.asarray(column), return_inverse=True)
        _, combined = np.unique(combined * (int(at.max(initial=0)) + 1) + at, return_inverse=True)
    return np.asarray(combined, dtype=np.int64)


def deciles(values: Floats) -> Ints:
    """The tenth of the values that each is in, 0 to 9; equal values share one."""
    edges = np.quantile(values, np.arange(1, 10) / 10)
    return np.asarray(np.searchsorted(edges, values, side="left"), dtype=np.int64)


def _demeaned(columns: Floats, stratum: Ints, size: Floats) -> Floats:
    out = np.empty_like(columns)
    for j in range(columns.shape[1]):
        means = np.bincount(stratum, weights=columns[:, j], minlength=len(size)) / size
        out[:, j] = columns[:, j] - means[stratum]
    return out


def within(
    y: Floats,
    x: Floats,
    cluster: Ints,
    stratum: Ints | None = None,
    controls: Sequence[Floats] = (),
    instruments: Sequence[Floats] = (),
) -> Within:
    """Take the strata's means and the controls out. Rows alone in their stratum say nothing and are left out."""
    y = finite("kpi", y)
    n = len(y)
    x = finite("exposure", x, n)
    groups = codes(cluster)
    levels = np.zeros(n, dtype=np.int64) if stratum is None else codes(stratum)
    for name, codes_ in (("cluster", groups), ("stratum", levels)):
        if len(codes_) != n:
            raise SensitivityError(f"{name}: must be one column of {n} values")
    others = [finite(f"control {i}", c, n) for i, c in enumerate(controls)]
    assigned = [finite(f"instrument {i}", c, n) for i, c in enumerate(instruments)]
    kept = np.bincount(levels)[levels] > 1 if n else np.zeros(0, dtype=bool)
    levels, groups = codes(levels[kept]), codes(groups[kept])
    size = np.maximum(np.bincount(levels), 1).astype(np.float64)
    table = np.column_stack([c[kept] for c in (y, x, *assigned, *others)])
    table = _demeaned(table, levels, size)
    first = 2 + len(assigned)
    q = table[:, first:]
    if q.shape[1]:
        u, s, _ = np.linalg.svd(q, full_matrices=False)
        q = u[:, s > s.max(initial=0.0) * 1e-10]
        table = table[:, :first] - q @ (q.T @ table[:, :first])
    return Within(
        table[:, 0],
        table[:, 1],
        table[:, 2:first],
        q,
        groups,
        levels,
        kept,
        (int(levels.max()) + 1 if len(levels) else 0) + q.shape[1],
    )


def slope(data: Within) -> tuple[float, float]:
    """The slope and its CR1 standard error."""
    xx = float(data.x @ data.x)
    b = float(data.x @ data.y) / xx
    scores = np.bincount(data.cluster, weights=data.x * (data.y - b * data.x))
    return b, float(np.sqrt(data.correction() * (scores @ scores)) / xx)


class WildBootstrap:
    """The restricted wild cluster bootstrap of one slope: p values of hypotheses, and the interval inverting them."""

    def __init__(self, data: Within, seed: int = 1) -> None:
        g, strata = data.clusters, data.strata
        self._xx = float(data.x @ data.x)
        self._xxg = np.bincount(data.cluster, weights=data.x * data.x, minlength=g)
        self._xyg = np.bincount(data.cluster, weights=data.x * data.y, minlength=g)
        self.b = float(self._xyg.sum() / self._xx)
        cell = data.cluster * strata + data.stratum

        def summed(column: Floats) -> Floats:
            return np.asarray(np.bincount(cell, weights=column, minlength=g * strata).reshape(g, strata), np.float64)

        def by_control(column: Floats) -> Floats:
            sums = [np.bincount(data.cluster, weights=column * q, minlength=g) for q in data.q.T]
            return np.column_stack(sums) if sums else np.zeros((g, 1))

        # Drawn errors are no longer free of the strata's means: what taking them out again does to each cluster's score
        # is linear in the weights, and so a matrix of clusters by clusters.
        size = np.bincount(data.stratum, minlength=strata)
        x_mean = summed(data.x) / size
        qx, qy = by_control(data.x), by_control(data.y)
        self._of_y = x_mean @ summed(data.y).T + qx @ qy.T
        self._of_x = x_mean @ summed(data.x).T + qx @ qx.T
        rng = np.random.default_rng(seed)
        self._w = rng.choice([*_WEBB, *(-one for one in _WEBB)], size=(_DRAWS, g))

    def p_value(self, null: float) -> float:
        """How probable as large a t statistic is where the slope is `null`."""
        score = self._xyg - null * self._xxg
        difference = float(score.sum()) / self._xx
        observed = abs(difference) / np.sqrt(np.sum((score - difference * self._xxg) ** 2))
        drawn = self._w @ score / self._xx
        rest = self._w * score - self._w @ (self._of_y - null * self._of_x).T - drawn[:, None] * self._xxg
        t = np.abs(drawn) / np.sqrt(np.maximum((rest**2).sum(axis=1), 1e-300))
        return float((1 + (t >= observed * (1 - 1e-12)).sum()) / (1 + _DRAWS))

    def interval(self, se: float) -> tuple[float, float]:
        """The slopes around the estimate whose p value is more than 5 %; infinite where nothing is rejected."""
        return self._end(-se), self._end(se)

    def _end(self, step: float) -> float:
        inside, outside = self.b, self.b + 2 * step
        for _ in range(20):
            if self.p_value(outside) <= 1 - LEVEL:
                break
            inside, outside = outside, self.b + 2 * (outside - self.b)
        else:
            return float(np.copysign(np.inf, step))
        while abs(outside - inside) > 1e-3 * abs(step):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if self.p_value(middle) > 1 - LEVEL else (inside, middle)
        return outside


def too_little(data: Within) -> str:
    """Why nothing can be estimated from this, or nothing."""
    if data.clusters < LEAST_CLUSTERS:
        return f"{data.clusters} clusters are fewer than {LEAST_CLUSTERS}; take a longer time, or shorter blocks."
    if len(data.y) <= data.parameters + 2:
        return "There are hardly more observations than strata; take coarser strata."
    if not float(data.x @ data.x) > 1e-18 * len(data.x) * max(1.0, float(np.abs(data.x).max())):
        return "The exposure does not vary within the strata."
    return ""


def compared(design: Design, data: Within, words: Words, seed: int = 1) -> Effect:
    """The slope within strata as an effect of `design`, with the interval that its number of clusters allows."""
    n, g, strata = len(data.y), data.clusters, data.strata
    method = "within-stratum slope, errors by cluster"
    reason = too_little(data)
    if reason:
        return refused(design, method, reason, n, g, strata)
    b, se = slope(data)
    if g >= WILD_BELOW:
        return estimated(design, method, words, b, se, interval_of(b, se, g), n, g, strata)
    method = "within-stratum slope, wild cluster bootstrap"
    low, high = WildBootstrap(data, seed).interval(se)
    if not (np.isfinite(low) and np.isfinite(high)):
        return refused(design, method, "No slope can be ruled out with so few clusters.", n, g, strata)
    return estimated(design, method, words, b, (high - low) / (2 * critical(g)), (low, high), n, g, strata)
