"""What an estimate says: an effect with design and interval, or none and what would have been seen, or a refusal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Design = Literal[
    "experiment",
    "natural experiment",
    "strata",
    "double machine learning",
    "naive",
    "placebo lead",
    "negative control",
]
ANSWERS = ("experiment", "natural experiment", "strata", "double machine learning")  # designs that may become money
Verdict = Literal["effect", "no detectable effect", "refused"]

LEVEL = 0.95
POWER = 0.80


class SensitivityError(ValueError):
    """Data from which nothing can be estimated: which part is wrong, and what to do."""


@dataclass(frozen=True, slots=True)
class Words:
    """What the numbers are called, for people: `kpi` changes by `kpi_unit` per `unit` of `exposure`."""

    kpi: str = "the KPI"
    kpi_unit: str = ""
    exposure: str = "latency"
    unit: str = "ms"


@dataclass(frozen=True, slots=True)
class Effect:
    """The change of the KPI per unit of exposure, in the KPI's own units (not percent of percent).

    `low` to `high` is the 95 % interval. `detectable` is the smallest effect that would have been seen with a
    probability of 80 %. `first_stage_f` is of an experiment. A refused estimate has no numbers and a `reason`.
    """

    design: Design
    method: str
    verdict: Verdict
    sentence: str
    n: int
    clusters: int
    strata: int = 1
    estimate: float | None = None
    se: float | None = None
    low: float | None = None
    high: float | None = None
    detectable: float | None = None
    first_stage_f: float | None = None
    reason: str = ""

    @property
    def seen(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.verdict == "effect"


def critical(clusters: int) -> float:
    """Student's t at 97.5 % for clusters - 1 degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(clusters - 1, (1 + LEVEL) / 2))


def detectable(se: float, clusters: int) -> float:
    """The effect that is seen with a probability of 80 % at this standard error: (t_0.975 + t_0.8) se."""
    from scipy.special import stdtrit

    return (critical(clusters) + float(stdtrit(clusters - 1, POWER))) * se


def _number(value: float) -> str:
    return f"{value:.4g}"


def _basis(n: int, clusters: int, strata: int) -> str:
    among = f" compared within {strata:,} strata" if strata > 1 else ""
    return f"{n:,} observations in {clusters:,} clusters{among}"


def estimated(
    design: Design,
    method: str,
    words: Words,
    estimate: float,
    se: float,
    interval: tuple[float, float],
    n: int,
    clusters: int,
    strata: int = 1,
    first_stage_f: float | None = None,
) -> Effect:
    """An effect of numbers, with its plain sentence."""
    low, high = interval
    least = detectable(se, clusters)
    seen = low > 0 or high < 0
    unit = f" {words.kpi_unit}" if words.kpi_unit else ""
    basis = _basis(n, clusters, strata)
    span = f"{_number(estimate)}{unit} (95 % interval {_number(low)} to {_number(high)})"
    if design == "naive":
        sentence = (
            f"Warning, not an effect: where {words.exposure} is one {words.unit} more, {words.kpi} differs by {span}, "
            f"whatever else differs there too; {basis}."
        )
    elif design in ("placebo lead", "negative control"):
        about = "what comes later" if design == "placebo lead" else "what came before"
        outcome = "and it does: something else moves both" if seen else "and it does not, as it should be"
        sentence = f"{design.capitalize()}: {about} must not move with it, {outcome} ({span}; {basis})."
    elif not seen:
        sentence = (
            f"No detectable effect of {words.exposure} on {words.kpi}: {span} per {words.unit}; {design}, {basis}. "
            f"An effect of {_number(least)}{unit} per {words.unit} would have been seen with a probability of 80 %."
        )
    elif design == "experiment":
        sentence = (
            f"One {words.unit} more of {words.exposure} changes {words.kpi} by {span}, where the assignment changed "
            f"it; experiment, {basis}."
        )
    elif design == "natural experiment":
        sentence = (
            f"One {words.unit} more of {words.exposure} changes {words.kpi} by {span}, as far as nothing else of the "
            f"change moved it; natural experiment, {basis}."
        )
    else:
        sentence = (
            f"Association, not proof: with one {words.unit} more of {words.exposure}, {words.kpi} differs by {span} "
            f"among what is alike; {design}, {basis}."
        )
    return Effect(
        design, method, "effect" if seen else "no detectable effect", sentence, n, clusters, strata, estimate, se, low,
        high, least, first_stage_f,
    )  # fmt: skip


def refused(
    design: Design, method: str, reason: str, n: int, clusters: int, strata: int = 1, f: float | None = None
) -> Effect:
    """No estimate, and why."""
    sentence = f"{design.capitalize()}: no estimate. {reason}"
    return Effect(design, method, "refused", sentence, n, clusters, strata, first_stage_f=f, reason=reason)


def finite(name: str, values: object, n: int | None = None) -> Floats:
    """`values` as float64[n]. Raises SensitivityError naming them."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or (n is not None and len(array) != n):
        raise SensitivityError(f"{name}: must be one column{'' if n is None else f' of {n} values'}")
    if not np.isfinite(array).all():
        raise SensitivityError(
            f"{name}: {int((~np.isfinite(array)).sum())} values are not numbers; leave those rows out"
        )
    return array


def interval_of(estimate: float, se: float, clusters: int) -> tuple[float, float]:
    """The 95 % interval by Student's t with clusters - 1 degrees of freedom."""
    half = critical(clusters) * se
    if not math.isfinite(half):
        raise SensitivityError("the standard error is not a number; there is no variation to estimate from")
    return estimate - half, estimate + half
