"""Windows: when they are computed, what they hold, late stamps, kills between writes, two runners, and one answer."""

from __future__ import annotations

import random
import uuid
from typing import Any

import pytest

from analytics import latency, verify, windows
from analytics.window_settings import WindowSettings
from collector.store import Store, StoreError
from tests.analytics.world import HOUR, ORDER, beat, path, put, stamp

S = 1_000_000_000
PATHS = {"order": path()}


def some(
    count: int, start: int, *, first_key: int = 1, seed: int = 1, spread: int = 9 * S, **more: Any
) -> list[dict[str, Any]]:
    dice = random.Random(seed)  # noqa: S311 - a reproducible world, no secret
    stamps = []
    for i in range(count):
        at = (
            start
            + dice.randrange(9 * S)
            + (dice.randrange(3) * (spread // 3) // (10 * S) * 10 * S if spread > 60 * S else 0)
        )
        one, two = int(dice.lognormvariate(10, 1)), int(dice.lognormvariate(11, 1))
        stamps += [
            stamp(first_key + i, "app_ingress", at, **more),
            stamp(first_key + i, "app_decision", at + one, **more),
            stamp(first_key + i, "app_egress", at + one + two, **more),
        ]
    return stamps


def ran(store: Store, now_ns: int) -> list[windows.WindowDone]:
    """The 10 s windows that were computed and have stamps: the neighbours that stamps could belong to are empty."""
    return [d for d in windows.run_due(store, PATHS, now_ns=now_ns) if d.level == 10 and d.messages]


def only(store: Store, **query: Any) -> dict[str, latency.StageLatency]:
    return {a.stage: a for a in latency.percentiles(store, PATHS["order"], **query)}


def test_a_window_waits_for_the_watermark_then_for_its_grace(store: Store) -> None:
    put(store, some(23, HOUR))
    beat(store, HOUR + 11 * S, HOUR + 10 * S)
    assert ran(store, now_ns=HOUR + 12 * S) == []
    beat(store, HOUR + 12 * S, HOUR + 11 * S)
    (done,) = ran(store, now_ns=HOUR + 12 * S)
    assert (done.window_ns, done.state, done.messages, done.finished) == (HOUR, "provisional", 23, 23)
    assert {a.count for a in only(store).values()} == {23}
    assert only(store)["end_to_end"].completeness is None or only(store)["end_to_end"].completeness == 1.0


def test_a_silent_collector_is_not_waited_for_and_named(store: Store) -> None:
    put(store, some(5, HOUR))
    beat(store, HOUR - 30 * S, HOUR - 31 * S, name="feed")
    assert ran(store, now_ns=HOUR + 15 * S) == []
    (done,) = ran(store, now_ns=HOUR + 16 * S)
    assert done.not_live == ("feed",)


def test_late_stamps_write_the_next_generation_and_count_once(store: Store) -> None:
    put(store, some(10, HOUR))
    (first,) = ran(store, now_ns=HOUR + 20 * S)
    assert ran(store, now_ns=HOUR + 21 * S) == []
    put(store, some(4, HOUR, first_key=100, seed=2), received_ns=HOUR + 40 * S)
    again = ran(store, now_ns=HOUR + 41 * S)
    assert [(d.why, d.messages) for d in again] == [("late", 14)]
    assert again[0].generation > first.generation
    assert {a.count for a in only(store).values()} == {14}


def test_a_window_is_final_after_the_horizon_and_comes_back_for_later_stamps(store: Store) -> None:
    put(store, some(3, HOUR))
    ran(store, now_ns=HOUR + 20 * S)
    done = ran(store, now_ns=HOUR + 611 * S)
    assert [(d.why, d.state, d.messages) for d in done] == [("final", "final", 3)]
    assert ran(store, now_ns=HOUR + 612 * S) == []
    put(store, some(2, HOUR, first_key=50), received_ns=HOUR + 2_000 * S)
    late = ran(store, now_ns=HOUR + 2_001 * S)
    assert [(d.why, d.state, d.messages) for d in late] == [("late", "final", 5)]


class Killed:
    """The store, until its `after`-th statement that changes something; then it is gone, as after a kill."""

    def __init__(self, store: Store, after: int) -> None:
        self._store, self._left = store, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def execute(self, sql: str, params: Any = None) -> None:
        if not self._left:
            raise StoreError("killed")
        self._left -= 1
        self._store.execute(sql, params)

    def insert(self, table: str, block: Any, *, token: str) -> None:
        if not self._left:
            raise StoreError("killed")
        self._left -= 1
        self._store.insert(table, block, token=token)


@pytest.mark.parametrize("after", [1, 2, 3, 4, 6])
def test_a_job_killed_after_any_write_leaves_nothing_that_counts_twice(store: Store, after: int) -> None:
    put(store, some(30, HOUR))
    killed: Any = Killed(store, after)
    with pytest.raises(StoreError, match="killed"):
        windows.run_due(killed, PATHS, now_ns=HOUR + 90 * S)
    while windows.run_due(store, PATHS, now_ns=HOUR + 90 * S):
        pass
    assert only(store)["end_to_end"].count == 30
    assert all(v.differences == [] for v in verify.verify_percentiles(store, PATHS))


class Counted(Killed):
    """The store, counting what is asked of it."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, after=1_000_000)
        self.queries = 0

    def query(self, sql: str, params: Any = None, **more: Any) -> Any:
        self.queries += 1
        return self._store.query(sql, params, **more)


def test_the_job_looks_closely_only_when_something_may_be_due(store: Store) -> None:
    watched: Any = Counted(store)
    job = windows.WindowJob()

    def tick(now_ns: int) -> tuple[int, int]:
        before = watched.queries
        done = [d for d in job.run_due(watched, PATHS, now_ns) if d.level == 10 and d.messages]
        return len(done), watched.queries - before

    put(store, some(23, HOUR))
    beat(store, HOUR + 9 * S, HOUR + 9 * S)
    tick(HOUR + 10 * S)
    assert tick(HOUR + 11 * S) == (0, 2)  # the ledger and the watermark
    beat(store, HOUR + 12 * S, HOUR + 11 * S)
    assert tick(HOUR + 12 * S)[0] == 1
    put(store, some(4, HOUR, first_key=100), received_ns=HOUR + 13 * S)
    assert sum(tick(HOUR + second * S)[0] for second in range(13, 30, 4)) == 1  # late stamps
    done = sum(tick(HOUR + second * S)[0] for second in range(700, 8_000, 700))
    assert done == 1  # final
    assert tick(HOUR + 8_001 * S) == (0, 1)  # all is settled
    put(store, some(5, HOUR + 50 * S, first_key=200), received_ns=HOUR + 8_002 * S)
    assert sum(tick(HOUR + second * S)[0] for second in range(8_002, 8_012, 3)) == 1
    assert all(v.differences == [] for v in verify.verify_percentiles(store, PATHS))


TABLES = {
    "messages": "toUnixTimestamp64Nano(start), key, window",
    "stage_windows": "level, window, stage, rollup",
    "stage_counts": "level, window, stage, rollup, bucket",
    "windows": "level, window",
}


def contents(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of the committed windows but for its generation and what depends on it."""
    return {
        table: store.query(
            f"SELECT * EXCEPT (generation, {'basis' if table == 'windows' else 'path'}) FROM {table}"  # noqa: S608
            f"{' WHERE level > 0' if 'level' in order else ''} ORDER BY {order}"
        )
        .drop("written", strict=False)
        .rows()
        for table, order in TABLES.items()
    }


def busy_world(store: Store) -> None:
    """Windows that touch, gaps, reused keys, headless messages, and collectors that come and go."""
    stamps = some(300, HOUR, spread=120 * S, error_ns=20) + some(40, HOUR + 900 * S, first_key=900)
    for i in range(60):
        stamps += [stamp(i % 7, "app_ingress", HOUR + i * 3 * S), stamp(i % 11, "app_egress", HOUR + i * 3 * S + 700)]
    for at in range(0, len(stamps), 97):
        put(store, stamps[at : at + 97])
    other = uuid.UUID("00000000-0000-4000-8000-000000000002")
    for second in range(0, 1_000, 20):
        beat(store, HOUR + second * S, HOUR + second * S, produced=5, acked=5, status="running")
        if second < 60 or 400 <= second < 500:
            beat(store, HOUR + second * S, HOUR + second * S - 5 * S, produced=9, collector=other, name="feed")


@pytest.mark.parametrize("hops", [0, 1])
def test_a_run_of_windows_writes_what_one_window_at_a_time_would(store: Store, hops: int) -> None:
    paths = {"order": path(ORDER + f'hops = {hops}\nunlinked = "unfinished"\n')}
    busy_world(store)
    found = []
    for batch in (1, 8_640):
        for table in (*TABLES, "hlogs"):
            store.execute(f"TRUNCATE TABLE {table}")
        while windows.run_due(store, paths, WindowSettings(batch=batch), now_ns=HOUR + 9_000 * S):
            pass
        found.append(contents(store))
    one, many = found
    assert {row[-2] is None for row in one["windows"]} == {True, False}  # completeness differs between windows
    assert {table: len(rows) for table, rows in one.items()} == {table: len(rows) for table, rows in many.items()}
    assert one == many


def test_two_runners_on_one_window_do_not_add_up(store: Store) -> None:
    put(store, some(8, HOUR))

    class Second(Killed):
        """Another runner that does the whole window between this one's first write and its second."""

        def execute(self, sql: str, params: Any = None) -> None:
            if self._left == 1:
                self._left = 0
                ran(store, now_ns=HOUR + 20 * S)
            self._store.execute(sql, params)

        def insert(self, table: str, block: Any, *, token: str) -> None:
            self._store.insert(table, block, token=token)

    racing: Any = Second(store, 1)
    windows.run_due(racing, PATHS, now_ns=HOUR + 20 * S)
    assert {a.count for a in only(store).values()} == {8}


def test_raw_messages_and_every_level_give_one_answer(store: Store) -> None:
    stamps = some(400, HOUR, spread=3_600 * S, error_ns=20)
    stamps += [stamp(9_000 + i, "app_ingress", HOUR + S + i, outcome=4) for i in range(7)]
    stamps += some(20, HOUR, first_key=20_000, spread=9 * S, mode=4)
    put(store, stamps)
    small = WindowSettings(batch=50)
    while windows.run_due(store, PATHS, small, now_ns=HOUR + 9_000 * S):
        pass
    report = verify.verify_percentiles(store, PATHS)
    assert [v.source for v in report] == ["raw", "messages", "60 s", "3600 s"]
    assert [v.differences for v in report] == [[], [], [], []]
    minute: dict[str, Any] = {"from_ns": HOUR, "to_ns": HOUR + 60 * S}
    counted, raw = only(store), only(store, source="raw", **minute)
    for stage, answer in only(store, **minute).items():
        assert (answer.count, answer.p99_ns, answer.ci, answer.unfinished) == (
            raw[stage].count,
            raw[stage].p99_ns,
            raw[stage].ci,
            raw[stage].unfinished,
        )
    assert counted["end_to_end"].count == 400
    assert counted["end_to_end"].unfinished == 7
    assert counted["end_to_end"].refused["p999_ns"] == "p99.9 needs at least 3,688 samples, there are 400"
    assert counted["unattributed"].max_ns == 0
    assert only(store, rollup="mode=shadow")["end_to_end"].count == 20
    assert only(store, rollup="host=a")["end_to_end"].count == 400
    assert sum(a.count for a in latency.series(store, PATHS["order"], stage="decide", step_s=60)) == 400
    assert sum(b.count for b in latency.histogram(store, PATHS["order"], "decide")) == 400
    assert sum(c.count for c in latency.heatmap(store, PATHS["order"], "decide", step_s=600)) == 400


@pytest.mark.parametrize("level", [60, 3600])
def test_rows_that_no_commit_names_do_not_count_at_coarse_levels(store: Store, level: int) -> None:
    put(store, some(50, HOUR, spread=3_600 * S))
    while windows.run_due(store, PATHS, now_ns=HOUR + 9_000 * S):
        pass
    hour: dict[str, Any] = {"from_ns": HOUR, "to_ns": HOUR + 3_600 * S}
    before = only(store, **hour)
    for table in ("stage_windows", "stage_counts"):
        store.execute(
            f"INSERT INTO {table} SELECT * REPLACE (generation + 1 AS generation) FROM {table}"  # noqa: S608
            " WHERE level = {level:UInt16}",
            {"level": level},
        )
    assert only(store, **hour) == before
    assert before["end_to_end"].count == 50


def test_headless_messages_stand_beside_the_others_at_every_level_and_alone(store: Store) -> None:
    put(store, some(10, HOUR) + [stamp(500 + i, "app_egress", HOUR + i * S) for i in range(7)])
    put(store, [stamp(600 + i, "app_decision", HOUR + 1_800 * S + i) for i in range(4)])
    while windows.run_due(store, PATHS, now_ns=HOUR + 9_000 * S):
        pass
    assert [(a.stage, a.count, a.headless) for a in only(store).values()] == [
        ("decide", 10, 11),
        ("send", 10, 11),
        ("end_to_end", 10, 11),
        ("unattributed", 10, 11),
    ]
    assert [v.differences for v in verify.verify_percentiles(store, PATHS)] == [[], [], [], []]
    for source in ("counts", "raw"):
        found = only(store, source=source, from_ns=HOUR + 1_800 * S, to_ns=HOUR + 1_810 * S)
        assert [(a.stage, a.count, a.unfinished, a.headless) for a in found.values()] == [("end_to_end", 0, 0, 4)]
    steps = latency.series(store, PATHS["order"], stage="decide", step_s=60)
    assert [(a.from_ns, a.count, a.headless) for a in steps] == [(HOUR, 10, 7), (HOUR + 1_800 * S, 0, 4)]


def test_a_first_end_that_comes_late_gives_its_message_a_head(store: Store) -> None:
    put(store, [stamp(1, "app_egress", HOUR + 9 * S + 999)])
    windows.run_due(store, PATHS, now_ns=HOUR + 20 * S)
    assert only(store)["end_to_end"].headless == 1
    put(store, [stamp(1, "app_ingress", HOUR + 9 * S)], received_ns=HOUR + 40 * S)
    windows.run_due(store, PATHS, now_ns=HOUR + 41 * S)
    assert (only(store)["end_to_end"].headless, only(store)["end_to_end"].count) == (0, 1)


def test_labels_have_counts_of_their_own(store: Store) -> None:
    for number, symbol in ((5, "ABC"), (6, "XYZ")):
        store.execute(
            "INSERT INTO label_sets SELECT {id:UInt64}, {labels:String}, 1, 1, toDate('2025-06-15')",
            {"id": number, "labels": f'{{"symbol":"{symbol}"}}'},
        )
    put(store, some(4, HOUR, label_set=5) + some(3, HOUR, first_key=20, label_set=6) + some(2, HOUR, first_key=40))
    ran(store, HOUR + 20 * S)
    assert only(store)["decide"].count == 9
    assert only(store, rollup="symbol=ABC")["decide"].count == 4
    assert only(store, rollup="symbol=XYZ", source="raw", from_ns=HOUR, to_ns=HOUR + 10 * S)["decide"].count == 3


def test_a_difference_is_named(store: Store) -> None:
    put(store, some(12, HOUR))
    ran(store, now_ns=HOUR + 20 * S)
    put(store, some(1, HOUR, first_key=99))
    (raw, *_) = verify.verify_percentiles(store, PATHS)
    assert "stage end_to_end: n is 12 from level 10, 13 from raw" in raw.differences
