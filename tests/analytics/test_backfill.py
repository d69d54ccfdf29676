"""Backfill writes what the window job writes, in runs; it goes on after a kill and recounts what has changed."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from analytics import runs, windows
from analytics.backfill import backfill
from analytics.due import Due
from analytics.generations import STEP
from analytics.window_settings import WindowSettings
from collector.store import Store, StoreError
from tests.analytics.conftest import TABLES
from tests.analytics.world import HOUR, link, path, put, stamp

S = 1_000_000_000
MINUTE = 60 * S
HOUR_NS = 60 * MINUTE
LINKED = """
max_age = "1s"
hops = 1
rollup = ["host"]
stages = [
  {name = "decide", class = "compute", from = {point = "app_ingress"}, to = {point = "app_decision"}},
  {name = "send", class = "network", from = {point = "app_decision"}, to = {point = "app_egress", which = "last"}},
]
"""
PATHS = {"order": path(), "linked": path(LINKED, "linked")}
ROWS = {
    "messages": "path, window, key, start, e2e_ns, stage_ns, outcome, toString(mode), label_set",
    "stage_counts": "path, level, window, stage, rollup, bucket, n",
    "stage_windows": "path, level, window, stage, rollup, n, unfinished, missing, sum_ns, min_ns, max_ns",
    "windows": "path, level, window, messages, finished, unfinished, headless, stamps, basis * (level = 10)",
}


def fill(store: Store, minutes: int, *, first_key: int = 1, seed: int = 1, at: int = HOUR) -> None:
    """Two minutes in three have messages; some end late, in the next window, some have lost their start or end."""
    dice = random.Random(seed)  # noqa: S311 - a reproducible world, no secret
    key = first_key
    for minute in range(minutes):
        stamps: list[dict[str, Any]] = []
        links = []
        for _ in range(12 if minute % 3 else 0):
            start = at + minute * MINUTE + dice.randrange(MINUTE)
            ends = (("app_ingress", 0), ("app_decision", dice.randrange(S // 2)), ("app_egress", dice.randrange(S)))
            for point, after in ends:
                if dice.random() < 0.95:
                    stamps.append(stamp(key if point != "app_egress" else key + 1, point, start + after, mode=5))
            if dice.random() < 0.7:
                stamps.append(stamp(key, "app_egress", start + S // 2, mode=5))
            links.append(link(key, key + 1, start + S // 4))
            key += 2
        put(store, stamps, links, received_ns=at + 86_400 * S)


def rows(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    """What readers see of the store, without generations and times of computing."""
    current = (
        "(path, level, window, generation) IN"
        " (SELECT path, level, window, max(generation) FROM windows GROUP BY path, level, window)"
    )
    found = {}
    for table, columns in ROWS.items():
        level = "toUInt16(10) AS level, " if table == "messages" else ""
        sql = f"SELECT {columns} FROM (SELECT {level}* FROM {table}) WHERE level > 0 AND {current}"  # noqa: S608 - names of ours
        found[table] = [tuple(str(v) for v in row) for row in store.query(sql).rows()]
        found[table].sort()
    return found


def test_the_same_rows_as_the_window_job(store: Store) -> None:
    fill(store, 40)
    now = HOUR + 86_500 * S
    while windows.run_due(store, PATHS, now_ns=now):
        pass
    expected = rows(store)
    assert len(expected["messages"]) > 300
    assert {int(row[1]) for row in expected["stage_counts"]} == {10, 60, 3600}
    for table in TABLES:
        if table in ROWS:
            store.execute(f"TRUNCATE TABLE {table}")
    done = backfill(store, PATHS, HOUR - MINUTE, HOUR + 41 * MINUTE, now_ns=now)
    assert rows(store) == expected
    assert len({d.generation for d in done if d.path == "order"}) == sum(d.path == "order" for d in done)
    # The job finds nothing to do afterwards, and backfill neither.
    assert windows.run_due(store, PATHS, now_ns=now) == []
    assert backfill(store, PATHS, HOUR - MINUTE, HOUR + 41 * MINUTE, now_ns=now) == []


def test_in_pieces_and_out_of_order_it_comes_to_the_same(store: Store) -> None:
    fill(store, 20)
    now = HOUR + 86_500 * S
    backfill(store, PATHS, HOUR - MINUTE, HOUR + 21 * MINUTE, now_ns=now)
    expected = rows(store)
    for table in ROWS:
        store.execute(f"TRUNCATE TABLE {table}")
    for piece in (2, 0, 1):
        begin = HOUR - MINUTE + piece * 8 * MINUTE
        backfill(store, PATHS, begin, min(begin + 8 * MINUTE, HOUR + 21 * MINUTE), now_ns=now)
    assert rows(store) == expected


def test_what_comes_after_is_counted_however_old(store: Store) -> None:
    fill(store, 4)
    now = HOUR + 40 * 86_400 * S
    first = backfill(store, PATHS, HOUR - MINUTE, HOUR + 5 * MINUTE, now_ns=now)
    put(store, [stamp(9_001, "app_ingress", HOUR + MINUTE), stamp(9_001, "app_egress", HOUR + MINUTE + 5)])
    again = [d for d in backfill(store, PATHS, HOUR - MINUTE, HOUR + 5 * MINUTE, now_ns=now) if d.level == 10]
    assert {d.why for d in again if d.stamps} == {"late"}
    assert all(d.state == "final" for d in again)
    assert min(d.generation for d in again) > max(d.generation for d in first if d.level == 10)
    seen = [row for row in rows(store)["messages"] if row[0] == "order" and row[2] == "9001"]
    assert len(seen) == 1


def test_a_kill_between_rows_and_commit_leaves_nothing_that_is_read(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, 6)
    now = HOUR + 86_500 * S
    backfill(store, PATHS, HOUR - MINUTE, HOUR + 7 * MINUTE, now_ns=now)
    expected = rows(store)
    for table in ROWS:
        store.execute(f"TRUNCATE TABLE {table}")
    insert = type(store).insert

    def dying(self: Store, table: str, block: Any, *, token: str) -> None:
        if table == "windows":
            raise StoreError("killed")
        insert(self, table, block, token=token)

    with monkeypatch.context() as patch:
        patch.setattr(type(store), "insert", dying)
        with pytest.raises(StoreError, match="killed"):
            backfill(store, PATHS, HOUR - MINUTE, HOUR + 7 * MINUTE, now_ns=now)
    assert rows(store)["windows"] == []
    backfill(store, PATHS, HOUR - MINUTE, HOUR + 7 * MINUTE, now_ns=now + S)
    assert rows(store) == expected


def test_windows_that_are_not_over_are_left_to_the_job(store: Store) -> None:
    fill(store, 3)
    now = HOUR + 90 * S
    done = backfill(store, PATHS, HOUR, HOUR + 3 * MINUTE, WindowSettings(), now)
    ends = [d.window_ns + 10 * S for d in done if d.level == 10 and d.path == "order"]
    assert ends
    assert max(ends) + PATHS["order"].reach_ns <= now
    assert not [d for d in done if d.level == 3600]


def test_a_run_goes_over_what_nobody_touched_and_over_nothing_else(store: Store) -> None:
    def cut(starts: list[int], touched: list[int], **more: Any) -> list[list[int]]:
        todo = [Due(start, 0, "new", final=True, recount=True) for start in starts]
        return [[one.window for one in run] for run in runs.runs(todo, dict.fromkeys(touched, 10), **more)]

    starts = [0, 10, 40_000, 40_010]
    assert cut(starts, starts) == [[0, 10], [40_000, 40_010]]
    assert cut(starts, starts, over_gaps=True) == [starts]
    assert cut(starts, [0, 10, 20, 40_000, 40_010], over_gaps=True) == [[0, 10], [40_000, 40_010]]
    assert cut(starts, starts, over_gaps=True, run_stamps=30) == [starts[:3], starts[3:]]
    assert cut(starts, starts, over_gaps=True, run_windows=2) == [starts[:2], starts[2:]]
    week = 7 * 86_400
    assert cut([0, week - 10, week], [0, week - 10, week], over_gaps=True) == [[0, week - 10], [week]]

    # Nights between three busy times: the same rows as the job's, which takes each time by itself.
    for day in range(3):
        fill(store, 4, first_key=1 + 10_000 * day, seed=day, at=HOUR + day * 20 * HOUR_NS)
    now = HOUR + 5 * 86_400 * S
    while windows.run_due(store, PATHS, now_ns=now):
        pass
    expected = rows(store)
    assert len({row[2][:10] for row in expected["stage_windows"]}) >= 2, "several days"
    for table in ROWS:
        store.execute(f"TRUNCATE TABLE {table}")
    done = backfill(store, PATHS, HOUR - MINUTE, HOUR + 41 * HOUR_NS, now_ns=now)
    assert rows(store) == expected
    fine = sorted(d.generation for d in done if d.path == "order" and d.level == 10)
    assert len({generation & (STEP - 1) for generation in fine}) == 1, "one runner"
    assert max(b - a for a, b in itertools.pairwise(fine)) > 6_000 * STEP, "one run over the nights"
    assert windows.run_due(store, PATHS, now_ns=now) == []


def test_an_empty_range_is_an_error(store: Store) -> None:
    with pytest.raises(ValueError, match="range is empty"):
        backfill(store, PATHS, HOUR, HOUR)
