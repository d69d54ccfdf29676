"""Sums per cluster of messages, and intervals that know that messages of one minute and host are not independent.

A burst makes many messages slow at once, so that an interval which takes messages for independent is too narrow. Here
clusters are drawn instead, with replacement: each replicate weights the clusters' sums by multinomial counts (Efron and
Tibshirani, An Introduction to the Bootstrap, 8.5-8.6), so that a replicate costs a row of a matrix product and no
message is touched again.

The tail's begin is itself estimated. Its first-order effect on E[X | T >= t] is (X - m) 1{T >= t} / q, m = E[X | T = t]
(the influence function of an expected shortfall's allocation), so replicates are of these adjusted sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

from analytics.tail.tailset import Cuts, Ints

NS = 1_000_000_000
Floats = NDArray[np.float64]
REPLICATES = 1_000
LEAST = 5  # clusters, below which there is no interval
MOST_CLUSTERS = 20_000


@dataclass(frozen=True, slots=True)
class Sums:
    """Per cluster: messages, and of tail and body how many and the sums of parts, int64[C, parts]. `band` is of all."""

    n: Ints
    tail_n: Ints
    tail: Ints
    body_n: Ints
    body: Ints
    band_n: int
    band: Ints

    def __add__(self, other: Sums) -> Sums:
        """Both, where no cluster is in both."""
        return Sums(
            np.concatenate([self.n, other.n]),
            np.concatenate([self.tail_n, other.tail_n]),
            np.concatenate([self.tail, other.tail]),
            np.concatenate([self.body_n, other.body_n]),
            np.concatenate([self.body, other.body]),
            self.band_n + other.band_n,
            self.band + other.band,
        )


@dataclass(frozen=True, slots=True)
class Replicates:
    """Bootstrap replicates of the tail's and the body's mean parts, float64[R, parts], and how to widen for few."""

    tail: Floats
    body: Floats
    clusters: int

    def interval(self, replicates: Floats, confidence: float) -> tuple[float, float] | None:
        """The percentile interval of one statistic's replicates, float64[R]; None with too few clusters.

        Widened about its middle by t / z and sqrt(C / (C - 1)): resampled clusters are less spread than their source.
        """
        if self.clusters < LEAST:
            return None
        low, high = np.quantile(replicates, [(1 - confidence) / 2, (1 + confidence) / 2])
        middle = float(np.median(replicates))
        wide = float(stats.t.ppf((1 + confidence) / 2, self.clusters - 1) / stats.norm.ppf((1 + confidence) / 2))
        wide *= (self.clusters / (self.clusters - 1)) ** 0.5
        return middle - wide * (middle - float(low)), middle + wide * (float(high) - middle)


def cluster_ns(from_ns: int, to_ns: int) -> int:
    """How long a cluster's time is: a minute, ten seconds where there are few minutes, longer where too many."""
    span = to_ns - from_ns
    if span < 20 * 60 * NS:
        return 10 * NS
    return max(60 * NS, span // MOST_CLUSTERS // NS * NS)


def sums_of(frame: pl.DataFrame, parts: int, cuts: Cuts, length_ns: int, members: pl.DataFrame | None = None) -> Sums:
    """The clusters' sums of a frame with `start_ns`, `host`, `took_ns` and `part_0` ... (`tailset.took`).

    `members` stand for the frame's messages of tail, body and band where only some of them could be looked at.
    """
    columns = [f"part_{i}" for i in range(parts)]
    slot = (pl.col("start_ns") // length_ns).alias("slot")
    whole = frame.lazy().with_columns(slot)
    lazy = whole if members is None else members.lazy().with_columns(slot)
    cluster = ["slot", "host"]
    value = pl.col("took_ns")
    summed = [pl.col(name).sum() for name in columns]
    tail = lazy.filter(value >= cuts.tail_ns).group_by(cluster).agg(pl.len().alias("n"), *summed)
    body = (
        lazy.filter(value.is_between(cuts.body_low_ns, cuts.body_high_ns))
        .group_by(cluster)
        .agg(pl.len().alias("n"), *summed)
    )
    band = lazy.filter(value.is_between(cuts.band_low_ns, cuts.band_high_ns)).select(pl.len().alias("n"), *summed)
    every = whole.group_by(cluster).agg(pl.len().alias("n")).sort(cluster)
    all_of, of_tail, of_body, of_band = pl.collect_all([every, tail, body, band])
    tail_n, tail_sums = _aligned(all_of, of_tail, cluster, columns)
    body_n, body_sums = _aligned(all_of, of_body, cluster, columns)
    band_sums = of_band.select(columns).to_numpy().reshape(-1).astype(np.int64)
    n = all_of["n"].cast(pl.Int64).to_numpy()
    return Sums(n, tail_n, tail_sums, body_n, body_sums, int(of_band["n"][0]), band_sums)


def replicates(sums: Sums, seed: int = 1, count: int = REPLICATES) -> Replicates:
    """Weighted means of `count` draws of the clusters; the same seed gives the same draws."""
    clusters = len(sums.n)
    rng = np.random.default_rng([seed, clusters])
    weights = rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=count).astype(np.float64)
    every = np.maximum(weights @ sums.n, 1.0) / max(int(sums.n.sum()), 1)
    return Replicates(
        _adjusted(weights, every, sums.tail_n, sums.tail, sums.band / max(sums.band_n, 1)),
        _adjusted(weights, every, sums.body_n, sums.body, sums.body.sum(axis=0) / max(int(sums.body_n.sum()), 1)),
        clusters,
    )


def effective(counts: Ints, of: Ints) -> float:
    """How many independent messages say as much about a share: `counts[c]` of `of[c]` per cluster.

    Kish's n / deff; deff is the variance of the ratio between clusters over that of a binomial, at least 1.
    """
    n, total = int(of.sum()), int(counts.sum())
    clusters = len(of)
    if clusters < 2 or not 0 < total < n:
        return float(total)
    p = total / n
    between = float(((counts - p * of) ** 2).sum()) * clusters / (clusters - 1)
    return total / max(1.0, between / (n * p * (1 - p)))


def _adjusted(weights: Floats, every: Floats, n: Ints, sums: Ints, edge: Floats) -> Floats:
    """Replicates of E[X | in] where membership is a fixed share p of all: edge + W (S - edge N) / (p W n).

    `every` is how many messages a replicate has, as a multiple of how many there are.
    """
    scale = every * max(int(n.sum()), 1)
    out: Floats = edge + (weights @ (sums - np.outer(n, edge))) / scale[:, None]
    return out


def _aligned(
    every: pl.DataFrame, some: pl.DataFrame, cluster: Sequence[str], columns: Sequence[str]
) -> tuple[Ints, Ints]:
    """Counts and sums of the clusters of `every`, zeros where there are none."""
    joined = every.select(cluster).join(some, on=list(cluster), how="left", nulls_equal=True, maintain_order="left")
    n = joined["n"].fill_null(0).cast(pl.Int64).to_numpy()
    sums = joined.select(pl.col(name).fill_null(0) for name in columns).to_numpy().astype(np.int64)
    return n, sums.reshape(len(n), len(columns))
