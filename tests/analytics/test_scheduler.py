"""The scheduler's answer from stored counts, intervals and gauges."""

from __future__ import annotations

import numpy as np
import pytest

from analytics import buckets, scheduler
from collector.record import MAX_CELLS
from collector.sched.counts import cells_of, columns, scopes
from collector.sched.delay_buckets import BUCKETS, bucket_bounds, bucket_index
from collector.sched.layout import GROUP
from collector.sched.mechanism import Totals
from collector.store import Store
from tests.analytics.world import HOUR, label_set, put_rows

S = 1_000_000_000


def test_the_kernels_buckets_are_the_products() -> None:
    every = np.arange(BUCKETS)
    low, high = bucket_bounds(every)
    assert (buckets.low(every) == low).all()
    assert (buckets.high(every) == high).all()


def reading(delays: np.ndarray, kinds: np.ndarray, groups: np.ndarray) -> Totals:
    """Totals as a mechanism would give them after these delays, on CPU 0 for even ones."""
    counted = np.zeros(3, dtype=GROUP)
    by_cpu = np.zeros((2, 2, BUCKETS), dtype=np.uint32)
    for delay, kind, group, bucket in zip(delays, kinds, groups, bucket_index(delays), strict=True):
        counted["histogram"][group, kind, bucket] += 1
        counted["max_ns"][group, 0, kind] = max(int(counted["max_ns"][group, 0, kind]), int(delay))
        by_cpu[delay % 2, kind, bucket] += 1
    return Totals(counted, {}, 0, by_cpu=by_cpu, by_thread={41: counted["histogram"][1].copy()})


def put_counts(store: Store, now: Totals, before: Totals, at_ns: int) -> None:
    sees = frozenset({"machine", "run_queue", "preempted"})
    found = columns("h", scopes(now, before, ["(none)", "engine", "feed"], sees, {41: "engine"}), sees, at_ns, S)
    assert found is not None
    found.check()
    lists = {
        c.name: found.text(c.name) if c.name in found.texts else found.values[c.name].tolist()
        for c in found.table.columns
    }
    for name, nulls in found.nulls.items():
        lists[name] = [None if gone else value for value, gone in zip(lists[name], nulls.tolist(), strict=True)]
    rows = [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
    put_rows(store, "delay_counts", [{"ts": row.pop("ts_ns"), **row} for row in rows])


def test_percentiles_of_two_periods_are_those_of_all_delays(store: Store) -> None:
    rng = np.random.default_rng(3)
    delays = np.exp(rng.normal(9, 2, 4000)).astype(np.int64)
    kinds, groups = rng.integers(0, 2, 4000), rng.integers(0, 3, 4000)
    zero, one = (reading(delays[:n], kinds[:n], groups[:n]) for n in (0, 1500))
    two = reading(delays, kinds, groups)
    two.groups["max_ns"] = reading(delays[1500:], kinds[1500:], groups[1500:]).groups["max_ns"]
    put_counts(store, one, zero, HOUR + S)
    put_counts(store, two, one, HOUR + 2 * S)
    reach = {"from_ns": HOUR, "to_ns": HOUR + 10 * S}
    chosen = {
        "host": lambda row: np.ones(4000, dtype=bool),  # noqa: ARG005
        "service": lambda row: groups == ["", "engine", "feed"].index(row.service),
        "cpu": lambda row: delays % 2 == row.cpu,
        "thread": lambda row: groups == 1,  # noqa: ARG005
    }
    for per, whose in chosen.items():
        rows = scheduler.delays(store, **reach, per=per)  # type: ignore[arg-type]
        assert len(rows) == {"host": 2, "service": 4, "cpu": 4, "thread": 2}[per]
        for row in rows:
            mine = np.sort(delays[whose(row) & (kinds == ["run_queue", "preempted"].index(row.kind))])
            assert row.count == len(mine)
            for field, p in (("p50_ns", 0.5), ("p90_ns", 0.9), ("p99_ns", 0.99)):
                exact = mine[int(np.ceil(p * len(mine))) - 1]
                assert abs(getattr(row, field) - exact) <= row.value_error[field]
                assert row.ci[field][0] <= exact <= row.ci[field][1]
            assert row.p999_ns is None
            assert "3,688" in row.refused["p999_ns"]
            assert row.max_ns == (None if per in ("cpu", "thread") else mine[-1])
            assert row.thread == (41 if per == "thread" else None)
    assert {r.service for r in scheduler.delays(store, **reach, service="feed")} == {"feed"}
    assert scheduler.delays(store, from_ns=HOUR + 5 * S, to_ns=HOUR + 6 * S) == []


def gauge(name: str, value: float, **more: object) -> dict[str, object]:
    return {"ts": HOUR + S, "name": name, "host": "h", "service": "", "label_set": 0, "value": value, **more}


def test_percentiles_are_refused_where_too_little_was_seen(store: Store) -> None:
    delays = np.full(1000, 5_000, dtype=np.int64)
    nobody = np.zeros(1000, dtype=np.int64)
    put_counts(store, reading(delays, nobody, nobody + 1), reading(delays[:0], nobody[:0], nobody[:0]), HOUR + S)
    how = label_set(store, {"mechanism": "perf", "sees": "preempted,run_queue"})
    event, other = label_set(store, {"event": "wakeup"}), label_set(store, {"event": "switch"})
    put_rows(
        store,
        "gauges",
        [
            gauge("scheduler_threshold_ns", 10_000, label_set=how),
            gauge("scheduler_coverage", 0.95, label_set=event),
            gauge("scheduler_coverage", 1.0, label_set=other),
            gauge("scheduler_records_lost", 3),
            gauge("scheduler_migrations", 5, service="engine"),
            gauge("scheduler_migrations", 6, service="engine", ts=HOUR + 2 * S),
            gauge("scheduler_delay_p99_ns", 1),
            gauge("scheduler_not_observable", 1, service="engine", label_set=label_set(store, {"thread": "77"})),
        ],
    )
    reach = (HOUR, HOUR + 10 * S)
    (row,) = scheduler.delays(store, from_ns=reach[0], to_ns=reach[1])
    assert (row.count, row.p50_ns, row.coverage) == (1000, None, 0.95)
    assert row.refused["p50_ns"].startswith("only 95.0 % of the events")
    (how_,) = scheduler.mechanisms(store, *reach)
    assert (how_.mechanism, how_.sees, how_.threshold_ns) == ("perf", ["preempted", "run_queue"], 10_000)
    assert (how_.coverage, how_.records_lost, how_.periods) == ({"wakeup": 0.95, "switch": 1.0}, 3, 1)
    (counter,) = scheduler.counters(store, *reach)
    assert (counter.name, counter.service, counter.total) == ("scheduler_migrations", "engine", 11)
    (unseen,) = scheduler.not_observable(store, *reach)
    assert (unseen.thread, unseen.service) == (77, "engine")
    assert scheduler.mechanisms(store, *reach, "elsewhere") == []


def test_culprits_come_by_the_time_they_took(store: Store) -> None:
    blank = {"host": "h", "label_set": 0, "thread": 5}
    put_rows(
        store,
        "intervals",
        [
            {**blank, "ts": HOUR, "duration_ns": 5, "kind": "preempted", "culprit": "hog"},
            {**blank, "ts": HOUR + 1, "duration_ns": 7, "kind": "preempted", "culprit": "hog", "thread": 6},
            {**blank, "ts": HOUR + 2, "duration_ns": 9, "kind": "irq", "culprit": "irq:timer"},
            {**blank, "ts": HOUR + 3, "duration_ns": 900, "kind": "run_queue_sum", "culprit": ""},
        ],
    )
    found = scheduler.culprits(store, from_ns=HOUR, to_ns=HOUR + S)
    assert [(c.culprit, c.count, c.total_ns, c.max_ns, c.threads) for c in found] == [
        ("hog", 2, 12, 7, 2),
        ("irq:timer", 1, 9, 9, 1),
    ]


def test_garbage_collections_are_placed_or_sums_and_say_which(store: Store) -> None:
    mine, jvm = label_set(store, {"generation": "2", "service": "engine"}), {"metric": "jvm.gc.duration"}
    minor, major = label_set(store, {**jvm, "gc": "minor"}), label_set(store, {**jvm, "gc": "major"})
    blank = {"host": "h", "label_set": mine, "thread": 5, "kind": "gc", "culprit": "generation 2"}
    put_rows(
        store,
        "intervals",
        [{**blank, "ts": HOUR + n, "duration_ns": 10 * (n + 1)} for n in range(3)]
        + [{**blank, "ts": HOUR, "duration_ns": 5, "label_set": 0}, {**blank, "ts": HOUR - 1, "duration_ns": 999}],
    )
    put_rows(
        store,
        "gauges",
        [
            gauge("gc.pause_ns", 2e6, service="quotes", label_set=minor),
            gauge("gc.pauses", 3, service="quotes", label_set=minor),
            gauge("gc.pause_ns", 5e6, service="quotes", label_set=major),
            gauge("gc.pauses", 1, service="quotes", label_set=major),
            gauge("gc.pause_ns", 1e6, service="bare", label_set=label_set(store, {"metric": "go"})),
            gauge("gc.pauses", 9, service="counted", label_set=label_set(store, {"metric": "cpython.gc.collections"})),
        ],
    )
    found = scheduler.collections(store, HOUR, HOUR + 2 * S)
    assert [(c.service, c.mechanism, c.pauses, c.total_ns, c.max_ns, c.placed) for c in found] == [
        ("quotes", "jvm.gc.duration", 4, 7_000_000, None, False),
        ("bare", "go", None, 1_000_000, None, False),
        ("engine", "gc.callbacks", 3, 60, 30, True),
        ("", "gc.callbacks", 1, 5, 5, True),
    ]
    assert scheduler.collections(store, HOUR, HOUR + 2 * S, "elsewhere") == []


def test_cells_hold_every_count_in_texts_that_are_not_too_long() -> None:
    counts = np.zeros(BUCKETS, dtype=np.int64)
    counts[::7] = np.arange(len(counts[::7])) * 1000
    texts = list(cells_of(counts))
    assert len(texts) > 3
    assert max(map(len, texts)) <= MAX_CELLS
    back = np.zeros(BUCKETS, dtype=np.int64)
    for bucket, n in (cell.split(":") for text in texts for cell in text.split(",")):
        back[int(bucket)] += int(n)
    assert (back == counts).all()
    assert list(cells_of(counts * 0)) == []


@pytest.mark.parametrize("longest", [None, 1000])
def test_counts_without_an_exact_maximum_are_bounded_by_their_bucket(longest: int | None) -> None:
    counted = scheduler.counts_of([300, 301], [1, 2], longest)
    assert counted.count == 3
    assert counted.max_ns == (longest or int(buckets.high(301)))
