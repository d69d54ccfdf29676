"""Gauge rules on what the kernel and the collectors really say: retransmits, full receive buffers, steal; and halts.

The readings are taken from the running kernel in a network namespace (steal from files of the kernel's format: a
machine cannot be made to steal from itself) and laid out over an hour, so that nothing waits for one.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from analytics.slo.calendars import SloCalendar, Stretch
from analytics.slo.openslo_read import sources
from analytics.slo.settings import SloSettings
from api.control import Control
from api.slo_book import SloBook
from api.slo_engine import SloEngine
from collector.sched import psi
from collector.store import Store
from collector.store.embedded import open_embedded
from collector.store.schema import Retention, migrate
from tests.analytics.world import HOUR, beat, put_rows
from tests.api.live import ROOT
from tests.namespaces import namespaces, run

S = 1_000_000_000
EXAMPLE = (ROOT / "deploy" / "examples" / "host.slo.yaml").read_text()
# Inside the namespace: readings of the collector while nothing is wrong, while nobody reads a socket that is flooded,
# and while acknowledgements are lost.
READINGS = """
import json, socket, sys, time
from collector.clock import HostClock
from collector.nic.settings import NicSettings
from collector.nic.source import NicSource
client = socket.create_connection((sys.argv[1], int(sys.argv[2])))
full = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
full.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
full.bind(("127.0.0.1", 0))
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
ports = (client.getsockname()[1], full.getsockname()[1])
clock, source = HostClock(), NicSource("h", NicSettings(ports=ports, period="10ms"))
assert source.start({}).status == "running"

def look():
    poll = source.poll(clock.read())
    found = {}
    for columns in poll.columns:
        if columns.table.name == "gauges":
            for name, value in zip(columns.text("name"), columns.values["value"].tolist()):
                found[name] = found.get(name, 0) + value
    return {name: found.get(name, 0) for name in ("tcp_retransmits", "udp_drops")}

def send(flood):
    end = time.monotonic() + 0.4
    while time.monotonic() < end:
        try:
            client.send(b"x" * 500, socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass
        if flood:
            out.sendto(b"y" * 1000, full.getsockname())
        time.sleep(0.01)

look()
calm, flooded, squeezed = [], [], []
for _ in range(4):
    send(False)
    calm.append(look())
for _ in range(4):
    send(True)
    flooded.append(look())
for _ in range(5):
    print("cut", flush=True)
    sys.stdin.readline()
    send(False)
    squeezed.append(look())
    print("mend", flush=True)
    sys.stdin.readline()
    time.sleep(0.1)
print(json.dumps([calm, flooded, squeezed]))
"""


@pytest.fixture(scope="module")
def whole_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = open_embedded(tmp_path_factory.mktemp("gauge-rules"))
    migrate(store, Retention(**dict.fromkeys(Retention.__struct_fields__, 175200)))
    yield store
    store.close()


@pytest.fixture
def store(whole_store: Store) -> Store:
    for table in ("objective_counts", "gauges", "heartbeats", "batches"):
        whole_store.execute(f"TRUNCATE TABLE {table}")
    return whole_store


@pytest.fixture
def book(tmp_path: Path) -> Iterator[SloBook]:
    control = Control(tmp_path / "control.sqlite")
    yield SloBook(control)
    control.close()


@pytest.fixture(scope="module")
def readings() -> list[list[dict[str, float]]]:
    with namespaces(1, 90) as (host,):
        path = os.pathsep.join([str(ROOT), str(ROOT / "collector/probe/src")])
        with socket.create_server((host.gateway, 0)) as listener:
            inside = subprocess.Popen(
                host.command(sys.executable, "-c", READINGS, host.gateway, str(listener.getsockname()[1])),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path},
            )  # fmt: skip
            try:
                return _directed(inside, listener, host.address)
            finally:
                inside.kill()
                inside.communicate()
                # The addresses of the namespace: nobody else has them.
                subprocess.run(["ip", "route", "del", "blackhole", f"{host.address}/32"], capture_output=True)


def _drain(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while connection.recv(65_536):
            pass


def _directed(inside: subprocess.Popen[str], listener: socket.socket, address: str) -> list[list[dict[str, float]]]:
    """Take what it sends, and cut and mend the way back as it asks for."""
    assert inside.stdin is not None
    assert inside.stdout is not None
    listener.settimeout(30)
    server, _ = listener.accept()
    # Unread bytes would close the window, and a sender that may not send has nothing to send again.
    Thread(target=_drain, args=(server,), daemon=True).start()
    with server:
        for line in inside.stdout:
            if line.startswith("["):
                found: list[list[dict[str, float]]] = json.loads(line)
                return found
            change = {"cut": "add", "mend": "del"}[line.strip()]
            run("ip", "route", change, "blackhole", f"{address}/32")
            inside.stdin.write("\n")
            inside.stdin.flush()
    raise AssertionError("it ended before it said what it read")


def lay(store: Store, name: str, calm: list[float], struck: list[float]) -> None:
    """An hour of calm readings, then fifteen minutes of the others, one every 10 s."""
    blank = {"host": "gw", "service": "", "label_set": 0, "name": name}
    before, after = itertools.cycle(calm), itertools.cycle(struck)
    rows = [(s, next(before)) for s in range(-3_600, 0, 10)] + [(s, next(after)) for s in range(0, 900, 10)]
    put_rows(store, "gauges", [{**blank, "ts": HOUR + s * S, "value": v} for s, v in rows])


def judged(store: Store, book: SloBook, objective: str, **calendars: SloCalendar) -> tuple[list[str], dict[str, Any]]:
    """The state of the page before and after, and the objective as it was found at the end."""
    engine, states = SloEngine(book, SloSettings(calendars=calendars)), []
    for seconds in (0, 920):
        now = HOUR + seconds * S
        beat(store, now, now)
        engine.tick(store, {}, now)
        states.append(next(a.state for a in book.alerts() if (a.objective, a.rule) == (objective, "page-1h")))
    return states, dict(engine.snapshot.objectives[objective])


@pytest.mark.parametrize(
    ("objective", "gauge", "phase"), [("retransmits", "tcp_retransmits", 2), ("receive-buffer", "udp_drops", 1)]
)
def test_what_the_kernel_loses_pages(
    store: Store, book: SloBook, readings: list[list[dict[str, float]]], objective: str, gauge: str, phase: int
) -> None:
    calm, struck = [one[gauge] for one in readings[0]], [one[gauge] for one in readings[phase]]
    assert calm == [0] * 4
    assert 2 * sum(value > 0 for value in struck) >= len(struck)
    book.apply(sources(EXAMPLE), "ann")
    lay(store, gauge, calm, struck)
    states, found = judged(store, book, objective)
    assert states == ["inactive", "firing"]
    assert found["budget"]["total"] - found["budget"]["good"] >= 40


def steal_of(folder: Path, jiffies: list[int]) -> list[float]:
    """The gauge as the collector makes it, from what the kernel writes."""
    (folder / "pressure").mkdir(parents=True, exist_ok=True)
    totals = []
    for value in jiffies:
        (folder / "stat").write_text(f"cpu  1 2 3 4 5 6 7 {value} 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n")
        totals.append(psi.read(folder).steal_ns)
    known = [total for total in totals if total is not None]
    assert len(known) == len(jiffies)
    return [float(now - before) for before, now in itertools.pairwise(known)]


def test_stolen_time_pages_and_a_halt_burns_nothing(store: Store, book: SloBook, tmp_path: Path) -> None:
    hertz = os.sysconf("SC_CLK_TCK")
    calm = steal_of(tmp_path, [100, 100, 101])  # at most a tick: 10 ms
    struck = steal_of(tmp_path, [100, 100 + hertz // 5, 100 + hertz])
    book.apply(sources(EXAMPLE), "ann")
    lay(store, "scheduler_steal_ns", calm, struck)
    states, found = judged(store, book, "steal")
    assert states == ["inactive", "firing"]
    burned = found["budget"]["burned"]
    assert burned > 0

    def stamp(seconds: int) -> str:
        return datetime.fromtimestamp(HOUR // S + seconds, UTC).isoformat()

    annotated = EXAMPLE.replace("rules: workbook}", "rules: workbook, tailsight.dev/calendar: market}")
    book.apply(sources(annotated), "ann")
    halts = (Stretch(start=stamp(0), end=stamp(900), why="volatility halt"),)
    states, found = judged(store, book, "steal", market=SloCalendar(halts=halts))
    assert states[-1] == "resolved"
    assert (found["budget"]["burned"], found["budget"]["total"]) == (0, 360)
    half = SloCalendar(halts=(Stretch(start=stamp(0), end=stamp(300)),))
    book.apply(sources(annotated.replace("calendar: market", "calendar: half")), "ann")
    states, found = judged(store, book, "steal", half=half)
    assert (states[-1], found["budget"]["total"]) == ("firing", 360 + 60)
