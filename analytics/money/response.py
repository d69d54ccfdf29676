"""The shape of the answer: the KPI over latency as a curve that only falls (or rises), with a band by days.

The curve is straight between knots, with equally many rows in between; each stratum has a level of its own, so that
busy hours are not taken for slow ones. Both are fitted together by least squares, and the knots' levels are made
monotone (pool adjacent violators). Days are drawn again for the error, because messages of one day are not independent.
The band and every change are of the levels before they were made monotone: a curve that may only fall would find a fall
in noise. Making the band's ends monotone takes nothing from its coverage (Chernozhukov, Fernandez-Val and Galichon
2009).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from analytics.money.effects import Floats, Ints, SensitivityError, critical, finite
from analytics.money.strata import codes

LEAST_DAYS = 8
_LEAST_BETWEEN = 30
_KNOTS = 12
# The slowest and fastest 0.5 % are not the curve's: too few to say anything of them.
_ENDS = (0.005, 0.995)
_DRAWS = 300

Direction = Literal["down", "up"]


@dataclass(frozen=True, slots=True)
class Change:
    """What moving from one latency to another does to the KPI; `clamped` if an end lay outside what was seen."""

    estimate: float
    low: float
    high: float
    clamped: bool

    @property
    def seen(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, slots=True)
class Curve:
    """KPI by latency: `at_ms` the knots (ascending), `level` monotone, `low` and `high` pointwise 95 %.

    `raw` are the levels before they were made monotone and `drawn` float64[draws, knots] the same of drawn days.
    """

    at_ms: Floats
    level: Floats
    low: Floats
    high: Floats
    raw: Floats
    drawn: Floats
    n: int
    days: int
    direction: Direction

    @property
    def support(self) -> tuple[float, float]:
        """The latencies between which the curve says something."""
        return float(self.at_ms[0]), float(self.at_ms[-1])

    def at(self, latency_ms: float) -> float:
        """The level at a latency. Raises SensitivityError outside the support: nothing is extrapolated."""
        least, most = self.support
        if not least <= latency_ms <= most:
            raise SensitivityError(f"latency_ms: {latency_ms:g} is outside what was seen, {least:.4g} to {most:.4g}")
        return float(np.interp(latency_ms, self.at_ms, self.level))

    def change(self, from_ms: float, to_ms: float) -> Change:
        """The change between two latencies with its interval; an end outside the support is moved to its end."""
        ends = np.clip([from_ms, to_ms], *self.support)
        before, after = np.interp(ends, self.at_ms, self.level)
        weights = _interpolation(self.at_ms, float(ends[1])) - _interpolation(self.at_ms, float(ends[0]))
        half = critical(self.days) * float((self.drawn @ weights).std(ddof=1))
        middle = float(self.raw @ weights)
        clamped = not np.array_equal(ends, [from_ms, to_ms])
        estimate = float(after - before)
        # Where the levels go against the curve's direction, the interval is widened to hold what the curve says.
        return Change(estimate, min(middle - half, estimate), max(middle + half, estimate), clamped)

    @property
    def saturated_from_ms(self) -> float | None:
        """The least latency beyond which no further change is detectable; None if it still changes at the end.

        The lower end of the support means that no response is detectable at all.
        """
        from scipy.special import stdtrit

        # Every knot is a question, so that each must be surer (Bonferroni).
        wider = float(stdtrit(self.days - 1, 1 - 0.025 / (len(self.at_ms) - 1))) / critical(self.days)
        last = None
        for at in self.at_ms[::-1][1:]:
            found = self.change(float(at), float(self.at_ms[-1]))
            middle, half = (found.low + found.high) / 2, (found.high - found.low) / 2
            if abs(middle) > wider * half:
                break
            last = float(at)
        return last


def _interpolation(at: Floats, x: float) -> Floats:
    """Weights w with w @ levels the level at x."""
    return np.array([np.interp(x, at, row) for row in np.eye(len(at))])


@dataclass(frozen=True, slots=True)
class _Sums:
    """Sums over rows, by day: all that least squares need. h are the weights of the two knots around a row."""

    hh: Floats  # [days, knots, knots]
    hy: Floats  # [days, knots]
    h: Floats  # [days, strata, knots]
    y: Floats  # [days, strata]
    n: Floats  # [days, strata]

    def levels(self, times: Floats) -> Floats | None:
        """Levels at the knots when day d counts times[d] times; None if the strata do not connect the knots."""
        n, h, y = times @ self.n, np.tensordot(times, self.h, 1), times @ self.y
        used = n > 0
        n, h, y = n[used], h[used], y[used]
        normal = np.tensordot(times, self.hh, 1) - h.T @ (h / n[:, None])
        right = times @ self.hy - (h / n[:, None]).T @ y
        values, vectors = np.linalg.eigh(normal)
        # One direction is free (all knots up, all strata down); a second one means that nothing ties them together.
        if values[1] < 1e-9 * n.sum():
            return None
        found = vectors[:, 1:] @ ((vectors[:, 1:].T @ right) / values[1:])
        return np.asarray(found + (y.sum() - h.sum(axis=0) @ found) / n.sum())


def _summed(x: Floats, y: Floats, days: Ints, strata: Ints, knots: Floats) -> _Sums:
    left = np.clip(np.searchsorted(knots, x, side="right") - 1, 0, len(knots) - 2)
    to_right = (x - knots[left]) / (knots[left + 1] - knots[left])
    count, levels, width = int(days.max()) + 1, int(strata.max()) + 1, len(knots)
    cell = days * levels + strata

    def table(index: Ints, weights: Floats, *shape: int) -> Floats:
        return np.asarray(np.bincount(index, weights=weights, minlength=int(np.prod(shape))).reshape(shape), np.float64)

    ends = ((left, 1 - to_right), (left + 1, to_right))
    hh = sum(table((days * width + a) * width + b, u * v, count, width, width) for a, u in ends for b, v in ends)
    hy = sum(table(days * width + a, u * y, count, width) for a, u in ends)
    h = sum(table(cell * width + a, u, count, levels, width) for a, u in ends)
    return _Sums(
        np.asarray(hh),
        np.asarray(hy),
        np.asarray(h),
        table(cell, y, count, levels),
        table(cell, np.ones(len(y)), count, levels),
    )


def _monotone(levels: Floats, weights: Floats, direction: Direction) -> Floats:
    from scipy.optimize import isotonic_regression

    return np.asarray(isotonic_regression(levels, weights=weights, increasing=direction == "up").x)


def response(
    kpi: Floats,
    latency_ms: Floats,
    day: Ints | Sequence[object],
    stratum: Ints | None = None,
    direction: Direction = "down",
    knots: int = _KNOTS,
    seed: int = 1,
) -> Curve:
    """Fit the curve. Raises SensitivityError when there are too few days or rows, or strata that cannot be compared."""
    y = finite("kpi", kpi)
    x = finite("latency_ms", latency_ms, len(y))
    days = codes(np.asarray(day))
    strata = np.zeros(len(y), dtype=np.int64) if stratum is None else codes(stratum)
    if len(days) != len(y) or len(strata) != len(y):
        raise SensitivityError(f"day, stratum: must be columns of {len(y)} values")
    if not 3 <= knots <= 100:
        raise SensitivityError(f"knots: {knots} must be 3 to 100")
    if len(y) < knots * _LEAST_BETWEEN:
        raise SensitivityError(f"kpi: {len(y)} rows are too few for {knots} knots; take fewer, or more data")
    at = np.unique(np.quantile(x, np.linspace(*_ENDS, knots)))
    if len(at) < 3:
        raise SensitivityError("latency_ms: has fewer than 3 different values; compare groups instead")
    inside = (x >= at[0]) & (x <= at[-1])
    x, y, days, strata = x[inside], y[inside], codes(days[inside]), codes(strata[inside])
    count = int(days.max(initial=-1)) + 1
    if count < LEAST_DAYS:
        raise SensitivityError(f"day: {count} days are fewer than {LEAST_DAYS}; take a longer time")
    if count * (int(strata.max()) + 1) * len(at) > 50_000_000:
        raise SensitivityError("stratum: too many strata for so many days; take coarser ones")
    sums = _summed(x, y, days, strata, at)
    raw = sums.levels(np.ones(count))
    if raw is None:
        raise SensitivityError("stratum: no stratum has both fast and slow rows; take coarser strata")
    rng = np.random.default_rng(seed)
    found = (sums.levels(one.astype(np.float64)) for one in rng.multinomial(count, np.full(count, 1 / count), _DRAWS))
    drawn = [one for one in found if one is not None]
    if len(drawn) < 0.9 * _DRAWS:
        raise SensitivityError("stratum: too few rows per day to say how sure the curve is; take coarser strata")
    table = np.array(drawn)
    half = critical(count) * table.std(axis=0, ddof=1)
    weights = sums.h.sum(axis=(0, 1))
    level, low, high = (_monotone(end, weights, direction) for end in (raw, raw - half, raw + half))
    return Curve(at, level, low, high, raw, table, len(y), count, direction)
