"""Little's law as a check of the data: L = lambda W holds in every queue, so where it does not the data are wrong.

Over a time T, with the waits of those that arrive in it counted whole and the queue's length only inside it,
L - lambda W = (waiting left over from before - waiting still to come) / T: the law is exact when the queue is empty at
both edges, else off by at most what crosses them (Little 1961; Stidham 1974). What remains beyond that and beyond the
sampling error of L means lost events, a wrong clock, or a depth that counts something else.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import special

from analytics.percentiles import CONFIDENCE
from analytics.queueing.blocks import BLOCKS, blocks_of

TOLERANCE = 0.05
Verdict = Literal["holds", "broken", "undecided"]
Source = Literal["events", "depth on arrival", "gauge"]


class Little(msgspec.Struct, frozen=True, kw_only=True):
    """L against lambda W of one queue. `edge` bounds what messages that cross the edges of the time can explain.

    `length` comes from `source`; `expected` is lambda W, or, beside a stamped or sampled depth, what there was at those
    moments according to the events. `error` is the half width of the interval of their difference,
    null where one block of time cannot tell.
    """

    source: Source
    count: int
    rate_s: float
    wait_ns: float
    length: float
    expected: float
    edge: float
    error: float | None
    gap: float | None
    verdict: Verdict
    sentence: str


def by_events(
    arrived_ns: NDArray[np.int64], wait_ns: NDArray[Any], *, from_ns: int, to_ns: int, longest_ns: int | None = None
) -> Little:
    """The law from arrivals and departures alone (`wait_ns` float, NaN: never left); exact but for the edges.

    Include messages that arrived before `from_ns` and were still in: they are the left edge. One that was never seen to
    leave makes the queue longer for `longest_ns` (None: up to `to_ns`): many lost departures show as a broken law.
    """
    arrived, left, gone = _checked(arrived_ns, wait_ns, from_ns, longest_ns)
    span = to_ns - from_ns
    end = np.where(np.isnan(left), np.inf, left)
    inside = np.clip(np.minimum(end, span) - np.clip(arrived, 0, span), 0, None)
    length = float(inside.sum()) / span
    came = (arrived >= 0) & (arrived < span)
    known = came & gone
    lost = int(came.sum() - known.sum())
    wait = float(np.mean(left[known] - arrived[known])) if known.any() else 0.0
    rate = float(came.sum()) / span
    before = np.where((arrived < 0) & (end > 0), np.minimum(end, span), 0.0).sum()
    after = np.where(known & (end > span), end - span, 0.0).sum()
    edge = float(before + after) / span
    negative = int((left[known] < arrived[known]).sum())
    more = ""
    if lost:
        more = f"; {lost:,} were not seen to leave"
    if negative:
        more += f"; {negative:,} left before they came: a clock is wrong"
    return _judged("events", int(came.sum()), rate, wait, length, rate * wait, edge, 0.0, more)


def by_depth_on_arrival(
    arrived_ns: NDArray[np.int64],
    wait_ns: NDArray[Any],
    depth: NDArray[Any],
    *,
    from_ns: int,
    to_ns: int,
    longest_ns: int | None = None,
    blocks: int = BLOCKS,
    confidence: float = CONFIDENCE,
) -> Little:
    """The depth that arrivals saw against what the events say they must have seen, at the very same moments.

    No Poisson arrivals are needed for this. `depth` is float, NaN where it was not stamped. Messages that arrive at
    one moment may see each other or not: they are counted as coming one after the other.
    """
    arrived, left, gone = _checked(arrived_ns, wait_ns, from_ns, longest_ns)
    span = to_ns - from_ns
    order = np.argsort(arrived, kind="stable")
    departures = np.sort(left[~np.isnan(left)])
    found = np.empty(len(arrived))
    found[order] = np.arange(len(arrived)) - np.searchsorted(departures, arrived[order], side="right")
    seen = np.asarray(depth, dtype=np.float64)
    asked = (arrived >= 0) & (arrived < span) & ~np.isnan(seen)
    known = (arrived >= 0) & (arrived < span) & gone
    n = int(asked.sum())
    rate = float(((arrived >= 0) & (arrived < span)).sum()) / span
    wait = float(np.mean(left[known] - arrived[known])) if known.any() else 0.0
    if not n:
        return _judged("depth on arrival", 0, rate, wait, 0.0, 0.0, 0.0, 0.0, "", known=False)
    block = blocks_of(arrived[asked].astype(np.int64), 0, span, blocks)
    error = _half_width(seen[asked] - found[asked], block, confidence)
    # What was in the queue before the first message that we know of is not in `found`.
    crossing = float((arrived < 0).sum() == 0) * float(np.max(seen[asked][:1], initial=0.0)) / n
    return _judged(
        "depth on arrival", n, rate, wait, float(seen[asked].mean()), float(found[asked].mean()), crossing, error, ""
    )


def by_gauge(
    arrived_ns: NDArray[np.int64],
    wait_ns: NDArray[Any],
    read_ns: NDArray[np.int64],
    level: NDArray[Any],
    *,
    from_ns: int,
    to_ns: int,
    longest_ns: int | None = None,
    blocks: int = BLOCKS,
    confidence: float = CONFIDENCE,
) -> Little:
    """A sampled depth against what the events say at the very moments of reading.

    Over all times the latter is lambda W; compared at the same moments, the readings need not be many or regular.
    """
    arrived, left, _ = _checked(arrived_ns, wait_ns, from_ns, longest_ns)
    span = to_ns - from_ns
    law = by_events(arrived_ns, wait_ns, from_ns=from_ns, to_ns=to_ns, longest_ns=longest_ns)
    order = np.argsort(read_ns, kind="stable")
    at, value = np.asarray(read_ns, dtype=np.int64)[order] - from_ns, np.asarray(level, dtype=np.float64)[order]
    inside = (at >= 0) & (at < span) & ~np.isnan(value)
    at, value = at[inside], value[inside]
    rate = law.rate_s / 1e9
    if len(at) < 2:
        return _judged("gauge", len(at), rate, law.wait_ns, 0.0, law.expected, law.edge, 0.0, "", known=False)
    departures = np.sort(left[~np.isnan(left)])
    found = np.searchsorted(np.sort(arrived), at, side="right") - np.searchsorted(departures, at, side="right")
    error = _half_width(value - found, blocks_of(at, 0, span, blocks), confidence)
    return _judged("gauge", len(at), rate, law.wait_ns, float(value.mean()), float(found.mean()), law.edge, error, "")


def _checked(
    arrived_ns: NDArray[np.int64], wait_ns: NDArray[Any], from_ns: int, longest_ns: int | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Arrival and departure since `from_ns`, exact in double precision for 100 days, and whether it was seen to leave.

    One that was not is taken for gone after `longest_ns`: it was conflated, or shed, or its stamp is lost.
    """
    arrived = (np.asarray(arrived_ns, dtype=np.int64) - from_ns).astype(np.float64)
    wait = np.asarray(wait_ns, dtype=np.float64)
    gone = ~np.isnan(wait)
    return arrived, arrived + (wait if longest_ns is None else np.where(gone, wait, longest_ns)), gone


def _half_width(difference: NDArray[np.float64], block: NDArray[np.int64], confidence: float) -> float:
    """Half width of the interval of a mean over blocks of time (ratio estimate, Student's t)."""
    sizes = np.bincount(block)
    sums = np.bincount(block, weights=difference)
    used = sizes > 0
    m, n = int(used.sum()), len(difference)
    if m < 2:
        return float("inf")
    mean = float(difference.mean())
    spread = float(np.sum((sums[used] - mean * sizes[used]) ** 2)) * m / (m - 1)
    return float(special.stdtrit(m - 1, 0.5 + confidence / 2)) * float(np.sqrt(spread)) / n


def _judged(
    source: Source, count: int, rate: float, wait: float, length: float, expected: float, edge: float, error: float,
    more: str, *, known: bool = True,
) -> Little:  # fmt: skip
    largest = max(length, expected)
    gap = abs(length - expected)
    relative = None if not known or largest == 0 else gap / largest
    verdict: Verdict
    if not known or not count:
        verdict, said = "undecided", "nothing to check: no reading of the length falls into this time"
    elif gap > TOLERANCE * largest + edge + error:
        verdict = "broken"
        said = (
            f"L = {length:.4g}, but the events say {expected:.4g}: {gap / largest:.1%} apart, where the edges explain"
            f" {edge:.3g} and sampling {error:.3g}. Events are lost, a clock is wrong, or the depth counts something"
            f" else{more}"
        )
    elif error + edge > TOLERANCE * largest and gap > TOLERANCE * largest:
        verdict = "undecided"
        said = f"L = {length:.4g} against {expected:.4g}, but edges and sampling leave {edge + error:.3g} open{more}"
    else:
        verdict, said = "holds", f"L = {length:.4g} against {expected:.4g}, within {TOLERANCE:.0%}{more}"
    return Little(
        source=source, count=count, rate_s=rate * 1e9, wait_ns=wait, length=length, expected=expected, edge=edge,
        error=error if np.isfinite(error) else None, gap=relative, verdict=verdict, sentence=said,
    )  # fmt: skip
