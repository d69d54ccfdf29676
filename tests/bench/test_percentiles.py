"""Percentiles over many stamps: from raw stamps, from counts, and by what a user would otherwise write.

`TAILSIGHT_BENCH_STAMPS` (100 million by default, about 1 GB on disk) at 50,000 a second. The store's CPU time is its
process's own, so that other work on the machine does not count. Print with `pytest -m bench -s`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from analytics import latency, verify, windows
from analytics.window_settings import WindowSettings
from collector.store import Limits, Store
from collector.store.embedded import open_embedded
from collector.store.schema import MAX_HOURS, Retention, migrate
from tests.bench.test_analytics import NS, PATH, POINTS, T0, cpu_s, store_pid

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3_600)]

STAMPS = int(os.environ.get("TAILSIGHT_BENCH_STAMPS", "100_000_000"))
RATE = 50_000
SECONDS = STAMPS // RATE
PATIENT = Limits(seconds=600, memory_bytes=8 << 30)

# Ten stamps a message, each a log-normal step after the one before; one message in 500 has a slow sixth step.
FILL = """
INSERT INTO stamps (* EXCEPT(written))
SELECT fromUnixTimestamp64Nano(start + arraySum(arraySlice(steps, 1, n)), 'UTC'), key, point, 'host', 'engine', n,
    'monotonic', 500, n % 7, 0, if(n = 10, 'ok', 'unset'), 'unset', 'unset', NULL, {batch:UInt64}, message * 10 + n, day
FROM (
    SELECT number AS message, {from_ns:Int64} + number * {gap:Int64} AS start,
        xxHash64(concat('bench', reinterpretAsFixedString({batch:UInt64} * 10000000 + number))) AS key,
        arrayMap(i -> toInt64(exp(9.2 + 0.45 * randNormal(i, 1)) * if(i = 6 AND rand(message) % 500 = 0, 40, 1)),
            range(1, 11)) AS steps, toDate({from_ns:Int64} / 1000000000) AS day
    FROM numbers({messages:UInt64})
) ARRAY JOIN range(1, 11) AS n, {points:Array(String)} AS point
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    opened = open_embedded(tmp_path_factory.mktemp("percentiles"))
    migrate(opened, Retention(**dict.fromkeys(Retention.__struct_fields__, MAX_HOURS)))
    chunk = 20
    for batch, second in enumerate(range(0, SECONDS, chunk), 1):
        opened.execute(
            FILL.replace("randNormal(i, 1)", "(sqrt(-2 * log(1e-12 + rand(i * 3 + 1) / 4294967296.))"
            " * cos(6.283185307 * rand(cityHash64(message, i)) / 4294967296.))"),
            {
                "batch": batch,
                "from_ns": (T0 + second) * NS,
                "gap": NS // (RATE // 10),
                "messages": chunk * RATE // 10,
                "points": POINTS,
            },
        )  # fmt: skip
    yield opened
    opened.close()


def timed(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """Result, wall seconds and the store's CPU seconds of the second of two calls."""
    call()
    cpu, wall = cpu_s(store_pid()), time.perf_counter()
    result = call()
    return result, time.perf_counter() - wall, cpu_s(store_pid()) - cpu


def say(line: str) -> None:
    sys.stdout.write(line + "\n")


def test_percentiles_over_all_stamps(store: Store) -> None:
    assert store.query("SELECT count() FROM stamps").item() == STAMPS
    reach = {"from_ns": T0 * NS, "to_ns": (T0 + SECONDS) * NS}
    cpu, wall = cpu_s(store_pid()), time.perf_counter()
    settle(store)
    cpu, wall = cpu_s(store_pid()) - cpu, time.perf_counter() - wall
    say(f"\n{STAMPS:,} stamps, {SECONDS} s; windows computed in {wall:.0f} s, {STAMPS / cpu / 1e6:.2f} M stamps/CPU s")
    counted, counts_wall, counts_cpu = timed(lambda: latency.percentiles(store, PATH, **reach))
    # A minute of raw stamps: the whole range at once is what no tool would be asked for.
    minute = {"from_ns": T0 * NS, "to_ns": (T0 + 60) * NS}
    raw, raw_wall, raw_cpu = timed(lambda: latency.percentiles(store, PATH, source="raw", **minute))
    same, same_wall, same_cpu = timed(lambda: latency.percentiles(store, PATH, **minute))
    plain = """
        SELECT quantiles(0.5, 0.9, 0.95, 0.99, 0.999, 0.9999)(e) FROM (
            SELECT key, toUnixTimestamp64Nano(maxIf(ts, point = {last:String})) -
                toUnixTimestamp64Nano(minIf(ts, point = {first:String})) AS e
            FROM stamps WHERE ts >= fromUnixTimestamp64Nano({from_ns:Int64}, 'UTC')
                AND ts < fromUnixTimestamp64Nano({to_ns:Int64}, 'UTC') GROUP BY key)"""
    ends = {"first": POINTS[0], "last": POINTS[-1]}
    _, plain_wall, plain_cpu = timed(lambda: store.query(plain, {**minute, **ends}, limits=PATIENT))
    for name, one_wall, one_cpu in (
        (f"counts, {SECONDS} s", counts_wall, counts_cpu),
        ("counts, 60 s", same_wall, same_cpu),
        ("raw stamps, 60 s, all stages", raw_wall, raw_cpu),
        ("engine's quantiles() of one stage, 60 s", plain_wall, plain_cpu),
    ):
        say(f"  {name:<42} {one_wall * 1000:9.1f} ms wall {one_cpu * 1000:9.1f} ms CPU")
    assert [(s.stage, s.p99_ns, s.max_ns) for s in raw] == [(s.stage, s.p99_ns, s.max_ns) for s in same]
    assert {s.stage: s.count for s in counted}["end_to_end"] == STAMPS // 10
    assert same_wall < raw_wall
    assert not [v for v in verify.verify_percentiles(store, {PATH.name: PATH}, **minute) if v.differences]
    sizes = store.query(
        "SELECT table, sum(bytes_on_disk) AS b FROM system.parts WHERE active AND database = 'tailsight' GROUP BY table"
    )
    for table, size in sizes.rows():
        if size > 100_000:
            say(f"  {table:<14} {size / STAMPS:6.2f} bytes per stamp")


def settle(store: Store) -> None:
    """Give the window job a ledger row for the stamps, and let it work until nothing is due."""
    from tests.analytics.world import beat

    end = (T0 + SECONDS) * NS
    store.execute(
        """
        INSERT INTO batches (batch, collector, name, host, boot, seq_first, events, stored, tables, table_rows,
            first_ts, last_ts, cut, cut_day, received, seconds, produced_by_second, missing_by_second)
        SELECT batch, toUUID('00000000-0000-0000-0000-000000000001'), 'probe', 'host', 1, batch * 10000000, count(),
            count(), ['stamps'], [count()], min(ts), max(ts), max(ts), toDate(max(ts)), max(ts) + INTERVAL 1 SECOND,
            [toUInt32(toUnixTimestamp(max(ts)))], [count()], [0]
        FROM stamps GROUP BY batch
        """
    )
    beat(store, end + 100 * NS, end + 99 * NS)
    settings = WindowSettings()
    while windows.run_due(store, {PATH.name: PATH}, settings, end + 101 * NS):
        pass
