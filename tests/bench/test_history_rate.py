"""How fast a history is made: the simulation, its landing, and its windows; and backfill against the window job.

`TAILSIGHT_BENCH_HOURS` (default 4) hours of one quote a second.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from analytics.backfill import backfill
from analytics.paths import paths_from
from analytics.window_settings import WindowSettings
from analytics.windows import run_due
from api.demo.history.calendar import HOUR_NS, NS
from api.demo.history.hours import Settings, simulate
from api.demo.history.run import History
from api.demo.programs import configuration
from collector.points import points_from
from collector.settings import read_toml
from collector.store.embedded import open_embedded
from collector.store.schema import Retention, migrate

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1_800)]
HOURS = int(os.environ.get("TAILSIGHT_BENCH_HOURS", "4"))


def test_history_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = read_toml(configuration())
    points = points_from(document, "demo")
    paths = paths_from(document, points, "demo")
    now = time.time_ns()
    began = time.perf_counter()
    tape = simulate(Settings(profile="flat"), now // HOUR_NS * HOUR_NS - HOUR_NS).tape
    alone_s = time.perf_counter() - began
    store = open_embedded(tmp_path)
    migrate(store, Retention())
    made = History(store, tmp_path, points, paths, WindowSettings(), Settings(profile="flat")).run(HOURS * HOUR_NS)
    assert made.difference == 0
    spent = made.seconds_of
    report = (
        f"\nsimulation, one core: {tape.quotes / alone_s:,.0f} quotes/s, {len(tape) / alone_s:,.0f} stamps/s"
        f"\n{made.hours} hours, {made.stamps:,} stamps, {made.messages:,} messages, {made.windows:,} windows:"
        f" {made.seconds:.1f} s ({made.messages / made.seconds:,.0f} messages/s)"
        f"\nlanding: {made.stamps / max(spent['landing'], 1e-3):,.0f} stamps/s;"
        f" windows: {made.windows / spent['windows']:,.0f} windows/s"
    )
    rates = {}
    for name in ("backfill", "window job"):
        for table in ("messages", "stage_counts", "stage_windows", "windows"):
            store.execute(f"TRUNCATE TABLE {table}")
        began = time.perf_counter()
        if name == "backfill":
            done = len(backfill(store, paths, made.from_ns - 60 * NS, made.to_ns + 60 * NS))
        else:
            done = 0
            while some := run_due(store, paths):
                done += len(some)
        rates[name] = done / (time.perf_counter() - began)
    with capsys.disabled():
        print(report, ", ".join(f"{name}: {rate:,.0f} windows/s" for name, rate in rates.items()), sep="\n")  # noqa: T201
    store.close()
