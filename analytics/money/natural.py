"""Natural experiments: something changed the latency of some and not of others, at a known moment.

The KPI of those it struck (treated) against the others (control), after against before. What the change did to the KPI
(difference in differences) by what it did to the exposure is the effect of the exposure, if nothing else of the
change moved the KPI and both would have gone on alike without it: two-stage least squares with treated x after as the
instrument, a level for each period and one for the treated, errors by block of time (or by unit, where there are many).

That both went alike before is tested: in an event study the periods before the change must not differ (5 %).
Where they do, nothing is estimated. Where they do not, that is no proof (Roth 2022): a small drift is not seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analytics.money.effects import (
    Effect,
    Floats,
    Ints,
    SensitivityError,
    Words,
    critical,
    estimated,
    finite,
    interval_of,
    refused,
)
from analytics.money.instruments import LEAST_F, two_stage
from analytics.money.strata import codes, too_little, within

PRE_TREND_LEVEL = 0.05
_PERIODS = 6  # of each side of the change
LEAST_BEFORE = 3
METHOD = "difference in differences by two stages, errors by cluster"


@dataclass(frozen=True, slots=True)
class Period:
    """How much further treated and control are apart than in the last period before the change, with 95 % interval.

    `offset` counts periods from the change: -1 is the last before it (by definition 0), 0 the first after it.
    """

    offset: int
    kpi: float
    kpi_low: float
    kpi_high: float
    exposure: float
    exposure_low: float
    exposure_high: float


@dataclass(frozen=True, slots=True)
class Natural:
    """The effect, and the event study that it stands on. `pre_trend_p`: of no difference before the change."""

    effect: Effect
    periods: tuple[Period, ...]
    pre_trend_p: float | None
    kpi_moved: float | None
    exposure_moved: float | None


@dataclass(frozen=True, slots=True)
class Fit:
    """Least squares of several columns: coefficients, and their covariance by cluster (CR1)."""

    beta: Floats
    covariance: Floats


def clustered(y: Floats, columns: Floats, cluster: Ints, absorbed: int) -> Fit:
    """Regress y on columns float64[n, k], from both of which `absorbed` parameters were taken out before."""
    bread = np.linalg.pinv(columns.T @ columns)
    beta = bread @ (columns.T @ y)
    rest = y - columns @ beta
    scores = np.column_stack([np.bincount(cluster, weights=c * rest) for c in columns.T])
    g, n, k = int(cluster.max()) + 1, len(y), absorbed + columns.shape[1]
    scale = g / (g - 1) * (n - 1) / max(1, n - k)
    return Fit(np.asarray(beta), np.asarray(scale * bread @ (scores.T @ scores) @ bread))


def natural(
    kpi: Floats,
    exposure: Floats,
    treated: NDArray[np.bool_],
    offset_ns: Ints,
    cluster: Ints,
    words: Words,
) -> Natural:
    """The effect of the exposure by a change at offset 0. `offset_ns` int64[n]: from the change to the row.

    A cluster must not lie on both sides of the change. Raises SensitivityError naming a column that is wrong, or where
    a group or a side of the change is missing.
    """
    y = finite("kpi", kpi)
    n = len(y)
    x = finite("exposure", exposure, n)
    for name, column in (("treated", treated), ("offset_ns", offset_ns), ("cluster", cluster)):
        if len(column) != n:
            raise SensitivityError(f"{name}: must be one column of {n} values")
    after = offset_ns >= 0
    for group, is_it in (("treated", treated), ("control", ~treated)):
        for side, on_it in (("before", ~after), ("after", after)):
            if not (is_it & on_it).any():
                raise SensitivityError(f"treated: there is no row of the {group} group {side} the change")
    period = _periods(offset_ns)
    groups = codes(cluster)
    shown, p = _study(y, x, treated, period, groups)
    data = within(y, x, groups, period, [treated.astype(float)], [(treated & after).astype(float)])
    g = data.clusters
    reason = too_little(data)
    if not reason and int((np.unique(period) < 0).sum()) < LEAST_BEFORE:
        reason = f"Fewer than {LEAST_BEFORE} periods lie before the change; begin earlier."
    if not reason and p is not None and p < PRE_TREND_LEVEL:
        reason = (
            f"Treated and control went different ways before the change already (p = {p:.2g}), so what differs after "
            "it is not the change's. Choose a control that goes alike."
        )
    if reason:
        return Natural(refused("natural experiment", METHOD, reason, n, g), shown, p, None, None)
    found = two_stage(data)
    kpi_moved, exposure_moved = (float(data.z[:, 0] @ c / (data.z[:, 0] @ data.z[:, 0])) for c in (data.y, data.x))
    if not found.first_stage_f >= LEAST_F:
        reason = (
            f"The change hardly moved {words.exposure} of the treated against the control: first-stage F = "
            f"{found.first_stage_f:.1f}, at least {LEAST_F:.0f} is needed."
        )
        effect = refused("natural experiment", METHOD, reason, n, g, f=found.first_stage_f)
        return Natural(effect, shown, p, kpi_moved, exposure_moved)
    interval = interval_of(found.estimate, found.se, g)
    effect = estimated(
        "natural experiment", METHOD, words, found.estimate, found.se, interval, n, g, 1, found.first_stage_f
    )
    return Natural(effect, shown, p, kpi_moved, exposure_moved)


def _periods(offset_ns: Ints) -> Ints:
    """Equal periods on each side, the last before the change is -1 and the first after it 0."""
    before = int(-offset_ns.min(initial=0)) or 1
    after = int(offset_ns.max(initial=0)) + 1
    length = max(1, -(-before // _PERIODS)), max(1, -(-after // _PERIODS))
    return np.where(offset_ns < 0, -1 - (-offset_ns - 1) // length[0], offset_ns // length[1]).astype(np.int64)


def _study(
    y: Floats, x: Floats, treated: NDArray[np.bool_], period: Ints, cluster: Ints
) -> tuple[tuple[Period, ...], float | None]:
    """The event study of KPI and exposure, and the p value of no difference before the change."""
    from scipy import stats

    offsets = [int(one) for one in np.unique(period) if one != -1]
    columns = [treated.astype(float), *((treated & (period == one)).astype(float) for one in offsets)]
    levels = codes(period)
    size = np.bincount(levels)

    def centred(column: Floats) -> Floats:
        return np.asarray(column - (np.bincount(levels, weights=column) / size)[levels])

    table = np.column_stack([centred(c) for c in columns])
    fits = [clustered(centred(one), table, cluster, len(size)) for one in (y, x)]
    g = int(cluster.max()) + 1
    inside = {int(one): len(np.unique(cluster[period == one])) for one in np.unique(period)}
    shown = [Period(-1, *(0.0,) * 6)]
    for number, offset in enumerate(offsets, 1):
        ends: list[float] = []
        t = critical(max(2, inside[offset] + inside.get(-1, 0) - 1))  # few blocks lie in two periods
        for fit in fits:
            b, se = float(fit.beta[number]), float(np.sqrt(max(0.0, fit.covariance[number, number])))
            ends += [b, b - t * se, b + t * se]
        shown.append(Period(offset, *ends))
    found = tuple(sorted(shown, key=lambda one: one.offset))
    before = period < 0
    n_of = [np.bincount(cluster[side & before], minlength=g) for side in (treated, ~treated)]
    both = (n_of[0] > 0) & (n_of[1] > 0)
    early = [number for number, offset in enumerate(offsets, 1) if offset < 0]
    if both.sum() >= both.size / 4 and early:
        # Blocks of time hold both groups: one difference per block, and the analysis of variance of these, which keeps
        # its level also with few blocks in a period. The sandwich does not.
        mean = [
            np.bincount(cluster[side & before], weights=y[side & before], minlength=g)[both] / count[both]
            for side, count in zip((treated, ~treated), n_of, strict=True)
        ]
        of_block = np.zeros(g, dtype=np.int64)
        of_block[cluster[before]] = period[before]
        groups = [(mean[0] - mean[1])[of_block[both] == one] for one in np.unique(of_block[both])]
        groups = [one for one in groups if len(one) > 1]
        return found, float(stats.f_oneway(*groups).pvalue) if len(groups) > 1 else None
    if not early or g <= len(early) + 1:
        return found, None
    betas, v = fits[0].beta[early], fits[0].covariance[np.ix_(early, early)]
    wald = float(betas @ np.linalg.pinv(v) @ betas) / len(early)
    p = float(stats.f.sf(wald, len(early), g - 1))
    return found, p
