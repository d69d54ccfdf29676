"""`tailsight demo` ends when it is told to: soon, with exit code 0, and without a process or a note left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from api.demo.programs import Load, order_path
from api.up.hold import read_note
from tests.whole_path import environment


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children_in(folder: Path) -> set[int]:
    """Processes whose command line names the folder."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.fsencode(folder) in (entry / "cmdline").read_bytes():
                found.add(int(entry.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.timeout(120)
def test_a_session_leaves_nothing_behind(tmp_path: Path, how: signal.Signals) -> None:
    rings, data = tmp_path / "rings", tmp_path / "data"
    rings.mkdir(mode=0o700)
    argv = [sys.executable, "-m", "api.cli", "demo", "--rate", "50", "--seed", "5", "--data", str(data)]
    session = subprocess.Popen(argv, env=environment(rings), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wanted = {program.name for program in order_path(data, Load(50, 5))}
        deadline = time.monotonic() + 60
        while (note := read_note(data, "demo")) is None or not wanted <= {n for n, p in note.programs.items() if p}:
            assert session.poll() is None
            assert time.monotonic() < deadline, note
            time.sleep(0.1)
        programs = {pid for pid in note.programs.values() if pid}
        assert programs <= children_in(tmp_path)
        assert all(alive(pid) for pid in programs)
        session.send_signal(how)
        assert session.wait(60) == 0
    finally:
        session.kill()
        session.wait()
    assert not [pid for pid in programs if alive(pid)]
    assert children_in(tmp_path) == set()
    assert read_note(data, "demo") is None
