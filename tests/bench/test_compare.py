"""Comparing two releases over 10 million messages: from the store, and as it is usually done with pandas and scipy.

The usual way reads the latencies into pandas and takes Mann and Whitney's and Kolmogorov and Smirnov's tests and a
bootstrap of the p99's ratio (200 resamples). `TAILSIGHT_BENCH_MESSAGES` (10 million by default) for both sides.
CPU seconds of this process and the store's, so that other work on the machine does not count.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from scipy import stats

from analytics.compare.comparing import Comparison, compare
from analytics.compare.reading import Choice, arms, labels_from
from collector.store import Limits, Store
from collector.store.embedded import open_embedded
from collector.store.schema import MAX_HOURS, Retention, migrate
from tests.analytics.world import ORDER, label_set, path
from tests.bench.test_analytics import NS, T0, cpu_s, store_pid

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3_600)]
MESSAGES = int(os.environ.get("TAILSIGHT_BENCH_MESSAGES", "10_000_000"))
SECONDS = 3_600
RESAMPLES = 200

# Two releases side by side for an hour; 1 % of the second one's messages take five times as long.
FILL = """
INSERT INTO messages (path, window, generation, key, start, e2e_ns, e2e_error_ns, stage_ns, stage_error_ns, stage_host,
    stage_thread, stage_depth, duplicates, repeated, host, service, outcome, mode, cache, data_age_ns, weight,
    label_set, completeness)
SELECT 'order', toDateTime(intDiv(at, 10000000000) * 10, 'UTC'), 1, xxHash64(number),
    fromUnixTimestamp64Nano(at, 'UTC'), whole, 100, [intDiv(whole, 2), whole - intDiv(whole, 2)], [100, 100],
    [host, host], [1, 1], [0, 0], 0, 0, host, 'engine', 'ok', 'normal', 'unset', NULL, 1,
    if(second, {b:UInt64}, {a:UInt64}), 1
FROM (
    SELECT number, {t0:Int64} + toInt64(number) * intDiv({span:Int64}, {n:Int64}) AS at, number % 2 AS second,
        concat('host-', toString(number % 8)) AS host,
        toInt64(exp(11.5 + 0.35 * sqrt(-2 * log((1 + rand(1)) / 4294967297.))
            * cos(6.283185307 * rand(2) / 4294967296.)) * if(second AND rand(3) % 100 = 0, 5, 1)) AS whole
    FROM numbers({first:UInt64}, {count:UInt64})
)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    opened = open_embedded(tmp_path_factory.mktemp("compare"))
    migrate(opened, Retention(**dict.fromkeys(Retention.__struct_fields__, MAX_HOURS)))
    sets = {name: label_set(opened, {"version": version}) for name, version in (("a", "1"), ("b", "2"))}
    chunk = 1_000_000
    for first in range(0, MESSAGES, chunk):
        opened.execute(
            FILL,
            {
                **sets,
                "t0": T0 * NS,
                "span": SECONDS * NS,
                "n": MESSAGES,
                "first": first,
                "count": min(chunk, MESSAGES - first),
            },
        )
    opened.execute(
        """INSERT INTO windows SELECT 'order', 10, toDateTime({t0:Int64} + 10 * number, 'UTC'), 1, 'final', 0, 0, 0, 0,
        0, 1, 0, now64(9) FROM numbers({n:UInt64})""",
        {"t0": T0, "n": SECONDS // 10},
    )
    yield opened
    opened.close()


def spent(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """Result, wall and CPU seconds of this process and the store's."""
    before = time.process_time() + cpu_s(store_pid())
    wall = time.perf_counter()
    result = call()
    return result, time.perf_counter() - wall, time.process_time() + cpu_s(store_pid()) - before


def test_compare_over_all_messages(store: Store) -> None:
    span = {"from_ns": T0 * NS, "to_ns": (T0 + SECONDS) * NS}
    sides = [Choice(labels_from(f"version={version}"), **span) for version in (1, 2)]

    def ours() -> Comparison:
        return compare(*arms(store, path(ORDER), sides))

    def usual() -> tuple[float, float, float]:
        read = "SELECT e2e_ns FROM messages WHERE path = 'order' AND label_set = {s:UInt64}"
        limits = Limits(seconds=600, memory_bytes=8 << 30)
        names = store.query("SELECT label_set FROM label_sets ORDER BY labels")["label_set"].to_list()
        a, b = (store.query(read, {"s": s}, limits=limits).to_pandas()["e2e_ns"] for s in names)
        mann = stats.mannwhitneyu(a, b).pvalue
        smirnov = stats.ks_2samp(a, b, method="asymp").pvalue
        random = np.random.default_rng(1)
        ratios = [
            b.sample(frac=1, replace=True, random_state=random).quantile(0.99)
            / a.sample(frac=1, replace=True, random_state=random).quantile(0.99)
            for _ in range(RESAMPLES)
        ]
        return float(mann), float(smirnov), float(np.percentile(ratios, 97.5))

    ours()
    found, wall, cpu = spent(ours)
    _, usual_wall, usual_cpu = spent(usual)
    assert found.verdict == "regression"
    assert next(t for t in found.tests if t.name == "p99.9").finding == "worse"
    assert found.a.count + found.b.count == MESSAGES
    sys.stdout.write(
        f"\n{MESSAGES:,} messages: compare {wall:.2f} s wall, {cpu:.2f} s CPU; pandas and scipy {usual_wall:.1f} s"
        f" wall, {usual_cpu:.1f} s CPU; {usual_cpu / cpu:.1f} times\n"
    )
    assert usual_cpu / cpu > (10 if MESSAGES >= 5_000_000 else 2)  # what is fixed weighs more on fewer messages
