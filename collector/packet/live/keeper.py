"""Serves triggers: waits until a window has passed, writes its capture beside the poll, keeps a bounded number."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import structlog

from collector.packet.live.captures import Window, keep_newest, write_capture
from collector.packet.live.recorder import Recorder, Segment
from collector.packet.live.settings import BufferSettings
from collector.packet.live.trigger import BUFFER, CAPTURES, MOST_WAITING, TRIGGERS, Trigger, take_requests
from collector.settings import duration_ns

log = structlog.get_logger("packet")


class Keeper:
    """The buffer, its triggers and its captures in the agent's folder. `poll` is cheap: one look into a folder."""

    def __init__(
        self, folder: Path, settings: BufferSettings, interfaces: Sequence[tuple[str, int]], snap: int
    ) -> None:
        self._settings = settings
        self._interfaces = interfaces
        self._snap = snap
        self._longest_ns = duration_ns(settings.longest, "longest")
        self._triggers, self._captures = folder / TRIGGERS, folder / CAPTURES
        self.recorder = Recorder(folder / BUFFER, settings.bytes, settings.files)
        for path in (self._captures, self._triggers):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        take_requests(self._triggers)  # what was asked while nobody listened is too late
        self._waiting: list[Trigger] = []
        self._writing: threading.Thread | None = None
        self._current: Trigger | None = None
        self._drops: deque[tuple[int, int, int]] = deque(maxlen=4096)
        self.written = 0

    def ask(self, trigger: Trigger) -> None:
        """Take a trigger. One too many is refused, and said in the log."""
        if len(self._waiting) >= MOST_WAITING:
            log.warning("trigger refused: too many wait", reason=trigger.reason)
            return
        limited = Trigger(
            at_ns=trigger.at_ns,
            before_ns=min(max(trigger.before_ns, 0), self._longest_ns),
            after_ns=min(max(trigger.after_ns, 0), self._longest_ns),
            reason=trigger.reason,
        )
        if limited != trigger:
            log.warning("trigger cut to [agent.packet.buffer] longest", reason=trigger.reason)
        self._waiting.append(limited)

    def dropped(self, now_ns: int, interface: int, count: int) -> None:
        """Note that a ring lost packets."""
        if count:
            self._drops.append((now_ns, interface, count))

    def poll(self, now_ns: int, settled_ns: int) -> None:
        """Look for triggers; start writing one whose window has ended before `settled_ns`."""
        asked, wrong = take_requests(self._triggers)
        for problem in wrong:
            log.warning("a trigger cannot be read", problem=problem)
        for trigger in asked:
            self.ask(trigger)
        # A trigger far in the future would pin the buffer for ever.
        self._waiting = [t for t in self._waiting if t.at_ns < now_ns + self._longest_ns]
        self.recorder.pinned_ns = min((t.at_ns - t.before_ns for t in self._waiting), default=None)
        if self._writing is not None:
            if self._writing.is_alive():
                return
            self._finished()
        ready = next((t for t in self._waiting if t.at_ns + t.after_ns < settled_ns), None)
        if ready is not None:
            self._start(ready)

    def _finished(self) -> None:
        self._waiting = [t for t in self._waiting if t is not self._current]
        self._writing = self._current = None

    def close(self) -> None:
        """Write what has been asked for, as far as it is there, and delete the buffer."""
        if self._writing is not None:
            self._writing.join(30.0)
            self._finished()
        for trigger in list(self._waiting):
            self._write(trigger, self.recorder.segments())
        self.recorder.close()
        with contextlib.suppress(OSError):  # somebody may ask at this very moment; nobody listens any more
            for path in self._triggers.glob("*"):
                path.unlink(missing_ok=True)
            self._triggers.rmdir()

    def _start(self, trigger: Trigger) -> None:
        segments = [Segment(s.path, s.first_ns, s.last_ns, s.size) for s in self.recorder.segments()]

        def write() -> None:
            self._write(trigger, segments)

        self._current = trigger
        self._writing = threading.Thread(target=write, name="capture", daemon=True)
        self._writing.start()

    def _write(self, trigger: Trigger, segments: Sequence[Segment]) -> None:
        window = Window(trigger.at_ns - trigger.before_ns, trigger.at_ns + trigger.after_ns, trigger.reason)
        dropped = [0] * len(self._interfaces)
        for at_ns, interface, count in list(self._drops):
            if window.from_ns <= at_ns < window.to_ns:
                dropped[interface] += count
        try:
            done = write_capture(
                segments,
                window,
                self._captures / trigger.file_name,
                self._interfaces,
                self._snap,
                self._settings.kept_bytes,
                dropped,
            )
            keep_newest(self._captures, self._settings.kept_bytes, self._settings.kept_files)
        except OSError as error:
            log.warning("a capture cannot be written", reason=trigger.reason, error=str(error))
        else:
            self.written += 1
            log.info("capture kept", file=str(done.path), packets=done.packets, bytes=done.bytes, cut=done.cut)
