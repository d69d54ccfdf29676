"""Attribution and drivers over ten million messages: from the store, in memory, with pandas, and with SQL alone.

`TAILSIGHT_BENCH_MESSAGES` (10 million by default) of six stages, eight symbols, four hosts, over half an hour. One
message in fifty is slow in one stage for one symbol. Ratios are of runs beside each other on the same machine. Print
with `pytest -m bench -s tests/bench/test_attribution.py`.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl
import pytest

from analytics.paths import Path, paths_from
from analytics.population import labels_of, population
from analytics.tail import ask, cells, clusters, drivers
from analytics.tail.attribution import attributed, facts_of
from analytics.tail.tailset import cuts, parts, took
from collector.keys import hash64
from collector.points import BUILT_IN
from collector.store import Limits, Store
from collector.store.embedded import open_embedded
from collector.store.schema import MAX_HOURS, Retention, migrate
from tests.bench.test_analytics import cpu_s, store_pid

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1_800)]
MESSAGES = int(os.environ.get("TAILSIGHT_BENCH_MESSAGES", "10_000_000"))
STAGES, NS = 6, 1_000_000_000
SECONDS = 1_800
T0 = 1_790_000_000 // 3_600 * 3_600
SPAN = {"from_ns": T0 * NS, "to_ns": (T0 + SECONDS) * NS}
POINTS = ("nic_rx", "kernel_rx", "app_ingress", "app_transform", "app_decision", "app_egress", "nic_tx")
SYMBOLS = [hash64("labels", f"s{i}") for i in range(8)]

FILL = """
INSERT INTO messages (path, window, generation, key, start, e2e_ns, e2e_error_ns, stage_ns, stage_error_ns, stage_host,
    stage_thread, stage_depth, duplicates, repeated, host, service, outcome, mode, cache, data_age_ns, weight,
    label_set, completeness)
SELECT 'order', toDateTime(intDiv(at, 10) * 10, 'UTC'), 1, cityHash64(number), start,
    arraySum(x -> assumeNotNull(x), stages), 100, stages,
    arrayResize([toNullable(toUInt32(100))], 6, 100), arrayResize([h], 6, h), [1, 1, 2, 2, 3, 3],
    arrayResize([toNullable(toInt32(1))], 6, 1), 0, 0, h, 'engine', 'ok', 'normal', 'hit', NULL, 1,
    {symbols:Array(UInt64)}[s + 1], 1
FROM (
    SELECT number, {t0:UInt32} + intDiv(number * {seconds:UInt64}, {messages:UInt64}) AS at,
        fromUnixTimestamp64Nano(toInt64({t0:UInt64} * 1000000000 + intDiv(number * {seconds:UInt64} * 1000000000,
            {messages:UInt64})), 'UTC') AS start,
        concat('host-', toString(cityHash64(number, 'h') % 4)) AS h, cityHash64(number, 's') % 8 AS s,
        arrayMap(i -> toNullable(toInt64(50000 - 40000 * log((cityHash64(number, i) % 1000003 + 1) / 1000004.)
            + if(i = 4 AND s = 3 AND cityHash64(number, 'x') % 50 = 0, 3000000, 0))), range(6)) AS stages
    FROM numbers({a:UInt64}, {n:UInt64})
)
"""
# What one would write in SQL: shares of the tail with the engine's exact quantile, and one dimension's counts.
SQL = """
WITH (SELECT quantileExactLow(0.99)(assumeNotNull(e2e_ns)) FROM messages WHERE path = 'order') AS cut
SELECT sumForEach(stage_ns) AS sums, sum(e2e_ns) AS whole, count() AS n FROM messages
WHERE path = 'order' AND e2e_ns >= cut
"""
SQL_DRIVERS = """
WITH (SELECT quantileExactLow(0.99)(assumeNotNull(e2e_ns)) FROM messages WHERE path = 'order') AS cut
SELECT label_set, host, count() AS n, countIf(e2e_ns >= cut) AS slow FROM messages WHERE path = 'order'
GROUP BY label_set, host
"""


@dataclass
class Cost:
    """Wall and CPU seconds, the store's process included, and the peak memory of ours (MiB)."""

    wall: float
    cpu: float
    peak: float


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    opened = open_embedded(tmp_path_factory.mktemp("attribution"))
    migrate(opened, Retention(**dict.fromkeys(Retention.__struct_fields__, MAX_HOURS)))
    step = 500_000
    for a in range(0, MESSAGES, step):
        opened.execute(
            FILL,
            {
                "symbols": SYMBOLS, "t0": T0, "seconds": SECONDS, "messages": MESSAGES, "a": a,
                "n": min(step, MESSAGES - a),
            },
        )  # fmt: skip
    for index, symbol in enumerate(SYMBOLS):
        opened.execute(
            "INSERT INTO label_sets (label_set, labels, batch, seq, cut_day) VALUES"
            " ({id:UInt64}, {text:String}, 1, 1, today())",
            {"id": symbol, "text": f'{{"symbol":"s{index}"}}'},
        )
    opened.execute(
        "INSERT INTO windows (path, level, window, generation, messages) SELECT 'order', 10, window, 1, count()"
        " FROM messages GROUP BY window"
    )
    yield opened
    opened.close()


def path() -> Path:
    stages: list[dict[str, Any]] = [
        {"name": f"stage_{i}", "from": {"point": POINTS[i]}, "to": {"point": POINTS[i + 1]}} for i in range(STAGES)
    ]
    return paths_from({"paths": {"order": {"max_age": "1s", "stages": stages}}}, BUILT_IN)["order"]


def cost(work: Any) -> tuple[Any, Cost]:
    pids = (os.getpid(), store_pid())
    before = [cpu_s(pid) for pid in pids]
    began = time.perf_counter()
    found = work()
    wall = time.perf_counter() - began
    cpu = sum(cpu_s(pid) - at for pid, at in zip(pids, before, strict=True))
    return found, Cost(wall, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def test_attribution_and_drivers_of_ten_million_messages(store: Store) -> None:
    one = path()
    shares, attribution = cost(lambda: ask.attribution(store, one, **SPAN))
    who, driving = cost(lambda: ask.who(store, one, **SPAN))
    assert shares.count == who.count == MESSAGES
    assert sum(part.total_ns for part in shares.stages) == shares.tail_total_ns
    assert {"symbol": "s3"} in [driver.what for driver in who.drivers]

    frame, reading = cost(lambda: population(store, one, **SPAN, details=False).frame)

    def in_memory(frame: pl.DataFrame = frame) -> Any:
        prepared, apart = took(frame, one)
        cut = cuts(prepared["took_ns"].to_numpy(), 0.01)
        length = clusters.cluster_ns(**SPAN)
        sums = clusters.sums_of(prepared, len(parts(one)), cut, length)
        counted = cells.count(prepared.with_columns(tail=pl.col("took_ns") >= cut.tail_ns), length)
        named = drivers.found(counted, labels_of(store, counted.cells["label_set"]))
        return attributed(one, sums, cut, facts_of(prepared, one, cut, apart), cluster_length_ns=length, **SPAN), named

    (again, _), memory = cost(in_memory)
    assert [part.total_ns for part in again.stages] == [part.total_ns for part in shares.stages]

    pandas = pytest.importorskip("pandas")
    columns = [f"ns_{i}" for i in range(STAGES)]
    table = frame.select("e2e_ns", "start_ns", "host", "label_set", *columns).to_pandas()

    def with_pandas() -> Any:
        cut = table["e2e_ns"].quantile(0.99, interpolation="lower")
        tail = table["e2e_ns"] >= cut
        low, high = table["e2e_ns"].quantile([0.4, 0.6])
        body = table["e2e_ns"].between(low, high)
        cluster = [table["start_ns"] // clusters.cluster_ns(**SPAN), table["host"]]
        sums = [table.loc[rows].groupby([part[rows] for part in cluster])[columns].sum() for rows in (tail, body)]
        counted = tail.groupby([table["host"], table["label_set"]]).agg(["sum", "size"])
        return sums, counted

    _, peer = cost(with_pandas)
    assert pandas.__version__
    limits = Limits(seconds=600, memory_bytes=8 << 30)
    summed, sql = cost(lambda: (store.query(SQL, limits=limits), store.query(SQL_DRIVERS, limits=limits)))
    assert summed[0]["n"][0] == pytest.approx(shares.tail_count, rel=0.01)
    rows = {
        "attribution, from the store": attribution, "drivers, from the store": driving,
        "reading them at once": reading, "both in memory": memory, "pandas: sums and counts alone": peer,
        "SQL alone: sums and counts, no intervals": sql,
    }  # fmt: skip
    lines = [
        f"{name:45} {spent.wall:7.1f} s {spent.cpu:7.1f} CPU s, peak so far {spent.peak:6.0f} MiB"
        for name, spent in rows.items()
    ]
    sys.stdout.write(f"\n{MESSAGES:,} messages of {STAGES} stages\n" + "\n".join(lines) + "\n")
    assert memory.cpu < peer.cpu
    assert attribution.cpu + driving.cpu < 20 * MESSAGES / 10_000_000  # 10 s on two cores
