"""How a store process is started when none runs, and let go of."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from collector.store import StoreError
from collector.store.messages import dial

CONNECT_S = 5.0
START_S = 60.0
STOP_S = 30.0


class Child:
    """A store process that this process started. Closing our end of its pipe lets it end."""

    def __init__(self, process: subprocess.Popen[bytes], owner: int) -> None:
        self.process = process
        self._owner = owner

    def release(self, *, wait: bool) -> None:
        """Let go of the process; with `wait`, until it has ended (SIGTERM, then SIGKILL if it hangs)."""
        os.close(self._owner)
        if not wait:
            self.process.poll()
            return
        for nudge in (None, self.process.terminate, self.process.kill):
            if nudge is not None:
                nudge()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_S)
                return


def start(data: Path, options: Sequence[str]) -> Child | None:
    """Start a store process unless one answers by now; starters on one directory take turns."""
    with _turn(data):
        with contextlib.suppress(OSError):
            dial(data, CONNECT_S).close()
            return None
        return _spawn(data, options)


@contextlib.contextmanager
def _turn(data: Path) -> Iterator[None]:
    descriptor = os.open(data / "store.starting", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _spawn(data: Path, options: Sequence[str]) -> Child:
    (data / "log").mkdir(mode=0o700, exist_ok=True)
    ready_r, ready_w = os.pipe2(os.O_CLOEXEC)
    owner_r, owner_w = os.pipe2(os.O_CLOEXEC)
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    log_path = data / "log" / "store.log"
    with log_path.open("ab") as log:
        began = log.tell()
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [
                *(sys.executable, "-P", "-m", "collector.store.process", "--data", str(data)),
                *(f"--ready-fd={ready_w}", f"--owner-fd={owner_r}", *options),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(ready_w, owner_r),
            start_new_session=True,  # Ctrl-C on the terminal stops its owner, which then lets it end
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
    os.close(ready_w)
    os.close(owner_r)
    child = Child(process, owner_w)
    try:
        until = time.monotonic() + START_S
        while select.select([ready_r], [], [], max(0.0, until - time.monotonic()))[0]:
            if os.read(ready_r, 64):
                return child
            break
    finally:
        os.close(ready_r)
    if process.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(2)
    if process.poll() is None:
        process.kill()
    child.release(wait=True)
    said = log_path.read_bytes()[began:].decode(errors="replace").strip()
    raise StoreError(f"the store process did not start (exit {process.returncode}): {said or 'it said nothing'}")
