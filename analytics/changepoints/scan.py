"""Change points of a series of steps: circular binary segmentation with a test that survives dependent steps.

For every stretch (i, j] of the series the statistic is the weighted distance of its mean from the rest's,

    W_in W_out / W * sum over dimensions of (mean_in - mean_out)^2

which for shares scaled by 1 / sqrt(p) is Pearson's chi-square of the table of stretch and rest. The largest one is
held against the largest ones of the same steps with their blocks of neighbours put in random order: that keeps how much
steps vary and what neighbours have in common, and assumes no distribution. A stretch that passes splits the series,
and the parts are looked at again (Olshen et al. 2004; block permutation after Kirch 2007).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

PERMUTATIONS = 1_999
_ENOUGH = 10  # orders as extreme as the series itself, after which its p is known well enough
_BATCH = 100
MOST_STEPS = 240


@dataclass(frozen=True, slots=True)
class Split:
    """The series changes before step `at`, somewhere in [`low`, `high`]. `p` is of the search that found it."""

    at: int
    low: int
    high: int
    p: float


@dataclass(frozen=True, slots=True)
class Scan:
    """`p` is that of the whole series (no change anywhere), `splits` in order of time."""

    p: float
    splits: tuple[Split, ...]


def block_length(steps: int) -> int:
    """How many neighbours stay together: 0.7 n^(1/3), so that blocks keep what neighbours share and are still many."""
    return max(1, int(0.7 * steps ** (1 / 3) + 0.5))


def scan(
    values: NDArray[Any], weight: NDArray[Any], *, alpha: float = 0.01, least: int = 3, seed: int = 0,
    permutations: int = PERMUTATIONS,
) -> Scan:  # fmt: skip
    """The change points of `values`, float64[steps, dimensions], steps of weight 0 having none.

    `least` is the shortest stretch that is looked for. Raises ValueError for more than 240 steps: put some together.
    """
    x = np.asarray(values, dtype=np.float64)
    x = x[:, None] if x.ndim == 1 else x
    w = np.asarray(weight, dtype=np.float64)
    if len(x) != len(w):
        raise ValueError(f"there are {len(x)} steps and {len(w)} weights")
    if len(x) > MOST_STEPS:
        raise ValueError(f"at most {MOST_STEPS} steps, got {len(x)}; put neighbours together")
    x = np.where(w[:, None] > 0, x, 0.0)
    rng = np.random.default_rng(seed)
    whole: list[float] = []
    places: dict[int, float] = {}
    _search(x, w, 0, len(x), alpha, least, rng, permutations, whole, places)
    edges = [0, *sorted(places), len(x)]
    splits = tuple(
        Split(at, *_place(x, w, edges[k], at, edges[k + 2], rng), places[at]) for k, at in enumerate(edges[1:-1])
    )
    return Scan(whole[0] if whole else 1.0, splits)


def _search(
    x: NDArray[np.float64], w: NDArray[np.float64], begin: int, end: int, alpha: float, least: int,
    rng: np.random.Generator, permutations: int, whole: list[float], places: dict[int, float],
) -> None:  # fmt: skip
    n = end - begin
    if n < 4 * least or np.count_nonzero(w[begin:end]) < 4 * least:
        return
    part, heavy = x[begin:end], w[begin:end]
    best, i, j = _largest(part[None], heavy[None], least)
    p = _p(part, heavy, best[0], least, rng, permutations)
    whole.append(p)
    if p > alpha or best[0] <= 0:
        return
    cuts = [c for c in (int(i[0]), int(j[0])) if 0 < c < n]
    for cut in cuts:
        places[begin + cut] = p
    edges = [0, *cuts, n]
    for low, high in pairwise(edges):
        _search(x, w, begin + low, begin + high, alpha, least, rng, permutations, whole, places)


def _p(
    x: NDArray[np.float64], w: NDArray[np.float64], best: float, least: int, rng: np.random.Generator, most: int
) -> float:
    """The share of orders with a statistic as large; few are drawn when it is not small (Besag and Clifford 1991)."""
    beaten = done = 0
    while done < most:
        many = min(_BATCH, most - done)
        orders = np.stack([_shuffled(len(x), rng) for _ in range(many)])
        beaten += int((_largest(x[orders], w[orders], least)[0] >= best * (1 - 1e-12)).sum())
        done += many
        if beaten >= _ENOUGH:
            return beaten / done
    return (1 + beaten) / (1 + done)


def _shuffled(n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """The steps with their blocks in random order; where blocks begin is random too."""
    length = block_length(n)
    start = int(rng.integers(length))
    cuts = [0, *range(start, n, length), n] if start else [*range(0, n, length), n]
    blocks = [np.arange(a, b) for a, b in pairwise(cuts) if b > a]
    return np.concatenate([blocks[k] for k in rng.permutation(len(blocks))])


def _largest(
    x: NDArray[np.float64], w: NDArray[np.float64], least: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Per series the largest statistic over all stretches (i, j], and i and j. x[r, n, d], w[r, n]."""
    r, n, d = x.shape
    sums = np.concatenate([np.zeros((r, 1, d)), np.cumsum(x * w[:, :, None], axis=1)], axis=1)
    heavy = np.concatenate([np.zeros((r, 1)), np.cumsum(w, axis=1)], axis=1)
    total = heavy[:, -1:]
    mean = sums[:, -1] / np.maximum(total, 1e-300)
    best, at_i, at_j = np.zeros(r), np.zeros(r, dtype=np.int64), np.zeros(r, dtype=np.int64)
    rows = np.arange(r)
    for length in range(least, n - least + 1):
        inside = heavy[:, length:] - heavy[:, : n - length + 1]
        share = inside * (total - inside) / np.maximum(total, 1e-300)
        # mean_in - mean_out = (mean_in - mean) W / W_out
        off = (sums[:, length:] - sums[:, : n - length + 1]) - inside[:, :, None] * mean[:, None, :]
        with np.errstate(divide="ignore", invalid="ignore"):
            found = np.where(share > 0, np.einsum("rid,rid->ri", off, off) / share, 0.0)
        # A stretch that leaves less than `least` at one edge would be a change of too few steps.
        first, last = np.arange(n - length + 1), n - length - np.arange(n - length + 1)
        found[:, ((first > 0) & (first < least)) | ((last > 0) & (last < least))] = 0.0
        i = np.argmax(found, axis=1)
        value = found[rows, i]
        better = value > best
        best = np.where(better, value, best)
        at_i, at_j = np.where(better, i, at_i), np.where(better, i + length, at_j)
    return best, at_i, at_j


def _place(
    x: NDArray[np.float64], w: NDArray[np.float64], begin: int, at: int, end: int, rng: np.random.Generator
) -> tuple[int, int]:
    """The 95 % interval of where the change between two others is: each side's blocks in random order, found again."""
    found = []
    for _ in range(200):
        order = np.concatenate([begin + _shuffled(at - begin, rng), at + _shuffled(end - at, rng)])
        y, v = x[order], w[order]
        sums, heavy = np.cumsum(y * v[:, None], axis=0)[:-1], np.cumsum(v)[:-1]
        total, mean = heavy[-1] + v[-1], np.sum(y * v[:, None], axis=0) / max(1e-300, float(v.sum()))
        share = heavy * (total - heavy) / total
        off = sums - heavy[:, None] * mean
        with np.errstate(divide="ignore", invalid="ignore"):
            gain = np.where(share > 0, np.sum(off**2, axis=1) / share, 0.0)
        found.append(begin + 1 + int(np.argmax(gain)))
    low, high = np.quantile(found, [0.025, 0.975])
    return min(at, int(np.floor(low))), max(at, int(np.ceil(high)))
