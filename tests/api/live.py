"""A real server process for tests: started on a free port, stopped by its pid, asked with httpx."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Live:
    """A running server."""

    data: Path
    url: str
    process: subprocess.Popen[bytes]

    def client(self, **options: object) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=30, **options)  # type: ignore[arg-type]

    def log(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in (self.data / "server.log").read_text().splitlines() if line[:1] == "{"]

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


def start(
    data: Path,
    config: str = "",
    *arguments: str,
    program: Sequence[str] = ("-m", "api.server"),
    environment: Mapping[str, str] | None = None,
    seconds: float = 60,
) -> Live:
    """Start a server on `data` and wait until it says that it is ready."""
    data.mkdir(parents=True, exist_ok=True)
    if config:
        (data / "tailsight.toml").write_text(config)
    with (data / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *program, "--data", str(data), "--port", "0", *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(
                f"the server ended with {process.returncode}: {(data / 'server.log').read_text()[-3000:]}"
            )
        with contextlib.suppress(OSError, ValueError):
            note = json.loads((data / "server.json").read_text())
            if note["pid"] == process.pid:
                return Live(data, note["url"], process)
        time.sleep(0.02)
    process.kill()
    raise RuntimeError(f"the server was not ready in time: {(data / 'server.log').read_text()[-3000:]}")


@contextlib.contextmanager
def running(data: Path, config: str = "", *arguments: str) -> Iterator[Live]:
    """A server that is stopped at the end."""
    live = start(data, config, *arguments)
    try:
        yield live
    finally:
        if live.process.poll() is None:
            live.process.terminate()
            try:
                live.process.wait(30)
            except subprocess.TimeoutExpired:
                live.process.kill()
                live.process.wait()
