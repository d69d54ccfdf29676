"""Microbursts and the messages that they delayed.

A message belongs to a burst when it *came* to the stage while the burst lasted, on a host that saw it. Whether its time
in the stage overlaps a burst would not do: a slow message overlaps more of everything. It is compared with the other
messages of the same minute, so that what the minute did to all is not put down to the burst.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from analytics.completeness import completeness
from analytics.paths import Path
from analytics.population import Population
from analytics.queueing.load import limits
from analytics.queueing.waits import before, read
from collector.store import Store

_MINUTE_NS = 60_000_000_000
_RESAMPLES = 1_000
_FEWEST_HIT, _FEWEST_MINUTES = 20, 5
MOST_BURSTS = 200_000
READING = (
    "How much longer messages took that came to the stage during a burst than the others of the same minute; interval"
    " by resampling minutes. What else the burst's senders did at that moment is not told apart from the burst."
)


class BurstEffect(msgspec.Struct, frozen=True, kw_only=True):
    """What bursts of one kind did to the messages of one stage.

    `hit` messages came during one of `bursts`, in `minutes` that have both kinds of messages. `excess_ns` is how much
    longer they took on average, in [`low_ns`, `high_ns`]. Of all messages `hit_share` were hit, of the slowest 1 %
    `tail_share`.
    """

    path: str
    stage: str
    kind: str
    bursts: int
    burst_ns: int
    count: int
    hit: int
    minutes: int
    excess_ns: float | None
    low_ns: float | None
    high_ns: float | None
    hit_share: float
    tail_share: float | None
    completeness: float | None
    refused: str
    sentence: str


def excess(
    came_ns: NDArray[np.int64], took_ns: NDArray[Any], hit: NDArray[np.bool_], *, seed: int = 0
) -> tuple[float, float, float, int] | str:
    """The mean excess of the hit messages over the same minute's others, its interval, and in how many minutes.

    Minutes count by how many of their messages were hit. A sentence instead when there are too few.
    """
    minute = np.unique(np.asarray(came_ns) // _MINUTE_NS, return_inverse=True)[1]
    took = np.asarray(took_ns, dtype=np.float64)
    n1 = np.bincount(minute, weights=hit)
    n0 = np.bincount(minute) - n1
    both = (n1 > 0) & (n0 > 0)
    k, hits = int(both.sum()), int(n1[both].sum())
    if hits < _FEWEST_HIT or k < _FEWEST_MINUTES:
        return (
            f"needs at least {_FEWEST_HIT} messages that came during bursts, in {_FEWEST_MINUTES} minutes; there are"
            f" {hits} in {k}"
        )
    s1 = np.bincount(minute, weights=took * hit)
    s0 = np.bincount(minute, weights=took * ~hit)
    more = (s1[both] / n1[both] - s0[both] / n0[both]) * n1[both]
    weight = n1[both]
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(k, np.full(k, 1 / k), size=_RESAMPLES).astype(np.float64)
    centre = float(more.sum() / weight.sum())
    again = (drawn @ more) / np.maximum(drawn @ weight, 1e-12)
    # Few clusters vary too little when they are drawn from themselves: widened by k / (k - 1).
    low, high = limits(centre + (again - centre) * np.sqrt(k / (k - 1)))
    return centre, low, high, k


def during(came_ns: NDArray[np.int64], start_ns: NDArray[np.int64], end_ns: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each moment lies in one of the intervals [start, end)."""
    if not len(start_ns):
        return np.zeros(len(came_ns), dtype=bool)
    order = np.argsort(start_ns, kind="stable")
    starts, reach = start_ns[order], np.maximum.accumulate(end_ns[order])
    i = np.searchsorted(starts, came_ns, side="right") - 1
    return np.asarray((i >= 0) & (np.asarray(came_ns) < reach[np.maximum(i, 0)]), dtype=np.bool_)


_BURSTS = """
SELECT toString(kind) AS kind, toString(host) AS host, toUnixTimestamp64Nano(ts) AS start_ns,
    start_ns + duration_ns AS end_ns
FROM intervals
WHERE startsWith(kind, 'microburst_') AND ts >= fromUnixTimestamp64Nano({from_ns:Int64} - 1000000000, 'UTC')
    AND ts < fromUnixTimestamp64Nano({to_ns:Int64}, 'UTC')
ORDER BY start_ns LIMIT {limit:UInt32}
"""


def burst_effects(
    store: Store, path: Path, *, from_ns: int, to_ns: int, stages: Sequence[str] | None = None
) -> list[BurstEffect]:
    """What microbursts in [from_ns, to_ns) did to the network and queue stages of `path`, or to those named.

    Raises KeyError for an unknown stage, ValueError for more bursts or messages than an answer can hold, StoreError.
    """
    names = [s.name for s in path.stages]
    for name in stages or ():
        if name not in names:
            raise KeyError(f"path {path.name} has no stage {name!r}; it has {', '.join(names)}")
    wanted = [
        i
        for i, s in enumerate(path.stages)
        if (s.name in stages if stages is not None else s.kind in ("network", "queue"))
    ]
    bursts = store.query(_BURSTS, {"from_ns": from_ns, "to_ns": to_ns, "limit": MOST_BURSTS + 1})
    if bursts.height > MOST_BURSTS:
        raise ValueError(f"more than {MOST_BURSTS:,} bursts in that time; ask for less time")
    if bursts.is_empty():
        return []
    found = read(store, path, from_ns, to_ns)
    share = completeness(store, from_ns, to_ns)[0].share
    return [
        _effect(found, i, str(kind), bursts.filter(pl.col("kind") == kind), share)
        for kind in bursts["kind"].unique().sort()
        for i in wanted
    ]


def _effect(found: Population, stage: int, kind: str, bursts: pl.DataFrame, share: float | None) -> BurstEffect:
    path = found.path
    chain = before(path, stage)
    name = path.stages[stage].name
    lasted = int((bursts["end_ns"] - bursts["start_ns"]).sum())

    def told(why: str, n: int = 0, hit: int = 0, minutes: int = 0) -> BurstEffect:
        return BurstEffect(
            path=path.name, stage=name, kind=kind, bursts=bursts.height, burst_ns=lasted, count=n, hit=hit,
            minutes=minutes, excess_ns=None, low_ns=None, high_ns=None, hit_share=hit / n if n else 0.0,
            tail_share=None, completeness=share, refused=why, sentence=READING,
        )  # fmt: skip

    if chain is None:
        return told("when messages came to this stage is not known: the stages before it leave a gap")
    need = [pl.col(f"ns_{i}").is_not_null() for i in [*chain, stage]]
    rows = found.frame.filter(pl.all_horizontal(need)).with_columns(
        (pl.col("start_ns") + pl.sum_horizontal([pl.lit(0), *(pl.col(f"ns_{i}") for i in chain)])).alias("came")
    )
    if rows.is_empty():
        return told("no message passed this stage in that time")
    came, took = rows["came"].to_numpy(), rows[f"ns_{stage}"].to_numpy()
    sides = [f"host_{stage}"] + ([f"host_{chain[-1]}"] if chain else [])
    hit = np.zeros(rows.height, dtype=bool)
    for host in bursts["host"].unique():
        here = rows.select(pl.any_horizontal([pl.col(c) == host for c in sides])).to_series().to_numpy()
        mine = bursts.filter(pl.col("host") == host)
        hit |= here & during(came, mine["start_ns"].to_numpy(), mine["end_ns"].to_numpy())
    n, hits = rows.height, int(hit.sum())
    seen = excess(came, took, hit)
    if isinstance(seen, str):
        return told(seen, n, hits)
    centre, low, high, minutes = seen
    slow = took >= np.quantile(took, 0.99)
    return BurstEffect(
        path=path.name, stage=name, kind=kind, bursts=bursts.height, burst_ns=lasted, count=n, hit=hits,
        minutes=minutes, excess_ns=centre, low_ns=low, high_ns=high, hit_share=hits / n,
        tail_share=float(hit[slow].mean()), completeness=share, refused="", sentence=READING,
    )  # fmt: skip
