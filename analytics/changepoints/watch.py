"""Early warning: a running sum that notices a small lasting rise of late messages before the objective is missed.

A threshold is frozen at a quantile of a quiet time, the baseline. Of each step's n messages k are beyond it, and

    C = max(0, C + k log(q1 / q0) + (n - k) log((1 - q1) / (1 - q0)))          (Page 1954)

with q0 the baseline's share and q1 that of doubled odds, warns when C passes h. How high h must be is not taken from a
table for independent messages: courses are drawn that are distributed as the baseline's steps and whose neighbours are
as alike, with the error of q0 itself, so that a quiet period of the length asked for warns with the probability asked
for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import stats

ODDS = 2.0
_PATHS = 400
_FEWEST_STEPS = 30
_FEWEST_LATE = 20


@dataclass(frozen=True, slots=True)
class Watch:
    """What was learned from the baseline. `false_alarm` is the probability of a warning in `period` quiet steps."""

    share: float
    raised: float
    height: float
    period: int
    false_alarm: float


class Lead(msgspec.Struct, frozen=True, kw_only=True):
    """How warnings and breaches met: measured, not promised.

    A warning is true when a breach begins within the horizon after it, or while it stands. `lead_ns` is the median time
    from the first true warning to its breach; rates are per day of quiet time, with their exact Poisson interval.
    """

    warnings: int
    breaches: int
    warned: int
    lead_ns: int | None
    lead_low_ns: int | None
    lead_high_ns: int | None
    false_alarms: int
    false_per_day: float
    false_low: float
    false_high: float


def learn(
    late: NDArray[Any], count: NDArray[Any], *, period: int, false_alarm: float = 0.05, seed: int = 0
) -> Watch | str:
    """The watch that warns in `period` quiet steps with probability `false_alarm`; a sentence when it cannot be."""
    k, n = np.asarray(late, dtype=np.float64), np.asarray(count, dtype=np.float64)
    k, n = k[n > 0], n[n > 0]
    if len(n) < _FEWEST_STEPS or k.sum() < _FEWEST_LATE:
        return (
            f"the baseline needs {_FEWEST_STEPS} steps and {_FEWEST_LATE} messages beyond its threshold; there are"
            f" {len(n)} and {int(k.sum())}"
        )
    rng = np.random.default_rng(seed)
    share = float(k.sum() / n.sum())
    extra, common = _beyond_chance(k, n, share)
    # Learned from one draw, watching another: the height covers what a baseline of this length does not know.
    known_k, known_n = _drawn(n, share, extra, common, len(n), rng)
    q0 = np.clip(known_k.sum(axis=1) / known_n.sum(axis=1), 1e-9, 0.5)[:, None]
    highest = np.max(_course(*_drawn(n, share, extra, common, period, rng), q0, _raised(q0)), axis=1)
    rank = min(_PATHS - 1, math.ceil((1 - false_alarm) * (_PATHS + 1)) - 1)
    return Watch(share, float(_raised(share)), float(np.sort(highest)[rank]), period, false_alarm)


def warnings(watch: Watch, late: NDArray[Any], count: NDArray[Any]) -> NDArray[np.int64]:
    """The steps at which a warning begins; the next one can begin once the sum has come back to 0."""
    k, n = np.asarray(late, dtype=np.float64), np.asarray(count, dtype=np.float64)
    up, down = math.log(watch.raised / watch.share), math.log((1 - watch.raised) / (1 - watch.share))
    found, total, standing = [], 0.0, False
    for step, (late_here, n_here) in enumerate(zip(k, n, strict=True)):
        total = max(0.0, total + late_here * up + (n_here - late_here) * down)
        if not standing and total > watch.height:
            found.append(step)
            standing = True
        elif standing and total == 0.0:
            standing = False
        total = min(total, 2 * watch.height)  # a long breach must not take as long to be forgotten
    return np.array(found, dtype=np.int64)


def lead(warned_ns: NDArray[np.int64], breach_ns: NDArray[np.int64], *, horizon_ns: int, quiet_ns: int) -> Lead:
    """How long before breaches the warnings came; `quiet_ns` is the time that was not within a horizon of a breach."""
    times = []
    true = np.zeros(len(warned_ns), dtype=bool)
    for at in np.sort(breach_ns):
        before = (warned_ns <= at) & (warned_ns >= at - horizon_ns)
        true |= before
        if before.any():
            times.append(int(at - warned_ns[before].min()))
    false = int((~true).sum())
    days = max(quiet_ns, 1) / 86_400e9
    low = stats.chi2.ppf(0.025, 2 * false) / 2 if false else 0.0
    high = stats.chi2.ppf(0.975, 2 * false + 2) / 2
    ranked = sorted(times)
    return Lead(
        warnings=len(warned_ns),
        breaches=len(breach_ns),
        warned=len(times),
        lead_ns=ranked[len(ranked) // 2] if ranked else None,
        lead_low_ns=ranked[0] if ranked else None,
        lead_high_ns=ranked[-1] if ranked else None,
        false_alarms=false,
        false_per_day=false / days,
        false_low=float(low) / days,
        false_high=float(high) / days,
    )


def _raised(share: Any) -> Any:
    """The share at `ODDS` times its odds."""
    odds = ODDS * share / (1 - share)
    return odds / (1 + odds)


def _beyond_chance(k: NDArray[np.float64], n: NDArray[np.float64], share: float) -> tuple[float, float]:
    """By how much shares vary beyond chance, as a variance relative to share^2, and how alike neighbours are.

    The variance is taken one standard error high: too little of it would warn too often.
    """
    off = k / n - share
    steps = len(n)
    seen = float(off @ off) / (steps - 1)
    extra = seen * (1 + math.sqrt(2 / (steps - 1))) - share * (1 - share) * float(np.mean(1 / n))
    if extra <= 0:
        return 0.0, 0.0
    between = float(off[1:] @ off[:-1]) / (steps - 1)  # chance has nothing to do with what neighbours share
    alike = between / seen > 1.65 / math.sqrt(steps)
    return extra / share**2, min(0.95, between / extra + 1 / math.sqrt(steps)) if alike else 0.0


def _drawn(
    n: NDArray[np.float64], share: float, extra: float, common: float, steps: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Courses of late messages and messages, float64[paths, steps]: Poisson about shares that vary as the baseline's.

    Shares are log-normal with a Gaussian AR(1). Drawing the baseline's own steps again would not do: a new quiet time
    has larger excursions than the largest of a short baseline.
    """
    count = n[rng.integers(0, len(n), (_PATHS, steps))]
    z = rng.normal(size=(_PATHS, steps)) if extra else np.zeros((_PATHS, steps))
    for step in range(1, steps if common else 0):
        z[:, step] = common * z[:, step - 1] + math.sqrt(1 - common**2) * z[:, step]
    wide = math.sqrt(math.log1p(extra))
    late = rng.poisson(count * np.minimum(1.0, share * np.exp(wide * z - wide**2 / 2)))
    return np.minimum(late, count), count


def _course(k: NDArray[np.float64], n: NDArray[np.float64], q0: Any, q1: Any) -> NDArray[np.float64]:
    """The running sum per row, floored at 0: the distance of the plain sum from its minimum so far."""
    plain = np.cumsum(k * np.log(q1 / q0) + (n - k) * np.log((1 - q1) / (1 - q0)), axis=1)
    return np.asarray(plain - np.minimum(np.minimum.accumulate(plain, axis=1), 0.0), dtype=np.float64)
