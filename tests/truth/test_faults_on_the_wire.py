"""Faults of the demo's links in the packet layer: by the packet collector's stamps at a tap that sees both sides."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from collector.clock import HostClock
from collector.packet.live.settings import KeyRule, PacketSettings
from collector.packet.live.source import PacketSource
from tests.truth.conftest import World

pytestmark = pytest.mark.timeout(180)
MS = 1_000_000
DELAY_NS = 50 * MS
RETIRE_MS = 500  # the ring has to hold what passes while a command runs: 128 times as long


def ports_of(world: World, link: str) -> tuple[int, ...]:
    """The ports at which a link takes packets and hands them on."""
    words = Path(f"/proc/{world.pid_of('links')}/cmdline").read_text().split("\0")
    (found,) = [word for word in words if word.startswith(f"{link}:")]
    return tuple(int(port) for port in found.split(":")[1:3])


@pytest.fixture
def tap(world: World) -> Iterator[PacketSource]:
    if os.geteuid() != 0:
        pytest.skip("needs root: packet sockets")
    a, b = ports_of(world, "line-a"), ports_of(world, "line-b")
    rules = tuple(KeyRule(decoder="demo", ports=ports) for ports in (a, b))
    only = " or ".join(f"udp port {port}" for port in (*a, *b))  # loopback may carry much else
    settings = PacketSettings(interfaces=("lo",), filter=only, snap=2_048, ring_mib=32, retire_ms=RETIRE_MS, keys=rules)
    settings.validate()
    source = PacketSource("here", settings)
    available = source.start({})
    assert available.status != "unavailable", available.reason
    yield source
    source.close()


class Wire:
    """When each quote passed the tap."""

    def __init__(self, source: PacketSource) -> None:
        self._source = source
        self._times: dict[int, list[int]] = defaultdict(list)

    def took(self, span: tuple[int, int]) -> dict[int, int]:
        """From the first to the last time that a quote of the span passed: into and out of the links, on both lines."""
        time.sleep(1.5 * RETIRE_MS / 1e3)
        for part in self._source.poll(HostClock().read()).columns:
            if part.table.name == "stamps":
                for key, ts in zip(part.values["key"].tolist(), part.values["ts_ns"].tolist(), strict=True):
                    self._times[key].append(ts)
        passed = self._times.items()
        return {key: max(at) - min(at) for key, at in passed if span[0] <= min(at) < span[1] and len(at) == 4}


def test_a_delayed_line_is_long_on_the_wire_and_nowhere_else(world: World, tap: PacketSource) -> None:
    wire, began_ns = Wire(tap), time.time_ns()
    world.until(lambda: len(wire.took((began_ns, time.time_ns()))) > 50, 60.0)
    calm = wire.took((began_ns, time.time_ns()))
    _, span = world.strike(("link", "line-b", "--delay", f"{DELAY_NS // MS}ms"), seconds=3.0)
    struck = wire.took(span)
    assert len(struck) > 10
    assert min(struck.values()) >= DELAY_NS
    assert min(calm.values()) < DELAY_NS / 2
    # The tap names the messages as their programs do, and the engine was served by the other line.
    hop = {t.key: t.ns for t in world.took("app_egress@feed", "app_ingress@engine", span)}
    assert min(ns for key, ns in hop.items() if key in struck) < DELAY_NS
    assert min(t.ns for t in world.took("app_ingress@engine", "app_transform@engine", span)) < DELAY_NS / 2
