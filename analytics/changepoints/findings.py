"""The answer: what changed when, how much, what stood next to it in time, and what could have been known before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import comb

import msgspec

from analytics import gauges
from analytics.changepoints import series as of
from analytics.changepoints.anomalies import Anomaly, anomalies
from analytics.changepoints.early import Warned, watched
from analytics.changepoints.effects import Moved, adjusted, cramers_v, moved_of
from analytics.changepoints.scan import Split, block_length, scan
from analytics.changepoints.series import NS, Series, Subject
from analytics.completeness import completeness
from analytics.cover import widen
from analytics.paths import END_TO_END, Path
from analytics.percentiles import percentile
from analytics.tally import Tallies, stored
from collector.store import Store

STEPS = 120
_NICE_S = (10, 20, 30, 60, 120, 300, 600, 1_200, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400)
RATE = 0.05
READING = (
    "Each series was searched for stretches whose level differs by more than its own order in time can explain; over"
    " all series at most 5 % of those named are expected to be chance. A change that stands next to one in time did not"
    " necessarily cause it."
)


class Beside(msgspec.Struct, frozen=True, kw_only=True):
    """A recorded change near a change point, which lies `after_ns` after it (negative: before)."""

    ts_ns: int
    after_ns: int
    id: str
    kind: str
    who: str
    what: str
    host: str
    service: str
    version: str


class ChangePoint(msgspec.Struct, frozen=True, kw_only=True):
    """A series changed at `at_ns`, somewhere in [`low_ns`, `high_ns`].

    `p` is the series' own, `q` after Benjamini and Hochberg over all series. `moved` are its figures, the most changed
    first: for percentiles the share beyond the whole time's percentile; `before_ns` and `after_ns` are the percentile
    itself (null: refused). `effect` is Cramer's V of a mix, the ratio after / before of others (null: from nothing).
    """

    subject: Subject
    name: str
    stage: str
    labels: dict[str, str]
    unit: str
    at_ns: int
    low_ns: int
    high_ns: int
    p: float
    q: float
    count: int
    moved: list[Moved]
    effect: float | None
    before_ns: int | None
    after_ns: int | None
    changes: list[Beside]


class ChangePoints(msgspec.Struct, frozen=True, kw_only=True):
    """Change points of a path in order of time, and the early warnings. `tested` series were searched."""

    path: str
    from_ns: int
    to_ns: int
    step_s: int
    count: int
    tested: int
    completeness: float | None
    baseline_to_ns: int
    found: list[ChangePoint]
    anomalies: list[Anomaly]
    warnings: list[Warned]
    sentence: str


Progress = Callable[[int, int], None]


def changepoints(
    store: Store,
    path: Path,
    *,
    from_ns: int,
    to_ns: int,
    stages: Sequence[str] | None = None,
    scores: Sequence[str] | None = None,
    objective: tuple[int, float] | None = None,
    rollup: str = "",
    near_ns: int = 300 * NS,
    seed: int = 0,
    progress: Progress | None = None,
) -> ChangePoints:
    """What changed on `path` in [from_ns, to_ns), in at most 120 steps.

    `rollup` limits percentiles and counts to a label's messages (`mode=synthetic`: those of a history, whose labels
    are not counted). `scores` are gauges (`name` or `beginning*`; None: every one with "score" in its name).
    `objective` (threshold_ns, share) makes the lead of warnings measurable: a breach is a step that misses it. The
    first third of the time is the warnings' baseline. Raises KeyError for an unknown stage, StoreError.
    """
    for name in stages or ():
        if name not in path.stage_names:
            raise KeyError(f"path {path.name} has no stage {name!r}; it has {', '.join(path.stage_names)}")
    first, last = widen(from_ns, to_ns)
    step = step_for(last - first)
    first, last = -(-first // step) * step, last // step * step
    seconds = list(range(first, last, step))
    complete = completeness(store, from_ns, to_ns)[0].share
    tallies: Tallies = stored(store, path.name, first, last, rollup=rollup, step_s=step) if seconds else {}
    every = _all_series(store, path, tallies, seconds, step, stages, scores) if seconds else []
    scans = []
    for done, one in enumerate(every):
        if progress is not None:
            progress(done, len(every))
        scans.append(scan(one.values, one.weight, seed=seed))
    q = adjusted([each.p for each in scans])
    found = [
        _point(one, split, edges, tallies, seconds, step, scanned.p, q[i])
        for i, (one, scanned) in enumerate(zip(every, scans, strict=True))
        if q[i] <= RATE
        for split, edges in _between(scanned.splits, len(seconds))
    ]
    found.sort(key=lambda f: (f.at_ns, f.subject, f.stage, f.name))
    third = len(seconds) // 3
    return ChangePoints(
        path=path.name,
        from_ns=first * NS,
        to_ns=last * NS,
        step_s=step,
        count=sum(t.sums["n"] + t.sums["unfinished"] for (_, s), t in tallies.items() if s == END_TO_END),
        tested=len(every),
        completeness=complete,
        baseline_to_ns=(seconds[third] if seconds else last) * NS,
        found=_with_changes(store, found, near_ns),
        anomalies=anomalies(every, [[s.at for s in each.splits] for each in scans], seconds),
        warnings=watched(path, tallies, seconds, step, stages, objective, seed) if seconds else [],
        sentence=_too_few(len(seconds), len(every)) + READING,
    )


def _too_few(steps: int, tested: int) -> str:
    """Said where no single series can stand out: blocks in random order have too few orders that differ."""
    blocks = -(-steps // block_length(steps)) if steps else 0
    # A level that changed in the middle looks the same however the blocks of each half lie, and turned around.
    least = min(1.0, 2 / comb(blocks, blocks // 2)) if blocks else 1.0
    if least * max(tested, 1) <= RATE:
        return ""
    return f"{steps} steps are too few for one of {tested} series to stand out by itself: ask about more time. "


def step_for(seconds: int) -> int:
    """The shortest step of whole windows that gives at most 120 of them."""
    return next((s for s in _NICE_S if seconds <= STEPS * s), -(-seconds // (STEPS * 86_400)) * 86_400)


def _all_series(
    store: Store, path: Path, tallies: Tallies, seconds: list[int], step: int, stages: Sequence[str] | None,
    scores: Sequence[str] | None,
) -> list[Series]:  # fmt: skip
    wanted = path.stage_names if stages is None else list(stages)
    if scores is None:
        known = gauges.names(store, from_ns=seconds[0] * NS, to_ns=(seconds[-1] + step) * NS)
        scores = [g.name for g in known if "score" in g.name][: of.MOST_SCORES]
    every = of.percentile_series(tallies, wanted, seconds)
    every += of.count_series(tallies, seconds, step)
    every += of.mix_series(store, path.name, seconds, step)
    return every + of.score_series(store, scores, seconds, step)


def _between(splits: Sequence[Split], steps: int) -> list[tuple[Split, tuple[int, int]]]:
    edges = [0, *(s.at for s in splits), steps]
    return [(s, (edges[i], edges[i + 2])) for i, s in enumerate(splits)]


def _point(
    one: Series, split: Split, edges: tuple[int, int], tallies: Tallies, seconds: list[int], step: int,
    p: float, q: float,
) -> ChangePoint:  # fmt: skip
    before, after = slice(edges[0], split.at), slice(split.at, edges[1])
    moved = [moved_of(name, one.plain[:, d], one.weight, before, after) for d, name in enumerate(one.names)]
    moved.sort(key=lambda m: -abs(m.after - m.before))
    effect: float | None
    if one.subject == "mix":
        effect = cramers_v(one, before, after)
    else:
        effect = moved[0].after / moved[0].before if moved[0].before else None
    values: list[int | None] = [None, None]
    if one.subject == "percentile":
        for k, part in enumerate((before, after)):
            values[k] = percentile(of.total(tallies, one.stage, seconds[part]).counts, of.QUANTILES[one.name]).value_ns

    def at(index: int) -> int:
        return (seconds[index] if index < len(seconds) else seconds[-1] + step) * NS

    return ChangePoint(
        subject=one.subject, name=one.name, stage=one.stage, labels=one.labels, unit=one.unit, at_ns=at(split.at),
        low_ns=at(split.low), high_ns=at(split.high), p=p, q=q,
        count=int(one.weight[edges[0] : edges[1]].sum()), moved=moved[:5], effect=effect, before_ns=values[0],
        after_ns=values[1], changes=[],
    )  # fmt: skip


_CHANGES = """
SELECT toUnixTimestamp64Nano(ts) AS ts_ns, id, toString(kind) AS kind, who, what, toString(host) AS host,
    toString(service) AS service, version
FROM changes
WHERE ts >= fromUnixTimestamp64Nano({from_ns:Int64}, 'UTC') AND ts < fromUnixTimestamp64Nano({to_ns:Int64}, 'UTC')
ORDER BY ts LIMIT 10000
"""


def _with_changes(store: Store, found: list[ChangePoint], near_ns: int) -> list[ChangePoint]:
    """Each with the recorded changes within `near_ns` of where it may lie, the nearest first."""
    if not found:
        return []
    reach = {"from_ns": min(f.low_ns for f in found) - near_ns, "to_ns": max(f.high_ns for f in found) + near_ns + 1}
    rows = list(store.query(_CHANGES, reach).iter_rows(named=True))
    told = []
    for one in found:
        near = [r for r in rows if one.low_ns - near_ns <= r["ts_ns"] <= one.high_ns + near_ns]
        near.sort(key=lambda r: abs(r["ts_ns"] - one.at_ns))
        beside = [Beside(after_ns=one.at_ns - r["ts_ns"], **r) for r in near[:10]]
        told.append(msgspec.structs.replace(one, changes=beside))
    return told
