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


def test_every_line_is_in_the_spool_once(tmp_path: Path) -> None:
    log, rng, written = tmp_path / "engine.jsonl", random.Random(3), 0  # noqa: S311 - repeatable
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'collector/probe/src'}"}
    for turn in range(4):
        agent = subprocess.Popen(
            [sys.executable, "-c", AGENT, nowhere(), str(tmp_path / "data"), str(log)],
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        # The first one has read of the file before it is killed; the others die whenever they do.
        until = time.monotonic() + (2.5 if turn in (0, 3) else 0.8 + rng.random())
        while time.monotonic() < until:
            with log.open("a") as file:
                for _ in range(rng.randrange(1, 60)):
                    file.write(f'{{"body": "{written}", "key": "order:{written}"}}\n')
                    written += 1
            if turn and rng.random() < 0.05:
                log.rename(tmp_path / f"engine.jsonl.{written}")
            time.sleep(0.01)
        if turn == 3:
            time.sleep(2.5)  # it reads what is left, and what was rotated away
        agent.kill()
        agent.wait(10)
    bodies = said(spooled(tmp_path / "data" / "agent" / "lines"), "events", "body")
    assert sorted(bodies, key=int) == [str(n) for n in range(written)]
    assert written > 3_000
