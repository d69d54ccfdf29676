"""What the demo costs: the order path must leave one of two CPUs to the product, the quote service nearly both."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from api.demo.programs import DEFAULT_RATE, Load, order_path
from api.demo.quotes.plan import RATE, Receiver, quote_service
from api.up.programs import Program
from api.up.supervisor import Supervisor, pids
from tests.collector.otlp.kit import agent, nowhere
from tests.whole_path import environment

pytestmark = [pytest.mark.bench, pytest.mark.timeout(120)]
SECONDS = 10.0


def cpu_s(pid: int) -> float:
    """CPU time of all threads of a process so far (proc(5): utime and stime, fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("rate", [DEFAULT_RATE, 1_000.0])
def test_the_order_path_leaves_one_cpu(tmp_path: Path, rate: float) -> None:
    rings = tmp_path / "rings"
    rings.mkdir(mode=0o700)
    programs = [replace(p, environment=environment(rings)) for p in order_path(tmp_path, Load(rate, 5))]
    used = shares(programs, SECONDS)
    told = ", ".join(f"{name} {100 * share:.1f} %" for name, share in used.items())
    print(f"\n{rate:g} quotes/s: {100 * sum(used.values()):.0f} % of one CPU ({told})")  # noqa: T201 - the figure
    assert sum(used.values()) < 1.0


def test_the_quote_service_costs_little(tmp_path: Path) -> None:
    with agent(tmp_path / "agent", nowhere()) as source:  # it takes everything into its spool
        programs = [
            replace(p, environment=environment(tmp_path) | dict(p.environment))
            for p in quote_service(tmp_path, Receiver(source.addresses["http"]))
        ]
        used = shares(programs, 2 * SECONDS)
        taken = source.figures()
    told = ", ".join(f"{name} {100 * share:.1f} %" for name, share in used.items())
    print(f"\n{RATE:g} requests/s: {100 * sum(used.values()):.1f} % of one CPU ({told}); {taken}")  # noqa: T201
    assert taken
    assert sum(used.values()) < 0.03


def shares(programs: list[Program], seconds: float) -> dict[str, float]:
    """The CPU that each program takes once it runs, as a share of one CPU; afterwards all end when they are told to."""
    supervisor = Supervisor(programs)
    supervisor.start()
    try:
        running(supervisor, 3.0)
        running_pids = pids(supervisor.slots)
        before = {name: cpu_s(pid) for name, pid in running_pids.items()}
        began_s = time.monotonic()
        running(supervisor, seconds)
        took_s = time.monotonic() - began_s
        return {name: (cpu_s(pid) - before[name]) / took_s for name, pid in running_pids.items()}
    finally:
        assert supervisor.stop() == [], "had to be killed"


def running(supervisor: Supervisor, seconds: float) -> None:
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        supervisor.tick()
        time.sleep(0.02)
