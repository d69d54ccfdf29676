"""The tail of the wait by depth on arrival: what a message must expect that finds n others before it.

Depth is what the message itself saw when it came, never an average over time: those agree only for Poisson arrivals.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from analytics.percentiles import CONFIDENCE
from analytics.queueing.blocks import BLOCKS, Quantile, blocks_of, quantile, share_of

# First depths of the buckets: 0, 1-2, 3-5, 6-11, 12 and more.
EDGES = (0, 1, 3, 6, 12)
QUANTILES = (0.5, 0.9, 0.99, 0.999)


class DepthTail(msgspec.Struct, frozen=True, kw_only=True):
    """What messages waited that found `low` to `high` (null: or more) others; `unfinished` of them never left."""

    low: int
    high: int | None
    count: int
    unfinished: int
    quantiles: list[Quantile]


class Rising(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a quantile never falls with the depth, as it must in a queue that serves in order.

    `fitted` is the closest rising course (pool adjacent violators, weighted by count), null where a bucket was refused.
    `holds` is false only when a deeper bucket's whole interval lies below a shallower one's; null with fewer than two.
    """

    quantile: float
    holds: bool | None
    fitted: list[float | None]
    sentence: str


class DepthLimit(msgspec.Struct, frozen=True, kw_only=True):
    """The deepest queue that a message may still join, if `good` of those that join are to wait at most `threshold_ns`.

    `limit` keeps the objective at the upper end of the interval, `likely` at the estimate; -1: not even an empty queue
    does; null: no limit is needed. `refused_share` of the messages would have been turned away at `limit`.
    """

    threshold_ns: int
    good: float
    limit: int | None
    likely: int | None
    refused_share: float
    late_share: float
    late_high: float
    count: int
    refused: str
    sentence: str


def by_depth(
    depth: NDArray[np.int64],
    wait_ns: NDArray[Any],
    at_ns: NDArray[np.int64],
    *,
    from_ns: int,
    to_ns: int,
    edges: tuple[int, ...] = EDGES,
    quantiles: tuple[float, ...] = QUANTILES,
    blocks: int = BLOCKS,
    confidence: float = CONFIDENCE,
) -> list[DepthTail]:
    """Quantiles of the wait per bucket of depth; `wait_ns` float, NaN for a message that never left. Empty buckets too.

    Raises ValueError for edges that do not rise from 0 on.
    """
    if list(edges) != sorted(set(edges)) or not edges or edges[0] != 0:
        raise ValueError(f"edges of depth must rise from 0, got {edges}")
    depth = np.asarray(depth, dtype=np.int64)
    wait = np.asarray(wait_ns, dtype=np.float64)
    block = blocks_of(at_ns, from_ns, to_ns, blocks)
    bucket = np.searchsorted(np.array(edges), depth, side="right") - 1
    found = []
    for i, low in enumerate(edges):
        inside = bucket == i
        left = inside & ~np.isnan(wait)
        lost = int(inside.sum() - left.sum())
        found.append(
            DepthTail(
                low=low,
                high=edges[i + 1] - 1 if i + 1 < len(edges) else None,
                count=int(inside.sum()),
                unfinished=lost,
                quantiles=[
                    quantile(wait[left], block[left], q, unfinished=lost, confidence=confidence) for q in quantiles
                ],
            )
        )
    return found


def rising(tails: list[DepthTail], q: float) -> Rising:
    """The check that the q-quantile does not fall with depth. Raises KeyError for a quantile that `tails` lack."""
    at = [next((one for one in tail.quantiles if one.quantile == q), None) for tail in tails]
    if any(one is None for one in at):
        raise KeyError(f"no quantile {q} was computed")
    cells = [(i, one) for i, one in enumerate(at) if one is not None and one.value is not None]
    fitted: list[float | None] = [None] * len(tails)
    if len(cells) < 2:
        return Rising(quantile=q, holds=None, fitted=fitted, sentence="too few depths have enough messages to compare")
    flat = optimize.isotonic_regression([one.value for _, one in cells], weights=[one.count for _, one in cells]).x
    for (i, _), value in zip(cells, flat, strict=True):
        fitted[i] = float(value)
    highest = -np.inf
    for _, one in cells:
        if one.high is not None and one.high < highest:
            said = "falls with depth: the depth is not this queue's, or it does not serve in order of arrival"
            return Rising(quantile=q, holds=False, fitted=fitted, sentence=said)
        highest = max(highest, one.low or -np.inf)
    return Rising(quantile=q, holds=True, fitted=fitted, sentence="does not fall with depth, within the intervals")


def depth_limit(
    depth: NDArray[np.int64],
    wait_ns: NDArray[Any],
    at_ns: NDArray[np.int64],
    *,
    from_ns: int,
    to_ns: int,
    threshold_ns: int,
    good: float,
    blocks: int = BLOCKS,
    confidence: float = CONFIDENCE,
) -> DepthLimit:
    """The depth from which on messages would have to be turned away to keep an objective of the wait.

    Counts, for each depth d, the messages that found at most d others: the largest d with a late share of at most
    1 - good. A message that never left is late. Turning messages away also shortens the queue for the rest, which is
    not counted: the true limit is not below this one.
    """
    if not 0 < good < 1:
        raise ValueError(f"the objective's share must lie between 0 and 1, got {good}")
    depth = np.asarray(depth, dtype=np.int64)
    wait = np.asarray(wait_ns, dtype=np.float64)
    late = ~(wait <= threshold_ns)
    block = blocks_of(at_ns, from_ns, to_ns, blocks)
    allowed, n = 1 - good, len(depth)
    whole = share_of(late, block, confidence)
    if n * allowed < 1 or whole.effective == 0:
        said = f"needs at least {int(np.ceil(1 / allowed)):,} messages over 5 blocks of time, there are {n:,}"
        return DepthLimit(
            threshold_ns=threshold_ns, good=good, count=n,
            limit=None, likely=None, refused_share=0.0, late_share=whole.share, late_high=whole.high,
            refused=said, sentence=said,
        )  # fmt: skip
    safe, likely, shown = -1, -1, whole
    for d in np.unique(depth):
        inside = depth <= d
        one = share_of(late[inside], block[inside], confidence)
        if one.share <= allowed:
            likely = int(d)
        if one.high <= allowed:
            safe, shown = int(d), one
    deepest = int(depth.max())
    limit = None if safe == deepest else safe
    turned = 0.0 if limit is None else float(np.mean(depth > limit))
    if limit is None:
        said = f"the objective is kept at every depth seen, up to {deepest}: no limit is needed"
    elif limit < 0:
        said = "no depth is shown to keep the objective: it is missed, or not certain, even by messages that find none"
    else:
        said = (
            f"messages that find at most {limit} others keep the objective, surely; {100 * turned:.2f} % found more."
            " Turning those away shortens the queue for the rest, which is not counted"
        )
    return DepthLimit(
        threshold_ns=threshold_ns, good=good, count=n,
        limit=limit, likely=None if likely == deepest else likely, refused_share=turned,
        late_share=shown.share, late_high=shown.high, refused="", sentence=said,
    )  # fmt: skip
