"""A real `tailsight up` for tests: started, asked, hurt, stopped; and a program that stamps what the test counts."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from api.demo.programs import configuration

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("decode", "think", "answer")

# A path of the test's own beside the order path's: one program, four points, three stages.
COUNTED = """
[points.thought]
layer = "application"

[windows]
grace = "2s"
rerun_after = "2s"
lateness = "30s"

[paths.counted]
max_age = "2s"

[[paths.counted.stages]]
name = "decode"
from = {point = "app_ingress", service = "counted"}
to = {point = "app_transform", service = "counted"}

[[paths.counted.stages]]
name = "think"
class = "queue"
from = {point = "app_transform", service = "counted"}
to = {point = "thought", service = "counted"}

[[paths.counted.stages]]
name = "answer"
from = {point = "thought", service = "counted"}
to = {point = "app_egress", service = "counted"}
"""

# argv: first message, how many messages, messages between two sleeps.
STAMPS = """
import sys, time
import tailsight_probe as probe
first, count, burst = map(int, sys.argv[1:])
probe.init(service="counted")
points = [probe.point(name, space="counted") for name in ("app_ingress", "app_transform", "thought", "app_egress")]
for number in range(first, first + count):
    for point in points:
        probe.stamp(point, number)
    if number % burst == 0:
        time.sleep(0.05)
print(probe.stats()["recorded"], flush=True)
"""


def environment(rings: Path) -> dict[str, str]:
    """Where children import from, and where their rings go."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "collector/probe/src")])
    return {**os.environ, "PYTHONPATH": path, "TAILSIGHT_PROBE_DIR": str(rings), "COLUMNS": "200"}


class Session:
    """One data directory and the `up` that runs on it."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.rings = folder / "rings"
        self.log = folder / "up.out"
        self.process: subprocess.Popen[bytes] | None = None
        self.data.mkdir(parents=True)
        (self.data / "tailsight.toml").write_text(configuration().read_text() + COUNTED)

    def start(self, *arguments: str) -> None:
        """Start `up` and wait until its server says where it is."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "api.cli", "up", "--data", str(self.data), "--port", "0", *arguments],
                cwd=self.data.parent,
                env=environment(self.rings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.until(lambda: (self.data / "server.json").exists(), 60, "server.json")

    def stop(self, number: int = signal.SIGINT) -> int:
        """Ask `up` to end; its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(90)

    def close(self) -> None:
        """Leave nothing running, whatever happened."""
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.stop()
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    @property
    def note(self) -> dict[str, Any]:
        """DIR/up.json."""
        note: dict[str, Any] = json.loads((self.data / "up.json").read_text())
        return note

    @property
    def url(self) -> str:
        """Where the server answers now."""
        return str(json.loads((self.data / "server.json").read_text())["url"])

    def get(self, path: str, **params: str) -> httpx.Response:
        """Ask the server."""
        return httpx.get(self.url + path, params=params, timeout=30, trust_env=False)

    def tailsight(self, *arguments: str) -> tuple[int, Any]:
        """Run a command with --json on this directory: (exit code, answer)."""
        done = subprocess.run(
            [sys.executable, "-m", "api.cli", *arguments, "--data", str(self.data), "--json"],
            capture_output=True,
            text=True,
            timeout=120,
            env=environment(self.rings),
        )
        try:
            return done.returncode, json.loads(done.stdout)
        except ValueError:
            raise AssertionError(f"{arguments}: {done.returncode} {done.stdout!r} {done.stderr}") from None

    def stamp(self, first: int, count: int, burst: int = 1_000_000) -> int:
        """Run a program that stamps `count` messages at four points; how many records it made."""
        done = subprocess.run(
            [sys.executable, "-c", STAMPS, str(first), str(count), str(burst)],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
            env=environment(self.rings),
        )
        return int(done.stdout)

    def processes(self) -> dict[int, str]:
        """Every living process that has this data directory on its command line or its rings in its environment."""
        found = {}
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit() or int(folder.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                ours = str(self.data) in line or str(self.rings).encode() in (folder / "environ").read_bytes()
                zombie = (folder / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
                if ours and line and not zombie:
                    found[int(folder.name)] = line
        return found

    def pid_of(self, words: str) -> int:
        """The process whose command line holds `words`."""
        pids = [pid for pid, line in self.processes().items() if words in line]
        assert len(pids) == 1, f"{words}: {pids}"
        return pids[0]

    def until(self, condition: Callable[[], Any], seconds: float, what: str) -> Any:
        """The condition's first true value; fails with the log's end when there is none in time."""
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError, ValueError, httpx.HTTPError):
                if value := condition():
                    return value
            if self.process is not None and self.process.poll() is not None:
                raise AssertionError(f"up ended with {self.process.returncode} before {what}: {self.tail()}")
            assert time.monotonic() < deadline, f"{what} not within {seconds:g} s: {self.tail()}"
            time.sleep(0.1)

    def tail(self) -> str:
        """The ends of all logs."""
        logs = [self.log, *sorted((self.data / "log").glob("*.log"))]
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-1500:]}" for log in logs if log.exists())
