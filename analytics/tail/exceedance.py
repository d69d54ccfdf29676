"""Whether parts of messages are slow more often than before: counts above high thresholds, and by how much time.

The thresholds are quantiles of both spans together, so that a change of 2 % of the messages shows as it does in no mean
and in no test of location. Messages of a burst are not independent, so slots of time are exchanged between the spans
and not messages: where nothing changed, each choice of half of the slots is as good as the one that was seen, whatever
happens within a slot. The largest difference over thresholds and parts is held against the largest of each exchange
(Westfall and Young, Resampling-Based Multiple Testing, 1993, step-down maxT), which keeps the stated rate over all of
them without what Bonferroni's bound gives away where they go together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
LEVELS = (0.9, 0.97, 0.99, 0.995, 0.998, 0.999)
SLOTS = 30
DRAWS = 10_000  # exchanges
_FEW = 500
_NEAR = 5.0  # times the rate: beyond it the few are enough


@dataclass(frozen=True, slots=True)
class Span:
    """One part of the messages of one span of time: what they took, int64[n], and each one's slot, 0 to `slots` - 1."""

    values: Ints
    slot: Ints
    slots: int = SLOTS

    def above(self, threshold: int) -> tuple[Ints, Ints]:
        """Per slot: how many are above the threshold, and how many there are."""
        n = np.bincount(self.slot, minlength=self.slots)
        return np.bincount(self.slot[self.values > threshold], minlength=self.slots), n

    def beyond(self, threshold: int) -> Floats:
        """Per slot: the sum of the time above the threshold, how many are above, how many there are."""
        over = np.maximum(self.values - threshold, 0).astype(np.float64)
        return np.column_stack([np.bincount(self.slot, weights=over, minlength=self.slots), *self.above(threshold)])


@dataclass(frozen=True, slots=True)
class Change:
    """What changed in one part: at the threshold where it shows most. `p` is for all parts and thresholds together."""

    p: float
    threshold_ns: int
    level: float
    now_share: float
    before_share: float


@dataclass(frozen=True, slots=True)
class _Column:
    """One part at one threshold: per slot, those of now first, how many are above and how many there are."""

    part: int
    threshold_ns: int
    level: float
    above: Floats
    of: Floats


def changes(spans: Sequence[tuple[Span, Span]], alpha: float, seed: int = 1) -> list[Change | None]:
    """The change in each part, of (now, before); None where a span has no messages with it.

    A p that is far above `alpha` is only estimated.
    """
    columns = [one for part, sides in enumerate(spans) for one in _columns(part, *sides)]
    out: list[Change | None] = [None] * len(spans)
    if not columns:
        return out
    rng = np.random.default_rng(seed)
    parts = np.array([one.part for one in columns])
    p, best = _exchanged(columns, parts, rng, _FEW)
    if min(p.values()) <= _NEAR * alpha:
        p, best = _exchanged(columns, parts, rng, DRAWS)
    for part, at in best.items():
        one, half = columns[at], len(columns[at].above) // 2
        share = [float(one.above[side].sum() / one.of[side].sum()) for side in (slice(half), slice(half, None))]
        out[part] = Change(p[part], one.threshold_ns, one.level, *share)
    return out


def _columns(part: int, now: Span, before: Span) -> list[_Column]:
    if not len(now.values) or not len(before.values):
        return []
    both = np.concatenate([now.values, before.values])
    thresholds = dict.fromkeys(int(t) for t in np.quantile(both, LEVELS, method="inverted_cdf"))
    out = []
    for threshold, level in zip(thresholds, LEVELS[-len(thresholds) :], strict=True):
        sides = [side.above(threshold) for side in (now, before)]
        above, of = (np.concatenate([side[i] for side in sides]).astype(np.float64) for i in (0, 1))
        out.append(_Column(part, threshold, level, above, of))
    return out


def _exchanged(
    columns: Sequence[_Column], parts: Ints, rng: np.random.Generator, draws: int
) -> tuple[dict[int, float], dict[int, int]]:
    """Per part the p adjusted for all, and the column where the difference is largest."""
    above, of = (np.column_stack(rows) for rows in zip(*((one.above, one.of) for one in columns), strict=True))
    slots = len(above)
    mine = np.zeros((draws + 1, slots))
    mine[0, : slots // 2] = 1
    picked = np.argpartition(rng.random((draws, slots)), slots // 2, axis=1)[:, : slots // 2]
    np.put_along_axis(mine[1:], picked, 1, axis=1)
    hits, there = mine @ above, mine @ of
    rest, elsewhere = above.sum(axis=0) - hits, of.sum(axis=0) - there
    # Roots make counts, small ones too, about equally spread (Anscombe, Biometrika 35, 1948).
    share = above.sum(axis=0) / of.sum(axis=0)
    sides = ((hits, there * share), (rest, elsewhere * share))
    roots = [np.sqrt(seen + 0.375) - np.sqrt(expected + 0.375) for seen, expected in sides]
    z = roots[0] - roots[1]
    z -= z.mean(axis=0)
    z /= np.maximum(z.std(axis=0), 1e-12)
    known = np.unique(parts)
    most = np.column_stack([z[:, parts == one].max(axis=1) for one in known])
    # Which threshold to tell: where counts differ most. Differences that no exchange comes near are all alike in z.
    spread = np.sqrt(
        np.maximum(share * (1 - share) * (1 / np.maximum(there[0], 1) + 1 / np.maximum(elsewhere[0], 1)), 1e-30)
    )
    apart = (hits[0] / np.maximum(there[0], 1) - rest[0] / np.maximum(elsewhere[0], 1)) / spread
    best = {int(one): max(np.flatnonzero(parts == one).tolist(), key=lambda i: float(apart[i])) for one in known}
    adjusted, largest = {}, 0.0
    order = np.argsort(-most[0], kind="stable")
    for rank, at in enumerate(order.tolist()):
        left = most[:, order[rank:]].max(axis=1)
        largest = max(largest, float(np.mean(left >= most[0, at] - 1e-9)))
        adjusted[int(known[at])] = largest
    return adjusted, best


def added(now: list[Floats], before: list[Floats], seed: int, draws: int = 1_000) -> Floats:
    """Bootstrap replicates of the time that each part adds per message, float64[draws + 1, parts]; first the estimate.

    Of each part `Span.beyond` of both spans: how many more messages are above the threshold, times how far above it
    they are now. A single very slow message of the comparison does not count against it. Slots are drawn with
    replacement, the same for all parts.
    """
    rng = np.random.default_rng(seed)
    out = np.zeros((draws + 1, len(now)))
    if not now:
        return out
    ones = [np.ones(len(side[0])) for side in (now, before)]
    weights = [
        np.vstack([one, rng.multinomial(len(one), one / len(one), size=draws)]).astype(np.float64) for one in ones
    ]
    for i, sides in enumerate(zip(now, before, strict=True)):
        (time, above, n), (_, above_before, n_before) = ((w @ side).T for w, side in zip(weights, sides, strict=True))
        more = above / np.maximum(n, 1.0) - above_before / np.maximum(n_before, 1.0)
        out[:, i] = np.maximum(more, 0.0) * time / np.maximum(above, 1.0)
    return out
