"""A real agent that follows a file is killed again and again while the file grows and is rotated."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

from tests.collector.otlp.kit import nowhere, said, spooled

ROOT = Path(__file__).parents[3]
AGENT = """
import sys, threading
from pathlib import Path
from collector.agent.run import run_agent
from collector.agent.settings import AgentSettings
from collector.lines.settings import Files, LinesSettings
lines = LinesSettings(files=(Files(path=sys.argv[3], service="engine"),))
settings = AgentSettings(server=sys.argv[1], collectors=("lines",), lines=lines, nice=0, spool_min_free_bytes=0)
run_agent(settings, Path(sys.argv[2]), threading.Event())
"""


def spooled_bytes(data: Path) -> int:
    return sum(path.stat().st_size for path in (data / "agent" / "lines").glob("*.seg"))


def until_quiet(data: Path, still_s: float, timeout_s: float = 60.0) -> None:
    """Until the spool has grown, and then has not for a while."""
    before, deadline = spooled_bytes(data), time.monotonic() + timeout_s
    last, since = before, time.monotonic()
    while last == before or time.monotonic() - since < still_s:
        assert time.monotonic() < deadline, "the agent spools nothing"
        time.sleep(0.05)
        if (now := spooled_bytes(data)) != last:
            last, since = now, time.monotonic()


def test_every_line_is_in_the_spool_once(tmp_path: Path) -> None:
    log, data = tmp_path / "engine.jsonl", tmp_path / "data"
    rng, written = random.Random(3), 0  # noqa: S311 - repeatable
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'collector/probe/src'}"}
    for turn in range(4):
        agent = subprocess.Popen(
            [sys.executable, "-c", AGENT, nowhere(), str(data), str(log)],
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        until = time.monotonic() + 0.8 + rng.random()
        while time.monotonic() < until:
            with log.open("a") as file:
                for _ in range(rng.randrange(1, 60)):
                    file.write(f'{{"body": "{written}", "key": "order:{written}"}}\n')
                    written += 1
            if turn and rng.random() < 0.05:
                log.rename(tmp_path / f"engine.jsonl.{written}")
            time.sleep(0.01)
        # The first has read of the file before it is killed, the last reads all; the others die whenever they do.
        if turn in (0, 3):
            until_quiet(data, 0.2 if turn == 0 else 3.0)
        agent.kill()
        agent.wait(10)
    bodies = said(spooled(data / "agent" / "lines"), "events", "body")
    assert sorted(bodies, key=int) == [str(n) for n in range(written)]
    assert written > 300
