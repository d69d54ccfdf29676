"""What happened to the latency of a path: percentiles of two periods, the change and how sure it is, and the stages."""

from __future__ import annotations

from concurrent.futures import Future

import numpy as np

from analytics import completeness, tally
from analytics.asking import begin
from analytics.paths import END_TO_END, UNATTRIBUTED, Path
from analytics.percentiles import QUANTILES, Counts, percentile
from analytics.report.period import NS, Period
from analytics.report.shifts import Shift, shift
from analytics.report.value import PathLine, Point, Quantile, StageLine, Verdict
from analytics.report.words import duration, latency, many, percent, signed
from analytics.tail.stages import kind_of
from analytics.tally import Tallies, Tally
from collector.store import Store

SHOWN = ("p50", "p99", "p99.9")
MOST_POINTS = 60
_STEPS_S = (3_600, 7_200, 10_800, 21_600, 43_200, 86_400, 7 * 86_400)


def path_line(store: Store, path: Path, time: Period, rollup: str = "") -> PathLine:
    """The latency of a path in a period and in the one before, of all users' messages or of one rollup's."""
    step = time.step_s
    fine = next(s for s in _STEPS_S if time.length_ns // NS // s <= MOST_POINTS)
    now, before = ((t.from_ns // NS, t.to_ns // NS) for t in (time, time.before))
    parts: list[Future[Tallies]] = [
        begin(lambda a=a, b=b: tally.stored(store, path.name, a, b, stage=END_TO_END, rollup=rollup, step_s=step))  # type: ignore[misc]
        for a, b in (now, before)
    ]
    course = tally.stored(store, path.name, *now, stage=END_TO_END, rollup=rollup, step_s=fine)
    whole = [tally.stored(store, path.name, a, b, rollup=rollup) for a, b in (now, before)]
    share = completeness.share(store, time.from_ns, time.to_ns)
    return line_of(
        path, [_by_stage(one) for one in whole], [_in_order(one.result()) for one in parts], course,
        share.share if share.share is not None else share.known_share,
    )  # fmt: skip


def line_of(
    path: Path, whole: list[dict[str, Tally]], parts: list[list[Tally]], course: Tallies, complete: float | None
) -> PathLine:
    """The line from counts: `whole` and `parts` of (this period, the one before), `course` by steps of this one."""
    now, before = (one.get(END_TO_END, Tally()) for one in whole)
    quantiles = tuple(_quantile(name, now.counts, before.counts, parts) for name in SHOWN)
    names = [name for name in (*path.stage_names, UNATTRIBUTED) if name != END_TO_END]
    return PathLine(
        name=path.name,
        description=path.description,
        count=now.counts.count,
        before_count=before.counts.count,
        unfinished=now.sums["unfinished"],
        before_unfinished=before.sums["unfinished"],
        headless=now.headless,
        negative=now.sums["negative"],
        completeness=complete,
        mean_ns=_mean(now),
        mean_before_ns=_mean(before),
        max_error_ns=now.max_error_ns,
        quantiles=quantiles,
        series=tuple(_point(second, one) for (second, _), one in sorted(course.items())),
        stages=tuple(
            _stage(path, name, whole)
            for name in dict.fromkeys(names)
            if name in whole[0] and (name != UNATTRIBUTED or any(whole[0][name].buckets.keys() - {0}))
        ),
        sentence=sentence(path.name, now, before, quantiles),
    )


def _by_stage(tallies: Tallies) -> dict[str, Tally]:
    return {stage: one for (_, stage), one in tallies.items()}


def _in_order(tallies: Tallies) -> list[Tally]:
    return [tallies[key] for key in sorted(tallies)]


def _mean(one: Tally) -> float | None:
    n = one.counts.count
    return one.sums["sum_ns"] / n if n else None


def _point(second: int, one: Tally) -> Point:
    return Point(
        start_ns=second * NS,
        count=one.counts.count,
        p50_ns=percentile(one.counts, 0.5).value_ns,
        p99_ns=percentile(one.counts, 0.99).value_ns,
    )


def _quantile(name: str, now: Counts, before: Counts, parts: list[list[Tally]]) -> Quantile:
    q = QUANTILES[name]
    here, there = percentile(now, q), percentile(before, q)
    moved = _shifted(parts, q)
    return Quantile(
        name=name,
        value_ns=here.value_ns,
        low_ns=here.low_ns,
        high_ns=here.high_ns,
        before_ns=there.value_ns,
        change_ns=None if moved is None else moved.change_ns,
        change_low_ns=None if moved is None else moved.low_ns,
        change_high_ns=None if moved is None else moved.high_ns,
        verdict=_verdict(moved),
        refused=here.refused,
    )


def _verdict(moved: Shift | None) -> Verdict:
    if moved is None:
        return "not known"
    if not moved.seen:
        return "no clear change"
    return "slower" if moved.change_ns > 0 else "faster"


def _shifted(parts: list[list[Tally]], q: float) -> Shift | None:
    found = sorted({bucket for some in parts for one in some for bucket in one.buckets})
    if not found:
        return None
    column = {bucket: i for i, bucket in enumerate(found)}
    tables = []
    for some in parts:
        table = np.zeros((len(some), len(found)), dtype=np.int64)
        for row, one in enumerate(some):
            for bucket, n in one.buckets.items():
                table[row, column[bucket]] += n
        tables.append(table)
    return shift(tables[0], tables[1], np.array(found, dtype=np.int64), q)


def _stage(path: Path, name: str, whole: list[dict[str, Tally]]) -> StageLine:
    one, other, total = whole[0][name], whole[1].get(name, Tally()), whole[0].get(END_TO_END, Tally())
    budget = next((stage.budget_ns for stage in path.stages if stage.name == name), None)
    sum_ns = total.sums["sum_ns"]
    return StageLine(
        name=name,
        kind=kind_of(path, name),
        mean_ns=_mean(one),
        mean_before_ns=_mean(other),
        share=one.sums["sum_ns"] / sum_ns if sum_ns > 0 else None,
        p99_ns=percentile(one.counts, 0.99).value_ns,
        p99_before_ns=percentile(other.counts, 0.99).value_ns,
        budget_ns=budget,
    )


def sentence(name: str, now: Tally, before: Tally, quantiles: tuple[Quantile, ...]) -> str:
    """What a reader has to know of a path, in one or two sentences."""
    count = now.counts.count
    if not count and not now.sums["unfinished"]:
        return f"{name}: no message was seen in this period."
    slow = next((q for q in reversed(quantiles) if q.value_ns is not None), None)
    if slow is None:
        return f"{name}: {many(count, 'message')} are too few to say how long they take."
    typical = quantiles[0]
    said = f"{name}: half of {many(count, 'message')} took at most {latency(typical.value_ns)}"
    tail = next((q for q in quantiles if q.name == "p99" and q.value_ns is not None), None)
    if tail is not None:
        said += f"; one in a hundred took longer than {latency(tail.value_ns)}"
    said += "."
    if tail is not None:
        said += " " + _changed(tail, before.counts.count)
    late = now.sums["unfinished"]
    if late:
        said += f" {many(late, 'message')} ({percent(late / (late + count))}) never finished and have no time."
    return said


def _changed(tail: Quantile, before: int) -> str:
    if not before:
        return "There is no period before to hold it against."
    if tail.change_ns is None or tail.change_low_ns is None or tail.change_high_ns is None:
        return "Whether that is a change cannot be said: there are too few days or messages."
    span = (
        f"{signed(latency(tail.change_ns))}, 95 % interval {signed(latency(tail.change_low_ns))} to"
        f" {signed(latency(tail.change_high_ns))}"
    )
    if tail.verdict == "no clear change":
        return f"That is no clear change against the period before ({span})."
    return f"The slowest 1 % have become {tail.verdict} ({span})."


def stretch(time: Period) -> str:
    """How long a period is, in words."""
    return duration(time.length_ns)
