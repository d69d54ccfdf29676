"""One `tailsight up` (and one `tailsight demo`) per data directory.

DIR/up.lock is held while the process lives, DIR/up.json says who it is.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType

import msgspec


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """What DIR/up.json says: who runs here, where it answers, and which processes it keeps and has started again."""

    pid: int
    url: str
    started_ns: int
    programs: dict[str, int]
    restarts: dict[str, int]


class AlreadyRunningError(Exception):
    """Another `up` holds the directory; `note` is what it says of itself, None when it has not written yet."""

    def __init__(self, name: str, data: Path, note: Note | None) -> None:
        self.note = note
        who = f"pid {note.pid} {note.url}".strip() if note else "it is starting"
        super().__init__(f"tailsight {name} runs already for {data} ({who}). Stop it first, or use another --data DIR.")


class Hold:
    """Holds DIR for this process while open, as `name` (up or demo).

    Raises AlreadyRunningError when another process does.
    """

    def __init__(self, data: Path, name: str = "up") -> None:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._note = data / f"{name}.json"
        self._fd = os.open(data / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._fd)
            raise AlreadyRunningError(name, data, read_note(data, name)) from None

    def write(self, note: Note) -> None:
        """Replace DIR/up.json in one step, so that a reader never sees half of it."""
        draft = self._note.with_suffix(".json.new")
        draft.write_bytes(msgspec.json.encode(note))
        draft.replace(self._note)

    def __enter__(self) -> Hold:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._note.unlink(missing_ok=True)
        os.close(self._fd)


def read_note(data: Path, name: str = "up") -> Note | None:
    """What DIR/up.json says, None when there is none or it is not whole."""
    try:
        return msgspec.json.decode((data / f"{name}.json").read_bytes(), type=Note)
    except (OSError, msgspec.DecodeError):
        return None


def locked(file: Path) -> bool:
    """Whether some process holds the lock file now."""
    try:
        fd = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
