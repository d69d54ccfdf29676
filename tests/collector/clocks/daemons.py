"""Real chronyd and ptp4l processes for tests. None of them touches the machine's clock."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.needs import program


@contextlib.contextmanager
def chronyd(folder: Path, lines: Sequence[str], inside: Callable[..., list[str]] | None = None) -> Iterator[int]:
    """A chronyd with these lines of configuration and `-x` (it never disciplines); its pid."""
    path = program("chronyd", "chrony")
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "chrony.conf"
    config.write_text("\n".join([*lines, f"pidfile {folder}/pid", "bindcmdaddress /", f"driftfile {folder}/drift", ""]))
    argv = [path, "-x", "-U", "-d", "-u", "root", "-f", str(config)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(inside(*argv) if inside else argv, stdout=log, stderr=log)
    try:
        yield process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
            process.terminate()
        process.wait(10)


@contextlib.contextmanager
def ptp4l(folder: Path, device: str, lines: Sequence[str], inside: Callable[..., list[str]]) -> Iterator[Path]:
    """A free-running ptp4l with software stamps on `device`; its management socket."""
    path = program("ptp4l", "linuxptp")
    folder.mkdir(parents=True, exist_ok=True)
    socket = folder / "uds"
    config = folder / "ptp.conf"
    head = ["[global]", "free_running 1", "time_stamping software", f"uds_address {socket}"]
    config.write_text("\n".join([*head, *lines, f"[{device}]", ""]))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(inside(path, "-f", str(config), "-m"), stdout=log, stderr=log)
    try:
        yield socket
    finally:
        process.terminate()
        process.wait(10)


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for a condition; fails saying what did not come."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} not within {seconds:g} s"
        time.sleep(0.05)


def stop(pid: int) -> None:
    """Hold a process as a hung one would hang."""
    os.kill(pid, signal.SIGSTOP)
