"""What a source has summed up when its agent stops: handed over, or counted."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from collector.agent.run import Agent
from collector.agent.runner import Runner
from collector.agent.settings import AgentSettings
from collector.clock import ClockReading, HostClock
from collector.frames import HEADER_BYTES, read_header
from collector.packet.live.settings import PacketSettings
from collector.payload import DROP_WIRE_ID
from collector.record import FLOWS
from collector.sources import Availability, Poll
from collector.spool import Spool
from collector.spool.settings import SpoolSettings
from tests.collector.agent_process import Counting
from tests.collector.packet.live.netns import as_root
from tests.collector.scripted_server import ScriptedServer


class Summing(Counting):
    """Hands over 99 rows only when it ends."""

    name = "summing"

    def __init__(self, broken: bool = False) -> None:
        super().__init__(1_000, 100)
        self._broken = broken

    def start(self, positions: Mapping[str, int]) -> Availability:  # noqa: ARG002 - nothing to resume
        return Availability("running")

    def poll(self, clock: ClockReading) -> Poll:  # noqa: ARG002 - the period goes on
        return Poll()

    def rest(self, clock: ClockReading) -> Poll:
        if self._broken:
            raise RuntimeError("the device went away")
        self._next = 0
        poll = super().poll(clock)
        return Poll(poll.columns)


def finished(folder: Path, settings: SpoolSettings, *, broken: bool = False) -> Spool:
    spool = Spool(folder, settings)
    runner = Runner(Summing(broken), spool, "h")
    runner.start(time.monotonic())
    clock = HostClock()
    runner.poll(clock.read(), time.monotonic() + 1)
    assert spool.next_seq == 0
    runner.finish(clock.read())
    runner.close()
    return spool


def test_sums_are_handed_over_when_the_agent_stops(tmp_path: Path) -> None:
    spool = finished(tmp_path, SpoolSettings(min_free_bytes=0))
    assert (spool.next_seq, spool.durable_seq) == (99, 99)
    spool.close()


def test_a_source_that_fails_at_the_end_stops_nobody(tmp_path: Path) -> None:
    spool = finished(tmp_path, SpoolSettings(min_free_bytes=0), broken=True)
    assert spool.next_seq == 0
    spool.close()


def test_flows_of_a_period_that_the_stop_cuts_short_reach_the_server(tmp_path: Path) -> None:
    as_root()
    server = ScriptedServer()
    settings = AgentSettings(
        server=server.url, collectors=("packet",), nice=0, linger_s=0.01, request_timeout_s=2.0, spool_min_free_bytes=0,
        packet=PacketSettings(interfaces=("lo",), report="1h", ring_mib=4, filter="udp port 19"),
    )  # fmt: skip
    shipped: list[tuple[str, int]] = []
    agent, stop = Agent(settings, tmp_path), threading.Event()
    append = agent._runners[0].spool.append

    def noted(packed: Any, **more: Any) -> int:
        shipped.extend((f"{one.wire_id}", one.events) for one in packed)
        return append(packed, **more)

    agent._runners[0].spool.append = noted  # type: ignore[method-assign]
    running = threading.Thread(target=agent.run, args=(stop,))
    running.start()
    time.sleep(0.5)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(50):
            sender.sendto(b"x" * 100, ("127.0.0.1", 19))
    time.sleep(0.3)
    before = [wire for wire, _ in shipped]
    stop.set()
    running.join(30)
    server.close()
    assert str(FLOWS.wire_id) not in before
    assert (str(FLOWS.wire_id), 1) in shipped  # one flow, one direction
    assert server.books


def test_what_finds_no_room_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Spool, "_fits", lambda _self, need: need < HEADER_BYTES + 64)  # a drop frame
    spool = finished(tmp_path, SpoolSettings(min_free_bytes=0, when_full="block"))
    assert (spool.next_seq, spool.durable_seq) == (99, 99)  # accounted for, as every number is
    (segment,) = tmp_path.glob("*.seg")
    header = read_header(segment.read_bytes())
    assert (header.wire_id, header.events) == (DROP_WIRE_ID, 99)
    spool.close()
