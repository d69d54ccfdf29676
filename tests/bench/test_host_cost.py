"""What a sweep of the collectors `nic` and `host` and a reading of the clock cost, against the tools people use."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

import pytest

from collector.clock import HostClock
from collector.host.source import HostSource
from collector.nic.links import read_links, read_qdiscs
from collector.nic.netlink import ROUTE, Netlink
from collector.nic.settings import NicSettings
from collector.nic.source import NicSource
from tests.needs import program

pytestmark = pytest.mark.bench


def best_us(call: Callable[[], object], rounds: int) -> float:
    """The best of some rounds in microseconds."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - start)
    return min(times) / 1e3


def test_a_sweep_is_far_cheaper_than_the_tools_that_show_the_same() -> None:
    tc, ip = program("tc", "iproute2"), program("ip", "iproute2")
    netlink = Netlink(ROUTE)
    clock = HostClock()
    nic = NicSource("bench", NicSettings(period="10ms"))
    nic.start({})
    nic.poll(clock.read())

    def sweep() -> None:
        time.sleep(0.012)
        reading = clock.read()
        start = time.perf_counter_ns()
        nic.poll(reading)
        swept.append((time.perf_counter_ns() - start) / 1e3)

    swept: list[float] = []
    for _ in range(50):
        sweep()
    ours = best_us(lambda: (read_qdiscs(netlink), read_links(netlink)), 50)
    theirs = best_us(
        lambda: (subprocess.run([tc, "-s", "-j", "qdisc"], capture_output=True),
                 subprocess.run([ip, "-s", "-j", "link"], capture_output=True)), 10,
    )  # fmt: skip
    whole = min(swept)
    said = f"netlink dumps {ours:.0f} us, tc and ip {theirs:.0f} us, {theirs / ours:.0f} times; sweep {whole:.0f} us"
    print(f"\n{said}")  # noqa: T201
    assert ours < theirs / 20
    assert whole < theirs


def test_an_inventory_and_a_clock_reading() -> None:
    clock = HostClock()
    host = HostSource("bench")
    host.start({})
    inventory = best_us(host._gather, 5)
    reading = best_us(clock.read, 200)
    print(f"\ninventory {inventory / 1e3:.1f} ms, clock reading {reading:.1f} us")  # noqa: T201
    # Every 5 minutes and at every poll: both below a thousandth of a core.
    assert inventory / 1e6 < 0.3
    assert reading < 200
