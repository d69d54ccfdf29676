"""How many messages per second an objective stands, and when the growth of the load will have used that up.

The share of late messages in a step of rate r is fitted as  log P(late) = a + b (r - mean r)  by Poisson
quasi-likelihood on counts. It is exact for M/M/1, where P(T > t) = exp(-(m - r) t). The objective `good` breaks at
    r* = mean r + (log(1 - good) - a) / b
An objective that was never near breaking gives no such rate: it is refused when the highest rate is below 80 % of r*.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import special

from analytics.queueing.load import Load, limits, resampled

_SEEN = 0.8
_FEWEST_LATE = 30
_FEWEST_STEPS = 20


class Headroom(msgspec.Struct, frozen=True, kw_only=True):
    """The rate at which an objective breaks, `rate_s` in [`low_s`, `high_s`] (`high_s` null: no end is seen).

    `headroom_s` is that less `now_s`, the mean rate of the last tenth of the time. `safe_s` is the highest rate that
    was seen (99th percentile of steps), `late_share` the share of late messages over the whole time.
    """

    threshold_ns: int
    good: float
    count: int
    late: int
    late_share: float
    steps: int
    now_s: float
    safe_s: float
    rate_s: float | None
    low_s: float | None
    high_s: float | None
    headroom_s: float | None
    refused: str
    sentence: str


class Date(msgspec.Struct, frozen=True, kw_only=True):
    """When the daily peak rate reaches a rate at its trend: `at_s` in [`early_s`, `late_s`], epoch seconds.

    `growth_day` is the trend in messages per second per day, with its interval.
    """

    days: int
    growth_day: float | None
    growth_low: float | None
    growth_high: float | None
    at_s: int | None
    early_s: int | None
    late_s: int | None
    refused: str
    sentence: str


def headroom(load: Load, *, threshold_ns: int, good: float, seed: int = 0) -> Headroom:
    """The headroom of the objective that `good` of the messages take at most `threshold_ns`: the others are late."""
    if not 0 < good < 1:
        raise ValueError(f"the objective's share must lie between 0 and 1, got {good}")
    load = load.merged()
    n, late, rate = load.count, load.late, load.rate_s
    total, slow = int(n.sum()), int(late.sum())
    recent = rate[-max(1, len(rate) // 10) :]
    now = float(recent.mean()) if len(rate) else 0.0
    top = float(np.quantile(rate, 0.99)) if len(rate) else 0.0

    def told(why: str, found: float | None = None, low: float | None = None, high: float | None = None) -> Headroom:
        return Headroom(
            threshold_ns=threshold_ns, good=good, count=total, late=slow, late_share=slow / total if total else 0.0,
            steps=len(n), now_s=now, safe_s=top, rate_s=found, low_s=low, high_s=high,
            headroom_s=None if found is None else found - now, refused=why if found is None else "", sentence=why,
        )  # fmt: skip

    if len(n) < _FEWEST_STEPS:
        return told(f"needs at least {_FEWEST_STEPS} steps with messages, there are {len(n)}")
    if slow < _FEWEST_LATE:
        return told(
            f"needs at least {_FEWEST_LATE} late messages, there are {slow}: the objective was kept up to {top:,.4g}/s,"
            " and nothing says where it breaks"
        )
    if float(rate.std()) < 0.05 * float(rate.mean()):
        return told("the load hardly changed, by less than 5 %: nothing says how lateness depends on it")
    centre = float(np.average(rate, weights=n))
    x = rate - centre
    a, b = (float(v[0]) for v in _fit(np.ones((1, len(n))), n, late, x))
    many_a, many_b = _fit(resampled(len(n), np.random.default_rng(seed)), n, late, x)
    slope_low, _ = limits(many_b)
    if b <= 0 or slope_low <= 0:
        return told("lateness does not rise with the load beyond chance: something else makes messages late")
    breaks = centre + (np.log(1 - good) - a) / b
    rates = np.where(many_b > 0, centre + (np.log(1 - good) - many_a) / np.where(many_b > 0, many_b, 1), np.inf)
    low, high = limits(rates)
    if top < _SEEN * breaks:
        return told(
            f"the highest rate seen, {top:,.4g}/s, is below 80 % of where the objective would break ({breaks:,.4g}/s):"
            " too far to tell"
        )
    if breaks <= 0:
        return told("the objective is missed at every load: less load would not keep it", 0.0, 0.0, max(high, 0.0))
    end = f"{high:,.4g}" if np.isfinite(high) else "no end"
    said = (
        f"{good:.4%} within {threshold_ns / 1e6:g} ms breaks at {breaks:,.4g}/s [{max(low, 0):,.4g}, {end}]; now"
        f" {now:,.4g}/s. What else goes with the load, such as the time of day, is not told apart from it"
    )
    return told(said, float(breaks), max(low, 0.0), high if np.isfinite(high) else None)


def date_at_trend(day_s: NDArray[np.int64], peak_s: NDArray[np.float64], rate_s: float, *, seed: int = 0) -> Date:
    """When the daily peaks (`day_s` epoch seconds, `peak_s` messages per second) will have grown to `rate_s`.

    A straight line by least squares; its errors are widened for what neighbouring days have in common,
    (1 + r) / (1 - r) of the residuals' correlation r, and the date's interval is drawn from level and slope together.
    """
    n = len(day_s)

    def refuse(why: str, *growth: float) -> Date:
        slope, low, high = growth or (None, None, None)
        return Date(
            days=n, growth_day=slope, growth_low=low, growth_high=high, at_s=None, early_s=None, late_s=None,
            refused=why, sentence=why,
        )  # fmt: skip

    if n < 10:
        return refuse(f"a trend needs the peaks of at least 10 days, there are {n}")
    x = (np.asarray(day_s, dtype=np.float64) - float(day_s[-1])) / 86_400
    design = np.stack([np.ones(n), x - x.mean()], axis=1)
    y = np.asarray(peak_s, dtype=np.float64)
    (level, slope), *_ = np.linalg.lstsq(design, y, rcond=None)
    rest = y - design @ np.array([level, slope])
    power = float(rest @ rest)
    common = float(np.clip(rest[1:] @ rest[:-1] / power, 0, 0.9)) if power > 0 else 0.0
    variance = power / (n - 2) * (1 + common) / (1 - common)
    error_level, error_slope = np.sqrt(variance / n), np.sqrt(variance / float(np.sum((x - x.mean()) ** 2)))
    t = float(special.stdtrit(n - 2, 0.975))
    low, high = float(slope - t * error_slope), float(slope + t * error_slope)
    if low <= 0 <= high:
        return refuse(
            f"the growth of the peaks, {slope:+.3g}/s a day [{low:+.3g}, {high:+.3g}], is not told apart from none",
            float(slope), low, high,
        )  # fmt: skip
    if slope < 0:
        return refuse(f"the peaks fall by {-slope:.3g}/s a day: there is no such date", float(slope), low, high)
    rng = np.random.default_rng(seed)
    noise = rng.standard_t(n - 2, size=(2, 4_000))
    levels, slopes = level + noise[0] * error_level, slope + noise[1] * error_slope
    days = np.where(slopes > 0, x.mean() + (rate_s - levels) / np.where(slopes > 0, slopes, 1), np.inf)
    soon, far = limits(days)
    best = float(x.mean() + (rate_s - level) / slope)

    def at(days_on: float) -> int | None:
        return None if not np.isfinite(days_on) or days_on > 36_500 else int(day_s[-1]) + round(days_on * 86_400)

    said = f"the peaks grow by {slope:.3g}/s a day [{low:.3g}, {high:.3g}] and reach {rate_s:,.4g}/s in {best:.0f} days"
    said += f" [{soon:.0f}, {'no end' if at(far) is None else format(far, '.0f')}], if they go on so"
    return Date(
        days=n, growth_day=float(slope), growth_low=low, growth_high=high, at_s=at(best), early_s=at(soon),
        late_s=at(far), refused="", sentence=said,
    )  # fmt: skip


def _fit(
    weights: NDArray[np.float64], n: NDArray[np.float64], late: NDArray[np.float64], x: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Per row of weights a and b of log E[late / n] = a + b x: Newton's method, all rows at once."""
    scale = float(x.std()) or 1.0
    z = x / scale
    sums = np.maximum(weights @ late, 0.5)
    a = np.log(sums / np.maximum(weights @ n, 1.0))  # a resample may draw blocks without a message
    b = np.zeros(len(weights))
    for _ in range(60):
        mean = n * np.exp(np.clip(a[:, None] + b[:, None] * z, -40, 5))
        wm, wr = weights * mean, weights * (late - mean)
        g0, g1 = wr.sum(axis=1), wr @ z
        h00, h01, h11 = wm.sum(axis=1), wm @ z, wm @ z**2
        det = np.maximum(h00 * h11 - h01**2, 1e-12)
        da, db = (h11 * g0 - h01 * g1) / det, (h00 * g1 - h01 * g0) / det
        a, b = a + np.clip(da, -1, 1), b + np.clip(db, -1, 1)
        if float(np.max(np.abs(da)) + np.max(np.abs(db))) < 1e-9:
            break
    return a, b / scale
