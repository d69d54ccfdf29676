"""Parallel work reduced to what the message waited for: the critical path, walked back from the end.

At each moment, counted backwards from the message's end, the stage that ended last by then is what was waited for; the
walk goes on at its begin. Time that no stage covers is unattributed (Zhang et al., CRISP: Critical Path Analysis of
Large-Scale Microservice Architectures, USENIX ATC 2022, for spans without children). Stages on the path do not overlap,
so that they and what remains add up to the message, exactly.
"""

from __future__ import annotations

import numpy as np

from analytics.paths import Path
from analytics.tail.tailset import Ints


def sequential(path: Path) -> bool:
    """Whether no two stages of the path can run at once: each begins where one before it has ended.

    Stages are chained when every stage's first end is the path's or the end of a stage before, and no two begin at the
    same end.
    """
    seen = {path.first_end}
    starts = [stage.start for stage in path.stages]
    if len(set(starts)) < len(starts):
        return False
    previous = None
    for stage in path.stages:
        if previous is not None and stage.start != previous and stage.start in seen:
            return False
        seen.add(stage.end)
        previous = stage.end
    return True


def on_path(begin: Ints, end: Ints, known: np.ndarray, until: Ints) -> Ints:
    """What each stage takes on the critical path: int64[n, stages], zero for a stage that is not on it.

    `begin`, `end` int64[n, stages] where `known` (bool); `until` int64[n] is when the messages ended. Stages that end
    after the walk's place, or before they begin, are not waited for.
    """
    n, stages = begin.shape
    out = np.zeros((n, stages), dtype=np.int64)
    left = known & (end > begin)
    cursor = until.astype(np.int64).copy()
    rows = np.arange(n)
    lowest = np.iinfo(np.int64).min
    for _ in range(stages):
        open_ = left & (end <= cursor[:, None])
        at = np.where(open_, end, lowest).argmax(axis=1)
        found = open_[rows, at]
        if not found.any():
            break
        mine, stage = rows[found], at[found]
        out[mine, stage] = end[mine, stage] - begin[mine, stage]
        cursor[mine] = begin[mine, stage]
        left[mine, stage] = False
    return out
