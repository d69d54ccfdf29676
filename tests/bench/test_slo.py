"""What one tick of 1,000 objectives over 30 days costs on the embedded store."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from analytics.slo import stored
from analytics.slo.evaluate import Evaluator, View, budget_of
from analytics.slo.indicators import Latency
from analytics.slo.objectives import Objective
from analytics.slo.openslo import TimeWindow
from analytics.slo.rules import rules_named
from analytics.slo.sums import Sums
from collector.store.embedded import open_embedded
from collector.store.schema import Retention, migrate

COUNT = 1_000
DAY = 86_400
NOW_S = int(time.time()) // 3_600 * 3_600
_FILL = """
INSERT INTO objective_counts (objective, version, level, window, generation, good, total, uncertain,
    written)
SELECT concat('o', toString(n)), {version:UInt32}, {level:UInt16},
    toDateTime({from_s:UInt32} + toUInt32(w) * {level:UInt16}, 'UTC'), 1, 100 * {level:UInt16} - (w * 31 + n) % 3,
    100 * {level:UInt16}, 0, now() - 3600
FROM (SELECT number AS n FROM numbers({count:UInt32})) AS a, (SELECT number AS w FROM numbers({windows:UInt32})) AS b
"""


@pytest.mark.bench
@pytest.mark.timeout(600)
def test_a_tick_of_a_thousand_objectives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules = rules_named("workbook", 30 * DAY)
    window = TimeWindow(30, "d", True)
    objectives = [
        Objective(f"o{i}", f"o{i}", "s", f"o{i}", "", 0.999, Latency("order", "end_to_end", 1), window, rules)
        for i in range(COUNT)
    ]
    version = objectives[0].version
    store = open_embedded(tmp_path)
    try:
        migrate(store, Retention())
        for level, span in ((3_600, 30 * DAY), (60, 3 * DAY), (10, 6 * 3_600)):
            for start in range(NOW_S - span, NOW_S, 6 * 3_600 if level < 3_600 else span):
                length = 6 * 3_600 if level < 3_600 else span
                store.execute(
                    _FILL,
                    {"version": version, "level": level, "from_s": start, "count": COUNT, "windows": length // level},
                )
        versions = {one.name: version for one in objectives}
        started = time.perf_counter()
        sums = Sums([one.name for one in objectives], NOW_S)
        stored.load(store, sums, versions)
        loaded = time.perf_counter() - started
        assert sums.window(30 * DAY)[:, 1].min() == 30 * DAY * 100
        evaluator = Evaluator(objectives)
        ticks = []
        dice = np.random.default_rng(1)
        for number in range(1, 7):
            end = NOW_S + 10 * number
            bad = dice.integers(0, 4, COUNT)
            rows = [
                stored.Row(one.name, version, 10, end - 10, 1_000 - int(b), 1_000)
                for one, b in zip(objectives, bad, strict=True)
            ]
            stored.insert(store, rows, number + 1)
            since = int(time.time()) - 40
            started = time.perf_counter()
            sums.advance(end)
            stored.refresh(store, sums, versions, since)
            evaluator.tick(sums, end)
            view = View(sums)
            budgets = [budget_of(view, one, end) for one in objectives]
            ticks.append(time.perf_counter() - started)
            assert len(budgets) == COUNT
        assert sums.window(10)[:, 1].tolist() == [1_000] * COUNT
    finally:
        store.close()
    with capsys.disabled():
        shown = ", ".join(f"{t * 1000:.0f}" for t in ticks)
        print(f"\n{COUNT} objectives, 30 d: start {loaded:.1f} s, ticks {shown} ms")  # noqa: T201
    assert sorted(ticks)[len(ticks) // 2] <= 1.0
