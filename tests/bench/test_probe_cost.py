"""What one stamp costs, as ratios within one run: bare clock reads, prometheus_client, opentelemetry-sdk, hdrhistogram.

The candidates take turns, many short rounds each, and the fastest round of each counts: what disturbs the machine
disturbs all of them.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import time
import timeit
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tailsight_probe
from tailsight_probe import Outcome, Probe

from collector.clock import HostClock
from collector.sources.probe import ProbeSource

pytestmark = pytest.mark.bench

SOURCE = Path(__file__).parents[2] / "collector" / "probe"
ROUNDS = 25
CALLS = 10_000


def compiled_core(work: Path) -> bool:
    """Build the compiled core; False when there is no compiler."""
    if not (shutil.which("cc") or shutil.which("gcc")):
        return False
    shutil.copytree(SOURCE, work / "source")
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build", "--build-lib", str(work / "lib")], cwd=work / "source", check=True
    )
    (path,) = (work / "lib" / "tailsight_probe").glob("_core*.so")
    spec = importlib.util.spec_from_file_location("tailsight_probe._core", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules["tailsight_probe._core"] = tailsight_probe._core = module  # type: ignore[attr-defined]
    return True


def ns_per_call(candidates: dict[str, tuple[str, dict[str, Any], int]]) -> dict[str, float]:
    """Best of `ROUNDS` interleaved rounds, nanoseconds per call, with the cost of the empty loop taken off."""
    timers = {
        name: (timeit.Timer(text, globals=names), calls)
        for name, (text, names, calls) in {"": ("pass", {}, CALLS), **candidates}.items()
    }
    best = dict.fromkeys(timers, float("inf"))
    for _ in range(ROUNDS):
        for name, (timer, calls) in timers.items():
            best[name] = min(best[name], timer.timeit(calls) / calls * 1e9)
    empty = best.pop("")
    return {name: ns - empty for name, ns in best.items()}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, float]]:
    metrics = pytest.importorskip("prometheus_client")
    tracing = pytest.importorskip("opentelemetry.sdk.trace")
    hdrh = pytest.importorskip("hdrh.histogram")
    work = tmp_path_factory.mktemp("bench")
    has_core = compiled_core(work)
    observe = metrics.Histogram("bench_seconds", "bench", registry=metrics.CollectorRegistry()).observe
    # What a user of microsecond latencies has to configure: the default's first bucket ends at 5 ms.
    micro = metrics.Histogram(
        "micro_seconds", "bench", registry=metrics.CollectorRegistry(), buckets=[1e-6 * 2**k for k in range(20)]
    ).observe
    tracer = tracing.TracerProvider().get_tracer("bench")
    record_value = hdrh.HdrHistogram(1, 100_000_000_000, 2).record_value
    candidates: dict[str, tuple[str, dict[str, Any], int]] = {
        "time.time_ns()": ("f()", {"f": time.time_ns}, CALLS),
        "prometheus_client observe": ("f(0.000123)", {"f": observe}, CALLS),
        "prometheus_client observe, us buckets": ("f(0.000123)", {"f": micro}, CALLS),
        "opentelemetry-sdk span": ("f('s').end()", {"f": tracer.start_span}, CALLS // 10),
        "hdrhistogram record_value": ("f(123456)", {"f": record_value}, CALLS),
    }
    forms: dict[str, Callable[[], Probe]] = {"python": lambda: Probe("bench", work / "py", compiled=False)}
    if has_core:
        forms["c"] = lambda: Probe("bench", work / "c", compiled=True)
    probes = {}
    for form, make in forms.items():
        probe = probes[form] = make()
        names = {"f": probe.stamp, "p": probe.point("app_ingress"), "OK": Outcome.OK, "link": probe.link}
        probe.stamp(names["p"], 0)
        probe.link(1, 2, "feed")
        candidates |= {
            f"stamp ({form})": ("f(p, 123456789)", names, CALLS),
            f"stamp with depth ({form})": ("f(p, 123456789, depth=7)", names, CALLS),
            f"stamp with outcome ({form})": ("f(p, 123456789, outcome=OK)", names, CALLS),
            f"stamp with text key ({form})": ("f(p, 'ORD-123456')", names, CALLS),
            f"link ({form})": ("link(1, 2, 'feed')", names, CALLS),
        }
    off = Probe("bench", work / "off", compiled=False)
    off.switch(False)
    candidates["stamp, switched off (python)"] = ("f(None, 1)", {"f": off.stamp}, CALLS)
    result = ns_per_call(candidates)
    clock, prometheus = result["time.time_ns()"], result["prometheus_client observe"]
    span = result["opentelemetry-sdk span"]
    table = [f"\n{'':40}{'ns':>9}{'/ time_ns':>11}{'/ observe':>11}{'/ span':>9}"]
    for name, ns in result.items():
        table.append(f"{name:40}{ns:9.0f}{ns / clock:11.2f}{ns / prometheus:11.3f}{ns / span:9.4f}")
    print("\n".join(table), file=sys.__stderr__)  # the table is the point of the run
    for probe in probes.values():
        assert probe.stats()["lost"] == 0
        assert probe.stats()["refused"] == {}
    yield result


def test_the_pure_python_stamp_is_cheap(measured: dict[str, float]) -> None:
    stamp = measured["stamp (python)"]
    assert stamp <= 0.55 * measured["prometheus_client observe"]
    assert stamp <= measured["opentelemetry-sdk span"] / 20
    with_depth = measured["stamp with depth (python)"]
    assert with_depth <= 0.55 * measured["prometheus_client observe, us buckets"]
    assert with_depth <= measured["opentelemetry-sdk span"] / 20


def test_the_compiled_stamp_costs_little_more_than_a_clock_read(measured: dict[str, float]) -> None:
    if "stamp (c)" not in measured:
        pytest.skip("no C compiler: the compiled core cannot be built (apt install gcc python3-dev)")
    assert measured["stamp (c)"] <= 1.5 * measured["time.time_ns()"]


def test_draining_keeps_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    count = 1 << 20
    probe = Probe("bench", tmp_path, count, compiled=False)
    point = probe.point("app_ingress")
    rates = []
    source = ProbeSource(tmp_path, "h1")
    source.start({})
    clock = HostClock()
    for _ in range(3):
        for key in range(count):
            probe.stamp(point, key)
        taken, before = 0, time.process_time()
        while columns := source.poll(clock.read()).columns:
            taken += len(columns[0])
        rates.append(taken / (time.process_time() - before))
        assert taken == count
    with capsys.disabled():
        print(f"\ndrain: {max(rates) / 1e6:.1f} M stamps per CPU second (min {min(rates) / 1e6:.1f})")  # noqa: T201
    assert max(rates) >= 2e6
