"""Tests that may be looked at as often as one likes: evidence after every block, wrong at most `alpha` of the time.

Counts (messages above a threshold that was fixed beforehand, errors): given that k_t messages of block t exceed, of
which the canary had the share r_t = n_b / (n_a + n_b) of all messages, the canary's part of the k_t is binomial with
r_t under no difference, and with r_t psi / (1 - r_t + r_t psi) if its rate is psi times the baseline's. The evidence is
the likelihood ratio mixed over psi, a mixture sequential probability ratio test (Robbins 1970; Johari, Koomen, Pekelis
and Walsh 2022):

    E_t = sum_g w_g prod_s psi_g^(b_s) / (1 - r_s + r_s psi_g)^(k_s)        P(exists t: E_t >= 1 / alpha) <= alpha

(Ville's inequality; the true law of the part is hypergeometric, which is smaller in convex order than the binomial
(Hoeffding 1963), so the bound holds for every n.) Each block compares what ran at the same time, so that changes of
load and of the split cancel out. Messages of a burst are not independent. So the log likelihood is divided by the
Pearson dispersion of the blocks where that is above 1, and the block that speaks loudest for a ratio is left out: no
single block decides. Both can only lower E_t.

Means (business measures): Johari's formula for paired differences d_t with variance V,

    L_n = sqrt(V / (V + n tau^2)) exp(n^2 tau^2 mean(d)^2 / (2 V (V + n tau^2)))

Quantiles: the indicator of X <= Q(p) is Bernoulli(p), so the beta-binomial mixture gives ranks that enclose Q(p) at all
times at once (the construction of Howard and Ramdas 2022, section 3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]
LEAST_BLOCKS = 6  # before that the dispersion of blocks says nothing, and nothing is decided
LEAST_DIFFERENCES = 20  # before that a variance estimated from the same differences is not one to rely on
_SPREAD = 1.0  # of log psi in the mixture: rates that differ by a factor of e are found fastest
_GRID = np.linspace(-4.0, 4.0, 161)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the blocks up to now say of the ratio of two rates.

    `p_worse` and `p_better` hold at all times at once (the smallest so far). The interval of the ratio covers at all
    times at once with 1 - alpha; 0 and infinity where nothing exceeds. `design` is the dispersion divided by.
    """

    ratio: float | None
    low: float
    high: float
    p_worse: float
    p_better: float
    design: float
    blocks: int


def evidence(k_a: NDArray[np.int64], n_a: NDArray[np.int64], k_b: NDArray[np.int64], n_b: NDArray[np.int64],
             alpha: float = 0.05) -> Evidence:  # fmt: skip
    """Evidence of blocks in time order: k of n messages exceed, of baseline a and canary b, int64[blocks] each."""
    both = (n_a > 0) & (n_b > 0)
    counts = tuple(x[both].astype(np.float64) for x in (k_a, n_a, k_b, n_b))
    blocks = int(both.sum())
    if not blocks:
        return Evidence(None, 0.0, math.inf, 1.0, 1.0, 1.0, 0)
    whole, guarded, design = paths(*counts)
    worse, better = (_p(guarded, side) for side in (1, -1))
    last = whole[-1]
    # The interval: every ratio that the mixture has not refuted.
    refuted = special.logsumexp(last + _weights(0)) - last >= math.log(1 / alpha)
    kept = np.flatnonzero(~refuted)
    low = 0.0 if not len(kept) or kept[0] == 0 else float(np.exp(_GRID[kept[0] - 1]))
    high = math.inf if not len(kept) or kept[-1] == len(_GRID) - 1 else float(np.exp(_GRID[kept[-1] + 1]))
    return Evidence(mantel_haenszel(*counts), low, high, worse, better, float(design[-1]), blocks)


def paths(k_a: Floats, n_a: Floats, k_b: Floats, n_b: Floats) -> tuple[Floats, Floats, Floats]:
    """log likelihood ratio after each block for every ratio of the grid, the same without the loudest block, and the
    dispersion they were divided by.

    Arrays [..., blocks]; the result is twice [..., blocks, grid] and [..., blocks].
    """
    k, share = k_a + k_b, n_b / (n_a + n_b)
    each = k_b[..., None] * _GRID - k[..., None] * np.log1p(share[..., None] * np.expm1(_GRID))
    design = _dispersion(k_a, n_a, k_b, n_b)
    whole = np.cumsum(each, axis=-2)
    loudest = np.maximum(0.0, np.maximum.accumulate(each, axis=-2))
    return whole / design[..., None], (whole - loudest) / design[..., None], design


def anytime(likelihood: Floats, side: int) -> Floats:
    """log E_t of the mixture over ratios above (1) or below (-1) one, or both (0): [..., blocks]."""
    return np.asarray(special.logsumexp(likelihood + _weights(side), axis=-1))


def mantel_haenszel(k_a: Floats, n_a: Floats, k_b: Floats, n_b: Floats) -> float | None:
    """The ratio of rates, stratified by block; null where the baseline never exceeds."""
    total = n_a + n_b
    below = float((k_a * n_b / total).sum())
    return float((k_b * n_a / total).sum()) / below if below else None


def _dispersion(k_a: Floats, n_a: Floats, k_b: Floats, n_b: Floats) -> Floats:
    """Pearson's, of the canary's part of each block around its own ratio so far, at least 1: [..., blocks]."""
    total, k = n_a + n_b, k_a + k_b
    ratio = (np.cumsum(k_b * n_a / total, axis=-1) + 0.5) / (np.cumsum(k_a * n_b / total, axis=-1) + 0.5)
    share = n_b / total
    blocks = k.shape[-1]
    out = np.ones(k.shape)
    for t in range(LEAST_BLOCKS - 1, blocks):
        now = ratio[..., t, None]
        part = share[..., : t + 1] * now / (1 - share[..., : t + 1] + share[..., : t + 1] * now)
        upto = k[..., : t + 1]
        variance = upto * part * (1 - part)
        squares = (k_b[..., : t + 1] - upto * part) ** 2
        squares = np.divide(squares, variance, out=np.zeros_like(squares), where=variance > 0)
        used = (variance > 0).sum(axis=-1)
        out[..., t] = np.maximum(1.0, squares.sum(axis=-1) / np.maximum(1, used - 1))
    return out


def _p(likelihood: Floats, side: int) -> float:
    if len(likelihood) < LEAST_BLOCKS:
        return 1.0
    return min(1.0, float(np.exp(-anytime(likelihood, side)[LEAST_BLOCKS - 1 :].max())))


def _weights(side: int) -> Floats:
    density = np.exp(-0.5 * (_GRID / _SPREAD) ** 2)
    if side:
        density = np.where(_GRID * side >= 0, density, 0.0)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(density / density.sum()))


def msprt(differences: Floats, variance: float | None = None, tau: float | None = None) -> Floats:
    """Anytime p-values of a mean difference of 0, after each of the differences: float64[n].

    `variance` is that of one difference; without it, it is estimated from the differences so far, and nothing is said
    before LEAST_DIFFERENCES. `tau` is the mixture's standard deviation, by default half of one difference's.
    """
    d = np.asarray(differences, dtype=np.float64)
    n = np.arange(1, len(d) + 1)
    mean = np.cumsum(d) / n
    if variance is None:
        squares = np.cumsum(d**2) - n * mean**2
        v = np.where(n >= LEAST_DIFFERENCES, np.maximum(squares, 0.0) / np.maximum(1, n - 1), np.inf)
    else:
        v = np.full(len(d), float(variance))
    t2 = np.where(np.isfinite(v), v / 4, 0.0) if tau is None else np.full(len(d), tau**2)
    known = np.isfinite(v) & (v > 0)
    v, t2 = np.where(known, v, 1.0), np.where(known, t2, 0.0)
    log_l = 0.5 * np.log(v / (v + n * t2)) + n**2 * t2 * mean**2 / (2 * v * (v + n * t2))
    return np.minimum.accumulate(np.minimum(1.0, np.exp(-np.minimum(log_l, 700.0))))


def quantile_ranks(quantile: float, n: int, alpha: float = 0.05) -> tuple[int, int] | None:
    """1-based ranks whose order statistics enclose the quantile at all n at once with 1 - alpha; None: not bounded yet.

    M_n(s) = B(a + s, b + n - s) / (B(a, b) p^s (1 - p)^(n - s)) with a = 100 p, b = 100 (1 - p); kept are the s with
    M_n(s) < 1 / alpha.
    """
    s = np.arange(n + 1)
    a, b = 100 * quantile, 100 * (1 - quantile)
    log_m = (
        special.betaln(a + s, b + n - s)
        - special.betaln(a, b)
        - s * math.log(quantile)
        - (n - s) * math.log1p(-quantile)
    )
    kept = np.flatnonzero(log_m < math.log(1 / alpha))
    low, high = int(kept[0]), int(kept[-1]) + 1
    return None if low < 1 or high > n else (low, high)


def against(k: NDArray[np.int64], n: NDArray[np.int64], allowed: float) -> float:
    """Anytime p-value that the rate of k in n, int64[blocks], is at most `allowed` (0..1).

    The Poisson likelihood ratio psi^k exp(-n p (psi - 1)), mixed over psi > 1: its mean under a binomial law of rate p
    is at most 1. As in `paths`, dispersion divides it and the loudest block is left out.
    """
    hits, total = k.astype(np.float64), n.astype(np.float64)
    expected = total * allowed
    each = hits[:, None] * _GRID - expected[:, None] * np.expm1(_GRID)
    whole = np.cumsum(each, axis=0)
    loudest = np.maximum(0.0, np.maximum.accumulate(each, axis=0))
    rate = (np.cumsum(hits) + 0.5) / (np.cumsum(expected) + 0.5)
    design = np.ones(len(hits))
    for t in range(LEAST_BLOCKS - 1, len(hits)):
        mean = expected[: t + 1] * rate[t]
        squares = np.divide((hits[: t + 1] - mean) ** 2, mean, out=np.zeros(t + 1), where=mean > 0)
        design[t] = max(1.0, float(squares.sum()) / max(1, int((mean > 0).sum()) - 1))
    return _p((whole - loudest) / design[:, None], 1)
