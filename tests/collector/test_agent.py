"""A real agent process and a real server: killed at random, stopped, without a server, and at rest."""

from __future__ import annotations

import json
import os
import random
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from collector.agent.run import run_agent
from collector.agent.settings import AgentSettings
from collector.settings import ConfigError
from collector.spool.cursor import Identity, load
from collector.spool.fs import LockedError, SpoolFS
from tests.collector.scripted_server import ScriptedServer

ROOT = Path(__file__).parents[2]
ENV = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'collector/probe/src'}"}


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    it = ScriptedServer()
    yield it
    it.close()


def start(server_url: str, data: Path, total: int, chunk: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.collector.agent_process", server_url, str(data), str(total), str(chunk)]
    return subprocess.Popen(command, cwd=ROOT, env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def until(true: Callable[[], bool], what: str, timeout_s: float = 40.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, f"waited {timeout_s} s for: {what}"
        time.sleep(0.01)


def killed_and_killed_again(server: ScriptedServer, data: Path, kills: int, chunk: int, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - repeatable
    # Slow down the source by its size: it must still be counting when the last kill comes.
    total = 10**9
    for _ in range(kills):
        seen = len(server.requests)
        server.script = [a for _ in range(3) for a in ("ok", rng.choice(["lost", "ok", 503]))]
        agent = start(server.url, data, total, chunk)
        until(lambda seen=seen: len(server.requests) > seen, "the next batch")  # type: ignore[misc]
        time.sleep(rng.random() * 0.3)
        agent.kill()
        agent.communicate()
    server.script = []
    # A killed agent's last request may be counted after its death, so the next may die before it has begun a boot.
    identity = load(SpoolFS(), next(data.rglob("identity")), Identity)
    assert identity is not None
    assert kills // 2 < identity.boot <= kills, identity
    agent = start(server.url, data, 0, chunk)  # nothing new: only what is left
    until(lambda: any(boot == identity.boot + 1 for _, boot in server.beats), "the last boot's heartbeat")
    until(lambda: all(b["acked"] == b["produced"] for b in server.beats.values()), "everything acknowledged")
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(20) == 0
    agent.communicate()
    books = server.books
    assert set(books.values.values()) == {1}, "a value was stored twice"
    end = max(books.values) + 1
    assert set(books.values) >= {v for v in range(end) if v % 1000}, "a value is lost"
    assert set(books.reasons) <= {"ring_overwritten"}
    lost = -(-end // 1000)
    assert books.reasons["ring_overwritten"] in (lost, lost + (0 if end % 1000 else 1))
    for (_, boot), beat in server.beats.items():
        assert beat["produced"] - books.events(boot) == 0, f"boot {boot}: the law does not hold"
    assert sum(books.values.values()) + sum(books.reasons.values()) == sum(map(books.events, books.ranges))


def test_an_agent_killed_under_load_loses_and_repeats_nothing(tmp_path: Path, server: ScriptedServer) -> None:
    killed_and_killed_again(server, tmp_path, kills=4, chunk=300, seed=1)


@pytest.mark.fault
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(10))
def test_twenty_kills_for_each_seed(tmp_path: Path, server: ScriptedServer, seed: int) -> None:
    killed_and_killed_again(server, tmp_path, kills=20, chunk=random.Random(seed).choice([7, 300, 2000]), seed=seed)  # noqa: S311


def test_a_stop_sends_what_is_left_and_says_so(tmp_path: Path, server: ScriptedServer) -> None:
    agent = start(server.url, tmp_path, 20_000, 500)
    until(lambda: len(server.books.values) > 2_000, "some values")
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(20) == 0
    agent.communicate()
    beat = server.beats["counting", 1]
    assert beat["status"] == "stopped" and beat["produced"] == beat["acked"] == server.books.events(1)
    assert 0 < beat["watermark_ns"] <= time.time_ns()
    status = json.loads((tmp_path / "agent/status.json").read_text())
    assert status["collectors"][0]["produced"] == beat["produced"]
    for place in (tmp_path / "agent", tmp_path / "agent/counting"):
        assert stat.S_IMODE(place.stat().st_mode) == 0o700


def test_without_a_server_it_spools_and_delivers_later(tmp_path: Path) -> None:
    server = ScriptedServer()
    url = server.url
    server.close()
    agent = start(url, tmp_path, 30_000, 500)
    status = tmp_path / "agent/status.json"

    def produced() -> int:
        return int(json.loads(status.read_text())["collectors"][0]["produced"]) if status.exists() else 0

    until(lambda: produced() == 30_000, "all in the spool")
    told = json.loads(status.read_text())
    assert "Connect" in told["server_trouble"] and told["collectors"][0]["acked"] == 0
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(20) == 3, "it says that something is left"
    agent.communicate()
    later = ScriptedServer()
    try:
        agent = start(later.url, tmp_path, 30_000, 500)
        until(lambda: len(later.books.values) == 29_970, "the backlog")
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(20) == 0
        agent.communicate()
        assert later.books.reasons == {"ring_overwritten": 30}
        assert later.beats["counting", 1]["acked"] == 30_000 == later.books.events(1)
        assert later.beats["counting", 2]["produced"] == 0
    finally:
        later.close()


def test_the_agent_is_light(server: ScriptedServer, tmp_path: Path) -> None:
    """All real collectors, idle: what it imports and what it holds."""
    code = f"""
import json, sys, threading, time
from pathlib import Path
from collector.agent.run import run_agent
from collector.agent.settings import AgentSettings
stop = threading.Event()
threading.Timer(2.5, stop.set).start()
run_agent(AgentSettings(server={server.url!r}, ring_dir={str(tmp_path / "rings")!r}), Path({str(tmp_path)!r}), stop)
rss = next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmRSS"))
print(json.dumps([rss, sorted({{m.split(".")[0] for m in sys.modules}})]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=ENV, capture_output=True, timeout=60, check=True)
    rss_kib, modules = json.loads(done.stdout.splitlines()[-1])
    assert not {"chdb", "polars", "pyarrow", "fastapi", "scipy", "pandas", "analytics", "api"} & set(modules)
    assert rss_kib <= 60 * 1024, f"{rss_kib} KiB at rest"
    beats = {name: beat for (name, _), beat in server.beats.items()}
    assert set(beats) == set(AgentSettings().collectors)
    assert beats["clock"]["produced"] >= 1 and beats["clock"]["acked"] == beats["clock"]["produced"]
    assert all(b["status"] == "stopped" and b["watermark_ns"] > 0 for b in beats.values())


def test_two_agents_on_one_folder_are_refused(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    settings = AgentSettings(server="http://127.0.0.1:9", collectors=("clock",), nice=0)
    (tmp_path / "agent" / "clock").mkdir(parents=True)
    from collector.spool import Spool

    first = Spool(tmp_path / "agent" / "clock")
    with pytest.raises(LockedError, match="in use by another agent"):
        run_agent(settings, tmp_path, stop)
    first.close()


def test_an_unknown_collector_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no collector .teleport.; known are probe, schedstat, .*nic"):
        run_agent(AgentSettings(collectors=("teleport",), nice=0), tmp_path, threading.Event())


def test_a_broken_source_says_so_and_leaves_the_others_alone(tmp_path: Path, server: ScriptedServer) -> None:
    from collector.sources import Availability
    from tests.collector.agent_process import Counting

    class Broken(Counting):
        name = "broken"

        def poll(self, clock: Any) -> Any:  # noqa: ARG002
            raise RuntimeError("the device went away")

    class Absent(Counting):
        name = "absent"

        def start(self, positions: Any) -> Availability:  # noqa: ARG002
            return Availability("unavailable", "needs CAP_NET_RAW; run with --cap-add NET_RAW")

    kinds = {"counting": Counting, "broken": Broken, "absent": Absent}
    stop = threading.Event()
    settings = AgentSettings(server=server.url, collectors=tuple(kinds), linger_s=0.01, nice=0, heartbeat_s=0.1)
    running = threading.Thread(
        target=run_agent, args=(settings, tmp_path, stop, lambda name, *_: kinds[name](5000, 500))
    )
    running.start()
    try:
        until(lambda: server.beats.get(("counting", 1), {}).get("acked") == 5000, "the good one")
        broken, absent = server.beats["broken", 1], server.beats["absent", 1]
        assert broken["status"] == "degraded" and "the device went away" in broken["reason"]
        assert (absent["status"], absent["reason"]) == ("unavailable", "needs CAP_NET_RAW; run with --cap-add NET_RAW")
        assert absent["watermark_ns"] > 0, "it holds no window back"
    finally:
        stop.set()
        running.join(20)
    assert not running.is_alive()
