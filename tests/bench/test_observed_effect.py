"""What every collector together does to an observed program: blocks with and without the agent, interleaved.

A request loop of 1 ms service answers 5,000 requests per second that come over a veth pair, open loop. In a block with
the agent the loop is stamped and every collector runs: probe, schedstat, scheduler (eBPF), packets of the veth, nic,
host, clock, a feed, otlp, a Prometheus target, and lines. Without it nothing of ours runs, and nothing is stamped.

Each round has three blocks in turning order: without, without again, and with. What differs between the first two is
the machine's own unrest; it is printed with the same interval, and where it is too large nothing is decided.
TAILSIGHT_BENCH_ROUNDS and TAILSIGHT_BENCH_SECONDS (of a block) make it longer or shorter.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.bench.request_loop import GROUP
from tests.bench.test_ingest import core
from tests.namespaces import namespaces
from tests.whole_path import ROOT, environment

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]

ROUNDS = int(os.environ.get("TAILSIGHT_BENCH_ROUNDS", "20"))
SECONDS = float(os.environ.get("TAILSIGHT_BENCH_SECONDS", "10"))
LOOP = str(Path(__file__).with_name("request_loop.py"))
RATE, THREADS, PORT = 5_000, 24, 7_411
LEAST_ROUNDS = 6
MOST = {"p99": 1.05, "CPU": 1.03}
COLLECTORS = ("probe", "schedstat", "clock", "nic", "host", "scheduler", "packet", "feeds", "otlp", "prometheus",
              "lines")  # fmt: skip
CONFIG = """
[agent]
server = "http://127.0.0.1:{sink}"
collectors = {collectors}
spool_min_free_bytes = 0
[agent.packet]
interfaces = ["{interface}"]
keys = [{{space = "order", protocol = "udp", ports = [{port}]}}]
[agent.feeds.channels.bench]
protocol = "demo"
lines = {{A = "{group}:{feed}"}}
interface = "127.0.0.1"
[agent.otlp]
http = "127.0.0.1:{otlp}"
grpc = ""
[agent.prometheus]
interval = "1s"
timeout_s = 1.0
targets = [{{url = "http://127.0.0.1:{metrics}/metrics", service = "loop"}}]
[agent.lines]
files = [{{path = "{log}", service = "loop"}}]
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def cpu_s(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Scene:
    """The loop in a namespace of its own, the feed, the sink, and an agent that can be switched on and off."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        (host,) = stack.enter_context(namespaces(1, 77))
        self.env = {**environment(folder / "rings"), "PYTHONPATH": os.pathsep.join([core(folder), str(ROOT)])}
        (folder / "rings").mkdir(mode=0o700)
        self.address = host.address
        ports = {name: free_port() for name in ("sink", "feed", "otlp", "metrics")}
        log = folder / "loop.jsonl"
        outside = next(
            line.split()[1].partition("@")[0].rstrip(":")
            for line in subprocess.run(
                ["ip", "-o", "link"], capture_output=True, text=True, check=True
            ).stdout.splitlines()
            if f"to{os.getpid() % 100_000}v0" in line
        )
        self.config = folder / "agent.toml"
        self.config.write_text(CONFIG.format(collectors=list(COLLECTORS), interface=outside, port=PORT, group=GROUP,
                                             log=log, **ports).replace("'", '"'))  # fmt: skip
        self._start(stack, [], "sink", ports["sink"])
        self._start(stack, [], "feed", ports["feed"], 500)
        # Only the network is another one: the metrics' port must be the agent's to read.
        self.loop = self._start(stack, [], "serve", PORT, THREADS, log, ports["metrics"])
        self.agent: subprocess.Popen[bytes] | None = None
        self.host = host

    def _start(self, stack: ExitStack, before: list[str], *words: object) -> subprocess.Popen[str]:
        command = [*before, sys.executable, LOOP, *map(str, words)]
        process = subprocess.Popen(
            command, cwd=ROOT, env=self.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        stack.callback(process.communicate)
        stack.callback(process.kill)
        return process

    def tell(self, what: str) -> dict[str, Any]:
        """What the loop has used so far, after it was told."""
        assert self.loop.stdin is not None
        assert self.loop.stdout is not None
        self.loop.stdin.write(what + "\n")
        self.loop.stdin.flush()
        found: dict[str, Any] = json.loads(self.loop.stdout.readline())
        return found

    @contextmanager
    def observed(self) -> Iterator[subprocess.Popen[bytes]]:
        """With every collector on, once all of them have said so."""
        data = self.folder / "data"
        command = [sys.executable, "-m", "collector.agent", "--data", str(data), "--config", str(self.config)]
        status = data / "agent" / "status.json"
        status.unlink(missing_ok=True)
        log = (self.folder / "agent.log").open("ab")
        agent = subprocess.Popen(command, cwd=ROOT, env=self.env, stdout=log, stderr=log)
        try:
            until(
                lambda: self._collectors(status) >= set(COLLECTORS) or agent.poll() is not None,
                f"the collectors; see {self.folder}/agent.log",
            )
            assert agent.poll() is None, (self.folder / "agent.log").read_text()[-500:]
            self.tell("on")
            yield agent
        finally:
            self.tell("off")
            agent.send_signal(signal.SIGTERM)
            agent.wait(30)
            log.close()

    def _collectors(self, status: Path) -> set[str]:
        try:
            beats = json.loads(status.read_text())["collectors"]
        except (OSError, ValueError):
            return set()
        self.states = {beat["name"]: f"{beat['status']} {beat['reason']}".strip() for beat in beats}
        return set(self.states)

    def ask(self) -> dict[str, Any]:
        """One block of requests from inside the namespace, and what the loop used per request."""
        words = ("ask", self.host.gateway, str(PORT), str(RATE), str(SECONDS))
        command = self.host.command(sys.executable, LOOP, *words)
        before = self.tell("?")
        done = subprocess.run(
            command, cwd=ROOT, env=self.env, capture_output=True, text=True, check=True, timeout=SECONDS + 60
        )
        after = self.tell("?")
        found: dict[str, Any] = json.loads(done.stdout)
        found["cpu_us"] = 1e6 * (after["cpu_s"] - before["cpu_s"]) / max(1, after["served"] - before["served"])
        return found


def until(true: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
        time.sleep(0.05)


def block(scene: Scene, how: str) -> dict[str, Any]:
    """One block, after a moment to settle."""
    if how != "with":
        time.sleep(1.0)
        return scene.ask()
    with scene.observed() as agent:
        time.sleep(2.0)
        before, began = cpu_s(agent.pid), time.monotonic()
        found = scene.ask()
        return found | {"agent": (cpu_s(agent.pid) - before) / (time.monotonic() - began)}


def ratio(blocks: list[dict[str, dict[str, Any]]], what: str, a: str, b: str) -> tuple[float, float, float]:
    """The median over rounds of b / a, and its 95 % bootstrap interval."""
    each = np.array([one[b][what] / one[a][what] for one in blocks])
    drawn = np.median(np.random.default_rng(1).choice(each, (4_000, len(each))), axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(np.median(each)), float(low), float(high)


def verdict(most: float, effect: tuple[float, float, float], unrest: tuple[float, float, float], rounds: int) -> str:
    """Whether a ratio (median, low, high) is at most `most`, where the machine lets one say so.

    It does when the ratio of two equal blocks lies within the same limit, with its whole interval.
    """
    if rounds < LEAST_ROUNDS:
        return f"not decided: {rounds} rounds, {LEAST_ROUNDS} are the least"
    if not 1 / most <= unrest[1] <= unrest[2] <= most:
        return "not decided: the machine is not quiet enough"
    return "held" if effect[2] <= most else "exceeded" if effect[1] > most else "not decided: more rounds are needed"


def test_every_collector_together_leaves_the_program_nearly_as_it_was(tmp_path: Path) -> None:
    order = random.Random(7)  # noqa: S311 - repeatable
    blocks: list[dict[str, dict[str, Any]]] = []
    with ExitStack() as stack:
        scene = Scene(tmp_path, stack)
        until(lambda: scene.tell("?")["served"] >= 0, "the loop")
        scene.ask()  # warm
        for _ in range(ROUNDS):
            ways = ["without", "without again", "with"]
            order.shuffle(ways)
            blocks.append({how: block(scene, how) for how in ways})
        states = scene.states
    for one in blocks:
        for how, found in one.items():
            assert found["answered"] >= 0.99 * found["sent"], f"{how}: the loop does not keep up: {found}"
    print("\ncollectors: " + "; ".join(f"{name} {state}" for name, state in states.items()))  # noqa: T201
    middle = {what: float(np.median([one["without"][what] for one in blocks])) for what in ("p50", "p99", "cpu_us")}
    agent = float(np.median([one["with"]["agent"] for one in blocks]))
    rate = float(np.median([one["with"]["sent"] / one["with"]["seconds"] for one in blocks]))
    print(  # noqa: T201
        f"without: p50 {middle['p50'] / 1e6:.2f} ms, p99 {middle['p99'] / 1e6:.2f} ms, {middle['cpu_us']:.0f} us CPU "
        f"per request; {rate:,.0f} requests/s; the agent takes {100 * agent:.0f} % of a core; {len(blocks)} rounds of "
        f"3 x {SECONDS:g} s"
    )
    failed = []
    for name, what in (("p50", "p50"), ("p99", "p99"), ("p99.9", "p999"), ("CPU", "cpu_us")):
        effect, unrest = ratio(blocks, what, "without", "with"), ratio(blocks, what, "without", "without again")
        most = MOST.get(name)
        said = "" if most is None else verdict(most, effect, unrest, len(blocks))
        failed += [name] if said == "exceeded" else []
        print(  # noqa: T201
            f"{name}: x {effect[0]:.3f} ({effect[1]:.3f} to {effect[2]:.3f})"
            f"{f', at most {most}: {said}' if most else ''}; "
            f"without against without x {unrest[0]:.3f} ({unrest[1]:.3f} to {unrest[2]:.3f})"
        )
    assert not failed
