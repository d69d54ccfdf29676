"""The whole path at rate: a stamping program, the agent and the server on this machine, to durable rows in queries.

Ratio: what the same stamps would cost a user who inserts them into the same engine row by batch without any of the
guarantees (spool, checksums, ledger, read-back): `EmbeddedStore.insert` of ready blocks.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collector.store.embedded import open_embedded
from tests.whole_path import ROOT, environment

RATE = float(os.environ.get("TAILSIGHT_BENCH_RATE", "500000"))
SECONDS = float(os.environ.get("TAILSIGHT_BENCH_SECONDS", "60"))
# What each process's command line says.
MARKS = {"store": "collector.store.process", "server": "api.server", "agent": "collector.agent"}
# A path over the stamper's four points, so that windows are computed while the stamps arrive.
CONFIG = """
[paths.bench]
max_age = "1s"

[[paths.bench.stages]]
name = "transform"
from = {point = "app_ingress", service = "bench"}
to = {point = "app_transform", service = "bench"}

[[paths.bench.stages]]
name = "decide"
from = {point = "app_transform", service = "bench"}
to = {point = "app_decision", service = "bench"}

[[paths.bench.stages]]
name = "send"
from = {point = "app_decision", service = "bench"}
to = {point = "app_egress", service = "bench"}
"""


def core(folder: Path) -> str:
    """The folder of the probe with its compiled core built in place."""
    lib, base = str(folder / "lib"), str(folder / "build")
    build = [sys.executable, "setup.py", "-q", "build", "--build-base", base, "--build-lib", lib]
    subprocess.run(build, cwd=ROOT / "collector/probe", check=True, capture_output=True)
    return lib


def resident_mb(pid: int) -> float:
    """The resident memory of a process in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.bench
def test_half_a_million_stamps_a_second_become_queryable_rows(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "tailsight.toml").write_text(CONFIG)
    rings = tmp_path / "rings"
    env = environment(rings)
    if Path("/dev/shm").is_dir():  # noqa: S108 - rings belong in memory, as in production
        env["TAILSIGHT_PROBE_DIR"] = str(Path("/dev/shm") / f"tailsight-bench-{os.getpid()}")  # noqa: S108
    env["PYTHONPATH"] = os.pathsep.join([core(tmp_path), str(ROOT)])
    up = subprocess.Popen(
        [sys.executable, "-m", "api.cli", "up", "--no-demo", "--data", str(data), "--port", "0", "--json"],
        cwd=ROOT,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=(tmp_path / "up.log").open("w"),
    )
    lags: list[tuple[float, float]] = []
    done = threading.Event()
    try:
        wait_until(lambda: (data / "up.json").exists() and (data / "server.json").exists(), 60)
        pids = children(up.pid)
        time.sleep(3)
        rest = {name: (resident_mb(pid), cpu_seconds(pid)) for name, pid in pids.items()}
        store = open_embedded(data)

        def watch() -> None:
            while not done.wait(0.2):
                asked = time.time_ns()
                newest = store.query("SELECT toUnixTimestamp64Nano(max(ts)) AS ts FROM stamps").item()
                lags.append((asked / 1e9, (time.time_ns() - newest) / 1e9))

        started = time.time()
        watcher = threading.Thread(target=watch)
        watcher.start()
        program = subprocess.run(
            [sys.executable, str(ROOT / "tests/bench/stamper.py"), "bench", str(RATE), str(SECONDS), "1"],
            env=env,
            check=True,
            capture_output=True,
            text=True,
        )
        ended = time.time()
        said = json.loads(program.stdout)
        peak = {name: resident_mb(pid) for name, pid in pids.items()}
        used = {name: cpu_seconds(pid) - rest[name][1] for name, pid in pids.items()}

        def stored() -> int:
            return int(store.query("SELECT count() FROM stamps").item())

        settled(stored, said["stamps"], 120)
        caught_up = time.time() - ended
        done.set()
        watcher.join()
        fresh = np.array([lag for at, lag in lags if started + 5 < at < ended])
        ledger = doctor(data, env)
        wait_until(lambda: int(store.query("SELECT sum(messages) FROM windows WHERE level = 10").item() or 0) > 0, 90)
        size = store.query(
            "SELECT sum(bytes_on_disk) AS b FROM system.parts WHERE active AND table IN ('stamps')"
        ).item()
        whole = store.query(
            "SELECT sum(bytes_on_disk) AS b FROM system.parts WHERE active AND table IN"
            " ('stamps', 'messages', 'stage_counts', 'stage_windows', 'windows', 'batches')"
        ).item()
        report = {
            "stamps": said["stamps"],
            "stored": stored(),
            "stamps_per_s": round(said["stamps"] / said["seconds"]),
            "generator_worst_lag_s": round(said["worst_lag_s"], 3),
            "freshness_s": {p: round(float(np.quantile(fresh, q)), 2) for p, q in (("p50", 0.5), ("p99", 0.99))},
            "caught_up_after_s": round(caught_up, 2),
            "difference": sum(row["difference"] for row in ledger),
            "dropped": {r: n for row in ledger for r, n in row["dropped"].items()},
            "cpu_share": {n: round(s / said["seconds"], 3) for n, s in used.items()}
            | {"program": round(said["cpu_s"] / said["seconds"], 3)},
            "rss_mb": {n: (round(rest[n][0]), round(peak[n])) for n in pids},
            "bytes_per_stamp": round(size / said["stamps"], 2),
            "bytes_per_stamp_with_messages_counts_ledger": round(whole / said["stamps"], 2),
        }
        sys.stdout.write("\n" + json.dumps(report, indent=1) + "\n")
        store.close()
        assert report["difference"] == 0
        assert stored_matches(said["stamps"], ledger)
        assert report["freshness_s"]["p99"] <= 5.0
    finally:
        done.set()
        up.send_signal(signal.SIGTERM)
        up.wait(30)
        if env["TAILSIGHT_PROBE_DIR"].startswith("/dev/shm/"):  # noqa: S108
            subprocess.run(["rm", "-rf", env["TAILSIGHT_PROBE_DIR"]], check=False)


def settled(stored: Callable[[], int], want: int, seconds: float) -> None:
    """Wait until all is stored, or nothing more has arrived for ten seconds, at most `seconds`."""
    end, last, since = time.monotonic() + seconds, -1, time.monotonic()
    while (now := stored()) < want and time.monotonic() < end and time.monotonic() - since < 10:
        if now != last:
            last, since = now, time.monotonic()
        time.sleep(0.2)


def stored_matches(stamps: int, ledger: list[dict[str, Any]]) -> bool:
    """Every stamp of the program is stored or dropped for a reason."""
    probe = [row for row in ledger if row["name"] == "probe"]
    return sum(row["stored_unique"] + sum(row["dropped"].values()) for row in probe) >= stamps


def doctor(data: Path, env: dict[str, str]) -> list[dict[str, Any]]:
    """The ledger as `tailsight doctor --json` gives it."""
    answer = subprocess.run(
        [sys.executable, "-m", "api.cli", "doctor", "--data", str(data), "--json"],
        cwd=ROOT,
        env=env,
        check=False,
        capture_output=True,
        text=True,
    )
    ledger: list[dict[str, Any]] = json.loads(answer.stdout)["ledger"]
    return ledger


def children(pid: int) -> dict[str, int]:
    """The processes below `up` by what they run: server, agent, store."""
    found: dict[str, int] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            command = (folder / "cmdline").read_bytes().decode().replace("\0", " ")
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, ProcessLookupError):
            continue
        if parent == pid or parent in found.values():
            for name, mark in MARKS.items():
                if mark in command:
                    found.setdefault(name, int(folder.name))
                    break
    return found


def wait_until(holds: Any, seconds: float) -> None:
    """Wait until `holds()`; raises AssertionError after `seconds`."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.1)
