"""An estimate of the store as the effect of a path's value: relative, with its support, to be saved in a file."""

from __future__ import annotations

from datetime import UTC, datetime

from analytics.money.ask import Asked
from analytics.money.effects import SensitivityError
from analytics.money.exposures import END_TO_END
from analytics.money.value import LatencyEffect
from analytics.money.velocity import relative

NS = 1_000_000_000


def effect_of(asked: Asked) -> LatencyEffect:
    """The answer relative to the KPI's mean, per millisecond from end to end.

    It stands for revenue if the KPI is revenue, or something that revenue goes in step with. Raises SensitivityError
    for an exposure that is none of latency from end to end, a refused answer, and one whose checks have failed.
    """
    if asked.exposure.kind != "latency" or asked.exposure.stage != END_TO_END:
        raise SensitivityError(f"exposure: must be latency from end to end, not {asked.exposure.words}")
    answer = asked.result.answer
    if asked.result.checks_failed and answer.design != "experiment":
        raise SensitivityError(asked.result.sentence)
    made = relative(answer, asked.mean, asked.least, asked.most)
    design = answer.design
    if design not in ("experiment", "natural experiment", "strata", "double machine learning"):
        raise SensitivityError(f"effect: a {design} slope must not become money")
    effect = LatencyEffect(
        estimate=made.estimate,
        low=made.low,
        high=made.high,
        least_ms=max(0.0, made.least_ms),
        most_ms=made.most_ms,
        design=design,
        measured=datetime.fromtimestamp((asked.to_ns - 1) // NS, UTC).date(),
        source=f"{asked.kpi} of {asked.path}, {asked.rows:,} rows of {answer.clusters:,} clusters",
    )
    effect.validate()
    return effect
