"""A history through the real spool, landing and windows: nothing is lost, and again is nothing new."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from analytics import latency
from analytics.ledger import collectors, ledger
from analytics.paths import paths_from
from analytics.window_settings import WindowSettings
from analytics.windows import run_due
from api.demo.business import columns, file_of, read
from api.demo.control import FOLDER, Control
from api.demo.history import counting
from api.demo.history.calendar import DAY_NS, HOUR_NS, NS, Day, day
from api.demo.history.changes import changes
from api.demo.history.hours import Settings
from api.demo.history.making import make
from api.demo.history.plan import PlanError, Range, whole_hours
from api.demo.history.run import History, Summary
from api.demo.history.shipping import NAME
from api.demo.outcome_rule import draw_rule
from api.demo.programs import configuration
from api.demo.truth import read_all
from collector.points import points_from
from collector.settings import read_toml
from collector.store import Store, StoreError
from collector.store.blocks import from_rows
from collector.store.embedded import open_embedded
from collector.store.schema import Retention, migrate, table_types

DOCUMENT = read_toml(configuration())
POINTS = points_from(DOCUMENT, "demo")
PATHS = paths_from(DOCUMENT, POINTS, "demo")
NOW = time.time_ns() // HOUR_NS * HOUR_NS - HOUR_NS // 2  # the past: retention goes by the store's own clock

# Weekends are quiet and campaigns busy: what these tests count must be there whenever they run.
RATE = 0.6 / day(1, (NOW - HOUR_NS) // DAY_NS * DAY_NS).rate


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Path]]:
    folder = tmp_path_factory.mktemp("history")
    store = open_embedded(folder)
    migrate(store, Retention())
    yield store, folder
    store.close()


@pytest.fixture
def world(shared: tuple[Store, Path], tmp_path: Path) -> tuple[Store, Path]:
    store, _ = shared
    tables = ("stamps", "links", "label_sets", "batches", "heartbeats", "changes")
    for table in (*tables, "messages", "stage_counts", "stage_windows", "windows"):
        store.execute(f"TRUNCATE TABLE {table}")
    return store, tmp_path


def history(world: tuple[Store, Path], **settings: Any) -> History:
    store, data = world
    chosen = Settings(**{"rate": RATE, "profile": "flat", **settings})
    return History(store, data, POINTS, PATHS, WindowSettings(), chosen, processes=0)


def contents(store: Store) -> dict[str, tuple[str, int]]:
    """What is in the store, without when it was written."""
    found = {}
    for table, what in {
        "stamps": "ts, key, point, host, service, thread, depth, label_set, outcome, mode, cache, data_age_ns, seq",
        "links": "ts, parent, child, seq",
        "messages": "path, window, key, start, e2e_ns, stage_ns, outcome, mode",
    }.items():
        sql = f"SELECT toString(sum(cityHash64(toString(tuple({what}))))) AS h, count() AS n FROM {table}"  # noqa: S608 - names of ours
        found[table] = store.query(sql).row(0)
    return found


def complete(summary: Summary) -> None:
    assert summary.difference == 0
    assert summary.quarantined == 0
    assert summary.messages_of["tick"] >= summary.messages_of["inference"] > 500
    assert summary.messages_of["order"] > 100
    assert summary.windows >= 4 * 350 * summary.hours


def test_two_hours_are_in_the_store_to_the_last_stamp(world: tuple[Store, Path]) -> None:
    store, _ = world
    summary = history(world).run(2 * HOUR_NS, now_ns=NOW)
    complete(summary)
    hours = [
        make(Settings(rate=RATE, profile="flat"), begin) for begin in range(summary.from_ns, summary.to_ns, HOUR_NS)
    ]
    assert (summary.stamps, summary.links) == (sum(h.stamps for h in hours), sum(h.links for h in hours))
    assert summary.quotes == sum(h.quotes for h in hours)
    assert int(store.query("SELECT count() AS n FROM stamps")["n"][0]) == summary.stamps
    assert set(store.query("SELECT DISTINCT toString(mode) AS m FROM stamps")["m"]) == {"synthetic"}
    assert summary.messages_of["tick"] == summary.quotes
    assert all(row.difference == row.in_spool == row.in_flight == 0 for row in ledger(store))
    asked = {"from_ns": summary.from_ns, "to_ns": summary.to_ns}
    everyone = latency.percentiles(store, PATHS["tick"], **asked)
    synthetic = {a.stage: a for a in latency.percentiles(store, PATHS["tick"], rollup="mode=synthetic", **asked)}
    assert sum(a.count for a in everyone) == 0  # never among users' messages
    assert synthetic["end_to_end"].count == summary.quotes
    assert synthetic["end_to_end"].completeness == 1.0
    assert not [a for a in synthetic.values() if a.negative]


def test_again_is_nothing_new_and_longer_is_only_the_rest(world: tuple[Store, Path]) -> None:
    store, _ = world
    first = history(world).run(HOUR_NS, now_ns=NOW)
    before = contents(store)
    again = history(world).run(HOUR_NS, now_ns=NOW)
    assert (again.hours_made, again.windows_computed, again.stamps) == (0, 0, first.stamps)
    # Not even when nothing is known of what was done: the same batches have the same ids.
    store.execute("TRUNCATE TABLE heartbeats")
    blind = history(world).run(HOUR_NS, now_ns=NOW)
    assert (blind.hours_made, blind.duplicates, blind.batches, blind.windows_computed) == (1, 1, 1, 0)
    assert contents(store) == before
    longer = history(world).run(2 * HOUR_NS, now_ns=NOW)
    assert (longer.hours_made, longer.difference) == (1, 0)
    assert longer.stamps > 1.5 * first.stamps


def test_a_run_that_broke_off_anywhere_goes_on_to_the_same(
    world: tuple[Store, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = world
    history(world).run(2 * HOUR_NS, now_ns=NOW)
    expected = contents(store)
    for table in ("stamps", "links", "label_sets", "batches", "heartbeats", "messages", "stage_counts", "windows"):
        store.execute(f"TRUNCATE TABLE {table}")
    store.execute("TRUNCATE TABLE stage_windows")
    insert = type(store).insert
    for broken in ("links", "batches", "windows"):
        left = iter((False,) if broken == "batches" else (True, False))

        def dying(self: Store, table: str, block: Any, *, token: str, at: str = broken, left: Any = left) -> None:
            if table == at and not next(left, True):
                raise StoreError("broken off")
            insert(self, table, block, token=token)

        with monkeypatch.context() as patch:
            patch.setattr(type(store), "insert", dying)
            with pytest.raises(StoreError, match="broken off"):
                history(world).run(2 * HOUR_NS, now_ns=NOW)
    complete(history(world).run(2 * HOUR_NS, now_ns=NOW))
    found = contents(store)
    assert found["stamps"] == expected["stamps"]
    assert found["links"] == expected["links"]
    newest = "SELECT max(generation) FROM windows GROUP BY path, level, window"
    current = f"SELECT count() AS n FROM messages WHERE generation IN ({newest})"  # noqa: S608 - fixed text
    assert int(store.query(current)["n"][0]) == expected["messages"][1]


def test_the_window_job_agrees_and_counts_agree_with_the_stamps(world: tuple[Store, Path]) -> None:
    store, _ = world
    summary = history(world).run(HOUR_NS, now_ns=NOW)
    later = [d for d in run_due(store, PATHS, now_ns=NOW + 60 * NS) if d.stamps and d.why != "level"]
    assert [d for d in later if summary.from_ns <= d.window_ns < summary.to_ns] == []
    assert store.query("SELECT count() AS n FROM messages WHERE path = 'send'")["n"][0] == 0  # there is no kernel
    for path in (path for name, path in PATHS.items() if name != "send"):
        busiest = (
            "SELECT intDiv(toUnixTimestamp(start), 60) * 60 AS minute FROM messages WHERE path = {path:String}"
            " GROUP BY minute ORDER BY count() DESC, minute LIMIT 1"
        )
        minute = int(store.query(busiest, {"path": path.name})["minute"][0]) * NS
        span: dict[str, Any] = {"from_ns": minute, "to_ns": minute + 60 * NS, "rollup": "mode=synthetic"}
        counts = {a.stage: (a.count, a.unfinished, a.max_ns) for a in latency.percentiles(store, path, **span)}
        raw = latency.percentiles(store, path, source="raw", **span)
        assert counts == {a.stage: (a.count, a.unfinished, a.max_ns) for a in raw}
        assert sum(n for n, _, _ in counts.values()) > 0


def test_windows_beside_the_making_are_the_same_as_afterwards(
    world: tuple[Store, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = world
    pieces: list[tuple[int, int]] = []
    compute = History._windows

    def told(self: History, now_ns: int, span: Range, given_up: Callable[[], bool]) -> int:
        pieces.append((span.from_ns, span.to_ns))
        return compute(self, now_ns, span, given_up)

    monkeypatch.setattr(History, "_windows", told)
    found = []
    for at_once in (10**9, 1):
        monkeypatch.setattr(counting, "STAMPS_AT_ONCE", at_once)
        summary = history(world, rate=RATE / 3).run(4 * HOUR_NS, now_ns=NOW)
        sums = {
            (table, level): store.query(
                f"SELECT toString(sum(cityHash64(path, toUInt32(window), {what}))) AS h, count() AS found FROM {table}"  # noqa: S608 - names of ours
                f" WHERE level = {level} AND (path, generation) IN"
                f" (SELECT path, max(generation) FROM windows WHERE level = {level} GROUP BY path, window)"
            ).row(0)
            for level in (10, 60, 3_600)
            for table, what in (
                ("windows", "messages, finished, unfinished, headless, stamps, completeness"),
                ("stage_counts", "stage, rollup, bucket, n"),
                ("stage_windows", "stage, rollup, n, unfinished, missing, sum_ns, min_ns, max_ns"),
            )
        }
        found.append((contents(store), sums, summary.messages_of, summary.windows_computed))
        for table in ("stamps", "links", "label_sets", "batches", "heartbeats", "messages", "stage_counts", "windows"):
            store.execute(f"TRUNCATE TABLE {table}")
        store.execute("TRUNCATE TABLE stage_windows")
    assert found[0] == found[1]
    assert len(pieces) > 2, "one piece, then several"
    assert all(a[1] == b[0] for a, b in itertools.pairwise(pieces[1:]))


def test_deploys_are_on_record_and_incidents_are_for_the_checker(world: tuple[Store, Path]) -> None:
    store, data = world
    start = NOW - NOW % DAY_NS - DAY_NS
    while datetime.fromtimestamp(start // NS, UTC).weekday() >= 5:  # nobody deploys at weekends
        start -= DAY_NS
    seed = next(s for s in range(1, 500) if day(s, start).deploys and day(s, start).faults)
    expected = day(seed, start)
    end = min(*(f.start_ns for f in expected.faults), expected.deploys[0].ts_ns) // HOUR_NS * HOUR_NS + HOUR_NS
    span = (end - HOUR_NS, end)
    one = history(world, seed=seed, rate=0.1)
    for _ in range(2):
        one.run(HOUR_NS, until_ns=end, now_ns=NOW)
    sql = "SELECT toUnixTimestamp64Nano(ts) AS ts, toString(kind) AS k, toString(service) AS s, version FROM changes"
    before = [day(seed, start - back * DAY_NS) for back in range(1, 30)]
    told = [one for one in changes([expected], before) if span[0] <= one.ts_ns < span[1]]
    deploys = [(one.ts_ns, "deploy", one.place.partition("-")[0], one.version) for one in told]
    assert sorted(store.query(sql).rows()) == sorted(deploys)
    kept = Control(data / FOLDER).read()
    assert [f.id for f in kept] == [f.id for f in expected.faults if f.start_ns < end and (f.end_ns or 0) > span[0]]
    assert len(deploys) + len(kept) > 0
    # What goes on at the history's end must not strike an order path that runs on from there.
    assert all(f.end_ns is not None and f.end_ns <= end for f in kept)


def test_canaries_and_shadows_are_recorded_and_count_for_nobody(world: tuple[Store, Path]) -> None:
    store, data = world
    newest = NOW - NOW % DAY_NS - DAY_NS
    days = ((seed, newest - back * DAY_NS) for seed in range(1, 500) for back in range(7))
    seed, found = next((s, d) for s, d in ((s, day(s, at)) for s, at in days) if _told_apart(d))
    canary = next(one.canary for one in found.deploys if one.canary and one.canary.at == "inference")
    assert found.shadow is not None
    assert canary.end_ns is not None
    rate = 1.0 / found.rate
    for begin_ns in (canary.end_ns - HOUR_NS // 3, found.shadow.start_ns + HOUR_NS // 2):
        until = begin_ns // HOUR_NS * HOUR_NS + HOUR_NS
        one = History(store, data, POINTS, PATHS, WindowSettings(), Settings(seed=seed, rate=rate, profile="flat"))
        one.processes = 0
        assert one.run(HOUR_NS, until_ns=until, now_ns=NOW).difference == 0
    whole = {"from_ns": found.start_ns, "to_ns": found.start_ns + DAY_NS}
    path = PATHS["inference" if found.shadow.at == "inference" else "order"]
    counted = {
        rollup: sum(a.count + a.unfinished for a in latency.percentiles(store, path, rollup=rollup, **whole))
        for rollup in ("", "mode=synthetic", "mode=shadow")
    }
    assert counted[""] == 0
    assert counted["mode=synthetic"] > counted["mode=shadow"] > 0
    # By hand: the model's time of the canary's version and of the other, from the raw stamps.
    sql = """
    SELECT JSONExtractString(labels, 'version') = {version:String} AS new, count() AS n,
        countIf(ns >= 3000000) / count() AS slow
    FROM (
        SELECT key, argMaxIf(label_set, ts, point = 'app_ingress') AS label_set,
            toInt64(minIf(toUnixTimestamp64Nano(ts), point = 'modelled'))
                - toInt64(minIf(toUnixTimestamp64Nano(ts), point = 'featured')) AS ns
        FROM stamps WHERE service = 'inference' AND mode = 'synthetic'
            AND toUnixTimestamp64Nano(ts) >= {a:Int64} AND toUnixTimestamp64Nano(ts) < {b:Int64}
        GROUP BY key HAVING countIf(point = 'modelled') > 0 AND countIf(point = 'featured') > 0
    ) AS took INNER JOIN (SELECT label_set, any(labels) AS labels FROM label_sets GROUP BY label_set) AS named
        USING (label_set)
    GROUP BY new ORDER BY new
    """
    params = {"version": found.name_of(canary), "a": canary.start_ns, "b": canary.end_ns}
    (_, others, usual), (_, some, slow) = store.query(sql, params).rows()
    assert 0.1 < some / (some + others) < 0.3
    assert slow > usual + canary.size / 3


def _told_apart(day: Day) -> bool:
    """A day with a shadow, and one canary of the model, which is bad."""
    canaries = [one.canary for one in day.deploys if one.canary is not None and one.canary.at == "inference"]
    worse = [one for one in canaries if one.extra_ns and one.size >= 0.1]
    return day.shadow is not None and len(worse) == len(canaries) == 1


def test_it_ends_where_other_stamps_begin_and_refuses_to_mix(world: tuple[Store, Path]) -> None:
    store, _ = world
    mine = history(world)
    full = NOW - NOW % HOUR_NS
    live = full - HOUR_NS + 600 * NS
    _foreign(store, live)
    summary = mine.run(HOUR_NS, now_ns=NOW)
    assert summary.to_ns == full - HOUR_NS
    assert mine.run(HOUR_NS, now_ns=NOW).hours_made == 0
    with pytest.raises(PlanError, match=r"has stamps of 'probe' from .* --until"):
        mine.run(HOUR_NS, until_ns=full, now_ns=NOW)
    with pytest.raises(PlanError, match="a history of other settings"):
        history(world, seed=2).run(HOUR_NS, until_ns=summary.to_ns, now_ns=NOW)


def _foreign(store: Store, at_ns: int) -> None:
    row = {
        "batch": 1, "collector": uuid.uuid4(), "name": "probe", "host": "h", "boot": 1, "seq_first": 0, "events": 1,
        "stored": 1, "quarantined": 0, "dropped": 0, "reasons": [], "reason_counts": [], "tables": ["stamps"],
        "table_rows": [1], "first_ts": at_ns, "last_ts": at_ns + NS, "seconds": [], "produced_by_second": [],
        "missing_by_second": [], "cut": at_ns, "cut_day": at_ns // DAY_NS, "received": at_ns, "checksum": 0, "bytes": 0,
        "attempt": 0,
    }  # fmt: skip
    store.insert("batches", from_rows(table_types()["batches"], [row]), token=f"foreign{at_ns}")


def test_whole_hours() -> None:
    span = whole_hours(90 * 60 * NS, NOW)
    assert (span.to_ns - span.from_ns, span.to_ns % HOUR_NS) == (2 * HOUR_NS, 0)
    assert span.to_ns <= NOW < span.to_ns + HOUR_NS
    pieces = whole_hours(50 * HOUR_NS, NOW).days()
    assert sum(len(piece.hours) for piece in pieces) == 50
    assert all(a.to_ns == b.from_ns and b.from_ns % DAY_NS == 0 for a, b in itertools.pairwise(pieces))
    with pytest.raises(PlanError, match="at most 366 days"):
        whole_hours(9_000 * HOUR_NS, NOW)


def test_its_name_is_in_the_list_of_collectors(world: tuple[Store, Path]) -> None:
    history(world).run(2 * HOUR_NS, now_ns=NOW)
    (one,) = collectors(world[0], NOW)
    assert (one.name, one.status, one.live) == (NAME, "stopped", False)


def test_its_orders_are_in_the_blotter_once(world: tuple[Store, Path]) -> None:
    _, data = world
    one = history(world)
    one.outcomes = 5
    summary = one.run(HOUR_NS, now_ns=NOW)
    rows = list(read(file_of(data), "orders"))
    assert len(rows) == summary.orders > 100
    assert {row[columns("orders").index("status")] for row in rows} == {"accepted", "rejected"}
    assert sum(row[columns("orders").index("filled_quantity")] > 0 for row in rows) > 0
    world[0].execute("TRUNCATE TABLE heartbeats")  # so that the hour is made again
    assert one.run(HOUR_NS, now_ns=NOW).hours_made == 1
    assert list(read(file_of(data), "orders")) == rows
    keys = {int(row[columns("orders").index("message_key")], 16) for row in rows}
    assert keys == set(world[0].query("SELECT DISTINCT key FROM messages WHERE path = 'order'")["key"])
    (truth,) = read_all(data / FOLDER)
    assert (truth.seed, truth.rule) == (5, draw_rule(5))
