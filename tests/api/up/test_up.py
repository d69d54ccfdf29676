"""`tailsight up` as a person sees it, and as a script does: a real terminal, and `--once --json`."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest

from tests.whole_path import Session, environment

pytestmark = pytest.mark.timeout(180)
ROWS, COLUMNS = 70, 110
ORDER_STAGES = ("feed_transit", "queue_wait", "decide", "venue", "end_to_end")
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def command(session: Session, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "api.cli", "up", "--data", str(session.data), "--port", "0", *arguments]


class Terminal:
    """A terminal of fixed size with a program in it, which sees Ctrl-C when it is typed."""

    def __init__(self, arguments: list[str], env: dict[str, str]) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(arguments[0], arguments, env)  # noqa: S606 - our own interpreter
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.text = ""

    def read(self, seconds: float) -> bool:
        """Take what is written within some seconds; False once the program has closed the terminal."""
        if not select.select([self.fd], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self.fd, 65_536)
        except OSError:  # Linux says EIO when the last program has left
            return False
        self.text += data.decode(errors="replace")
        return bool(data)

    @property
    def picture(self) -> list[str]:
        """The lines of the newest whole picture, without colours: one that another follows."""
        pictures = self.text.split("Tailsight")
        return _ESCAPE.sub("", pictures[-2]).replace("\r", "").split("\n") if len(pictures) > 2 else []

    def until(self, words: tuple[str, ...], seconds: float) -> None:
        """Read until the newest picture has all of `words`."""
        deadline = time.monotonic() + seconds
        while True:
            shown = "\n".join(self.picture)
            if all(word in shown for word in words):
                return
            assert self.read(0.2), f"it ended: {self.text[-2000:]}"
            assert time.monotonic() < deadline, f"{words} not shown: {shown}"

    def interrupt(self, seconds: float) -> int:
        """Type Ctrl-C and read to the end; the exit code."""
        os.write(self.fd, b"\x03")
        deadline = time.monotonic() + seconds
        while self.read(0.2):
            assert time.monotonic() < deadline, f"it does not stop: {self.text[-2000:]}"
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


def row(lines: list[str], first_word: str) -> list[str]:
    """The words of the line that starts with a word."""
    return next((words for line in lines if (words := line.split())[:1] == [first_word]), [])


def test_a_terminal_shows_where_to_look_what_is_collected_and_the_percentiles(tmp_path: Path) -> None:
    session = Session(tmp_path)
    env = environment(session.rings) | {"TERM": "xterm-256color"}
    del env["COLUMNS"]
    terminal = Terminal(command(session, "--rate", "100"), env)
    try:
        terminal.until(("openapi.json", "messages/s", "processes:", "order, last minute", *ORDER_STAGES), 90)
        lines = terminal.picture
        assert any(line.strip().startswith(f"{session.url}/   the page") for line in lines)
        assert any(line.strip().startswith("tailsight query percentiles --path order") for line in lines)
        for stage in ORDER_STAGES:
            assert len(row(lines, stage)) >= 5, f"{stage}: {row(lines, stage)}"
            assert re.search(r"\d(\.\d+)?\s?(ns|us|µs|ms|s)\b", " ".join(row(lines, stage))), row(lines, stage)
        shown = " ".join(" ".join(lines).split())
        # The clock is degraded where nobody states how far it is from UTC, as on a machine without chronyd.
        assert re.search(r"collected: (clock, )?host, nic, probe, schedstat", shown)
        for program, pid in session.note["programs"].items():
            assert f"{program} {pid}" in shown
        assert max(map(len, lines)) <= COLUMNS
        assert terminal.interrupt(60) == 0
        assert "Stopped after" in terminal.text
        assert "\x1b[?25h" in terminal.text  # the cursor is back
        assert session.processes() == {}
    finally:
        terminal.close()
        session.close()


def test_once_with_json_prints_figures_and_nothing_else(tmp_path: Path) -> None:
    session = Session(tmp_path)
    try:
        done = subprocess.run(
            command(session, "--rate", "100", "--once", "--json"),
            capture_output=True,
            text=True,
            timeout=150,
            env=environment(session.rings),
        )
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        figures = answer["figures"]
        assert answer["killed"] == []
        assert {"server", "agent", "engine", "feed"} <= set(answer["restarts"])
        stages = {stage["stage"]: stage for stage in figures["latency"]["order"]}
        assert set(ORDER_STAGES) <= set(stages), figures
        assert stages["end_to_end"]["count"] > 0
        assert 0 < stages["end_to_end"]["min_ns"] <= stages["end_to_end"]["max_ns"]
        assert {"probe", "schedstat"} <= {one["name"] for one in figures["collectors"] if one["status"] == "running"}
        assert done.stderr == ""
        assert session.processes() == {}
    finally:
        session.close()
