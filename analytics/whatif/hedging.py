"""What percentiles would be if a second request were sent where the first has not answered after some time.

Dean and Barroso (The Tail at Scale, 2013): the answer is the first of the two. With S(x) the share of messages slower
than x, and the second request's latency independent of the first's,

    S'(x) = S(x)                x < t
    S'(x) = S(x) S(x - t)       x >= t

and the additional requests are the share S(t). Independence is the hopeful case. Where messages are slow because of
when they were sent, both requests are: with S_c of one second c,

    S''(x) = sum_c n_c / n S_c(x) S_c(x - t)

is what remains. The truth lies between, and below both only if the second request goes to a better place.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analytics import buckets
from analytics.compare.arms import LEAST_CLUSTERS, Arm
from analytics.whatif.answers import QUANTILES, Effect, between, made, refusal, weights_of

Floats = NDArray[np.float64]
ASSUMPTIONS = (
    "The second request takes as long as any recorded message, whatever the first one does; the last column instead"
    " lets it meet the slowness of the same second.",
    "The additional requests do not make anything slower; at high utilisation they do.",
    "A message that never finished would have been answered by its second request.",
    "The first request is not cancelled, or cancelling it saves nothing.",
)


def hedged(arm: Arm, seconds: Arm, after_ns: int) -> tuple[list[Effect], float]:
    """Percentiles if hedged after `after_ns`, and the share of additional requests.

    `arm` has blocks of time for the intervals, `seconds` the same messages by second; their unfinished messages
    (`shares`) are slower than anything.
    """
    lost = arm.shares.get("unfinished", np.zeros(len(arm.cluster), dtype=np.int64))
    total = int(arm.n.sum() + lost.sum())
    highs = buckets.high(arm.bucket)
    places = np.unique(np.concatenate([highs, highs + after_ns]))
    slower = _slower(arm.n.sum(axis=0, keepdims=True), lost.sum(keepdims=True))
    answered = _both(highs, places, slower, after_ns)[0]
    together = _same_time(seconds, places, after_ns)
    drawn = None
    if len(arm.cluster) >= LEAST_CLUSTERS:
        weights = weights_of(len(arm.cluster))
        resampled = _slower(weights @ arm.n, weights @ lost)
        drawn = (resampled, _both(highs, places, resampled, after_ns))
    out = []
    for name, p in QUANTILES.items():
        refused = refusal(name, p, total)
        was = _first(highs, slower[0], p)
        would = _first(places, answered, p)
        if refused or was is None or would is None:
            refused = refused or f"more than {1 - p:.3%} of the messages never finished"
            out.append(Effect(name=name, refused=refused))
            continue
        after_ci, change_ci = None, None
        if drawn is not None:
            sure = [(_first(highs, one, p), _first(places, other, p)) for one, other in zip(*drawn, strict=True)]
            values = np.array([pair for pair in sure if None not in pair], dtype=np.float64)
            if len(values) == len(sure):
                after_ci, change_ci = between(values[:, 0], values[:, 1])
        out.append(made(name, was, would, after_ci, change_ci, _first(places, together, p)))
    return out, float(_at(highs, slower, np.array([after_ns]))[0, 0])


def _slower(n: NDArray[Any], lost: NDArray[Any]) -> Floats:
    """S at the upper edge of each bucket, per row of counts [rows, buckets]; 0..1."""
    total = n.sum(axis=1) + lost
    return np.asarray(1 - np.cumsum(n, axis=1) / np.maximum(total, 1)[:, None], dtype=np.float64)


def _at(highs: NDArray[np.int64], slower: Floats, places: NDArray[np.int64]) -> Floats:
    """S at any place: of the last bucket that ends at or before it, 1 before the first."""
    at = np.searchsorted(highs, places, side="right") - 1
    return np.where(at[None, :] < 0, 1.0, slower[:, np.maximum(at, 0)])


def _both(highs: NDArray[np.int64], places: NDArray[np.int64], slower: Floats, after_ns: int) -> Floats:
    """S' at each place, per row."""
    second = np.where(places < after_ns, 1.0, _at(highs, slower, places - after_ns))
    return _at(highs, slower, places) * second


def _same_time(seconds: Arm, places: NDArray[np.int64], after_ns: int) -> Floats:
    """S'' at each place: second by second, so that memory stays bounded."""
    lost = seconds.shares.get("unfinished", np.zeros(len(seconds.cluster), dtype=np.int64))
    highs = buckets.high(seconds.bucket)
    out = np.zeros(len(places))
    total = float(seconds.n.sum() + lost.sum())
    for counted, unfinished in zip(seconds.n, lost, strict=True):
        here = float(counted.sum() + unfinished)
        if here:
            slower = _slower(counted[None, :].astype(np.float64), np.array([float(unfinished)]))
            out += here / total * _both(highs, places, slower, after_ns)[0]
    return out


def _first(places: NDArray[np.int64], slower: Floats, quantile: float) -> int | None:
    """The first place that at most 1 - p exceed; None where too many never finish."""
    there = np.flatnonzero(slower <= 1 - quantile + 1e-12)
    return int(places[there[0]]) if len(there) else None
