"""Whether a part of messages is slow more often than before: counts above a high threshold, and by how much time.

The threshold is a quantile of both spans together, so that a change of 2 % of the messages shows as it does in no mean
and in no test of location. Messages of a burst are not independent: counts are divided by a design effect, estimated
from the differences of neighbouring slots of time (von Neumann, Annals of Mathematical Statistics 12, 1941), which a
change that lasts does not inflate and a single burst does. Then Fisher's exact test; the smallest p of the thresholds
times their number (Bonferroni).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analytics.tail import proportions

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
LEVELS = (0.9, 0.97, 0.99, 0.995, 0.998, 0.999)
SLOTS = 30


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
    """What changed in one part: at the threshold where it shows most. `p` is for all thresholds that were tried."""

    p: float
    threshold_ns: int
    level: float
    now_share: float
    before_share: float
    difference: tuple[float, float, float]
    effect: float  # of the design: how many messages say as much as one


def change(now: Span, before: Span) -> Change | None:
    """The change in a part; None where a span has no messages with it."""
    if not len(now.values) or not len(before.values):
        return None
    both = np.concatenate([now.values, before.values])
    thresholds = dict.fromkeys(int(t) for t in np.quantile(both, LEVELS, method="inverted_cdf"))
    best: Change | None = None
    for threshold, level in zip(thresholds, LEVELS[-len(thresholds) :], strict=True):
        found = _at(now, before, threshold, level, len(thresholds))
        if best is None or found.p < best.p:
            best = found
    return best


def design_effect(spans: tuple[Span, ...], threshold: int) -> float:
    """How much more the counts vary between neighbouring slots than independent messages would; at least 1."""
    seen = expected = 0.0
    for span in spans:
        k, n = span.above(threshold)
        there = n > 0
        k, n = k[there], n[there]
        if len(k) < 4:
            continue
        p = k.sum() / n.sum()
        rest = (k - p * n) / np.sqrt(n)
        seen += float((np.diff(rest) ** 2).sum()) / 2 / (len(k) - 1) * float(n.sum())
        expected += float(n.sum()) * p * (1 - p)
    return max(1.0, seen / expected) if expected > 0 else 1.0


def _at(now: Span, before: Span, threshold: int, level: float, tried: int) -> Change:
    (k1, n1), (k2, n2) = now.above(threshold), before.above(threshold)
    effect = design_effect((now, before), threshold)
    hits, of, other, other_of = (float(value.sum()) / effect for value in (k1, n1, k2, n2))
    p = min(1.0, tried * float(proportions.more(hits, of, other, other_of)[0]))
    d, low, high = proportions.difference(hits, of, other, other_of, 0.95)
    return Change(p, threshold, level, hits / of, other / other_of, (float(d), float(low), float(high)), effect)


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
