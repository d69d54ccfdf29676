"""Single steps that stand out from their stretch: too short for a change point, too far for chance.

Within each stretch between change points a step's distance from the median is divided by the stretch's own spread (the
median absolute deviation, which a few odd steps do not move), shares and counts on a logarithmic scale. It is judged by
Student's t with 10 degrees of freedom, whose heavier tails stand for what a spread from few steps does not know, and by
Benjamini and Hochberg's procedure over all steps of all series.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import special

from analytics.changepoints.effects import adjusted
from analytics.changepoints.series import NS, Series, Subject

RATE = 0.05
MOST_ANOMALIES = 100
_FREEDOM = 10
_FEWEST = 20
_NORMAL = 1.4826  # the standard deviation of a normal distribution over its median absolute deviation


class Anomaly(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a series that stands out from its stretch: `value` where `usual`, the stretch's median, is."""

    subject: Subject
    name: str
    stage: str
    labels: dict[str, str]
    unit: str
    at_ns: int
    value: float
    usual: float
    q: float


def anomalies(every: list[Series], splits: list[list[int]], seconds: list[int]) -> list[Anomaly]:
    """Steps that stand out, over all series but mixes, in order of time; at most 100, the clearest."""
    judged = [(one, cuts, step_p(one, cuts)) for one, cuts in zip(every, splits, strict=True) if one.subject != "mix"]
    q = iter(adjusted([float(p) for _, _, each in judged for p in each]))
    found = []
    for one, cuts, each in judged:
        for i in range(len(each)):
            if (here := next(q)) <= RATE:
                begin, end = max([0, *(c for c in cuts if c <= i)]), min([len(each), *(c for c in cuts if c > i)])
                usual = float(np.median(one.plain[begin:end, 0][one.weight[begin:end] > 0]))
                found.append(
                    Anomaly(
                        subject=one.subject, name=one.name, stage=one.stage, labels=one.labels, unit=one.unit,
                        at_ns=seconds[i] * NS, value=float(one.plain[i, 0]), usual=usual, q=here,
                    )
                )  # fmt: skip
    found = sorted(found, key=lambda a: a.q)[:MOST_ANOMALIES]
    return sorted(found, key=lambda a: (a.at_ns, a.stage, a.name))


def levels(one: Series) -> NDArray[np.float64]:
    """The first figure of each step on the scale on which it is judged, NaN where it has none."""
    x, w = one.plain[:, 0], one.weight
    if one.subject == "percentile":
        # Half a message more keeps a step without late ones on the scale.
        found = np.log((x * w + 0.5) / (w + 1))
    elif one.subject == "count":
        found = np.log(np.maximum(x, 1e-9) + 0.5 / max(1.0, float(np.median(x))))
    else:
        found = x.astype(np.float64)
    return np.where(w > 0, found, np.nan)


def step_p(one: Series, splits: Sequence[int]) -> NDArray[np.float64]:
    """The p of each step, 1 where nothing can be said: stretches of less than 20 steps, or without any spread."""
    y = levels(one)
    p = np.ones(len(y))
    for begin, end in pairwise([0, *splits, len(y)]):
        part = y[begin:end]
        known = ~np.isnan(part)
        if known.sum() < _FEWEST:
            continue
        off = part - np.median(part[known])
        spread = _NORMAL * float(np.median(np.abs(off[known])))
        if spread > 0:
            # Fewer late messages than usual are no anomaly.
            late = one.subject == "percentile"
            found = special.stdtr(_FREEDOM, -off / spread if late else -np.abs(off) / spread) * (1 if late else 2)
            p[begin:end] = np.where(known, found, 1.0)
    return p
