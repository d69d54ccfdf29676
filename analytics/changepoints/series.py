"""What is searched for change points, as steps with a vector and a weight each, from stored counts and gauges."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from analytics import buckets, gauges
from analytics.generations import CURRENT
from analytics.paths import END_TO_END
from analytics.percentiles import percentile
from analytics.tally import Tallies, Tally
from collector.store import Store

NS = 1_000_000_000
Subject = Literal["percentile", "count", "mix", "score"]
MOST_VALUES = 20
MOST_SCORES = 50
QUANTILES = {"p50": 0.5, "p99": 0.99}


@dataclass(frozen=True, slots=True)
class Series:
    """`values` float64[steps, dimensions] and `weight` float64[steps] are what is searched.

    `plain` float64[steps, dimensions] is what people read, in `unit`; `names` are its dimensions.
    """

    subject: Subject
    name: str
    stage: str
    unit: str
    names: tuple[str, ...]
    values: NDArray[np.float64]
    weight: NDArray[np.float64]
    plain: NDArray[np.float64]
    labels: dict[str, str] = field(default_factory=dict)


def percentile_series(tallies: Tallies, stages: Sequence[str], seconds: Sequence[int]) -> list[Series]:
    """Per stage and quantile the share of messages beyond the quantile of the whole time.

    That share is 1 - q when nothing changed, whatever the latencies are; unlike a percentile per step it adds up.
    """
    found = []
    for stage in stages:
        mine = [tallies.get((s, stage)) for s in seconds]
        whole = _sum(one for one in mine if one is not None)
        for name, q in QUANTILES.items():
            if percentile(whole.counts, q).refused:
                continue
            edge = edge_at(whole, q)
            n = np.array([0 if t is None else t.sums["n"] + t.sums["unfinished"] for t in mine], dtype=np.float64)
            late = np.array([0 if t is None else late_of(t, edge) for t in mine], dtype=np.float64)
            share = np.divide(late, n, out=np.zeros_like(late), where=n > 0)
            found.append(Series("percentile", name, stage, "share", ("late",), share[:, None], n, share[:, None]))
    return found


def count_series(tallies: Tallies, seconds: Sequence[int], step_s: int) -> list[Series]:
    """Messages per second, by the square root that makes counts of any size vary alike (Anscombe 1948)."""
    mine = [tallies.get((s, END_TO_END)) for s in seconds]
    n = np.array([0 if t is None else t.sums["n"] + t.sums["unfinished"] for t in mine], dtype=np.float64)
    if not n.any():
        return []
    one = np.ones(len(n))
    root = 2 * np.sqrt(n + 0.375)
    return [Series("count", "messages", END_TO_END, "per second", ("rate",), root[:, None], one, n[:, None] / step_s)]


_MIX = f"""
SELECT toInt64(intDiv(toUInt32(window), {{step:UInt32}}) * {{step:UInt32}}) AS second, rollup,
    sum(n + unfinished) AS count
FROM stage_windows
WHERE path = {{path:String}} AND level = {{level:UInt16}} AND stage = 'end_to_end' AND rollup != ''
    AND window >= toDateTime({{from_s:UInt32}}, 'UTC') AND window < toDateTime({{to_s:UInt32}}, 'UTC')
    AND generation IN ({CURRENT})
GROUP BY second, rollup ORDER BY second, rollup LIMIT 1000000
"""  # noqa: S608 - fixed text, values are bound


def mix_series(store: Store, path: str, seconds: Sequence[int], step_s: int) -> list[Series]:
    """Per counted label the shares of its values, the 20 commonest and the rest, scaled to Pearson's chi-square."""
    level = 3_600 if step_s % 3_600 == 0 else 60 if step_s % 60 == 0 and step_s > 600 else 10
    params = {
        "path": path, "level": level, "step": step_s, "from_s": int(seconds[0]), "to_s": int(seconds[-1]) + step_s,
    }  # fmt: skip
    place = {s: i for i, s in enumerate(seconds)}
    by_label: dict[str, dict[str, NDArray[np.float64]]] = defaultdict(dict)
    for second, rollup, n in store.query(_MIX, params).iter_rows():
        label, _, value = rollup.partition("=")
        if second in place:
            by_label[label].setdefault(value, np.zeros(len(seconds)))[place[second]] += n
    found = []
    for label, values in sorted(by_label.items()):
        common = sorted(values, key=lambda v: (-values[v].sum(), v))
        columns = [values[v] for v in common[:MOST_VALUES]]
        names = list(common[:MOST_VALUES])
        if len(common) > MOST_VALUES:
            columns.append(np.sum([values[v] for v in common[MOST_VALUES:]], axis=0))
            names.append("(others)")
        table = np.stack(columns, axis=1)
        if len(names) < 2:
            continue
        n = table.sum(axis=1)
        share = np.divide(table, n[:, None], out=np.zeros_like(table), where=n[:, None] > 0)
        pooled = table.sum(axis=0) / table.sum()
        found.append(Series("mix", label, END_TO_END, "share", tuple(names), share / np.sqrt(pooled), n, share))
    return found


def score_series(store: Store, names: Sequence[str], seconds: Sequence[int], step_s: int) -> list[Series]:
    """Per gauge, host, service and labels the mean of each step, by rank: no reading counts for more than its place."""
    place = {s: i for i, s in enumerate(seconds)}
    cells: dict[tuple[Any, ...], NDArray[np.float64]] = {}
    first_ns, last_ns = seconds[0] * NS, (seconds[-1] + step_s) * NS
    for name in names:
        for row in gauges.series(store, name, step_ns=step_s * NS, from_ns=first_ns, to_ns=last_ns):
            key = (row.name, row.host, row.service, tuple(sorted(row.labels.items())))
            at = place.get(row.start_ns // NS)
            if at is not None and len(cells) <= MOST_SCORES:
                cells.setdefault(key, np.full(len(seconds), np.nan))[at] = row.mean
    found = []
    for (name, host, service, labels), values in list(cells.items())[:MOST_SCORES]:
        known = ~np.isnan(values)
        ranks = np.zeros(len(values))
        ranks[known] = stats.rankdata(values[known]) / known.sum()
        about = {k: v for k, v in {"host": host, "service": service, **dict(labels)}.items() if v}
        column = (ranks[:, None], known.astype(np.float64), values[:, None])
        found.append(Series("score", name, "", "value", ("mean",), *column, labels=about))
    return found


def late_of(one: Tally, edge: int) -> int:
    """Messages in buckets beyond `edge`, and those that never finished."""
    return sum(k for bucket, k in one.buckets.items() if bucket > edge) + one.sums["unfinished"]


def total(tallies: Tallies, stage: str, seconds: Iterable[int]) -> Tally:
    """All of one stage over these steps."""
    return _sum(one for s in seconds if (one := tallies.get((s, stage))) is not None)


def edge_of(threshold_ns: int) -> int:
    """The last bucket that is not beyond a threshold: the one that it lies in."""
    return int(buckets.index(np.array([threshold_ns]))[0])


def edge_at(whole: Tally, q: float) -> int:
    """The last bucket that is not beyond the q-quantile: of the two next to it, the one that leaves nearer to 1 - q.

    Where many latencies are equal, the quantile's own bucket may hold all of the tail.
    """
    edge = edge_of(percentile(whole.counts, q).value_ns or 0)
    n = whole.sums["n"] + whole.sums["unfinished"]
    return min((edge, edge - 1), key=lambda e: abs(late_of(whole, e) - (1 - q) * n))


def _sum(some: Iterable[Tally]) -> Tally:
    whole = Tally()
    for one in some:
        for bucket, k in one.buckets.items():
            whole.buckets[bucket] += k
        for name in ("n", "unfinished", "sum_ns"):
            whole.sums[name] += one.sums[name]
        if one.min_ns is not None and one.max_ns is not None:
            whole.min_ns = one.min_ns if whole.min_ns is None else min(whole.min_ns, one.min_ns)
            whole.max_ns = one.max_ns if whole.max_ns is None else max(whole.max_ns, one.max_ns)
    return whole
