"""Counts of many days, summed from days of hours, are those of the hours."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import pytest

from analytics import tally
from collector.store import Store

DAY = 86_400
FIRST = 1_750_032_000  # the start of a day in UTC
DAYS = 5
Hours = dict[int, dict[str, Counter[int]]]


def generation_of(window: int, run: int) -> int:
    """No two windows of a path share a generation."""
    return run * 10**10 + window


def fill(store: Store, hours: Hours, run: int, *, commit: bool = True, headless: int = 0) -> None:
    """Windows of an hour: counts per stage and bucket, their summaries, and the commits."""
    counts, summaries, commits = [], [], []
    for window, stages in hours.items():
        generation = generation_of(window, run)
        commits.append(f"('order', 3600, {window}, {generation}, 'final', 1, 1, 0, {headless}, 1, 1, 0, now())")
        for stage, buckets in stages.items():
            rows = [f"('order', 3600, {window}, {generation}, '{stage}', '', {b}, {n})" for b, n in buckets.items()]
            counts += rows
            total = sum(buckets.values())
            summaries.append(f"('order', 3600, {window}, {generation}, '{stage}', '', {total}, {total}, 1, 9)")
    store.execute(
        "INSERT INTO stage_windows (path, level, window, generation, stage, rollup, n, sum_ns, min_ns, max_ns) VALUES "  # noqa: S608
        + ", ".join(summaries)
    )
    store.execute(
        "INSERT INTO stage_counts (path, level, window, generation, stage, rollup, bucket, n) VALUES "  # noqa: S608
        + ", ".join(counts)
    )
    if commit:
        store.execute(f"INSERT INTO windows VALUES {', '.join(commits)}")  # noqa: S608 - numbers of ours


@pytest.fixture
def hours(store: Store) -> Iterator[Hours]:
    for table in ("stage_windows", "stage_counts", "windows"):
        store.execute(f"TRUNCATE TABLE {table}")
    draw = random.Random(3)  # noqa: S311 - a fixed sequence
    made: Hours = {
        FIRST + hour * 3_600: {
            stage: Counter({draw.randrange(-40, 600): draw.randrange(1, 9) for _ in range(6)})
            for stage in ("decide", "end_to_end")
        }
        for hour in range(DAYS * 24)
        if draw.random() < 0.9  # some hours have no messages
    }
    fill(store, made, 1, headless=2)
    yield made
    for table in ("stage_windows", "stage_counts", "windows"):
        store.execute(f"TRUNCATE TABLE {table}")


def expected(hours: Hours, from_s: int, to_s: int, step_s: int | None) -> dict[tuple[int, str], dict[int, int]]:
    found: dict[tuple[int, str], Counter[int]] = {}
    for window, stages in hours.items():
        if from_s <= window < to_s:
            for stage, buckets in stages.items():
                start = from_s if step_s is None else window // step_s * step_s
                found.setdefault((start, stage), Counter()).update(buckets)
    return {key: dict(buckets) for key, buckets in found.items()}


RANGES = [
    (FIRST, FIRST + DAYS * DAY),
    (FIRST + 5 * 3_600, FIRST + 4 * DAY + 7 * 3_600),  # hours before and after whole days
    (FIRST + 5 * 3_600, FIRST + DAY),  # no whole day
    (FIRST + DAY, FIRST + 2 * DAY + 3_600),
]


def buckets_of(found: tally.Tallies) -> dict[tuple[int, str], dict[int, int]]:
    return {key: dict(one.buckets) for key, one in found.items() if one.buckets}


@pytest.mark.parametrize("step_s", [None, 3_600, 12 * 3_600, DAY, 2 * DAY])
def test_days_are_the_sum_of_their_hours(store: Store, hours: Hours, step_s: int | None) -> None:
    for begin, end in RANGES:
        found = tally.stored(store, "order", begin, end, step_s=step_s)
        assert buckets_of(found) == expected(hours, begin, end, step_s)
        for (start, stage), one in found.items():
            inside = {w for w in hours if begin <= w < end and (step_s is None or w // step_s * step_s == start)}
            assert one.headless == 2 * len(inside), (start, stage)
            assert one.sums["n"] == sum(one.buckets.values())
        only = tally.stored(store, "order", begin, end, stage="decide", step_s=step_s)
        assert buckets_of(only) == {k: v for k, v in buckets_of(found).items() if k[1] == "decide"}


def test_an_hour_that_is_written_again_counts_once_before_and_after_it_is_committed(store: Store, hours: Hours) -> None:
    begin, end = RANGES[1]
    window = next(w for w in hours if w >= FIRST + 2 * DAY)
    late: Hours = {window: {"decide": Counter({700: 5}), "end_to_end": Counter({701: 5})}}
    fill(store, late, 2, commit=False)
    assert buckets_of(tally.stored(store, "order", begin, end)) == expected(hours, begin, end, None)
    store.execute(
        f"INSERT INTO windows VALUES ('order', 3600, {window}, {generation_of(window, 2)},"  # noqa: S608
        " 'final', 1, 1, 0, 0, 1, 1, 0, now())"
    )
    assert buckets_of(tally.stored(store, "order", begin, end)) == expected({**hours, **late}, begin, end, None)


@pytest.mark.usefixtures("hours")
def test_the_projection_answers_for_days(store: Store) -> None:
    """Without it a month of hours reads millions of rows: the plan must name it."""
    params = {
        "path": "order", "rollup": "", "stage": "", "origin": FIRST, "step": DAY, "day_from_s": FIRST,
        "day_to_s": FIRST + DAYS * DAY,
    }  # fmt: skip
    plan = "\n".join(store.query(f"EXPLAIN {tally._DAYS}", params)["explain"].to_list())
    assert "(days)" in plan, plan
