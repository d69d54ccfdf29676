"""A history in which load moves latency and the KPI together, so that the naive slope has the wrong sign."""

from __future__ import annotations

import numpy as np

from analytics.money.sensitivity import Observations

HOURS_A_DAY = 24


def history(
    seed: int,
    truth: float = -0.0040,
    days: int = 10,
    per_hour: int = 40,
    confounding: float = 0.9,
    load_known: bool = True,
    assigned: bool = True,
) -> Observations:
    """Rows of `days` days: KPI in percentage points, latency in ms, clusters of 4 hours, 50 ms assigned to a half.

    Load follows the hour of day and a random course between hours; customers of busy hours buy more by themselves.
    """
    rng = np.random.default_rng(seed)
    hours = days * HOURS_A_DAY
    course = np.zeros(hours)
    for h in range(1, hours):
        course[h] = 0.8 * course[h - 1] + rng.normal(0, 0.5)
    hourly = 1.5 * np.sin(np.arange(hours) / HOURS_A_DAY * 2 * np.pi) + course
    at = np.repeat(np.arange(hours), per_hour)
    load = hourly[at] + rng.normal(0, 0.3, len(at))
    block = at // 4
    shock = rng.normal(0, 0.15, block.max() + 1)[block]
    assignment = 50.0 * rng.integers(0, 2, len(at)) if assigned else np.zeros(len(at))
    own = rng.gamma(2.0, 4.0, len(at))
    latency = 40 + 15 * load + own + assignment
    kpi = 3.0 + truth * latency + confounding * load + shock + rng.normal(0, 0.5, len(at))
    ahead = np.full(len(at), np.nan)
    ahead[:-per_hour] = latency[per_hour:]
    before = np.full(len(at), np.nan)
    before[per_hour:] = kpi[:-per_hour]
    return Observations(
        kpi=kpi,
        exposure=latency,
        cluster=block,
        hour=at % HOURS_A_DAY,
        load=load if load_known else None,
        assignment=assignment if assigned else None,
        lead=ahead,
        earlier=before,
    )
