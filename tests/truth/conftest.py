"""The running order path with faults ordered by command, and its raw stamps in a real store to be queried by hand."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from api.demo.control import FOLDER, Control
from api.demo.faults import Fault
from api.up.hold import read_note
from collector.clock import HostClock
from collector.sources.probe import ProbeSource
from collector.store import Store
from collector.store.blocks import constant, from_columns
from collector.store.embedded import open_embedded
from collector.store.schema import Retention, migrate, table_types
from tests.whole_path import environment

RATE = 400
EDGE_NS = 150_000_000  # programs look for faults 20 times a second: what happens this close to an edge says nothing

# Stage durations by hand: the first stamp of a message at one place and at another.
STAGE = """
SELECT key, minIf(toUnixTimestamp64Nano(ts), point = {a:String} AND service = {sa:String}) AS start_ns,
       minIf(toUnixTimestamp64Nano(ts), point = {b:String} AND service = {sb:String}) AS end_ns
FROM stamps
GROUP BY key
HAVING countIf(point = {a:String} AND service = {sa:String}) > 0
   AND countIf(point = {b:String} AND service = {sb:String}) > 0
   AND start_ns >= {from_ns:Int64} AND start_ns < {to_ns:Int64}
"""


@dataclass(frozen=True)
class Took:
    """One message's way from one place to another."""

    key: int
    start_ns: int
    ns: int


class World:
    """`tailsight demo` and what it stamped."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.rings = folder / "rings"
        self.rings.mkdir(mode=0o700)
        self.store: Store = open_embedded(self.data)
        migrate(self.store, Retention())
        self._source = ProbeSource(self.rings, "here")
        self._source.start({})
        self._types = table_types()
        self._batch = 0
        self._process = subprocess.Popen(
            [*self._command("demo"), "--rate", str(RATE), "--seed", "5"],
            env=environment(self.rings),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def tailsight(self, *words: str) -> Any:
        """Run a command on this directory; its JSON answer."""
        done = subprocess.run(
            [*self._command(*words), "--json"], capture_output=True, text=True, timeout=60, env=environment(self.rings)
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def watch(self, seconds: float) -> tuple[int, int]:
        """Let it run and take its stamps into the store; from when to when."""
        from_ns = time.time_ns()
        while time.time_ns() < from_ns + seconds * 1e9:
            assert self._process.poll() is None, "the order path ended"
            time.sleep(0.1)
            self._collect()
        return from_ns, time.time_ns()

    def until(self, condition: Callable[[], bool], seconds: float = 30.0) -> None:
        """Let it run until something is so."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it did not happen"
            self.watch(0.2)

    def pid_of(self, name: str) -> int:
        """The process of a program now, 0 when there is none."""
        note = read_note(self.data, "demo")
        return 0 if note is None else note.programs.get(name, 0)

    def strike(
        self, *orders: tuple[str, ...], seconds: float = 2.0, meanwhile: Callable[[], object] = lambda: None
    ) -> tuple[list[Fault], tuple[int, int]]:
        """Order faults by command, let them strike, end them; the faults as ordered, and when all of them struck."""
        names = [self.tailsight("demo", *order)["id"] for order in orders]
        self.watch(seconds)
        meanwhile()
        now_ns = time.time_ns()
        assert {row["id"] for row in self.tailsight("demo", "fault", "stop")["ended"]} == set(names)
        self.watch(0.6)
        struck = [fault for fault in Control(self.data / FOLDER).read() if fault.id in names]
        faults = sorted((msgspec.structs.replace(f, end_ns=None) for f in struck), key=lambda f: names.index(f.id))
        return faults, (max(fault.start_ns for fault in faults) + EDGE_NS, now_ns - EDGE_NS)

    def took(self, start: str, end: str, span: tuple[int, int], site: str = "") -> list[Took]:
        """Every message's time between `point@service` and `point@service`, of those that start in the span."""
        (a, _, sa), (b, _, sb) = start.partition("@"), end.partition("@")
        names = {"a": a, "sa": sa, "b": b, "sb": sb, "from_ns": span[0], "to_ns": span[1]}
        rows = self.query(STAGE, names)
        keys = self.keys_of_site(site) if site else {row["key"] for row in rows}
        found = [
            Took(row["key"], row["start_ns"], row["end_ns"] - row["start_ns"]) for row in rows if row["key"] in keys
        ]
        assert len(found) > 20, f"{start} to {end}: only {len(found)} messages"
        return found

    def keys_of_site(self, site: str) -> set[int]:
        """The orders of a site, by their label."""
        sql = """
        SELECT DISTINCT key FROM stamps INNER JOIN label_sets USING label_set
        WHERE JSONExtractString(labels, 'site') = {site:String}
        """
        return {row["key"] for row in self.query(sql, {"site": site})}

    def versions_at(
        self, point: str, service: str, site: str, span: tuple[int, int], *, label: str = "version", mode: str = ""
    ) -> dict[int, str]:
        """The messages that passed a place in the span, oldest first, each with the version its label says there.

        `site` "": of any; `mode` "": in any.
        """
        sql = """
        SELECT key, JSONExtractString(labels, {label:String}) AS version
        FROM stamps INNER JOIN label_sets USING label_set
        WHERE point = {point:String} AND service = {service:String}
           AND ({mode:String} = '' OR toString(mode) = {mode:String})
           AND ({site:String} = '' OR JSONExtractString(labels, 'site') = {site:String})
           AND toUnixTimestamp64Nano(ts) >= {from_ns:Int64} AND toUnixTimestamp64Nano(ts) < {to_ns:Int64}
        ORDER BY ts
        """
        names = {"point": point, "service": service, "site": site, "label": label, "mode": mode}
        return {row["key"]: row["version"] for row in self.query(sql, {**names, "from_ns": span[0], "to_ns": span[1]})}

    def keys_at(self, point: str, service: str, span: tuple[int, int]) -> set[int]:
        """The messages that passed a place in the span."""
        sql = """
        SELECT DISTINCT key FROM stamps WHERE point = {point:String} AND service = {service:String}
           AND toUnixTimestamp64Nano(ts) >= {from_ns:Int64} AND toUnixTimestamp64Nano(ts) < {to_ns:Int64}
        """
        names = {"point": point, "service": service, "from_ns": span[0], "to_ns": span[1]}
        return {row["key"] for row in self.query(sql, names)}

    def query(self, sql: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        """Rows of the raw tables."""
        return list(self.store.query(sql, parameters).iter_rows(named=True))

    def close(self) -> None:
        """End everything."""
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(30)
        self._source.close()
        self.store.close()

    def _collect(self) -> None:
        for columns in self._source.poll(HostClock().read()).columns:
            if columns.table.name in ("stamps", "links", "label_sets"):
                self._batch += 1
                extra = [
                    constant("batch", "UInt64", self._batch, len(columns)),
                    constant("seq", "UInt64", 0, len(columns)),
                    constant("cut_day", "Date", 20_254, len(columns)),
                ]
                block = from_columns(self._types[columns.table.name], columns, extra)
                self.store.insert(columns.table.name, block, token=f"truth/{self._batch}")

    def _command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "api.cli", *words, "--data", str(self.data)]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("truth"))
    try:
        deadline = time.monotonic() + 40
        while time.monotonic() < deadline:
            span = world.watch(1.0)
            if len(world.keys_at("reported", "engine", span)) > RATE / 10:
                break
        yield world
    finally:
        world.close()
