"""Feeds from the packet collector's ring: real packets in real namespaces, nothing joined and nothing bound."""

from __future__ import annotations

import re
import socket
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collector.agent.run import Agent
from collector.agent.settings import AgentSettings
from collector.clock import HostClock
from collector.feeds.settings import FeedsSettings
from collector.feeds.source import FeedsSource
from collector.packet.block import Block
from collector.packet.headers import parse
from collector.packet.live.line_tap import LineTap
from collector.packet.live.settings import PacketSettings
from collector.packet.live.source import PacketSource
from collector.packet.live.tpacket import LiveBlock
from collector.record import Columns
from collector.settings import ConfigError, section
from tests.collector.decode.test_blocks import quotes
from tests.collector.feeds.test_source import rows, total
from tests.collector.packet.live.netns import inside, pair

GROUPS = {"A": ("239.255.1.1", 26_477), "B": ("239.255.1.2", 26_478)}
CHANNEL = {"protocol": "demo", "lines": {line: f"{group}:{port}" for line, (group, port) in GROUPS.items()}}


def feeds(**more: Any) -> FeedsSettings:
    channel = {**CHANNEL, "taps": {"A": "wire", "B": "wire"}, "stamps": True, **more}
    return section({"interval": "100ms", "channels": {"demo": channel}}, FeedsSettings, "agent.feeds")


def sender(line: str) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("10.99.0.1"))
    made.connect(GROUPS[line])
    return made


def test_two_lines_are_followed_on_a_tap_without_joining_their_groups() -> None:
    settings = PacketSettings(interfaces=("r0",), taps={"r0": "wire"}, snap=2_048, retire_ms=5, ring_mib=4)
    packet, source, clock = PacketSource("far", settings), FeedsSource(feeds(), "far"), HostClock()
    source.use_taps(packet)
    found: list[Columns] = []
    with pair() as made:
        assert source.start({}).status == "running"
        assert "the tap wire is not open" in source.problem
        with inside(made.right):
            assert packet.start({}).status != "unavailable"
        assert source.problem == ""
        with inside(made.left):
            lines = {line: sender(line) for line in GROUPS}
        source.poll(clock.read())
        before = time.time_ns()
        for first in range(1, 400, 2):
            payload = quotes(first, 2)
            if first != 51:
                lines["A"].send(payload)
            if first not in (21, 51):
                lines["B"].send(payload)
        after = time.time_ns()
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            packet.poll(clock.read())
            found += source.poll(clock.read()).columns
            time.sleep(0.02)
        joined = Path("/proc/thread-self/net/igmp")
        with inside(made.right):
            assert not {"0101FFEF", "0201FFEF"} & set(joined.read_text().split())
        packet.close()
        assert "the tap wire is not open" in source.problem
        source.close()
        for line in lines.values():
            line.close()
    for line, missing in (("A", 2), ("B", 4), ("", 2)):
        lost = total(found, line, "skipped") - total(found, line, "out_of_order") - total(found, line, "late")
        assert (lost, total(found, line, "messages")) == (missing, 400 - missing)
    assert total(found, "A", "won") + total(found, "B", "won") == 398
    assert total(found, "", "pairs") == 396
    assert total(found, "", "kernel_drops") == total(found, "A", "errors") == 0
    got = rows(found, "stamps")
    assert len(got) == 398 + 396
    assert {row["service"] for row in got} == {"demo-A", "demo-B"}
    assert all(before <= row["ts_ns"] <= after + 50_000_000 for row in got)  # the kernel's time, not that of the poll


def test_what_cannot_be_followed_is_said() -> None:
    alone = FeedsSource(feeds(), "here")
    found = alone.start({})
    assert found.status == "unavailable"
    assert "needs the collector packet; add it to [agent] collectors" in found.reason
    for interfaces, snap, reason in (
        (("eth7",), 2_048, "no tap 'wire'; it has eth7"),
        (("wire",), 128, "longer than 82 bytes are cut .* set \\[agent.packet\\] snap = 1518"),
    ):
        source = FeedsSource(feeds(), "here")
        source.use_taps(PacketSource("here", PacketSettings(interfaces=interfaces, snap=snap)))
        assert re.search(reason, source.start({}).reason)
        source.close()
    with pytest.raises(ConfigError, match="there is no line 'C'; there are A, B"):
        section({"channels": {"demo": {**CHANNEL, "taps": {"C": "wire"}}}}, FeedsSettings, "agent.feeds").validate()


def test_an_agent_leads_the_lines_from_one_collector_to_the_other(tmp_path: Path) -> None:
    settings = AgentSettings(
        collectors=("feeds", "packet"), feeds=feeds(), packet=PacketSettings(interfaces=("lo",), taps={"lo": "wire"})
    )
    agent = Agent(settings, tmp_path)
    agent.run(_stopped())
    source = next(runner.source for runner in agent._runners if runner.name == "feeds")
    assert isinstance(source, FeedsSource)
    assert isinstance(source._taps, PacketSource)


def _stopped() -> threading.Event:
    stop = threading.Event()
    stop.set()
    return stop


def _block(frames: list[bytes], caplen: int = 65_535) -> LiveBlock:
    data = np.frombuffer(b"".join(frames) + bytes(64), dtype=np.uint8)
    sizes = np.array([len(frame) for frame in frames], dtype=np.int64)
    count = len(frames)
    block = Block(
        data=data, offset=np.cumsum(sizes) - sizes, caplen=np.minimum(sizes, caplen), origlen=sizes,
        ts_ns=np.arange(count, dtype=np.int64), link=np.ones(count, dtype=np.uint16),
        interface=np.zeros(count, dtype=np.uint16),
    )  # fmt: skip
    none = np.zeros(count, dtype=np.bool_)
    return LiveBlock(block, none, none, np.full(count, -1, dtype=np.int32), np.zeros(count, dtype=np.uint16))


def _frame(to: str, port: int, payload: bytes) -> bytes:
    from scapy.layers.inet import IP, UDP
    from scapy.layers.l2 import Ether

    return bytes(Ether(dst="01:00:5e:7f:01:01", src="02:00:00:00:00:01") / IP(dst=to) / UDP(dport=port) / payload)


def test_only_the_lines_datagrams_are_taken_whole_and_in_bounds() -> None:
    frames = [
        _frame("239.255.1.1", 26_477, b"one"),
        _frame("239.255.1.1", 26_478, b"another port"),
        _frame("239.255.1.9", 26_477, b"another group"),
        _frame("239.255.1.1", 26_477, b"the last one, and a longer one"),
    ]
    live = _block(frames)
    line = LineTap("wire", "239.255.1.1", 26_477, 1_000)
    line.offer(live, parse(live.block))
    got = line.receive()
    assert got is not None
    texts = [got.data[s : s + n].tobytes() for s, n in zip(got.starts.tolist(), got.lengths.tolist(), strict=True)]
    assert texts == [b"one", b"the last one, and a longer one"]
    assert (got.time_ns.tolist(), got.cut, line.receive()) == ([0, 3], 0, None)
    cut = _block(frames, caplen=50)
    line.offer(cut, parse(cut.block))
    assert (part := line.receive()) is not None
    assert (len(part.starts), part.cut) == (1, 1)
    full = LineTap("wire", "239.255.1.1", 26_477, 70)
    for _ in range(3):
        full.offer(live, parse(live.block))
    assert full.dropped() == 4
    assert full.receive() is not None
    full.offer(live, parse(live.block))
    assert full.dropped() == 4
