"""What slow or bad events have cost: revenue times the measured effect times how much was too much. Pure.

    loss = - R beta (T' - (T - e)')         R: revenue of the time, beta: relative change of revenue per ms more,
                                            T: mean latency, e: mean of what went beyond the threshold, per message,
                                            ': held inside the latencies that the effect was measured over
    loss = - R gamma min(s, s_most)         gamma: relative change if all events were bad, s: share of bad events

It is what the same messages would have brought more, had none of them taken longer than the threshold. The interval is
of the effect alone: the revenue is taken as known.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np

from analytics import buckets
from analytics.money.value import BadEffect, LatencyEffect
from analytics.tally import Tally

_MS = 1e6


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """A cost with its 95 % interval, or the `reason` why there is none in money.

    `value` is None unless `low` to `high` leaves out zero: a cost that cannot be told from none is no cost. `at_least`
    says that some of it lies beyond what the effect was measured over, and is not counted.
    """

    currency: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    design: str = ""
    measured: str = ""
    at_least: bool = False
    reason: str = ""
    sentence: str = ""


@dataclass(frozen=True, slots=True)
class Excess:
    """What went beyond a threshold, over all messages of the path.

    `mean_ms` is the mean from end to end and `excess_ms` the mean, over all `count` messages, of what their stage took
    beyond the threshold. `bad` messages went beyond; `unfinished` ones have no latency and no price per millisecond.
    """

    count: int
    mean_ms: float
    excess_ms: float
    bad: int
    unfinished: int


def excess(whole: Tally | None, stage: Tally | None, threshold_ns: int, messages: Tally | None = None) -> Excess:
    """From the counts of end to end, and of the stage that is judged (perhaps of one label's messages).

    `messages` is end to end of all messages where `whole` is not: revenue belongs to all of them. Milliseconds beyond
    the threshold are by the middle of each bucket: exact to 0.39 % of the latency.
    """
    everything = messages or whole
    if everything is None or not everything.counts.count:
        return Excess(0, 0.0, 0.0, 0, 0 if whole is None else whole.sums["unfinished"])
    total = everything.counts
    over, bad = 0.0, 0
    if stage is not None and stage.buckets:
        counted = stage.counts
        beyond = np.minimum(buckets.midpoint(counted.bucket), counted.max_ns).astype(np.float64) - threshold_ns
        slow = beyond > 0
        over, bad = float(beyond[slow] @ counted.n[slow]), int(counted.n[slow].sum())
    unfinished = whole.sums["unfinished"] if whole is not None else 0
    return Excess(total.count, total.sum_ns / total.count / _MS, over / total.count / _MS, bad, unfinished)


def per_ms(revenue: float, effect: LatencyEffect, mean_ms: float, less_ms: float) -> tuple[float, float, float, bool]:
    """Loss, its least and most, and whether some was not counted, of a mean that could be `less_ms` shorter."""
    ends = np.clip([mean_ms, mean_ms - less_ms], effect.least_ms, effect.most_ms)
    by = float(ends[0] - ends[1])
    low, high = sorted((-revenue * effect.low * by, -revenue * effect.high * by))
    return -revenue * effect.estimate * by, low, high, abs(by - less_ms) > 1e-9 * max(1.0, abs(mean_ms))


def per_share(revenue: float, effect: BadEffect, share: float) -> tuple[float, float, float, bool]:
    """The same of a share of bad events."""
    counted = min(share, effect.most)
    low, high = sorted((-revenue * effect.low * counted, -revenue * effect.high * counted))
    return -revenue * effect.estimate * counted, low, high, share > effect.most


def cost(
    parts: tuple[float, float, float, bool], currency: str, effect: LatencyEffect | BadEffect, unit: str = ""
) -> Cost:
    """The loss as an answer with its sentence; `unit` is such as " an hour"."""
    value, low, high, more = parts
    measured = effect.measured.isoformat()
    by = f"{effect.design}, measured until {measured}"
    if low <= 0 <= high:
        sentence = (
            f"No detectable cost: between {money(low)} and {money(high)} {currency}{unit} ({by})"
            if low or high
            else f"Nothing went beyond what is allowed: no cost{unit}"
        )
        shown = None if low or high else 0.0
    else:
        shown = value
        sentence = f"{money(value)} {currency}{unit} (95 % interval {money(low)} to {money(high)}; {by})"
    sentence += "; beyond the latencies that were measured nothing is counted." if more else "."
    return Cost(
        currency=currency, value=shown, low=low, high=high, design=effect.design, measured=measured, at_least=more,
        sentence=sentence,
    )  # fmt: skip


def refused(currency: str, reason: str) -> Cost:
    """No money, and why."""
    return Cost(currency=currency, reason=reason, sentence=f"Not in money: {reason}.")


def money(value: float) -> str:
    """An amount with three significant digits at least, as people write it."""
    if abs(value) >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 1 else f"{value:.2f}"
