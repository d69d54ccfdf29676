"""Headroom of a path from its stored counts: fast over weeks, because no message is read."""

from __future__ import annotations

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from analytics import buckets
from analytics.completeness import completeness
from analytics.cover import widen
from analytics.paths import END_TO_END, Path
from analytics.queueing.headroom import Date, Headroom, date_at_trend, headroom
from analytics.queueing.knee import Knee, saturation, usl
from analytics.queueing.load import Load
from analytics.queueing.waits import queue_stages
from analytics.tally import Tallies, stored
from collector.store import Store

NS = 1_000_000_000
_DAY_S = 86_400
MOST_STEPS = 8_640
READING = (
    "The rate at which the share of late messages reaches what the objective allows, fitted to how lateness rose with"
    " the load that was seen. It holds for a load of the same kind; it is refused beyond what was nearly reached."
)


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """Headroom of the objectives of a path, its knee, and the saturation of each of its queues."""

    path: str
    stage: str
    from_ns: int
    to_ns: int
    step_s: int
    count: int
    completeness: float | None
    headroom: list[Headroom]
    dates: list[Date]
    knee: Knee
    saturation: dict[str, Knee]
    sentence: str


def capacity(
    store: Store,
    path: Path,
    *,
    from_ns: int,
    to_ns: int,
    objectives: tuple[tuple[int, float], ...],
    stage: str = END_TO_END,
    rollup: str = "",
    seed: int = 0,
) -> Capacity:
    """Headroom for each (threshold_ns, share that is to be faster) of `stage`.

    The date at trend looks at the 60 days before `to_ns`, whatever the time asked about. Raises ValueError for an
    objective that makes no sense, StoreError.
    """
    for threshold_ns, good in objectives:
        if threshold_ns <= 0 or not 0 < good < 1:
            raise ValueError(f"an objective is a time above 0 and a share between 0 and 1, got {threshold_ns}, {good}")
    first, last = widen(from_ns, to_ns)
    step = _step(last - first)
    first, last = -(-first // step) * step, last // step * step  # a step that is not whole has a wrong rate
    tallies = stored(store, path.name, first, last, rollup=rollup, step_s=step)
    loads = [load_of(tallies, stage, first, last, step, threshold_ns) for threshold_ns, _ in objectives]
    found = [
        headroom(load, threshold_ns=threshold_ns, good=good, seed=seed)
        for load, (threshold_ns, good) in zip(loads, objectives, strict=True)
    ]
    any_load = loads[0] if loads else load_of(tallies, stage, first, last, step, 1)
    return Capacity(
        path=path.name,
        stage=stage,
        from_ns=first * NS,
        to_ns=last * NS,
        step_s=step,
        count=int(any_load.count.sum()),
        completeness=completeness(store, from_ns, to_ns)[0].share,
        headroom=found,
        dates=_dates(store, path.name, stage, to_ns, found),
        knee=usl(any_load, seed=seed),
        saturation={
            path.stages[i].name: saturation(load_of(tallies, path.stages[i].name, first, last, step, 1), seed=seed)
            for i in queue_stages(path)
        },
        sentence=READING,
    )


def load_of(tallies: Tallies, stage: str, first_s: int, last_s: int, step_s: int, threshold_ns: int) -> Load:
    """The whole steps of one stage from `first_s`, a multiple of the step, on.

    Late is what is in a bucket whose middle is beyond `threshold_ns` (0.4 % exact), or never finished.
    """
    starts = np.arange(first_s, last_s, step_s, dtype=np.int64)
    table: NDArray[np.float64] = np.zeros((4, len(starts)))
    edge = int(buckets.index(np.array([threshold_ns]))[0])
    edge += int(buckets.midpoint(edge)) <= threshold_ns
    for (second, name), one in tallies.items():
        at = (second - first_s) // step_s
        if name != stage or not 0 <= at < len(starts):
            continue
        n, lost = one.sums["n"], one.sums["unfinished"]
        late = sum(k for bucket, k in one.buckets.items() if bucket >= edge)
        table[:, at] += (n + lost, late + lost, one.sums["sum_ns"], n)
    return Load(step_s, starts, table[0], table[1], table[2], table[3])


def _step(seconds: int) -> int:
    """The finest level of windows whose steps are not too many."""
    return next((level for level in (10, 60, 3_600) if seconds // level <= MOST_STEPS), 3_600)


_PEAKS = """
SELECT toUInt32(toStartOfDay(window)) AS day, max(n) AS peak FROM (
    SELECT window, argMax(n + unfinished, generation) AS n FROM stage_windows
    WHERE path = {path:String} AND level = 3600 AND stage = {stage:String} AND rollup = ''
        AND window >= toDateTime({from_s:UInt32}, 'UTC') AND window < toDateTime({to_s:UInt32}, 'UTC')
    GROUP BY window
) GROUP BY day ORDER BY day
"""


def _dates(store: Store, path: str, stage: str, to_ns: int, found: list[Headroom]) -> list[Date]:
    """For each headroom when the peak hour of the day reaches it; days that are not over are left out."""
    end = to_ns // NS // _DAY_S * _DAY_S
    frame: pl.DataFrame = store.query(
        _PEAKS, {"path": path, "stage": stage, "from_s": max(0, end - 60 * _DAY_S), "to_s": end}
    )
    days, peaks = frame["day"].to_numpy().astype(np.int64), frame["peak"].to_numpy().astype(np.float64) / 3_600
    why = "without a rate at which the objective breaks there is no date"
    none = Date(
        days=len(days), growth_day=None, growth_low=None, growth_high=None, at_s=None, early_s=None, late_s=None,
        refused=why, sentence=why,
    )  # fmt: skip
    return [none if one.rate_s is None else date_at_trend(days, peaks, one.rate_s) for one in found]
