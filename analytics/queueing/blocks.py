"""Intervals for messages that are not independent: neighbours in a queue wait for the same work.

Messages are put into blocks of equal time. How much more a share varies between blocks than independent messages would
make it vary is the design effect; n messages are worth n / effect independent ones. The interval of a quantile is the
binomial one at that effective count (Woodruff 1952; Korn and Graubard 1998, with Student's t for few blocks).
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import special

from analytics.percentiles import CONFIDENCE, interval_ranks, minimum_count, rank

BLOCKS = 30
_FEWEST = 5  # blocks with messages below which their spread says nothing
# The slow messages of a few episodes say how long those episodes were, not how long the next one will be.
EPISODES = 8.0


class Quantile(msgspec.Struct, frozen=True, kw_only=True):
    """A quantile of `count` values that are worth `effective` independent ones; null where it is `refused`."""

    quantile: float
    value: float | None
    low: float | None
    high: float | None
    count: int
    effective: int
    refused: str = ""


class ShareOf(msgspec.Struct, frozen=True, kw_only=True):
    """A share with its interval, of `count` messages that are worth `effective` independent ones."""

    share: float
    low: float
    high: float
    count: int
    effective: int


def blocks_of(times_ns: NDArray[np.int64], from_ns: int, to_ns: int, blocks: int = BLOCKS) -> NDArray[np.int64]:
    """The block, 0 to `blocks` - 1, of each time in [from_ns, to_ns); times outside are in the first or last."""
    if to_ns <= from_ns:
        raise ValueError(f"the time is empty: from {from_ns} to {to_ns}")
    found = (np.asarray(times_ns, dtype=np.int64) - from_ns) * blocks // (to_ns - from_ns)
    return np.clip(found, 0, blocks - 1)


def effective_count(hit: NDArray[np.bool_], block: NDArray[np.int64], confidence: float = CONFIDENCE) -> float:
    """How many independent values these are worth for the share of `hit`: n / design effect, at most n.

    Variance of the ratio over m blocks: m / (m - 1) * sum((h_b - p n_b)^2) / n^2. 0.0 with too few blocks to tell.
    """
    n = len(hit)
    if not n:
        return 0.0
    sizes = np.bincount(block)
    hits = np.bincount(block, weights=hit)
    used = sizes > 0
    m = int(used.sum())
    if m < _FEWEST:
        return 0.0
    share = float(hit.mean())
    parts = (hits[used] - share * sizes[used]) ** 2
    # Where a few blocks make up most of the spread, it is as uncertain as if there were only those (Satterthwaite).
    freedom = float(parts.sum() ** 2 / np.sum(parts**2)) if parts.any() else m - 1.0
    student = float(special.stdtrit(min(m - 1.0, max(1.0, freedom)), 0.5 + confidence / 2))
    normal = float(special.ndtri(0.5 + confidence / 2))
    if share in (0.0, 1.0):
        return n * (normal / student) ** 2
    spread = float(parts.sum()) * m / (m - 1) / n**2
    effect = max(1.0, spread / (share * (1 - share) / n))
    return n / effect * (normal / student) ** 2


def episodes(hit: NDArray[np.bool_], block: NDArray[np.int64]) -> float:
    """Over how many blocks the hits are spread: (sum h_b)^2 / sum h_b^2, the inverse of Simpson's index."""
    hits = np.bincount(block, weights=hit)
    return float(hits.sum() ** 2 / np.sum(hits**2)) if hits.any() else 0.0


def quantile(
    values: NDArray[Any], block: NDArray[np.int64], q: float, *, unfinished: int = 0, confidence: float = CONFIDENCE
) -> Quantile:
    """The q-quantile of `values`, with `unfinished` more that took longer than all of them."""
    known = np.sort(np.asarray(values, dtype=np.float64))
    n = len(known) + unfinished
    needed, name = minimum_count(q, confidence), f"p{q * 100:.10g}"

    def refuse(why: str, effective: float = 0.0) -> Quantile:
        return Quantile(
            quantile=q, value=None, low=None, high=None, count=n, effective=math.floor(effective), refused=why
        )

    if n < needed:
        return refuse(f"{name} needs at least {needed:,} samples, there are {n:,}")
    at = rank(q, n)
    if at > len(known):
        return refuse(f"{name} lies among the {unfinished:,} messages that never left the queue")
    value = float(known[at - 1])
    effective = effective_count(np.asarray(values) > value, block, confidence)
    if effective < needed:
        return refuse(
            f"{name} needs at least {needed:,} independent samples; {n:,} that depend on each other are worth"
            f" {math.floor(effective):,}",
            effective,
        )
    slow = episodes(np.asarray(values) > value, block)
    if slow < EPISODES and at < len(known):
        return refuse(
            f"{name}: the messages beyond it come from about {slow:.0f} episodes, at least {EPISODES:.0f} are needed",
            effective,
        )
    whole = math.floor(effective)
    lower, upper = interval_ranks(q, whole, confidence)
    low = known[max(1, math.floor(lower / whole * n)) - 1]
    top = min(n, math.ceil(upper / whole * n))
    high = float(known[top - 1]) if top <= len(known) else None
    return Quantile(quantile=q, value=value, low=float(low), high=high, count=n, effective=whole)


def share_of(hit: NDArray[np.bool_], block: NDArray[np.int64], confidence: float = CONFIDENCE) -> ShareOf:
    """The share of `hit`, with the exact binomial interval (Clopper and Pearson) at the effective count.

    Without messages, or with too few blocks to tell how they depend on each other, the interval is all of [0, 1].
    """
    n = len(hit)
    effective = effective_count(hit, block, confidence)
    share = float(hit.mean()) if n else 0.0
    if effective < 1:
        return ShareOf(share=share, low=0.0, high=1.0, count=n, effective=0)
    tail, k = (1 - confidence) / 2, share * effective
    low = 0.0 if k == 0 else float(special.betaincinv(k, effective - k + 1, tail))
    high = 1.0 if k == effective else float(special.betaincinv(k + 1, effective - k, 1 - tail))
    return ShareOf(share=share, low=low, high=high, count=n, effective=math.floor(effective))
