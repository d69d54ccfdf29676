"""The process's dictionary: small numbers for the texts that slots refer to, and the file that explains them.

The file is append-only, one JSON array `[kind, code, text]` per line. A code's line is in the file before the code is
handed out, so no slot ever holds a number that the file does not explain.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import threading

from tailsight_probe import layout

# uint16 codes in the slot; label sets are bounded so that a label with an identifier in it cannot fill the memory.
_LIMITS = {"service": 65_535, "point": 65_535, "space": 65_535, "clock": 65_535, "labels": 65_536}


class Dictionary:
    """Codes of one process, kept in memory and, once `open` was called, in the file.

    Locks are taken here, never on the hot path. The lock is reentrant because a signal handler may register a point
    while the interrupted code registers another.
    """

    def __init__(self) -> None:
        self._codes: dict[str, dict[str, int]] = {kind: {} for kind in layout.KINDS}
        self._counters = {kind: itertools.count(1) for kind in layout.KINDS}
        self._lock = threading.RLock()
        self._path = ""
        self._guard: tuple[int, int] | None = None
        self._codes["clock"]["monotonic"] = layout.MONOTONIC

    def code(self, kind: str, text: str) -> int:
        """The code of `text`, registered if it is new.

        Raises OSError when the file cannot take the line and ValueError when the kind is full.
        """
        known = self._codes[kind].get(text)
        if known is not None:
            return known
        with self._lock:
            known = self._codes[kind].get(text)
            if known is not None:
                return known
            if len(self._codes[kind]) >= _LIMITS[kind]:
                raise ValueError(f"{kind} codes are used up ({_LIMITS[kind]}); is there an identifier in a name?")
            line = _line(kind, next(self._counters[kind]), text)
            if self._path:
                _append(self._path, line)
            code: int = json.loads(line)[1]
            self._codes[kind][text] = code
            return code

    def known(self, kind: str) -> dict[str, int]:
        """Text to code of one kind, live: look up, do not change."""
        return self._codes[kind]

    def announce(self, service: str) -> None:
        """Say the service's name; the last line of kind service holds. Raises OSError."""
        with self._lock:
            services = self._codes["service"]
            # A name that was used before is written again, so that it is the last one.
            services.pop(service, None)
            self.code("service", service)

    def open(self, path: str) -> None:
        """Create the file with everything known so far and mark it as held by a living process. Raises OSError."""
        with self._lock:
            if self._path == path:
                return
            text = b"".join(
                _line(kind, code, text) for kind in layout.KINDS for text, code in self._codes[kind].items() if code > 0
            )
            # The descriptor is kept only for its lock, which ends with the process whatever ends it, and is seen
            # from other PID namespaces too. Lines are appended through the path: a program that closes all its
            # descriptors (daemons do) must not find our text in its next socket.
            fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                _write_all(fd, text)
            except BaseException:
                os.close(fd)
                with contextlib.suppress(OSError):
                    os.unlink(path)  # noqa: PTH108 # pathlib is not imported into host programs
                raise
            self._path = path
            self._guard = (fd, os.fstat(fd).st_ino)

    def after_fork(self) -> None:
        """In a forked child: keep the codes, let go of the parent's file and of a lock another thread may hold."""
        self._lock = threading.RLock()
        self.let_go()

    def let_go(self) -> None:
        """Forget the file (it stays where it is) and end our claim on it."""
        self._path = ""
        guard, self._guard = self._guard, None
        if guard is not None:
            with contextlib.suppress(OSError):
                # The program may have closed our descriptor and got the same number for a file of its own.
                if os.fstat(guard[0]).st_ino == guard[1]:
                    os.close(guard[0])


def _line(kind: str, code: int, text: str) -> bytes:
    return json.dumps([kind, code, text], ensure_ascii=True).encode() + b"\n"


def _append(path: str, line: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        _write_all(fd, line)
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    before = os.fstat(fd).st_size
    try:
        written = os.write(fd, data) if data else 0
    except OSError:
        os.ftruncate(fd, before)
        raise
    if written != len(data):
        os.ftruncate(fd, before)  # half a line would spoil the next one
        raise OSError(28, "no space left for the dictionary")
