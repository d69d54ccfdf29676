"""The demo's feed and links as real processes: the faults it orders are in the right counters of the right line."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.demo.control import Control
from api.demo.programs import copies_of
from collector.clock import HostClock
from collector.feeds.source import FeedsSource
from tests.collector.feeds.test_source import free_port, rows, total, two_lines


class Running:
    """The feed and the links, two sockets in place of the engine, and a collector at the lines' copies."""

    def __init__(self, folder: Path) -> None:
        import socket

        self.control = folder / "demo"
        self.settings, a, b = two_lines(receive_bytes=4 << 20)  # without privilege it gets less, and says so
        self.source = FeedsSource(self.settings, "h")
        assert self.source.start({}).status in ("running", "degraded")
        self.engine = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
        for one in self.engine:
            one.bind(("127.0.0.1", 0))
        ports = [free_port(), free_port()]
        ends = [one.getsockname()[1] for one in self.engine]
        links = [f"line-a:{ports[0]}:{ends[0]}:{a}", f"line-b:{ports[1]}:{ends[1]}:{b}"]
        self.programs = [
            self._start("links", *(word for link in links for word in ("--link", link))),
            self._start("feed", *(word for port in ports for word in ("--line", str(port))), "--rate", "2000"),
        ]
        self.clock = HostClock()
        self.seen: list[Any] = []

    def _start(self, module: str, *words: str) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", f"api.demo.{module}", "--control", str(self.control), *words]
        return subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def watch(self, until: Any, seconds: float = 15.0) -> list[Any]:
        """Poll until a condition on the columns holds; the columns since the call."""
        found: list[Any] = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for one in self.engine:
                one.setblocking(False)
                try:
                    while one.recv(65_536):
                        pass
                except BlockingIOError:
                    pass
            found += self.source.poll(self.clock.read()).columns
            if until(found):
                return found
            time.sleep(0.01)
        raise AssertionError(f"not seen within {seconds} s: {rows(found, 'feeds')[-3:]}")

    def close(self) -> None:
        for one in self.programs:
            one.terminate()
        for one in self.programs:
            one.wait(10)
        for one in self.engine:
            one.close()
        self.source.close()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    one = Running(tmp_path)
    yield one
    one.close()


def missing(columns: list[Any], line: str) -> int:
    return total(columns, line, "skipped") - total(columns, line, "out_of_order") - total(columns, line, "late")


def order(running: Running, kind: str, at: str, **more: Any) -> None:
    from api.demo.faults import Fault

    fields = {"size": 0.5, "amount_ns": 100_000_000, "start_ns": time.time_ns(), **more}
    Control(running.control).start(Fault(id="", kind=kind, at=at, **fields))


def test_faults_of_the_lines_are_in_their_counters(running: Running) -> None:
    calm = running.watch(lambda c: total(c, "", "messages") > 500)
    assert [missing(calm, line) for line in ("A", "B", "")] == [0, 0, 0]
    assert total(calm, "", "divergent") == total(calm, "", "errors") == total(calm, "", "unknown") == 0
    assert total(calm, "A", "won") + total(calm, "B", "won") == total(calm, "", "messages")
    assert total(calm, "", "pairs") > 400

    order(running, "feed_gap", "line-a")
    gapped = running.watch(lambda c: missing(c, "A") > 20)
    assert missing(gapped, "B") == missing(gapped, "") == 0

    Control(running.control).stop([], time.time_ns())
    running.watch(lambda c: total(c, "A", "messages") > 100)
    order(running, "link", "line-b", size=1.0, loss=0.3, amount_ns=0)
    lossy = running.watch(lambda c: missing(c, "B") > 20)
    assert missing(lossy, "A") == missing(lossy, "") == 0
    assert total(lossy, "A", "won") > total(lossy, "B", "won")


def test_a_configuration_that_follows_the_demo_says_where_the_copies_go() -> None:
    lines = {"A": "127.0.0.1:18471", "B": "127.0.0.1:18472"}
    document = {"agent": {"feeds": {"channels": {"demo": {"protocol": "demo", "lines": lines}}}}}
    assert copies_of(document) == {"line-a": 18471, "line-b": 18472}
    assert copies_of({}) == {}
