"""Which of two irregularly sampled series leads, and by how long: the discrete correlation function.

    DCF(tau) = mean of (a_i - mean a)(b_j - mean b) / (sd a * sd b)   over pairs with t_bj - t_ai in the bin of tau

(Edelson and Krolik 1988). Nothing is interpolated. What both share with the time of day is removed first, or they would
"lead" each other by whatever the day does. Two smooth series that have nothing to do with each other correlate by
chance: the largest |DCF| is held against that of series whose order in time is kept, but shifted in a circle against
the other's. The lag is the centroid of the peak, its interval by resampling blocks of time.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from analytics.percentiles import CONFIDENCE

SURROGATES = 499
RESAMPLES = 300
_BLOCKS = 20
_FEWEST = 50
_MOST = 4_000_000  # readings of the first series times bins
_DAY_NS = 86_400_000_000_000
_HOUR_NS = 3_600_000_000_000


class Lag(msgspec.Struct, frozen=True, kw_only=True):
    """How two series go together. `lag_ns` > 0: the first leads; null when nothing beyond chance is seen.

    `p` is the share of shifted series with a correlation at some lag as large as the largest here; `low_ns` and
    `high_ns` are the lag's interval. `lags_ns` and `correlation` (null: no pairs) are the whole function.
    """

    lag_ns: int | None
    low_ns: int | None
    high_ns: int | None
    peak: float | None
    p: float | None
    first_count: int
    second_count: int
    lags_ns: list[int]
    correlation: list[float | None]
    refused: str
    sentence: str


def lag(
    first_ns: NDArray[np.int64],
    first: NDArray[Any],
    second_ns: NDArray[np.int64],
    second: NDArray[Any],
    *,
    longest_ns: int,
    bin_ns: int,
    seed: int = 0,
    surrogates: int = SURROGATES,
    significance: float = 0.01,
    confidence: float = CONFIDENCE,
) -> Lag:
    """The lag of `second` behind `first`, up to `longest_ns` either way in bins of `bin_ns`.

    Raises ValueError for a bin that is not positive or longer than half the reach, or more than 2,001 bins.
    """
    if not 0 < bin_ns <= longest_ns:
        raise ValueError(f"the bin must be longer than 0 and at most the longest lag {longest_ns}, got {bin_ns}")
    half = longest_ns // bin_ns
    if half > 1_000:
        raise ValueError(f"{2 * half + 1:,} bins are too many; use bins of at least {longest_ns // 1_000} ns")
    centres = np.arange(-half, half + 1, dtype=np.int64) * bin_ns
    ta, a = _ordered(first_ns, first)
    every = -(-len(a) * len(centres) // _MOST)
    ta, a = ta[:: max(1, every)], a[:: max(1, every)]  # the memory is bounded; the other series stays whole
    tb, b = _ordered(second_ns, second)

    def refuse(why: str) -> Lag:
        return Lag(
            lag_ns=None, low_ns=None, high_ns=None, peak=None, p=None, first_count=len(a), second_count=len(b),
            lags_ns=[], correlation=[], refused=why, sentence=why,
        )  # fmt: skip

    if min(len(a), len(b)) < _FEWEST:
        return refuse(f"each series needs at least {_FEWEST} readings, there are {len(a):,} and {len(b):,}")
    span = min(ta[-1], tb[-1]) - max(ta[0], tb[0])
    if span < 10 * longest_ns:
        return refuse(f"both must be known for at least 10 times the longest lag, {10 * longest_ns / 1e9:g} s")
    a, b = _without_day(ta, a), _without_day(tb, b)
    if a.std() == 0 or b.std() == 0:
        return refuse("a series that never changes neither leads nor lags")
    a, b = (a - a.mean()) / a.std(), (b - b.mean()) / b.std()
    starts, ends = _reach(ta, tb, centres, bin_ns)
    pairs = (ends - starts).astype(np.float64)
    total = pairs.sum(axis=0)
    known = total >= _FEWEST
    if not known.any():
        return refuse("too few pairs of readings lie within the longest lag")
    sums = _sums(a, b, starts, ends)
    dcf = np.where(known, sums.sum(axis=0) / np.maximum(total, 1), np.nan)
    peak = int(np.nanargmax(np.abs(dcf)))
    rng = np.random.default_rng(seed)
    # A shift of less than the longest lag would leave what is looked for within reach.
    least = max(1, int(np.searchsorted(tb, tb[0] + 2 * longest_ns)))
    most = max(least + 1, len(b) - least)
    beaten = 0
    for by in rng.integers(least, most, surrogates):
        shifted = np.where(known, _totals(a, np.roll(b, by), starts, ends) / np.maximum(total, 1), 0.0)
        beaten += int(np.max(np.abs(shifted)) >= abs(dcf[peak]))
    p = (1 + beaten) / (1 + surrogates)
    course = [None if np.isnan(v) else float(v) for v in dcf]
    if p > significance:
        return Lag(
            lag_ns=None, low_ns=None, high_ns=None, peak=float(dcf[peak]), p=p, first_count=len(a),
            second_count=len(b), lags_ns=centres.tolist(), correlation=course, refused="",
            sentence=f"no lag stands out: series shifted at random correlate as much in {p:.1%} of the tries",
        )  # fmt: skip
    at = _centroid(dcf, peak, centres)
    block = np.clip((ta - ta[0]) * _BLOCKS // max(1, int(ta[-1] - ta[0])), 0, _BLOCKS - 1)
    by_block = np.stack([np.bincount(block, weights=sums[:, k], minlength=_BLOCKS) for k in range(len(centres))], 1)
    n_block = np.stack([np.bincount(block, weights=pairs[:, k], minlength=_BLOCKS) for k in range(len(centres))], 1)
    drawn = rng.multinomial(_BLOCKS, np.full(_BLOCKS, 1 / _BLOCKS), size=RESAMPLES).astype(np.float64)
    again = np.where(known, (drawn @ by_block) / np.maximum(drawn @ n_block, 1), 0.0) * np.sign(dcf[peak])
    lags = np.array([_centroid(row, int(np.argmax(row)), centres) for row in again])
    low, high = np.quantile(lags, [(1 - confidence) / 2, (1 + confidence) / 2])
    low, high = min(low, at - bin_ns / 2), max(high, at + bin_ns / 2)  # a bin cannot tell more than its width
    who = "the first leads" if low > 0 else "the second leads" if high < 0 else "neither is shown to lead"
    return Lag(
        lag_ns=round(at), low_ns=round(low), high_ns=round(high), peak=float(dcf[peak]), p=p, first_count=len(a),
        second_count=len(b), lags_ns=centres.tolist(), correlation=course, refused="",
        sentence=f"{who}: correlation {dcf[peak]:.2f} at {at / 1e6:.3g} ms [{low / 1e6:.3g}, {high / 1e6:.3g}],"
        f" p = {p:.3f}. Leading is not causing",
    )  # fmt: skip


def last_before(
    at_ns: NDArray[np.int64], read_ns: NDArray[np.int64], value: NDArray[Any], *, longest_ns: int
) -> NDArray[np.float64]:
    """For each moment the last reading strictly before it, NaN when that is more than `longest_ns` old or absent.

    A reading at the same moment may have been taken after what happened then: it is not used.
    """
    order = np.argsort(read_ns, kind="stable")
    times, values = np.asarray(read_ns, dtype=np.int64)[order], np.asarray(value, dtype=np.float64)[order]
    at = np.asarray(at_ns, dtype=np.int64)
    if not len(times):
        return np.full(len(at), np.nan)
    i = np.searchsorted(times, at, side="left") - 1
    found = values[np.maximum(i, 0)]
    fresh = (i >= 0) & (at - times[np.maximum(i, 0)] <= longest_ns)
    return np.where(fresh, found, np.nan)


def _ordered(times: NDArray[np.int64], values: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    t, v = np.asarray(times, dtype=np.int64), np.asarray(values, dtype=np.float64)
    known = ~np.isnan(v)
    order = np.argsort(t[known], kind="stable")
    return t[known][order], v[known][order]


def _without_day(times: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Less the mean of its hour of the day where there are at least two days, else less a straight line."""
    if len(times) and times[-1] - times[0] >= 2 * _DAY_NS:
        hour = (times % _DAY_NS) // _HOUR_NS
        mean = np.bincount(hour, weights=values) / np.maximum(np.bincount(hour), 1)
        return np.asarray(values - mean[hour], dtype=np.float64)
    x = (times - times[0]).astype(np.float64)
    x -= x.mean()
    slope = float(x @ values) / float(x @ x) if x.any() else 0.0
    return np.asarray(values - values.mean() - slope * x, dtype=np.float64)


def _reach(
    ta: NDArray[np.int64], tb: NDArray[np.int64], centres: NDArray[np.int64], bin_ns: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Per reading of the first series and bin, the range of the second's readings that lie in it."""
    edges = np.append(centres - bin_ns // 2, centres[-1] - bin_ns // 2 + bin_ns)
    at = np.searchsorted(tb, ta[:, None] + edges[None, :], side="left").astype(np.int64)
    return at[:, :-1], at[:, 1:]


def _sums(
    a: NDArray[np.float64], b: NDArray[np.float64], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> NDArray[np.float64]:
    run = np.concatenate([[0.0], np.cumsum(b)])
    return np.asarray(a[:, None] * (run[ends] - run[starts]), dtype=np.float64)


def _totals(
    a: NDArray[np.float64], b: NDArray[np.float64], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> NDArray[np.float64]:
    run = np.concatenate([[0.0], np.cumsum(b)])
    return np.asarray(a @ (run[ends] - run[starts]), dtype=np.float64)


def _centroid(course: NDArray[np.float64], peak: int, centres: NDArray[np.int64]) -> float:
    """The centre of mass of the neighbours of the peak that reach 80 % of it."""
    height = np.nan_to_num(course * np.sign(course[peak]))
    low = high = peak
    while low > 0 and height[low - 1] >= 0.8 * height[peak]:
        low -= 1
    while high + 1 < len(height) and height[high + 1] >= 0.8 * height[peak]:
        high += 1
    part = height[low : high + 1]
    return float(np.sum(part * centres[low : high + 1]) / np.sum(part)) if part.sum() > 0 else float(centres[peak])
