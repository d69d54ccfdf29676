"""Experiments: latency that was assigned (an injected delay, a flag) and the KPI that follows it, by two stages.

Who is assigned a delay does not choose it, so what the assignment moves in the KPI it moves through latency: two-stage
least squares (linearmodels), errors by the cluster that was assigned. It is the effect where the assignment changed the
latency (LATE), and nothing is said below a first-stage F of 10 (Staiger and Stock 1997).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analytics.money.effects import Effect, SensitivityError, Words, estimated, interval_of, refused
from analytics.money.strata import Within, too_little

LEAST_F = 10.0


@dataclass(frozen=True, slots=True)
class TwoStage:
    """The slope by two stages, its standard error, and the F of the instruments in the first."""

    estimate: float
    se: float
    first_stage_f: float


def two_stage(data: Within, clustered: bool = True) -> TwoStage:
    """Two-stage least squares of y on x by z, all within strata; `clustered` False takes every row by itself.

    Raises SensitivityError where linearmodels is not installed.
    """
    try:
        from linearmodels.iv import IV2SLS
    except ImportError as error:
        raise SensitivityError("an experiment needs the extra `business`: pip install 'tailsight[business]'") from error

    model = IV2SLS(data.y, None, data.x, data.z)
    how = {"cov_type": "clustered", "clusters": data.cluster} if clustered else {"cov_type": "unadjusted"}
    result = model.fit(**how)
    scale = float(np.sqrt(data.correction())) if clustered else 1.0
    return TwoStage(
        float(result.params.iloc[0]), float(result.std_errors.iloc[0]) * scale, _first_stage_f(data, clustered)
    )


def _first_stage_f(data: Within, clustered: bool) -> float:
    """The Wald statistic of all instruments by their number, errors by cluster or alike."""
    z, x = data.z, data.x
    bread = np.linalg.pinv(z.T @ z)
    pi = bread @ (z.T @ x)
    rest = x - z @ pi
    if clustered:
        scores = np.column_stack([np.bincount(data.cluster, weights=c * rest) for c in z.T])
        covariance = data.correction() * bread @ (scores.T @ scores) @ bread
    else:
        covariance = bread * float(rest @ rest) / (len(x) - data.parameters - z.shape[1])
    wald = float(pi @ np.linalg.pinv(covariance) @ pi)
    return wald / int(z.shape[1])


def experiment(data: Within, words: Words) -> Effect:
    """The effect of the exposure by its assignment, or a refusal."""
    n, g, strata = len(data.y), data.clusters, data.strata
    method = "two-stage least squares, errors by cluster"
    reason = too_little(data)
    if not reason and not all(float(c @ c) > 1e-18 * n for c in data.z.T):
        reason = "The assignment does not vary within the strata."
    if reason:
        return refused("experiment", method, reason, n, g, strata)
    found = two_stage(data)
    if not found.first_stage_f >= LEAST_F:
        reason = (
            f"The assignment hardly moved {words.exposure}: first-stage F = {found.first_stage_f:.1f}, at least "
            f"{LEAST_F:.0f} is needed. Assign a larger difference, or wait for more data."
        )
        return refused("experiment", method, reason, n, g, strata, found.first_stage_f)
    interval = interval_of(found.estimate, found.se, g)
    return estimated("experiment", method, words, found.estimate, found.se, interval, n, g, strata, found.first_stage_f)
