"""Three hosts, each a network namespace with an agent and a chronyd of its own, and one real server.

Orders go from h1 to h2 and h3 and back, out of h1 through a slow queue, to h3 through a forwarder that drops every
tenth. The namespaces share one clock: h2's is put 400 ms ahead at its agent's clock door.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.auth import Tokens
from api.control import Control
from collector.store.embedded import open_embedded
from tests.api.live import ROOT, Live, running
from tests.collector.clocks.daemons import chronyd, until
from tests.namespaces import Namespace, namespaces

AHEAD_NS = 400_000_000  # of h2's clock
ORDERS, PORT = 600, 7_400
DROP_EVERY = 10
SERVER = """
[server]
host = "0.0.0.0"
allow_plain_text = true

[points.answered]
layer = "application"
[points.home]
layer = "application"

[windows]
grace = "1s"
rerun_after = "1s"
lateness = "30s"

[paths.order]
max_age = "2s"
skew = "1s"

[[paths.order.stages]]
name = "out"
class = "network"
from = {point = "app_egress"}
to = {point = "app_ingress"}

[[paths.order.stages]]
name = "back"
class = "network"
from = {point = "answered"}
to = {point = "home"}
"""
AGENT = """
[agent]
server = "{url}"
token_file = "{token}"
host_name = "{host}"
ring_dir = "{rings}"
collectors = ["probe", "clock", "nic", "host"]
clock_s = 0.5
heartbeat_s = 0.5
nice = 0
spool_min_free_bytes = 0

[agent.clock]
chrony = "127.0.0.1:323"
ptp = "off"
ask_s = 0.2

[agent.nic]
period = "20ms"
"""


@dataclass
class World:
    """What one run left behind."""

    live: Live
    headers: dict[str, str]
    answered: int
    from_ns: int
    codes: list[int]

    def get(self, route: str, /, **params: Any) -> Any:
        answer = httpx.get(self.live.url + route, params=params, headers=self.headers, timeout=30, trust_env=False)
        assert answer.status_code == 200, answer.text
        return answer.json()


def environment(rings: Path) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "collector/probe/src")])
    return {**os.environ, "PYTHONPATH": path, "TAILSIGHT_PROBE_DIR": str(rings)}


def follows(space: Namespace) -> bool:
    """Whether the namespace's chronyd has found its root distance to be well below the offset that is put in."""
    done = subprocess.run(space.command("chronyc", "-h", "127.0.0.1", "-c", "tracking"), capture_output=True, text=True)
    fields = done.stdout.strip().split(",")
    return len(fields) >= 14 and fields[13] == "Normal" and float(fields[11]) + float(fields[10]) / 2 < 0.05


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    pytest.importorskip("pychrony", reason="needs pychrony (the extra `clock`)")
    folder = tmp_path_factory.mktemp("hosts")
    with ExitStack() as stack:
        spaces = stack.enter_context(namespaces(3, 70))
        reference = ["local stratum 1", "allow", "port 11723", "cmdport 0"]
        stack.enter_context(chronyd(folder / "reference", reference))
        for n, space in enumerate(spaces, 1):
            lines = [
                f"server {space.gateway} port 11723 minpoll -4 maxpoll 0 xleave",
                "port 0",
                "bindcmdaddress 127.0.0.1",
            ]
            stack.enter_context(chronyd(folder / f"chrony{n}", lines, space.command))
        live = stack.enter_context(running(folder / "server", SERVER))
        control = Control(live.data / "control.sqlite")
        made = Tokens(control)
        headers = {"Authorization": f"Bearer {made.create('read', ['read'])[1]}"}
        token = folder / "token"
        token.write_text(made.create("agent", ["agent"])[1])
        token.chmod(0o600)
        control.close()
        port = live.url.rpartition(":")[2]
        agents = []

        def start(space: Namespace | None, name: str, *arguments: str) -> subprocess.Popen[str]:
            argv = [sys.executable, "-m", "tests.several_hosts", *arguments]
            process = subprocess.Popen(
                space.command(*argv) if space else argv, cwd=ROOT, env=environment(folder / f"rings{name[-1]}"),
                stdout=subprocess.PIPE, stderr=(folder / f"{name}.log").open("w"), text=True,
            )  # fmt: skip
            stack.callback(_end, process)
            return process

        for n, space in enumerate(spaces, 1):
            data = folder / f"data{n}"
            data.mkdir()
            url = f"http://{space.gateway}:{port}"
            text = AGENT.format(url=url, token=token, host=f"h{n}", rings=folder / f"rings{n}")
            (data / "tailsight.toml").write_text(text)
            agents.append(start(space, f"agent{n}", "agent", str(data), str(AHEAD_NS if n == 2 else 0)))
        programs = [
            start(spaces[1], "venue2", "venue", str(PORT)),
            start(spaces[2], "venue3", "venue", str(PORT)),
            start(None, "forward0", "forward", str(PORT), f"{spaces[1].address}:{PORT}", "0"),
            start(None, "forward0", "forward", str(PORT + 1), f"{spaces[2].address}:{PORT}", str(DROP_EVERY)),
        ]
        for process in programs:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
        for space in spaces:
            until(lambda space=space: follows(space), 30, f"synchronisation of {space.name}")
        time.sleep(1.0)  # so that every agent has asked once more
        h1 = spaces[0]
        h1.run("tc", "qdisc", "replace", "dev", h1.device, "root", "tbf", "rate", "8mbit", "burst", "3000",
               "limit", "200000")  # fmt: skip
        from_ns = time.time_ns()
        targets = [f"{h1.gateway}:{PORT}", f"{h1.gateway}:{PORT + 1}"]
        client = start(h1, "client1", "client", str(ORDERS), *targets)
        answered = int(client.communicate(timeout=60)[0])
        h1.run("tc", "qdisc", "del", "dev", h1.device, "root")
        for process in programs:
            process.terminate()
        time.sleep(1.0)
        for process in agents:
            process.terminate()
        codes = [process.wait(30) for process in agents]
        yield World(live, headers, answered, from_ns, codes)


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait(10)
    if process.stdout is not None:
        process.stdout.close()


def test_every_agents_account_adds_up(world: World) -> None:
    assert world.codes == [0, 0, 0]
    rows = world.get("/v1/ledger")["ledger"]
    assert {(row["host"], row["name"]) for row in rows} == {
        (f"h{n}", name) for n in (1, 2, 3) for name in ("probe", "clock", "nic", "host")
    }
    for row in rows:
        assert (row["difference"], row["in_spool"], row["in_flight"], row["quarantined"]) == (0, 0, 0, 0), row
        assert row["dropped"] == {}, row
        assert row["produced"] == row["stored_unique"] > 0


def test_messages_that_cross_hosts_have_stage_latencies(world: World) -> None:
    def stages() -> dict[str, Any]:
        rows = world.get("/v1/latency", path="order", **{"from": str(world.from_ns)})["stages"]
        return {row["stage"]: row for row in rows}

    def all_counted() -> bool:
        whole = stages().get("end_to_end")  # absent until the first window is counted
        return whole is not None and whole["count"] + whole["unfinished"] >= ORDERS

    counted(all_counted)
    found = stages()
    lost = ORDERS // 2 // DROP_EVERY  # every tenth of the half that goes to h3
    assert world.answered == ORDERS - lost
    assert found["end_to_end"]["count"] == found["out"]["count"] == found["back"]["count"] == ORDERS - lost
    assert found["end_to_end"]["unfinished"] == lost
    # h2's clock is ahead: its answers seem to come home before they were sent. They are shown, not clamped.
    assert found["back"]["negative"] == ORDERS // 2
    assert found["out"]["max_ns"] > AHEAD_NS


def counted(condition: Callable[[], bool]) -> None:
    until(condition, 60, "the windows of all orders")


def test_the_messages_contradict_the_clock_that_is_wrong_and_only_that(world: World) -> None:
    answer = world.get("/v1/clock", pairs="true", **{"from": str(world.from_ns)})
    pairs = {(p["a"], p["b"]): p for p in answer["pairs"]}
    assert set(pairs) == {("h1", "h2"), ("h1", "h3")}
    wrong, right = pairs["h1", "h2"], pairs["h1", "h3"]
    assert (wrong["verdict"], right["verdict"]) == ("contradiction", "consistent")
    assert wrong["low_ns"] <= AHEAD_NS <= wrong["high_ns"]
    assert right["low_ns"] <= 0 <= right["high_ns"]
    assert wrong["claims"] == right["claims"] == ["chrony"]
    assert wrong["claim_ns"] < 300_000_000
    assert (wrong["forth"], wrong["back"]) == (ORDERS // 2, ORDERS // 2)
    assert right["back"] == ORDERS // 2 - ORDERS // 2 // DROP_EVERY
    stated = {(c["host"], c["source"]): c for c in answer["clocks"]}
    assert all(stated[f"h{n}", "chrony"]["in_use"] for n in (1, 2, 3))


def test_the_queue_out_of_h1_shows_its_wait(world: World) -> None:
    """25 orders of 450 bytes at 8 Mbit/s are 11 ms of queue."""
    with open_embedded(world.live.data) as store:
        sql = (
            "SELECT host, max(value) AS most FROM gauges WHERE name = {name:String} "
            "AND ts >= fromUnixTimestamp64Nano({from:Int64}, 'UTC') GROUP BY host"
        )

        def most(name: str) -> dict[str, float]:
            return dict(store.query(sql, {"name": name, "from": world.from_ns}).iter_rows())

        waits, backlog = most("qdisc_delay_ns"), most("qdisc_backlog_bytes")
        assert 1_000 < backlog["h1"] <= 200_000  # the agent's own batches go out there too
        assert waits["h1"] > 500_000
        assert most("nic_tx_packets")["h1"] > 0


def test_each_host_has_its_inventory(world: World) -> None:
    rows = world.get("/v1/hosts", item="kernel.release")["hosts"]
    assert {row["host"]: row["value"] for row in rows} == dict.fromkeys(("h1", "h2", "h3"), os.uname().release)
    assert json.dumps(world.get("/v1/hosts", drift="true")) == json.dumps({"drift": 0, "history": [], "hosts": []})
