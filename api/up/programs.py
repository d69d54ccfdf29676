"""What the supervisor runs: one `Program` per process, and the operating system's side of running it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Program:
    """One process to keep alive: a Python module with its arguments.

    `phase` orders the stop: all programs of a higher phase have ended before those of a lower one are asked to, each
    within `stop_s` seconds. Output goes to `log`.
    """

    name: str
    module: str
    arguments: tuple[str, ...] = ()
    phase: int = 0
    log: Path = Path(os.devnull)
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_s: float = 5.0


class Process:
    """A started program: the leader of a process group of its own, so that a terminal's Ctrl-C reaches only us."""

    def __init__(self, program: Program) -> None:
        program.log.parent.mkdir(parents=True, exist_ok=True)
        argv = [sys.executable, "-m", "api.up.leash", str(os.getpid()), program.module, *program.arguments]
        with program.log.open("ab") as log:
            # Our own modules with our own arguments; no shell is involved.
            self._popen = subprocess.Popen(  # noqa: S603
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **program.environment},
                process_group=0,
            )

    @property
    def pid(self) -> int:
        """The process id, which is also its group's."""
        return self._popen.pid

    def exit_code(self) -> int | None:
        """None while it runs, else the exit code; -N means ended by signal N. Reaps the process."""
        return self._popen.poll()

    def terminate(self) -> None:
        """Ask it to end (SIGTERM); what it started is its own business."""
        with contextlib.suppress(ProcessLookupError):
            self._popen.terminate()

    def kill_group(self) -> None:
        """End it and what it left behind in its group (SIGKILL). Safe after it has been reaped."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def group_alive(self) -> bool:
        """Whether any process of its group still exists."""
        try:
            os.killpg(self.pid, 0)
        except (ProcessLookupError, PermissionError):
            return False
        return True


def exit_reason(code: int) -> str:
    """An exit code as an operator says it: "exit code 3", "killed by SIGKILL"."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def last_words(log: Path, most: int = 200) -> str:
    """The last line of a log that says something, cut to `most` characters; empty when there is none."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - 4096))
            lines = stream.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip()[:most] for line in reversed(lines) if line.strip()), "")
