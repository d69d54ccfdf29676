"""Where more load gives no more throughput, or only endless waiting: two models and when not to believe them.

Universal scalability law (Gunther 2007), throughput of N messages at work at a time:
    C(N) = g N / (1 + a (N - 1) + b N (N - 1)),    knee N* = sqrt((1 - a) / b),   without b a ceiling of g / a
Kingman's approximation of the mean wait at rate r (Kingman 1961; exact for M/M/1):
    W(r) = k r / (m - r),    m = the rate at which the queue never ends
A knee beyond what was seen is a guess: it is refused when the highest load is below 80 % of it.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from analytics.queueing.load import Load, limits, resampled

_SEEN = 0.8
_FEWEST = 20


class Knee(msgspec.Struct, frozen=True, kw_only=True):
    """A knee or ceiling with its interval (`high` null: no upper end), or why there is none.

    `unit` is `messages at a time` (USL) or `messages per second` (ceiling, saturation); `observed` is the highest load
    seen, the 99th percentile of the steps.
    """

    model: str
    unit: str
    value: float | None
    low: float | None
    high: float | None
    observed: float
    steps: int
    parameters: dict[str, float]
    refused: str
    sentence: str


def usl(load: Load, *, seed: int = 0) -> Knee:
    """The knee of the universal scalability law; where the cost of coordination is not seen, the ceiling g / a."""
    inside, rate = load.inside, load.rate_s
    busy = (inside >= 1) & (rate > 0) & (load.finished > 0)
    observed = float(np.quantile(inside, 0.99)) if len(inside) else 0.0

    def refuse(why: str, parameters: dict[str, float] | None = None) -> Knee:
        return Knee(
            model="USL", unit="messages at a time", value=None, low=None, high=None, observed=observed,
            steps=int(busy.sum()), parameters=parameters or {}, refused=why, sentence=why,
        )  # fmt: skip

    if busy.sum() < _FEWEST:
        return refuse(
            f"needs {_FEWEST} steps with at least one message at work on average, there are {int(busy.sum())}:"
            " a system this idle says nothing of its knee"
        )
    n, x = inside[busy], rate[busy]
    rng = np.random.default_rng(seed)
    g, a, b = _usl_fit(n, x, np.ones(len(n)))
    again = np.array([_usl_fit(n, x, w) for w in resampled(len(n), rng, times=200)])
    knees = np.array([_knee(*one) for one in again])
    knee = _knee(g, a, b)
    fitted = {"g": g, "a": a, "b": b}
    low, high = limits(knees)
    if np.isfinite(knee) and np.isfinite(high):
        if observed < _SEEN * knee:
            return refuse(
                f"the highest load seen, {observed:.3g} messages at a time, is below 80 % of where the knee would lie"
                f" ({knee:.3g}): too far to tell", fitted
            )  # fmt: skip
        return Knee(
            model="USL", unit="messages at a time", value=knee, low=low, high=high, observed=observed, steps=len(n),
            parameters=fitted, refused="",
            sentence=f"beyond {knee:.3g} messages at a time [{low:.3g}, {high:.3g}] throughput falls with more load",
        )  # fmt: skip
    if a <= 0:
        return refuse("throughput grows with the load as far as was seen: there is no knee to fit", fitted)
    ceiling = g / a
    least, most = limits(np.where(again[:, 1] > 0, again[:, 0] / np.maximum(again[:, 1], 1e-12), np.inf))
    top = float(np.quantile(x, 0.99))
    if top < _SEEN * ceiling:
        return refuse(
            f"the highest rate seen, {top:,.4g}/s, is below 80 % of the ceiling that the course points to"
            f" ({ceiling:,.4g}/s): too far to tell", fitted
        )  # fmt: skip
    return Knee(
        model="USL", unit="messages per second", value=ceiling, low=least, high=most if np.isfinite(most) else None,
        observed=top, steps=len(n), parameters=fitted, refused="",
        sentence=f"no knee is seen; throughput levels off below {ceiling:,.4g}/s [{least:,.4g},"
        f" {'no end' if not np.isfinite(most) else format(most, ',.4g')}]",
    )  # fmt: skip


def saturation(load: Load, *, seed: int = 0) -> Knee:
    """The rate at which the mean wait has no end (Kingman). `load.sum_ns` is what messages waited, not their service.

    Fitted with errors in proportion to the wait, by the profile of the gamma deviance over m.
    """
    load = load.merged()
    used = (load.count > 0) & (load.finished > 0) & (load.sum_ns > 0)
    rate, n = load.rate_s[used], load.finished[used]
    top = float(np.quantile(rate, 0.99)) if len(rate) else 0.0

    def refuse(why: str, parameters: dict[str, float] | None = None) -> Knee:
        return Knee(
            model="Kingman", unit="messages per second", value=None, low=None, high=None, observed=top,
            steps=int(used.sum()), parameters=parameters or {}, refused=why, sentence=why,
        )  # fmt: skip

    if used.sum() < _FEWEST:
        return refuse(f"needs {_FEWEST} steps with messages that waited, there are {int(used.sum())}")
    if float(rate.std()) < 0.05 * float(rate.mean()):
        return refuse("the load hardly changed, by less than 5 %: nothing says how waiting depends on it")
    wait = load.sum_ns[used] / n
    grid = float(rate.max()) * (1 + np.geomspace(0.001, 9, 300))
    shape = rate[:, None] / (grid[None, :] - rate[:, None])
    best = _kingman_fit(np.ones((1, len(rate))), n, wait, shape)[0]
    again = grid[_kingman_fit(resampled(len(rate), np.random.default_rng(seed)), n, wait, shape)]
    found = float(grid[best])
    scale = float(np.sum(n * wait / shape[:, best]) / n.sum())
    fitted = {"m_s": found, "k_ns": scale}
    edge = float(grid[-1])
    low, high = limits(again)
    if top < _SEEN * found:
        return refuse(
            f"the highest rate seen, {top:,.4g}/s, is below 80 % of where waiting would have no end ({found:,.4g}/s):"
            " too far to tell", fitted
        )  # fmt: skip
    return Knee(
        model="Kingman", unit="messages per second", value=found, low=low, high=None if high >= edge else high,
        observed=top, steps=len(rate), parameters=fitted, refused="",
        sentence=f"waiting has no end at {found:,.4g}/s [{low:,.4g}, {high:,.4g}]; the highest rate seen is"
        f" {top / found:.0%} of it",
    )  # fmt: skip


def _knee(_g: float, a: float, b: float) -> float:
    return float(np.sqrt((1 - a) / b)) if b > 0 and a < 1 else float("inf")


def _usl_fit(n: NDArray[np.float64], x: NDArray[np.float64], weight: NDArray[np.float64]) -> tuple[float, float, float]:
    """g, a, b >= 0 from N / C = (1 + a (N - 1) + b N (N - 1)) / g, which is linear; errors in proportion to N / C."""
    y = n / x
    scale = np.sqrt(weight) / y
    design = np.stack([np.ones_like(n), n - 1, n * (n - 1)], axis=1) * scale[:, None]
    found, _ = optimize.nnls(design, y * scale)
    c0, c1, c2 = (float(c) for c in found)
    return (1 / c0, c1 / c0, c2 / c0) if c0 > 0 else (float("inf"), 0.0, 0.0)


def _kingman_fit(
    weights: NDArray[np.float64], n: NDArray[np.float64], wait: NDArray[np.float64], shape: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Per row of weights the column of `shape` with the least gamma deviance; its scale is the weighted mean ratio."""
    heavy = weights * n
    total = heavy.sum(axis=1, keepdims=True)
    scale = (heavy @ (wait[:, None] / shape)) / total
    deviance = np.log(scale) + (heavy @ np.log(shape)) / total
    return np.asarray(np.argmin(deviance, axis=1), dtype=np.int64)
