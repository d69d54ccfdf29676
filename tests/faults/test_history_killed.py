"""`tailsight demo --history`, killed with -9 again and again, ends with what an undisturbed one ends with."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from collector.store.embedded import open_embedded

pytestmark = [pytest.mark.fault, pytest.mark.timeout(400)]
HOUR_NS = 3_600_000_000_000
HOURS = 8


def command(data: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "api.cli", *words, "--data", str(data), "--json"]


def contents(data: Path) -> dict[str, Any]:
    """Everything that does not depend on when it was written; messages of the generations that are read."""
    store = open_embedded(data)
    try:
        found = {}
        for table, columns in {
            "stamps": "ts, key, point, service, thread, depth, label_set, outcome, mode, cache, data_age_ns, seq",
            "links": "ts, parent, child, seq",
            "messages": "path, window, key, start, e2e_ns, stage_ns, outcome, mode",
            "stage_counts": "path, level, window, stage, rollup, bucket, n",
        }.items():
            level = "toUInt16(10) AS level, " if table == "messages" else ""
            current = (
                ""
                if table in ("stamps", "links")
                else "WHERE (path, level, window, generation) IN"
                " (SELECT path, level, window, max(generation) FROM windows GROUP BY path, level, window)"
            )
            sql = (
                f"SELECT toString(sum(cityHash64(toString(tuple({columns}))))) AS h, count() AS total"  # noqa: S608 - names of ours
                f" FROM (SELECT {level}* FROM {table}) {current}"
            )
            found[table] = store.query(sql).row(0)
        return found
    finally:
        store.close()


def test_killed_and_called_again_it_comes_to_the_same(tmp_path: Path) -> None:
    until = time.time_ns() // HOUR_NS * HOUR_NS - HOUR_NS
    words = ("demo", "--history", f"{HOURS}h", "--until", str(until), "--rate", "0.5", "--seed", "3")
    kills = 0
    for after_s in (1.5, 3.0, 4.0, 5.0, 6.5, 8.0):
        run = subprocess.Popen(
            command(tmp_path / "killed", *words),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.wait(after_s)
        if run.poll() is None:
            os.kill(run.pid, signal.SIGKILL)  # this process alone: its helpers must end with it
            run.wait()
            kills += 1
    assert kills >= 3
    answers = {}
    for name in ("killed", "whole"):
        done = subprocess.run(command(tmp_path / name, *words), capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        answers[name] = json.loads(done.stdout)
    for field in (
        "from_ns",
        "to_ns",
        "hours",
        "stamps",
        "links",
        "messages",
        "messages_of",
        "difference",
        "quarantined",
    ):
        assert answers["killed"][field] == answers["whole"][field], field
    assert answers["whole"]["difference"] == 0
    assert answers["whole"]["messages"] > 10_000
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    again = subprocess.run(command(tmp_path / "killed", *words), capture_output=True, text=True, timeout=300)
    assert json.loads(again.stdout)["windows_computed"] == json.loads(again.stdout)["hours_made"] == 0
