"""Asking the packet collector to keep what passes: a small file in a folder that the collector looks into.

`request_capture` is the function for programs (alerts, tests); `tailsight agent trigger` calls it. Only who may write
the agent's folder (0700) may ask.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec

TRIGGERS, CAPTURES, BUFFER = "triggers", "captures", "packet-buffer"
MOST_WAITING = 16
_LONGEST_REASON = 60
_MOST_BYTES = 4096


class Trigger(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked: keep from `before_ns` before `at_ns` to `after_ns` after it."""

    at_ns: int
    before_ns: int
    after_ns: int
    reason: str

    @property
    def file_name(self) -> str:
        """The capture's file: when, to the millisecond, and why."""
        at = datetime.fromtimestamp(self.at_ns // 1_000_000 / 1e3, UTC)
        return f"{at:%Y%m%dT%H%M%S}.{self.at_ns // 1_000_000 % 1000:03d}Z-{slug(self.reason)}.pcapng"


class NotRecordingError(RuntimeError):
    """No packet collector with a buffer runs here, or it has too much to do; the message says which."""


def slug(reason: str) -> str:
    """A reason as part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", reason.lower()).strip("-")[:_LONGEST_REASON].strip("-") or "capture"


def request_capture(
    data: Path, *, before_ns: int, after_ns: int, reason: str, at_ns: int | None = None
) -> tuple[Path, Trigger]:
    """Ask the agent of the data directory `data` for a capture; returns the file that will hold it.

    The file is there a moment after `after_ns` has passed. Raises NotRecordingError, ValueError for a negative window,
    OSError when the folder cannot be written.
    """
    if before_ns < 0 or after_ns < 0 or before_ns + after_ns == 0:
        raise ValueError(f"a window of {before_ns} ns before and {after_ns} ns after is none")
    folder = data / "agent" / TRIGGERS
    if not folder.is_dir():
        raise NotRecordingError(
            f"no packet buffer is recording in {data}: run the agent with the collector 'packet' and "
            "[agent.packet.buffer] bytes above 0"
        )
    if sum(1 for _ in folder.glob("*.json")) >= MOST_WAITING:
        raise NotRecordingError(f"{MOST_WAITING} triggers wait in {folder}; is the agent running?")
    asked = Trigger(
        at_ns=time.time_ns() if at_ns is None else at_ns, before_ns=before_ns, after_ns=after_ns, reason=reason
    )
    name = f"{asked.at_ns}-{secrets.token_hex(4)}"
    part = folder / f"{name}.part"
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(msgspec.json.encode(asked))
    part.replace(folder / f"{name}.json")
    return data / "agent" / CAPTURES / asked.file_name, asked


def take_requests(folder: Path) -> tuple[list[Trigger], list[str]]:
    """What has been asked since the last call, and what was wrong with requests that cannot be read."""
    found, wrong = [], []
    for path in sorted(folder.glob("*.json"))[:MOST_WAITING]:
        try:
            with path.open("rb") as file:
                found.append(msgspec.json.decode(file.read(_MOST_BYTES), type=Trigger))
        except (OSError, msgspec.DecodeError) as error:
            wrong.append(f"{path.name}: {error}")
        path.unlink(missing_ok=True)
    return found, wrong
