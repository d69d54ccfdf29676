"""Speed of the analytics: the window job per stamp, percentiles from raw stamps, from counts and by the engine's
quantile.

CPU time is the store process's own, so that other work on the machine does not count; `pytest -m bench -s` prints it.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from analytics import latency, runs
from analytics.due import NS
from analytics.generations import Generations
from analytics.paths import paths_from
from analytics.window_settings import WindowSettings
from collector.points import BUILT_IN
from collector.store import Store
from collector.store.embedded import open_embedded
from collector.store.schema import Retention, migrate

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1_200)]

T0 = 1_750_000_000 - 1_750_000_000 % 3_600
POINTS = sorted(BUILT_IN)[:10]
PATH = paths_from(
    {
        "paths": {
            "order": {
                "max_age": "1s",
                "stages": [
                    {"name": f"s{i}", "from": {"point": a}, "to": {"point": b}}
                    for i, (a, b) in enumerate(itertools.pairwise(POINTS))
                ],
            }
        }
    },
    BUILT_IN,
)["order"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    opened = open_embedded(tmp_path_factory.mktemp("bench"))
    migrate(opened, Retention(**dict.fromkeys(Retention.__struct_fields__, 175200)))
    yield opened
    opened.close()


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def store_pid() -> int:
    """The store process: the one child of ours that runs it."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if b"collector.store" in words and parent == os.getpid():
                return int(entry.name)
    pytest.fail("no store process below this one")


def measure(name: str, call: Any) -> tuple[Any, float, float]:
    pid = store_pid()
    cpu, wall = cpu_s(pid), time.perf_counter()
    result = call()
    cpu, wall = cpu_s(pid) - cpu, time.perf_counter() - wall
    print(f"\n{name}: {wall:.3f} s wall, {cpu:.3f} s CPU of the store", end="")  # noqa: T201 - a bench reports
    return result, cpu, wall


def fill(store: Store, seconds: int, per_second: int) -> None:
    """Messages of ten stamps 15 us apart and random, in batches of half a second."""
    for half in range(seconds * 2):
        store.execute(
            """
            INSERT INTO stamps (* EXCEPT(written))
            SELECT fromUnixTimestamp64Nano({start:Int64} + intDiv(number, 10) * {gap:Int64} + (number % 10) * 15000
                    + toInt64(exp(randNormal(7., 1.))), 'UTC'),
                cityHash64({half:UInt64}, intDiv(number, 10)), {points:Array(String)}[number % 10 + 1], if(number % 10
                < 5, 'a', 'b'),
                'engine', number % 10, 'MONOTONIC', 500, number % 7, 0, if(number % 10 = 9, 1, 0), 0, 0, NULL,
                {half:UInt64}, number,
                toDate('2025-06-15')
            FROM numbers({n:UInt64})
            """,
            {
                "start": (T0 + 10) * NS + half * NS // 2, "gap": NS // 2 // (per_second // 20), "half": half,
                "points": POINTS, "n": per_second // 2,
            },
        )  # fmt: skip


def test_the_window_job_keeps_up_with_half_a_million_stamps_per_second_on_one_core(store: Store) -> None:
    fill(store, 12, 500_000)
    generation = Generations(store, "order", 0).next()
    (written,), cpu, _ = measure(
        "window of 10 s at 500k stamps/s",
        lambda: runs.write(store, PATH, [T0 + 10], [generation], WindowSettings(), 0),
    )
    stamps = written.stamps
    print(f" = {stamps / cpu:,.0f} stamps per CPU second", end="")  # noqa: T201
    assert 4_990_000 < stamps <= 5_000_000  # a few lie beyond the window's end
    assert cpu < 10.0


def test_percentiles_from_counts_are_far_cheaper_than_from_raw_stamps(store: Store) -> None:
    reach = {"from_ns": (T0 + 10) * NS, "to_ns": (T0 + 20) * NS}
    store.execute(
        "INSERT INTO windows SELECT 'order', 10, toDateTime({w:UInt32}, 'UTC'), max(generation), 'final', 1, 1, 0,"
        " 0, 1, 1, 0, now64(9) FROM messages",
        {"w": T0 + 10},
    )
    raw, raw_cpu, _ = measure(
        "percentiles from raw stamps", lambda: latency.percentiles(store, PATH, source="raw", **reach)
    )
    counted, counts_cpu, _ = measure("percentiles from counts", lambda: latency.percentiles(store, PATH, **reach))
    assert [(a.stage, a.count, a.p99_ns) for a in raw] == [(a.stage, a.count, a.p99_ns) for a in counted]
    engine = f"""SELECT {", ".join(f"quantile(0.99)(t{i + 1} - t{i})" for i in range(9))} FROM (
        SELECT {", ".join(f"minIf(toUnixTimestamp64Nano(ts), point = '{p}') AS t{i}" for i, p in enumerate(POINTS))}
        FROM stamps GROUP BY key)"""  # noqa: S608
    _, engine_cpu, _ = measure("the engine's quantile over raw stamps", lambda: store.query(engine))
    ratios = raw_cpu / max(counts_cpu, 0.01), engine_cpu / max(counts_cpu, 0.01)
    print(f"\nraw / counts = {ratios[0]:.0f}, engine / counts = {ratios[1]:.0f}")  # noqa: T201
    assert raw_cpu > 10 * counts_cpu


def month_of_ledger(store: Store, collectors: int = 4) -> None:
    """What collectors that ship every half second and tell of themselves every two seconds leave in thirty days."""
    name = "concat('c', toString({c:UInt64}))"
    uuid = "toUUID(concat('00000000-0000-0000-0000-00000000000', toString({c:UInt64})))"
    for c, day in itertools.product(range(collectors), range(30)):
        params = {"c": c, "d": day, "t": (T0 + day * 86_400) * NS}
        store.execute(
            f"""INSERT INTO batches (batch, collector, name, host, boot, seq_first, events, stored, tables, table_rows,
                first_ts, last_ts, cut, cut_day, received, seconds, produced_by_second, missing_by_second)
            SELECT cityHash64(number, {{c:UInt64}}, {{d:UInt64}}), {uuid}, {name}, 'host', 1,
                ({{d:UInt64}} * 172800 + number) * 100, 100, 100, ['gauges'], [100], t, t + INTERVAL 400 MILLISECOND, t,
                toDate(t), t + INTERVAL 300 MILLISECOND, [toUInt32(toUnixTimestamp(t))], [100], [0]
            FROM (SELECT number, fromUnixTimestamp64Nano({{t:Int64}} + number * 500000000, 'UTC') AS t
                FROM numbers(172800))""",  # noqa: S608
            params,
        )
        store.execute(
            f"""INSERT INTO heartbeats (ts, collector, boot, name, host, status, watermark, produced, acked)
            SELECT t, {uuid}, 1, {name}, 'host', 'running', t, ({{d:UInt64}} * 172800 + number * 4 + 4) * 100,
                ({{d:UInt64}} * 172800 + number * 4 + 4) * 100
            FROM (SELECT number, fromUnixTimestamp64Nano({{t:Int64}} + 2000000000 + number * 2000000000, 'UTC') AS t
                FROM numbers(43200))""",  # noqa: S608
            params,
        )


def test_thirty_days_of_hours_for_all_stages(store: Store) -> None:
    month_of_ledger(store)
    for table, columns, select in (
        (
            "stage_counts (path, level, window, generation, stage, rollup, bucket, n)",
            "number % 300 + 800, 40",
            "FROM numbers(11 * 720 * 300)",
        ),
        (
            "stage_windows (path, level, window, generation, stage, rollup, n, min_ns, max_ns, sum_ns)",
            "12000, 1000, 90000, 1",
            "FROM (SELECT number * 300 AS number FROM numbers(11 * 720))",
        ),
    ):
        store.execute(
            f"INSERT INTO {table} SELECT 'month', 3600,"
            " toDateTime(toUInt32({w:UInt32} + intDiv(number, 300) % 720 * 3600), 'UTC'),"
            f" intDiv(number, 300) % 720 + 1, concat('s', toString(intDiv(number, 216000))), '', {columns} {select}",
            {"w": T0},
        )
    # The finer windows of their retention stand beside: 3 days of 10 s, all 30 of minutes.
    for level, windows, first in ((3_600, 720, 0), (60, 43_200, 0), (10, 25_920, 27 * 86_400)):
        store.execute(
            "INSERT INTO windows SELECT 'month', {level:UInt16},"
            " toDateTime(toUInt32({w:UInt32} + number * {level:UInt16}), 'UTC'), number + 1,"
            " 'final', 1, 1, 0, 0, 1, 1, if({level:UInt16} = 10, 0, 1000000), now64(9) FROM numbers({windows:UInt64})",
            {"w": T0 + first, "level": level, "windows": windows},
        )
    reach = {"from_ns": T0 * NS, "to_ns": (T0 + 720 * 3_600) * NS}
    found, _, first = measure("30 days of hours, first", lambda: latency.percentiles(store, "month", **reach))
    walls = [measure("again", lambda: latency.percentiles(store, "month", **reach))[2] for _ in range(9)]
    # The engine's own quantile over as many latencies, which it need not even read or stitch.
    raw = "SELECT number % 11, quantile(0.99)(cityHash64(number) % 90000) FROM numbers(95040000) GROUP BY 1"
    _, _, engine = measure("the engine's quantile over as many latencies", lambda: store.query(raw))
    print(f"\nfirst {first * 1e3:.0f} ms, best of nine {min(walls) * 1e3:.0f} ms,", end="")  # noqa: T201
    print(f" engine / counts = {engine / min(walls):.0f}", end="")  # noqa: T201
    assert engine > 2 * min(walls)
    assert len(found) == 11
    assert {a.count for a in found} == {720 * 12_000}
    assert {a.completeness for a in found} == {1.0}
