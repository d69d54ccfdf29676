"""One server per data directory: a lock that ends with its process, and a note that says who runs where."""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any

LOCK = "server.lock"
NOTE = "server.json"


class ServerRunsError(Exception):
    """Another server holds the directory."""


class Hold:
    """Holds DIR/server.lock while open. Raises ServerRunsError with the other's pid and URL."""

    def __init__(self, data: Path) -> None:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._note = data / NOTE
        self._fd = os.open(data / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(self._fd, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._fd)
            note = read_note(data)
            where = f" at {note['url']}" if note and str(note.get("pid")) == pid else ", which is still starting"
            raise ServerRunsError(
                f"a server already runs on {data}: pid {pid}{where}. Use that one, stop it, or choose another --data"
            ) from None
        # A note left by a killed server must not be taken for ours.
        self._note.unlink(missing_ok=True)
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def announce(self, url: str) -> None:
        """Write DIR/server.json in one step."""
        draft = self._note.with_suffix(".json.new")
        draft.write_text(json.dumps({"pid": os.getpid(), "url": url, "started": time.time_ns()}))
        draft.replace(self._note)

    def release(self) -> None:
        """Remove the note and let go of the lock."""
        self._note.unlink(missing_ok=True)
        os.close(self._fd)


def read_note(data: Path) -> dict[str, Any] | None:
    """What DIR/server.json says (pid, url, started in epoch nanoseconds); None when there is none or half of one."""
    try:
        note = json.loads((data / NOTE).read_text())
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) and {"pid", "url", "started"} <= set(note) else None
