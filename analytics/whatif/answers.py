"""The answer to a what-if: percentiles before and after, with intervals that know both come from the same messages."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from analytics import buckets
from analytics.compare.arms import LEAST_CLUSTERS, Arm
from analytics.percentiles import minimum_count

QUANTILES: dict[str, float] = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}
RESAMPLES = 300


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """A percentile as it was and as it would be.

    `after_ci` and `change_ci` are 95 % bootstrap intervals over blocks of time (null with fewer than 8 blocks);
    `change` is after / before - 1. `same_time_ns`, of hedging, is the percentile if both requests met the slowness of
    the same second. `refused` says why there is no value.
    """

    name: str
    before_ns: int | None = None
    after_ns: int | None = None
    after_ci: tuple[int, int] | None = None
    change: float | None = None
    change_ci: tuple[float, float] | None = None
    same_time_ns: int | None = None
    refused: str = ""


class WhatIf(msgspec.Struct, frozen=True, kw_only=True):
    """What would be if `what`; `extra_load` is the share of additional requests that it costs (null: none).

    It rests on `messages` messages, of which `sampled` is the share of all; `unfinished` ones are slower than anything.
    """

    what: str
    path: str
    from_ns: int
    to_ns: int
    messages: int
    unfinished: int
    sampled: float
    completeness: float | None
    extra_load: float | None
    effects: list[Effect]
    assumptions: list[str]


def effects(before: Arm, after: Arm) -> list[Effect]:
    """The percentiles of two arms whose clusters are the same messages, in the same order."""
    drawn = None
    if len(before.cluster) >= LEAST_CLUSTERS:
        weights = weights_of(len(before.cluster))
        drawn = [(arm, weights @ arm.n) for arm in (before, after)]
    out = []
    for name, p in QUANTILES.items():
        refused = refusal(name, p, before.count)
        if refused:
            out.append(Effect(name=name, refused=refused))
            continue
        was, would = (int(buckets.midpoint(arm.quantile_bucket(p))) for arm in (before, after))
        intervals: tuple[tuple[int, int] | None, tuple[float, float] | None] = (None, None)
        if drawn is not None:
            intervals = between(*(resampled(arm.bucket, n, p) for arm, n in drawn))
        out.append(made(name, was, would, *intervals))
    return out


def made(
    name: str,
    was: int,
    would: int,
    after_ci: tuple[int, int] | None,
    change_ci: tuple[float, float] | None,
    same_time_ns: int | None = None,
) -> Effect:
    """An effect of known values."""
    return Effect(
        name=name,
        before_ns=was,
        after_ns=would,
        after_ci=after_ci,
        change=would / was - 1 if was > 0 else None,
        change_ci=change_ci,
        same_time_ns=same_time_ns,
    )


def refusal(name: str, quantile: float, count: int) -> str:
    """Why a percentile of so many messages is not given, or nothing."""
    least = minimum_count(quantile)
    return "" if count >= least else f"{name} needs at least {least:,} messages; there are {count:,}"


def weights_of(clusters: int) -> NDArray[np.float64]:
    """How often each cluster is drawn in each resample: float64[resamples, clusters]; the same each time."""
    random = np.random.default_rng(20_260_102)
    return random.multinomial(clusters, np.full(clusters, 1 / clusters), RESAMPLES).astype(np.float64)


def resampled(bucket: NDArray[np.int64], n: NDArray[np.float64], quantile: float) -> NDArray[np.float64]:
    """The quantile of each resample of counts [resamples, buckets], as bucket midpoints."""
    upto = np.cumsum(n, axis=1)
    wanted = np.maximum(1, np.ceil(np.round(quantile * upto[:, -1:], 6)))
    at = np.minimum((upto < wanted).sum(axis=1), len(bucket) - 1)
    return np.asarray(buckets.midpoint(bucket[at]), dtype=np.float64)


def between(was: NDArray[np.float64], would: NDArray[np.float64]) -> tuple[tuple[int, int], tuple[float, float] | None]:
    """95 % intervals of the value after and of the change, of paired resamples."""
    low, high = np.percentile(would, [2.5, 97.5])
    change = None
    if was.min() > 0:
        first, last = np.percentile(would / was - 1, [2.5, 97.5])
        change = (float(first), float(last))
    return (round(float(low)), round(float(high))), change
