"""CPUs as drivers: found where records say them, never made up by messages that hold more records than others."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from analytics import windows
from analytics.paths import Path
from analytics.tail import ask, cells, cpus, drivers, why
from collector.store import Store
from tests.analytics.conftest import TABLES
from tests.analytics.tail.synthetic import calm, messages
from tests.analytics.world import HOUR, label_set, path, put, put_rows, stamp

S, MS, US = 1_000_000_000, 1_000_000, 1_000
STAGES = ["decide", "wire", "match"]
NO_LABELS = pl.DataFrame(schema={"label_set": pl.UInt64, "labels": pl.String})
N = 20_000


def track(at_ns: np.ndarray, cpu: np.ndarray, thread: int = 1, host: str = "a") -> pl.DataFrame:
    """Records of one thread as the store gives them."""
    return pl.DataFrame(
        {"host": host, "thread": thread, "end_ns": at_ns, "cpu": [str(one) for one in cpu]},
        schema={"host": pl.String, "thread": pl.UInt32, "end_ns": pl.Int64, "cpu": pl.String},
    )


def named(frame: pl.DataFrame, records: pl.DataFrame, slow: np.ndarray, **more: Any) -> list[drivers.Driver]:
    marked = frame.with_columns(tail=pl.Series(slow))
    known = cpus.counts(marked, records, STAGES, 10 * S)
    return drivers.found(cells.count(marked, 10 * S, STAGES), NO_LABELS, partly=known, **more)[0]


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    return messages(calm(N))


def test_a_cpu_whose_messages_are_slow_is_found_among_those_of_which_it_is_known(frame: pl.DataFrame) -> None:
    start = frame["start_ns"].to_numpy()
    seen = np.arange(N) < N // 2  # of the other half nothing is recorded
    truth = 0.06 / 0.09 - 0.94 / (0.94 + 3 * 0.99)
    covered = 0
    for seed in range(20):
        rng = np.random.default_rng(1000 + seed)
        cpu = rng.integers(0, 4, N)
        slow = rng.random(N) < np.where(cpu == 3, 0.06, 0.01)
        records = track(start[seen] - 50 * US, cpu[seen])
        (one,) = named(frame, records, slow)
        # What begins within a second of the last record has that one's.
        on_3 = np.where(seen, cpu, cpu[N // 2 - 1]) == 3
        on_3 &= start <= records["end_ns"].to_numpy()[-1] + cpus.FRESH_NS
        assert one.what == {"cpu of decide": "a/3"}
        assert (one.tail_count, one.rest_count) == (int((slow & on_3).sum()), int((~slow & on_3).sum()))
        assert 0.5 < one.known_share < 0.51
        covered += one.ci[0] < truth < one.ci[1]
    assert covered >= 17  # of 20 intervals of 95 %
    assert "of the 50 % of messages of which it is known" in drivers.said([one], 4, 0.05)


def test_the_design_effect_the_support_and_the_adjustment_hold_for_cpus_too(frame: pl.DataFrame) -> None:
    start = frame["start_ns"].to_numpy()
    cpu = np.random.default_rng(2).integers(0, 4, N)
    burst = (np.arange(N) // 500 == 7) & (cpu == 1)
    slow = (np.random.default_rng(3).random(N) < 0.01) | burst
    assert named(frame, track(start, cpu), slow) == []  # ten seconds of one CPU are one event
    rare = np.where(np.arange(N) < 9, 7, cpu)
    few = (np.random.default_rng(4).random(N) < 0.01) | (rare == 7)
    assert [one.what for one in named(frame, track(start, rare), few)] == []  # 9 messages are too few to say
    false = 0
    for seed in range(40):
        rng = np.random.default_rng(100 + seed)
        false += bool(named(frame[:3000], track(start, rng.integers(0, 8, N)), rng.random(3000) < 0.05))
    assert false <= 6


def test_records_inside_slow_messages_make_no_driver(frame: pl.DataFrame) -> None:
    """Only CPU 1 writes records inside messages, and only long messages hold any: nothing is said by that."""
    start = frame["start_ns"].to_numpy()
    rng = np.random.default_rng(5)
    slow = rng.random(N) < 0.02
    before = track(start - 100 * US, rng.integers(0, 2, N))
    inside = track(start[slow] + 1, np.ones(int(slow.sum()), dtype=np.int64))
    assert named(frame, pl.concat([before, inside]), slow) == []


def test_a_record_says_nothing_of_other_threads_hosts_or_times() -> None:
    frame = messages(calm(10), per_s=1.0).with_columns(tail=pl.lit(value=False))
    start = frame["start_ns"].to_numpy()
    for records in (
        track(start, np.arange(10), thread=99),
        track(start, np.arange(10), host="b"),
        track(start[:1] - cpus.FRESH_NS - 1, np.arange(1)),
        track(start[-1:] + 1, np.arange(1)),
    ):
        assert cpus.counts(frame, records, STAGES, 10 * S) == {}
    one = cpus.counts(frame, track(start[:1] - cpus.FRESH_NS, np.arange(1)), STAGES, 10 * S)
    assert list(one) == ["cpu of decide"]
    assert one["cpu of decide"].share == 0.1


PATH = """
max_age = "1s"
[[stages]]
name = "decide"
from = {point = "app_ingress"}
to = {point = "app_decision"}
"""
COUNT = 2_000
SPAN = {"from_ns": HOUR, "to_ns": HOUR + 200 * S}


def fill(store: Store, *, intervals: bool = True, labels: bool = False) -> Path:
    """Ten messages a second for 200 s on a thread that moves between CPUs 0 and 3; on 3, 3 ms longer in one of four."""
    for table in TABLES:
        store.execute(f"TRUNCATE TABLE {table}")
    rng = np.random.default_rng(6)
    sets = {cpu: label_set(store, {"cpu": str(cpu)}) for cpu in (0, 3)}
    stamps, rows = [], []
    for i in range(COUNT):
        at, cpu = HOUR + i * S // 10, int(rng.choice([0, 3]))
        slow = cpu == 3 and i >= COUNT // 2 and rng.random() < 0.25
        end = at + int(rng.integers(50, 100)) * US + 3 * MS * slow
        said = {"thread": 2, "label_set": sets[cpu] if labels else 0}
        stamps += [stamp(i + 1, "app_ingress", at, **said), stamp(i + 1, "app_decision", end, **said)]
        base = {"host": "a", "culprit": "backup", "label_set": sets[cpu]}
        rows.append(base | {"ts": at - MS, "thread": 2, "kind": "run_queue", "duration_ns": 50 * US})
        # A blocked time has the CPU of who ended it, and another thread is not this one.
        rows.append(base | {"ts": at - MS // 2, "thread": 2, "kind": "blocked_lock", "duration_ns": US,
                            "label_set": sets[0]})  # fmt: skip
        rows.append(base | {"ts": at - MS // 2, "thread": 7, "kind": "run_queue", "duration_ns": US})
    put(store, stamps)
    if intervals:
        put_rows(store, "intervals", rows)
    one = path(PATH)
    windows.run_due(store, {one.name: one}, now_ns=HOUR + 300 * S)
    return one


def test_drivers_and_explain_name_the_cpu_that_the_store_knows(
    shared_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = fill(shared_store)
    found = ask.who(shared_store, one, **SPAN, q=0.05)
    assert [driver.what for driver in found.drivers] == [{"cpu of decide": "a/3"}]
    assert (found.dimensions, found.no_cpus) == (["cpu of decide"], "")
    assert found.drivers[0].known_share == 1.0
    causes = why.explanation(shared_store, one, from_ns=HOUR + 100 * S, to_ns=HOUR + 200 * S)
    assert [cause.label for cause in causes.causes] == ["cpu of decide=a/3"]
    assert causes.no_cpus == ""

    # A share of the messages is enough where there are many, and too many records or threads are refused, and said.
    monkeypatch.setattr(cpus, "MOST_MESSAGES", 1_000)
    some = ask.who(shared_store, one, **SPAN, q=0.05)
    assert [driver.what for driver in some.drivers] == [{"cpu of decide": "a/3"}]
    assert some.drivers[0].tail_count < found.drivers[0].tail_count
    assert some.count == COUNT
    monkeypatch.setattr(cpus, "MOST_RECORDS", 100)
    many = ask.who(shared_store, one, **SPAN, q=0.05)
    assert many.drivers == []
    assert "more than 100 records of the threads" in many.sentence
    monkeypatch.setattr(cpus, "MOST_THREADS", 0)
    assert "more than 0 threads" in ask.who(shared_store, one, **SPAN, q=0.05).no_cpus


def test_where_nothing_says_a_cpu_the_dimension_is_absent_and_the_answer_says_so(shared_store: Store) -> None:
    one = fill(shared_store, intervals=False)
    found = ask.who(shared_store, one, **SPAN, q=0.05)
    assert not [name for name in found.dimensions if name.startswith("cpu")]
    assert found.no_cpus == cpus.NOTHING
    assert found.sentence.endswith("CPUs were not looked at: no record says on which CPU the threads ran.")
    causes = why.explanation(shared_store, one, from_ns=HOUR + 100 * S, to_ns=HOUR + 200 * S)
    assert causes.causes
    assert causes.sentence.endswith("CPUs were not looked at: no record says on which CPU the threads ran.")


def test_a_label_of_the_stamps_says_it_too(shared_store: Store) -> None:
    one = fill(shared_store, intervals=False, labels=True)
    found = ask.who(shared_store, one, **SPAN, q=0.05)
    assert [driver.what for driver in found.drivers] == [{"cpu": "3"}]
    assert found.no_cpus == ""
