"""`tailsight up` itself: hold the directory, start, watch, show, stop."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from api.up.figures import Figures, Poller
from api.up.hold import Hold, Note, locked
from api.up.programs import Program
from api.up.supervisor import Event, Supervisor, pids, restarts

_SHOW_S = 0.5


class Display:
    """What `run_up` tells its user; the defaults say nothing."""

    def event(self, event: Event) -> None:
        """A program started, died or stopped."""

    def refresh(self, supervisor: Supervisor, figures: Figures) -> None:
        """Draw what there is now; called twice a second."""

    def close(self) -> None:
        """Give the terminal back."""


@dataclass(frozen=True, slots=True)
class Summary:
    """How a session went, for `--json` and for the last lines on a terminal."""

    url: str
    seconds: float
    restarts: dict[str, int]
    killed: list[str]
    figures: Figures


@dataclass(slots=True)
class Asked:
    """Signals received: the first asks for a clean stop, the second for haste."""

    stops: int = 0

    def count(self, _number: int, _frame: FrameType | None) -> None:
        """Handle one signal."""
        self.stops += 1


@contextlib.contextmanager
def signals(asked: Asked) -> Iterator[socket.socket]:
    """Count SIGINT and SIGTERM, and wake the returned socket's reader on them and on SIGCHLD."""
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    before = {number: signal.signal(number, asked.count) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
    woken = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            signal.signal(number, handler)
        reader.close()
        writer.close()


def run_up(
    hold: Hold,
    programs: list[Program],
    url: str,
    display: Display,
    poller: Poller | None,
    log: Callable[[Event], None],
    *,
    until: Callable[[float, Figures], bool] = lambda _seconds, _figures: False,
    replan: Callable[[], Sequence[Program] | None] = lambda: None,
    draining: Callable[[], None] = lambda: None,
) -> Summary:
    """Run `programs` until a signal comes or `until(seconds, figures)` is true; stops them in order and sums up.

    `replan` is asked several times a second what is to run from now on, None: what runs already;
    `draining` is called before they are stopped.
    """
    asked = Asked()
    started_s, started_ns = time.monotonic(), time.time_ns()

    def on_event(event: Event) -> None:
        log(event)
        hold.write(
            Note(
                pid=os.getpid(),
                url=url,
                started_ns=started_ns,
                programs=pids(supervisor.slots),
                restarts=restarts(supervisor.slots),
            )
        )
        display.event(event)

    supervisor = Supervisor(programs, on_event)
    figures = Figures()
    with signals(asked) as waker:
        try:
            supervisor.start()
            if poller:
                poller.start()
            shown_s = 0.0
            while not asked.stops:
                if (plan := replan()) is not None:
                    supervisor.replace(plan)
                supervisor.tick()
                figures = poller.latest if poller else figures
                seconds = time.monotonic() - started_s
                if until(seconds, figures):
                    break
                if time.monotonic() - shown_s >= _SHOW_S:
                    shown_s = time.monotonic()
                    display.refresh(supervisor, figures)
                due = supervisor.next_due_s()
                select.select([waker], [], [], min(_SHOW_S, _SHOW_S if due is None else due))
                with contextlib.suppress(BlockingIOError):
                    waker.recv(4096)
        finally:
            if poller:
                poller.stop()
                figures = poller.latest
            draining()
            first = max(asked.stops, 1)
            killed = supervisor.stop(hurry=lambda: asked.stops > first)
            display.close()
    seconds = round(time.monotonic() - started_s, 3)
    return Summary(url, seconds, restarts(supervisor.slots), killed, figures)


def server_runs(data: Path) -> bool:
    """Whether a server that is not ours holds the directory."""
    return locked(data / "server.lock")


@contextlib.contextmanager
def event_log(file: Path) -> Iterator[Callable[[Event], None]]:
    """Append what happens to the programs to `file`, one JSON object a line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as stream:

        def log(event: Event) -> None:
            line = {"ts_ns": time.time_ns(), "event": event.kind, "program": event.program, "pid": event.pid}
            stream.write(json.dumps({**line, "detail": event.detail}) + "\n")
            stream.flush()

        yield log
