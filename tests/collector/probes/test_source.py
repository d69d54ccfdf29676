"""The collector `probes`: an open loop at the intended rate, stamps of mode synthetic, bounds that are kept."""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest

from collector.clock import HostClock
from collector.probes import source as module
from collector.probes.check import Result
from collector.probes.settings import START, Check, ProbesSettings
from collector.probes.source import ProbesSource
from collector.record import Mode, Outcome
from tests.api.notify.kit import until
from tests.collector.probes.test_checks import serving


def rows_of(source: ProbesSource, clock: HostClock) -> list[dict[str, Any]]:
    found = []
    for columns in source.poll(clock.read()).columns:
        if columns.table.name == "stamps":
            names = [c.name for c in columns.table.columns]
            texts = {n: columns.texts[n] for n in columns.texts}
            for i in range(len(columns)):
                row = {n: columns.values[n][i].item() for n in names}
                found.append({n: texts[n][v] if n in texts else v for n, v in row.items()})
    return found


def test_checks_run_at_their_intended_times_and_never_count_as_users() -> None:
    clock = HostClock()
    with serving() as port:
        check = Check(kind="tcp", target=f"127.0.0.1:{port}", every="100ms", timeout="2s", via="127.0.0.1")
        source = ProbesSource("gw", ProbesSettings(checks={"venue": check}))
        assert source.start({}).status == "running"
        rows: list[dict[str, Any]] = []

        def enough() -> bool:
            rows.extend(rows_of(source, clock))
            return sum(row["point"] == "probe_done" for row in rows) >= 8

        until(enough, 30)
        source.close()
    assert {row["mode"] for row in rows} == {Mode.SYNTHETIC}
    assert {(row["host"], row["service"], row["clock"]) for row in rows} == {("gw", "probe-venue", "MONOTONIC")}
    starts = sorted(row["ts_ns"] for row in rows if row["point"] == START)
    # Exactly a period apart, whatever each of them took: the times are the intended ones.
    steps = {round((b - a) / 100_000) for a, b in itertools.pairwise(starts)}
    assert steps == {1_000}
    assert len({row["key"] for row in rows}) == len(starts)
    assert abs(starts[-1] - time.time_ns()) < 60_000_000_000


def test_a_target_that_hangs_does_not_slow_the_rate() -> None:
    """No coordinated omission: while one check waits the next ones begin."""
    with serving() as port:
        check = Check(kind="http", target=f"http://127.0.0.1:{port}/", every="100ms", timeout="600ms")
        source = ProbesSource("gw", ProbesSettings(checks={"slow": check}))
        most = 0

        def running() -> bool:
            nonlocal most
            most = max(most, source._running)
            return most >= 4

        source.start({})
        until(running, 20)
        clock, rows = HostClock(), []
        until(lambda: rows.extend(rows_of(source, clock)) or len(rows) >= 10, 20)
        source.close()
    assert {row["outcome"] for row in rows} <= {Outcome.TIMEOUT, Outcome.SHED}
    assert "probe_done" not in {row["point"] for row in rows}


def test_what_could_not_be_begun_is_shed_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []

    def done(name: str, _check: Check, intended_ns: int, _allow: object) -> Result:
        begun.append(intended_ns)
        return Result(name, intended_ns, [(START, intended_ns)])

    monkeypatch.setattr(module, "run", done)
    second = 1_000_000_000
    source = ProbesSource("gw", ProbesSettings(checks={"c": Check(kind="tcp", target="h:1", every="1s")}))
    source._pool = module.ThreadPoolExecutor(1)
    check = source._settings.checks["c"]
    source._begin("c", check, 10 * second, 10 * second + 5)
    source._begin("c", check, 11 * second, 41 * second + 5)  # the agent was stopped for half a minute
    source._pool.shutdown()
    assert begun == [10 * second, 41 * second]
    assert source._due["c"] == 42 * second
    assert source.shed == 30
    shed = [one for one in source._results if one.outcome is Outcome.SHED]
    assert [one.intended_ns // second for one in shed] == list(range(11, 41))
    assert source.state().status == "degraded"
    source._running = 64
    source._pool = module.ThreadPoolExecutor(1)
    source._begin("c", check, 42 * second, 42 * second)
    assert source.shed == 31
    source._pool.shutdown()


def test_without_checks_it_says_how_to_declare_one() -> None:
    source = ProbesSource("gw")
    assert source.start({}).reason == "no checks: declare some as [probes.NAME]"
    assert source.poll(HostClock().read()).columns == []
    source.close()
