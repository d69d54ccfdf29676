"""1,000,000 stamps in, 1,000,000 stored, with one kill -9 of the store, the server, the agent and a stamping program.

What the ring must bridge: while the agent is away, the stamps of a thread wait in its ring. Here a ring has 262,144
slots and a thread makes 25,000 stamps a second, so a ring bridges 10.5 s; the supervisor starts an agent again in 0.1 s
and it reads within a second. The default ring has 65,536 slots: 2.6 s at this rate, 130 ms at 500,000 stamps/s.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from collector.store.embedded import open_embedded
from tests.whole_path import Session, environment

pytestmark = [pytest.mark.fault, pytest.mark.timeout(400)]

POINTS = 4
BURST = 2_500  # messages, 10,000 stamps
BURST_S = 0.4
RING = 1 << 18
TOTAL = 1_000_000

# Stamps burst after burst, one every BURST_S seconds, and says so after each; ends after the last.
PROGRAM = f"""
import sys, time
import tailsight_probe as probe
first, bursts = map(int, sys.argv[1:])
probe.init(service="counted", capacity={RING})
points = [probe.point(name, space="counted") for name in ("app_ingress", "app_transform", "thought", "app_egress")]
due = time.monotonic()
for burst in range(bursts):
    for number in range(first + burst * {BURST}, first + (burst + 1) * {BURST}):
        for point in points:
            probe.stamp(point, number)
    print(burst, flush=True)
    due += {BURST_S}
    time.sleep(max(0.0, due - time.monotonic()))
assert probe.stats()["lost"] == 0, probe.stats()
"""


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    session = Session(tmp_path)
    try:
        session.start("--no-demo")
        session.until(lambda: session.get("/readyz").status_code == 200, 60, "/readyz 200")
        yield session
    finally:
        session.close()


class Stamping:
    """The stamping program: runs on in bursts, may be killed between two and started again where it was."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.bursts = 0
        self._process: subprocess.Popen[str] | None = None

    def run(self, until: int) -> None:
        """Stamp until `until` bursts have been made in all."""
        while self.bursts < until:
            if self._process is None:
                left = TOTAL // (POINTS * BURST) - self.bursts
                self._process = subprocess.Popen(
                    [sys.executable, "-c", PROGRAM, str(1 + self.bursts * BURST), str(left)],
                    stdout=subprocess.PIPE,
                    text=True,
                    env=environment(self._session.rings),
                )
            assert self._process.stdout is not None
            assert self._process.stdout.readline(), "the stamping program ended early"
            self.bursts += 1

    def kill(self) -> None:
        """Kill it right after a burst, while it sleeps."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def finish(self) -> None:
        """Wait until it has ended by itself."""
        assert self._process is not None
        assert self._process.wait(60) == 0


def test_a_million_stamps_survive_a_kill_of_every_process(session: Session) -> None:
    stamping = Stamping(session)
    bursts = TOTAL // (POINTS * BURST)
    kills = {
        bursts * 1 // 6: lambda: os.kill(session.pid_of("collector.store.process"), signal.SIGKILL),
        bursts * 2 // 6: lambda: os.kill(session.note["programs"]["server"], signal.SIGKILL),
        bursts * 3 // 6: lambda: os.kill(session.note["programs"]["agent"], signal.SIGKILL),
        bursts * 4 // 6: stamping.kill,
    }
    for at, kill in kills.items():
        stamping.run(at)
        kill()
    stamping.run(bursts)
    stamping.finish()

    def stored() -> int:
        store = open_embedded(session.data)
        try:
            sql = "SELECT count() AS n, uniqExact(key, point) AS u FROM stamps WHERE service = 'counted'"
            n, unique = store.query(sql).row(0)
            assert n == unique, f"{n - unique} stamps are stored twice"
            return int(n)
        finally:
            store.close()

    deadline = time.monotonic() + 120
    while (n := stored()) < TOTAL and time.monotonic() < deadline:
        time.sleep(1)
    assert n == TOTAL

    assert {name: n for name, n in session.note["restarts"].items() if n} == {"server": 1, "agent": 1}
    code, report = session.until(lambda: (r := session.tailsight("doctor"))[0] == 0 and r, 60, "doctor 0")
    assert code == 0
    probe = (
        [row for row in report["ledger"] if row["collector_name"] == "probe"]
        if "collector_name" in report["ledger"][0]
        else report["ledger"]
    )
    assert all(row["difference"] == 0 for row in probe)
    assert sum(sum(row["dropped"].values()) for row in probe) == 0
    assert {row["boot"] for row in probe} >= {1, 2}, "the agent was not killed"

    def counted() -> bool:
        _, answer = session.tailsight("query", "percentiles", "--path", "counted")
        return all(stage["count"] == TOTAL // POINTS and stage["unfinished"] == 0 for stage in answer["stages"])

    session.until(counted, 120, "every message counted in every stage")
