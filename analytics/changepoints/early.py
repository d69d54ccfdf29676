"""The stages of a path watched from the end of a baseline on: when each would have warned, and how long before."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from analytics.changepoints import series as of
from analytics.changepoints.series import NS
from analytics.changepoints.watch import Lead, Watch, lead, learn, warnings
from analytics.paths import END_TO_END, Path
from analytics.percentiles import percentile
from analytics.tally import Tallies

RATE = 0.05


class Warned(msgspec.Struct, frozen=True, kw_only=True):
    """Warnings of one stage: more messages than in the baseline were beyond its p99. `refused` says why none could be.

    `false_alarm` is the probability that a time without change has a warning at all.
    """

    stage: str
    threshold_ns: int | None
    false_alarm: float
    at_ns: list[int]
    lead: Lead | None
    refused: str


def watched(
    path: Path, tallies: Tallies, seconds: list[int], step: int, stages: Sequence[str] | None,
    objective: tuple[int, float] | None, seed: int,
) -> list[Warned]:  # fmt: skip
    """Every stage watched from the end of the baseline on, against the p99 of the baseline."""
    third = len(seconds) // 3
    wanted = [s for s in (path.stage_names if stages is None else stages) if any((t, s) in tallies for t in seconds)]
    later = seconds[third:]
    breaches = _breaches(tallies, later, objective) if objective is not None else None
    found = []
    for stage in wanted:
        rate = RATE / len(wanted)
        quiet = of.total(tallies, stage, seconds[:third])
        base = percentile(quiet.counts, 0.99)
        told: Watch | str = base.refused
        count, late = np.zeros(len(seconds)), np.zeros(len(seconds))
        if not told and base.value_ns is not None:
            edge = of.edge_at(quiet, 0.99)
            for i, s in enumerate(seconds):
                if (t := tallies.get((s, stage))) is not None:
                    count[i], late[i] = t.sums["n"] + t.sums["unfinished"], of.late_of(t, edge)
            told = learn(late[:third], count[:third], period=max(1, len(later)), false_alarm=rate, seed=seed)
        if isinstance(told, str):
            found.append(Warned(stage=stage, threshold_ns=None, false_alarm=rate, at_ns=[], lead=None, refused=told))
            continue
        # A step is known when it is over.
        at = np.array([(later[i] + step) * NS for i in warnings(told, late[third:], count[third:])], dtype=np.int64)
        measured = None
        if breaches is not None:
            horizon = 10 * step * NS
            busy = min(len(later) * step * NS, len(breaches) * horizon)
            measured = lead(at, breaches, horizon_ns=horizon, quiet_ns=len(later) * step * NS - busy)
        found.append(
            Warned(
                stage=stage, threshold_ns=base.value_ns, false_alarm=rate, at_ns=at.tolist(), lead=measured, refused=""
            )
        )
    return found


def _breaches(tallies: Tallies, seconds: list[int], objective: tuple[int, float]) -> NDArray[np.int64]:
    """When steps that miss the objective begin, after one that kept it."""
    threshold_ns, good = objective
    edge = of.edge_of(threshold_ns)
    begun, missed = [], False
    for s in seconds:
        one = tallies.get((s, END_TO_END))
        n = 0 if one is None else one.sums["n"] + one.sums["unfinished"]
        now = one is not None and n > 0 and of.late_of(one, edge) > (1 - good) * n
        if now and not missed:
            begun.append(s * NS)
        missed = now
    return np.array(begun, dtype=np.int64)
