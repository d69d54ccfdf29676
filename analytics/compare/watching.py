"""A rollout asked of the store: thresholds fixed beforehand, both sides by block, business measures, an objective.

Nothing is remembered between looks: the same question asked again later sees the same blocks and the later ones. So the
beginning must stay the same from look to look; without one it is the canary's first message.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from analytics import buckets
from analytics.compare.burning import Budgets, burns
from analytics.compare.comparing import ALPHA
from analytics.compare.reading import NS, Choice, counted, in_reach_sql, labels_from, reach, where_sql
from analytics.compare.rollout import MARGIN, Burn, Decision, Kpi, aligned, decide
from analytics.completeness import share
from analytics.paths import END_TO_END, Path
from analytics.percentiles import Counts, minimum_count, percentile
from collector.settings import duration_ns
from collector.store import Store

BLOCK_NS = 10 * NS
LOOK_BACK_NS = 30 * 60 * NS
MOST_NS = 24 * 3600 * NS
LEARNING = 1_000  # messages of both sides that set thresholds where nothing ran before
NONE = Budgets()
THRESHOLDS = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}


@dataclass(frozen=True, slots=True)
class Objective:
    """A latency objective: the share `target` of messages takes at most `threshold_ns`."""

    threshold_ns: int
    target: float


@dataclass(frozen=True, slots=True)
class KpiQuestion:
    """A business measure by name, and which of its rows are each side's: `cohort=a`, `channel=b`, `region=c`."""

    name: str
    baseline: str
    canary: str
    worse: str = "lower"


def objective_from(text: str) -> Objective:
    """`5ms=99.9%` (or `5ms=0.999`) as an objective. Raises ValueError (ConfigError for the duration)."""
    limit, equals, part_good = (part.strip() for part in text.partition("="))
    try:
        target = float(part_good.removesuffix("%")) / (100 if part_good.endswith("%") else 1)
    except ValueError:
        target = math.nan
    if not equals or not 0 < target < 1:
        raise ValueError("write DURATION=SHARE, for example 5ms=99.9%")
    return Objective(duration_ns(limit, "objective"), round(target, 9))


class RolloutError(ValueError):
    """A rollout that cannot be judged; the message says why."""


@dataclass(frozen=True, slots=True)
class Look:
    """A decision, the time that it is about, and the share of produced events behind it (null: not known)."""

    decision: Decision
    from_ns: int
    to_ns: int
    completeness: float | None


def look(
    store: Store,
    path: Path,
    baseline: str,
    canary: str,
    *,
    from_ns: int | None = None,
    to_ns: int | None = None,
    stage: str = END_TO_END,
    objective: Objective | None = None,
    budgets: Budgets = NONE,
    kpis: Sequence[KpiQuestion] = (),
    alpha: float = ALPHA,
    margin: float = MARGIN,
) -> Look:
    """Decide on what is stored now. `objective` is one made up for the question, `budgets` are those in force.

    Raises RolloutError, and ValueError for labels and stages that cannot be."""
    if stage not in path.stage_names:
        raise RolloutError(f"path {path.name} has no stage {stage!r}; it has {', '.join(path.stage_names)}")
    sides = [labels_from(text) for text in (baseline, canary)]
    if sides[0] == sides[1]:
        raise RolloutError("baseline and canary are the same messages")
    if not 1 < margin <= 100 or not 0 < alpha < 1:
        raise RolloutError(f"margin must be above 1 and at most 100, alpha in (0, 1), got {margin:g} and {alpha:g}")
    end = time.time_ns() if to_ns is None else to_ns
    begin = from_ns if from_ns is not None else _first(store, path, sides[1], end)
    # A block belongs to the test whole or not at all.
    begin = -(-begin // BLOCK_NS) * BLOCK_NS
    end = min(max(end, begin + BLOCK_NS), begin + MOST_NS)
    a, b = (counted(store, path, Choice(labels, begin, end), stage, BLOCK_NS) for labels in sides)
    thresholds, said, after = _thresholds(store, path, sides[0], begin, stage, a, b)
    a, b = (rows.filter(pl.col("block") >= after) for rows in (a, b))
    held = [] if objective is None else [_burn(a, b, objective)]
    if budgets.objectives:
        held += burns(store, path, budgets, sides[0], sides[1], max(begin, after * BLOCK_NS), end)
    decision = decide(
        a,
        b,
        thresholds,
        said,
        kpis=[_kpi(store, one, begin, end) for one in kpis],
        burns=held,
        firing=budgets.firing(),
        alpha=alpha,
        margin=margin,
    )
    known = share(store, begin, end)
    return Look(decision, begin, end, known.share if known.share is not None else known.known_share)


def _first(store: Store, path: Path, labels: Mapping[str, str], end: int) -> int:
    """The canary's first message of the last day, or now."""
    conditions, params = where_sql(labels)
    found = store.query(
        f"SELECT count() AS n, toUnixTimestamp64Nano(min(start)) AS first FROM messages"  # noqa: S608 - fixed text
        f" WHERE {in_reach_sql()} AND {conditions}",
        {**reach(path, Choice(labels, max(0, end - MOST_NS), end)), **params},
    ).row(0)
    return int(found[1]) if found[0] else end


def _thresholds(
    store: Store, path: Path, labels: Mapping[str, str], begin: int, stage: str, a: pl.DataFrame, b: pl.DataFrame
) -> tuple[dict[str, int], str, int]:
    """Thresholds by quantile, of which messages they are, and the first block that may be tested."""
    first = begin // BLOCK_NS
    before = counted(store, path, Choice(labels, max(0, begin - LOOK_BACK_NS), begin), stage, BLOCK_NS)
    found = _quantiles(before)
    if "p99" in found:
        return found, "the baseline's messages of the 30 minutes before", first
    both = pl.concat([a, b]).sort("block")
    sums = both.group_by("block", maintain_order=True).agg(pl.col("n").sum()).with_columns(pl.col("n").cum_sum())
    enough = sums.filter(pl.col("n") >= LEARNING)
    if not enough.height:
        return {}, "none: too few messages", first
    last = int(enough["block"][0])
    learned = _quantiles(both.filter(pl.col("block") <= last))
    return learned, f"the first {int(enough['n'][0]):,} messages of both sides, which are not tested", last + 1


def _quantiles(rows: pl.DataFrame) -> dict[str, int]:
    each = rows.filter(pl.col("bucket").is_not_null()).group_by("bucket").agg(pl.col("n").sum()).sort("bucket")
    if not each.height:
        return {}
    bucket, n = each["bucket"].cast(pl.Int64).to_numpy(), each["n"].cast(pl.Int64).to_numpy()
    counts = Counts(bucket, n, int(buckets.low(bucket[0])), int(buckets.high(bucket[-1])), 0)
    out = {}
    for name, p in THRESHOLDS.items():
        value = percentile(counts, p).value_ns if counts.count >= minimum_count(p) else None
        if value is not None:
            out[name] = value
    return out


def _burn(a: pl.DataFrame, b: pl.DataFrame, objective: Objective) -> Burn:
    """Bad are the canary's messages that took longer, finished badly or never did."""
    _, both = aligned(a, b)
    bad = []
    for side in both:
        slow, _ = side.above(objective.threshold_ns)
        bad.append(np.minimum(side.n, slow + side.outcomes["errors"] + side.outcomes["unfinished"]))
    baseline = int(bad[0].sum()), int(both[0].n.sum())
    return Burn(f"{100 * objective.target:.7g} %", bad[1], both[1].n, objective.target, baseline=baseline)


_KPI = """
SELECT ts, sum(value * weight) / sum(weight) AS value FROM (
    SELECT ts, cohort, channel, region, argMax(value, version) AS value, argMax(weight, version) AS weight FROM kpis
    WHERE name = {name:String} AND ts >= fromUnixTimestamp64Nano({from_ns:Int64}, 'UTC')
        AND ts < fromUnixTimestamp64Nano({to_ns:Int64}, 'UTC') AND $where
    GROUP BY ts, cohort, channel, region
) GROUP BY ts HAVING sum(weight) > 0 ORDER BY ts
"""


def _kpi(store: Store, asked: KpiQuestion, from_ns: int, to_ns: int) -> Kpi:
    """The measure of both sides at the times that both have."""
    frames = []
    for text in (asked.baseline, asked.canary):
        labels = labels_from(text)
        unknown = set(labels) - {"cohort", "channel", "region"}
        if unknown:
            raise RolloutError(f"business measures are known by cohort, channel and region, not by {min(unknown)!r}")
        where = " AND ".join(f"{name} = {{{name}:String}}" for name in labels) or "1"
        sql = _KPI.replace("$where", where)
        frames.append(store.query(sql, {**labels, "name": asked.name, "from_ns": from_ns, "to_ns": to_ns}))
    both = frames[0].join(frames[1], on="ts", how="inner", suffix="_canary").sort("ts")
    return Kpi(
        asked.name,
        both["value"].cast(pl.Float64).to_numpy(),
        both["value_canary"].cast(pl.Float64).to_numpy(),
        "higher" if asked.worse == "higher" else "lower",
    )


__all__ = ["ALPHA", "MARGIN", "KpiQuestion", "Look", "Objective", "RolloutError", "look", "objective_from"]
