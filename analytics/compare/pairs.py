"""A shadow and its original, pair by pair: the same message served twice, only one of which reached a user.

A pair is two messages of one path, one of them a shadow, with the same key or with a link from the user's message to
the shadow. The difference of a pair leaves out what made the message itself slow or fast, so that far fewer messages
show the same. Shadow messages are in no user's number; here they are the other side.
"""

from __future__ import annotations

import msgspec
import numpy as np
import polars as pl
from scipy import special

from analytics.compare import exceedance
from analytics.compare.arms import LEAST_CLUSTERS
from analytics.compare.comparing import ALPHA, QUANTILES
from analytics.compare.reading import Choice, in_reach_sql, reach, value_sql
from analytics.paths import END_TO_END, Path
from analytics.percentiles import interval_ranks, minimum_count, rank
from collector.store import Store

NS = 1_000_000_000
MOST_PAIRS = 2_000_000


class PairTest(msgspec.Struct, frozen=True, kw_only=True):
    """Of the pairs of which one side exceeds the pooled quantile, how many are the shadow's; McNemar's exact p-value.

    `p_clustered` allows for blocks of time (null where there are fewer than 8); the larger p-value is `p_holm`'s.
    """

    name: str
    threshold_ns: int
    only_user: int
    only_shadow: int
    p_value: float
    p_clustered: float | None
    p_holm: float
    finding: str


class Paired(msgspec.Struct, frozen=True, kw_only=True):
    """Shadow minus user's message, over `pairs` pairs; `unpaired` shadows have no original in this time.

    `difference` has quantiles of the difference with their 95 % intervals (value, low, high) in ns. `verdict` is
    `regression`, `no_regression` or `insufficient`.
    """

    verdict: str
    pairs: int
    unpaired: int
    tests: list[PairTest]
    difference: dict[str, tuple[int, int, int]]
    sentences: list[str]


_PAIRS = """
WITH shadows AS (
    SELECT key, {value} AS value, start FROM messages WHERE {reach} AND mode = 'shadow' AND isNotNull(value)
), users AS (
    SELECT key, {value} AS value, start FROM messages
    WHERE {reach} AND mode NOT IN ('shadow', 'synthetic') AND isNotNull(value)
), parents AS (
    SELECT child, any(parent) AS parent FROM links WHERE child IN (SELECT key FROM shadows)
        AND ts >= fromUnixTimestamp64Nano({{from_ns:Int64}} - {{around_ns:Int64}}, 'UTC')
        AND ts < fromUnixTimestamp64Nano({{to_ns:Int64}} + {{around_ns:Int64}}, 'UTC')
    GROUP BY child
)
SELECT assumeNotNull(s.value) AS shadow_ns, assumeNotNull(u.value) AS user_ns,
    toUnixTimestamp64Nano(s.start) AS start_ns
FROM (SELECT shadows.key AS key, shadows.value AS value, shadows.start AS start,
        if(parents.parent = 0, shadows.key, parents.parent) AS original
    FROM shadows LEFT JOIN parents ON parents.child = shadows.key) AS s
INNER JOIN users AS u ON u.key = s.original
ORDER BY start_ns LIMIT {{limit:UInt32}}
"""


def read(store: Store, path: Path, choice: Choice, stage: str = END_TO_END) -> tuple[pl.DataFrame, int]:
    """The pairs (`shadow_ns`, `user_ns`, `start_ns`) of a time, and how many shadows there were."""
    if stage not in path.stage_names:
        raise ValueError(f"path {path.name} has no stage {stage!r} to pair; it has {', '.join(path.stage_names)}")
    value, _ = value_sql(path, stage)
    params = {**reach(path, choice), "around_ns": path.max_age_ns, "limit": MOST_PAIRS}
    frame = store.query(_PAIRS.format(value=value, reach=in_reach_sql()), params)
    count = store.query(
        f"SELECT count() FROM messages WHERE {in_reach_sql()} AND mode = 'shadow' AND isNotNull({value})",  # noqa: S608 - fixed text
        reach(path, choice),
    )
    return frame, int(count.item())


def paired(frame: pl.DataFrame, shadows: int, *, alpha: float = ALPHA, block_ns: int = 10 * NS) -> Paired:
    """What the pairs say: how often only one side is slow, and how far apart they are."""
    n = frame.height
    if n < minimum_count(0.5):
        said = f"Only {n} of {shadows} shadows have an original with the same key or a link to them."
        return Paired(verdict="insufficient", pairs=n, unpaired=shadows - n, tests=[], difference={}, sentences=[said])
    shadow, user = (frame[name].cast(pl.Int64).to_numpy() for name in ("shadow_ns", "user_ns"))
    block = frame["start_ns"].to_numpy() // block_ns
    known = {name: p for name, p in QUANTILES.items() if n >= minimum_count(p)}
    pooled = np.sort(np.concatenate([shadow, user]))
    made = []
    for name, p in known.items():
        threshold = int(pooled[rank(p, 2 * n) - 1])
        moved = (shadow > threshold).astype(np.int64) - (user > threshold)
        only_shadow, only_user = int((moved == 1).sum()), int((moved == -1).sum())
        made.append((name, threshold, only_user, only_shadow, exceedance.mcnemar(only_user, only_shadow),
                     _clustered(moved, block)))  # fmt: skip
    adjusted = exceedance.holm([max(p, c or 0.0) for *_, p, c in made])
    tests = [
        PairTest(
            name=name, threshold_ns=threshold, only_user=only_user, only_shadow=only_shadow, p_value=p, p_clustered=c,
            p_holm=holm,
            finding="no difference" if holm > alpha else "worse" if only_shadow > only_user else "better",
        )
        for (name, threshold, only_user, only_shadow, p, c), holm in zip(made, adjusted, strict=True)
    ]  # fmt: skip
    ordered = np.sort(shadow - user)
    difference = {}
    for name, p in known.items():
        low, high = interval_ranks(p, n)
        difference[name] = (int(ordered[rank(p, n) - 1]), int(ordered[low - 1]), int(ordered[high - 1]))
    verdict = "no_regression" if "p99" in known else "insufficient"
    if any(t.finding == "worse" for t in tests):
        verdict = "regression"
    return Paired(
        verdict=verdict,
        pairs=n,
        unpaired=shadows - n,
        tests=tests,
        difference=difference,
        sentences=_sentences(tests, n, shadows),
    )


def _clustered(moved: np.ndarray, block: np.ndarray) -> float | None:
    """Two-sided p-value of a mean of 0, by blocks of time."""
    names, at = np.unique(block, return_inverse=True)
    clusters = len(names)
    if clusters < LEAST_CLUSTERS:
        return None
    mean = moved.mean()
    each = np.bincount(at, weights=moved - mean, minlength=clusters)
    error = float(np.sqrt(clusters / (clusters - 1) * (each**2).sum())) / len(moved)
    return float(2 * special.stdtr(clusters - 1, -abs(mean) / error)) if error else 1.0


def _sentences(tests: list[PairTest], n: int, shadows: int) -> list[str]:
    said = [
        f"In {t.only_shadow:,} of {n:,} pairs only the shadow took longer than the pooled {t.name}, in {t.only_user:,}"
        f" only the user's message (p {t.p_holm:.2g} after Holm)."
        for t in tests
        if t.finding != "no difference"
    ]
    if not said:
        said.append(f"Of {n:,} pairs the shadow is slow as often as the user's message.")
    if shadows > n:
        said.append(f"{shadows - n:,} shadows have no original in this time.")
    return said
