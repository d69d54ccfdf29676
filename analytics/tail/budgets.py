"""What stages may take against what they took, and how repeatable they are. Percentiles are never added up.

Per stage: the share of messages over its budget and percentiles, from counts; its share of the end-to-end tail, from
the attribution; how far apart its percentiles lie (p99 - p50, p99.9 / p50); how much it varies from one message to the
next (the mean of |D(i - 1, i)|, the interarrival jitter of RFC 3550, section 6.4.1, without its smoothing); and how
stable its p99 is from window to window, with the trend (Theil and Sen's slope: Sen, JASA 63, 1968). Per class the
budgets and the times are added, message by message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import polars as pl
from scipy import stats

from analytics import buckets
from analytics.paths import END_TO_END, UNATTRIBUTED, Path
from analytics.percentiles import Counts, Percentile, percentile
from analytics.tail.attribution import Attribution
from analytics.tail.stages import kind_of

HOUR_S = 3_600
LEAST_WINDOWS = 4


class StageBudget(msgspec.Struct, frozen=True, kw_only=True):
    """One stage, `end_to_end` or `unattributed`.

    `over_at_least` to `over_at_most` of `count` took longer than `budget_ns`: the bucket in which the budget lies is in
    the second alone; `over_share` is the middle (null without a budget or messages). `tail_share` of the slowest
    messages' time is this stage, with its interval. Percentiles are null where refused, `refused` says why; `ci` are
    distribution-free. `jitter_ns` is the mean change from one message to the next. `p99_spread` is (largest - smallest)
    / median over the `windows` that support a p99; `trend_ns_per_hour` its slope with a 95 % interval.
    """

    stage: str
    kind: str
    budget_ns: int | None
    count: int
    missing: int
    unfinished: int
    over_at_least: int | None
    over_at_most: int | None
    over_share: float | None
    mean_ns: float | None
    p50_ns: int | None
    p99_ns: int | None
    p999_ns: int | None
    max_ns: int | None
    ci: dict[str, tuple[int, int]]
    refused: dict[str, str]
    p99_less_p50_ns: int | None
    p999_over_p50: float | None
    jitter_ns: float | None
    tail_share: float | None
    tail_share_ci: tuple[float, float] | None
    windows: int
    p99_smallest_ns: int | None
    p99_largest_ns: int | None
    p99_spread: float | None
    trend_ns_per_hour: float | None
    trend_ci: tuple[float, float] | None
    sentence: str


class ClassBudget(msgspec.Struct, frozen=True, kw_only=True):
    """All stages of one class, added message by message; `over` of the `count` finished messages took longer.

    `budget_ns` is the sum of the stages' budgets, null where one of them has none. There are no percentiles of classes
    here because those of stages do not add up.
    """

    kind: str
    stages: list[str]
    budget_ns: int | None
    count: int
    over: int | None
    over_share: float | None
    mean_ns: float | None
    tail_share: float | None


class Budgets(msgspec.Struct, frozen=True, kw_only=True):
    """Budgets of a path's stages and classes. `completeness` is null where it is unknown."""

    path: str
    from_ns: int
    to_ns: int
    step_s: int
    q: float
    stages: list[StageBudget]
    classes: list[ClassBudget]
    completeness: float | None
    sentence: str


@dataclass(frozen=True, slots=True)
class Counted:
    """Counts of one stage: of the whole span, and of each window by its start (s)."""

    whole: Counts
    missing: int
    windows: Mapping[int, Counts]


@dataclass(frozen=True, slots=True)
class Moments:
    """Of finished messages: sums and pairs by column, so that slices of time add up."""

    count: int
    steps: Mapping[str, tuple[int, int]]  # stage: sum of changes from message to message, how many
    classes: Mapping[str, tuple[int, int]]  # class: sum of its stages' time, messages over its budget

    def __add__(self, other: Moments) -> Moments:
        """Both slices; the change from one slice's last message to the next one's first is left out."""
        return Moments(
            self.count + other.count,
            {k: (a + other.steps[k][0], b + other.steps[k][1]) for k, (a, b) in self.steps.items()},
            {k: (a + other.classes[k][0], b + other.classes[k][1]) for k, (a, b) in self.classes.items()},
        )


def over(counts: Counts, budget_ns: int) -> tuple[int, int]:
    """At least and at most how many latencies are longer than the budget, as far as their buckets tell."""
    surely = int(counts.n[buckets.low(counts.bucket) > budget_ns].sum())
    perhaps = int(counts.n[np.minimum(buckets.high(counts.bucket), counts.max_ns) > budget_ns].sum())
    return surely, perhaps


def classes_of(path: Path) -> dict[str, list[int]]:
    """The stages of each class by number; transits between services are network."""
    found: dict[str, list[int]] = {}
    for i, stage in enumerate(path.stages):
        found.setdefault(kind_of(path, stage.name), []).append(i)
    return found


def class_budget_ns(path: Path, numbers: Sequence[int]) -> int | None:
    """The sum of the stages' budgets, None where one has none."""
    known = [path.stages[i].budget_ns for i in numbers]
    return None if any(one is None for one in known) else sum(one for one in known if one is not None)


def moments(frame: pl.DataFrame, path: Path) -> Moments:
    """Of one slice of messages in order of their start (a population's frame, or `tailset.took`)."""
    finished = frame.filter(pl.col("e2e_ns").is_not_null())
    columns = {stage.name: pl.col(f"ns_{i}") for i, stage in enumerate(path.stages)} | {END_TO_END: pl.col("e2e_ns")}
    changes = {name: column.drop_nulls().diff().abs().drop_nulls() for name, column in columns.items()}
    exprs = [e for name, one in changes.items() for e in (one.sum().alias(f"{name}/s"), one.len().alias(f"{name}/n"))]
    for kind, numbers in classes_of(path).items():
        whole = pl.sum_horizontal(pl.col(f"ns_{i}").fill_null(0) for i in numbers)
        limit = class_budget_ns(path, numbers)
        exprs += [
            whole.sum().alias(f"{kind}/sum"),
            (whole > limit).sum().alias(f"{kind}/over") if limit is not None else pl.lit(0).alias(f"{kind}/over"),
        ]
    row = finished.select(exprs).row(0, named=True)
    return Moments(
        finished.height,
        {name: (int(row[f"{name}/s"] or 0), int(row[f"{name}/n"])) for name in columns},
        {kind: (int(row[f"{kind}/sum"] or 0), int(row[f"{kind}/over"])) for kind in classes_of(path)},
    )


def budgets(
    path: Path,
    counted: Mapping[str, Counted],
    moved: Moments,
    tail: Attribution | None,
    *,
    from_ns: int,
    to_ns: int,
    step_s: int,
    completeness: float | None = None,
) -> Budgets:
    """The budgets from counts, moments and the attribution of the tail (None: too few messages for one)."""
    shares = {} if tail is None else {one.stage: one for one in tail.stages}
    stages = []
    limits = {stage.name: stage.budget_ns for stage in path.stages}
    whole = class_budget_ns(path, range(len(path.stages)))
    for name in path.stage_names:
        if name not in counted:
            continue
        one = shares.get(name)
        stages.append(
            _stage(
                path,
                name,
                whole if name == END_TO_END else limits.get(name),
                counted[name],
                moved.steps.get(name, (0, 0)),
                None if one is None else (one.share, one.share_ci),
            )
        )
    classes = []
    for kind, numbers in classes_of(path).items():
        total, beyond = moved.classes[kind]
        limit = class_budget_ns(path, numbers)
        names = [path.stages[i].name for i in numbers]
        known = moved.count > 0 and limit is not None
        classes.append(
            ClassBudget(
                kind=kind,
                stages=names,
                budget_ns=limit,
                count=moved.count,
                over=beyond if known else None,
                over_share=beyond / moved.count if known else None,
                mean_ns=total / moved.count if moved.count else None,
                tail_share=sum(shares[name].share for name in names) if shares else None,
            )
        )
    return Budgets(
        path=path.name,
        from_ns=from_ns,
        to_ns=to_ns,
        step_s=step_s,
        q=0.0 if tail is None else tail.q,
        stages=stages,
        classes=classes,
        completeness=completeness,
        sentence=_whole_sentence(stages),
    )


def trend(windows: Mapping[int, int]) -> tuple[float, tuple[float, float]] | None:
    """The slope of values by window start (s), per hour, with a 95 % interval; None with too few windows."""
    if len(windows) < LEAST_WINDOWS:
        return None
    times = np.array(sorted(windows), dtype=np.float64) / HOUR_S
    found = stats.theilslopes(np.array([windows[at] for at in sorted(windows)], dtype=np.float64), times, 0.95)
    return float(found[0]), (float(found[2]), float(found[3]))


def _stage(
    path: Path,
    name: str,
    budget_ns: int | None,
    counted: Counted,
    steps: tuple[int, int],
    tail: tuple[float, tuple[float, float] | None] | None,
) -> StageBudget:
    counts = counted.whole
    n = counts.count
    found: dict[str, Percentile] = {
        field: percentile(counts, q) for field, q in (("p50_ns", 0.5), ("p99_ns", 0.99), ("p999_ns", 0.999))
    }
    p50, p99, p999 = (found[field].value_ns for field in ("p50_ns", "p99_ns", "p999_ns"))
    surely, perhaps = over(counts, budget_ns) if budget_ns is not None and n else (None, None)
    middle = None if surely is None or perhaps is None else (surely + perhaps) / 2 / n
    per_window = {at: percentile(one, 0.99).value_ns for at, one in counted.windows.items()}
    known = {at: value for at, value in per_window.items() if value is not None}
    slope = trend(known)
    values = sorted(known.values())
    center = float(np.median(values)) if values else 0.0
    kind = name if name == END_TO_END else kind_of(path, name)
    return StageBudget(
        stage=name,
        kind=kind,
        budget_ns=budget_ns,
        count=n,
        missing=counted.missing,
        unfinished=counts.unfinished,
        over_at_least=surely,
        over_at_most=perhaps,
        over_share=middle,
        mean_ns=counts.sum_ns / n if n else None,
        p50_ns=p50,
        p99_ns=p99,
        p999_ns=p999,
        max_ns=counts.max_ns if n else None,
        ci={field: (one.low_ns or 0, one.high_ns or 0) for field, one in found.items() if not one.refused},
        refused={field: one.refused for field, one in found.items() if one.refused},
        p99_less_p50_ns=p99 - p50 if p99 is not None and p50 is not None else None,
        p999_over_p50=p999 / p50 if p999 is not None and p50 else None,
        jitter_ns=steps[0] / steps[1] if steps[1] else None,
        tail_share=None if tail is None else tail[0],
        tail_share_ci=None if tail is None else tail[1],
        windows=len(known),
        p99_smallest_ns=values[0] if values else None,
        p99_largest_ns=values[-1] if values else None,
        p99_spread=(values[-1] - values[0]) / center if len(values) > 1 and center > 0 else None,
        trend_ns_per_hour=None if slope is None else slope[0],
        trend_ci=None if slope is None else slope[1],
        sentence=_sentence(name, budget_ns, n, middle, tail),
    )


def _sentence(name: str, budget_ns: int | None, n: int, middle: float | None, tail: tuple[float, object] | None) -> str:
    if not n:
        return f"{name} has no messages."
    said = (
        f"{name} has no budget"
        if budget_ns is None or middle is None
        else (f"{100 * middle:.3g} % of {n:,} messages took longer in {name} than its budget of {budget_ns / 1e6:g} ms")
    )
    return said + (f"; it is {100 * tail[0]:.0f} % of the tail's time." if tail is not None else ".")


def _whole_sentence(stages: Sequence[StageBudget]) -> str:
    worst = [one for one in stages if one.over_share is not None and one.stage not in (END_TO_END, UNATTRIBUTED)]
    if not worst:
        return "No stage has a budget and messages; there is nothing to hold against a budget."
    first = max(worst, key=lambda one: one.over_share or 0.0)
    rest = next((one for one in stages if one.stage == UNATTRIBUTED), None)
    said = (
        f"{first.stage} is over its budget most often: in {100 * (first.over_share or 0):.3g} % of {first.count:,}"
        " messages. Budgets of stages add up to the path's; percentiles of stages do not."
    )
    if rest is not None and rest.tail_share is not None:
        said += f" {100 * rest.tail_share:.0f} % of the tail's time is in no stage."
    return said
