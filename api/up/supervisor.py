"""Keeps a set of programs running: starts them, starts a dead one again, stops them in order.

Single-threaded: the owner calls `tick()` often (and on SIGCHLD), which reaps and restarts. The first restart of a
program comes `FIRST_DELAY_S` after its death, each further one twice as late up to `MAX_DELAY_S`; a program that has
lived `STEADY_S` starts over. What is to run may change (`replace`): that is no death, and not counted as one. Processes
are started from the calling thread, whose end would end them (see `leash`): call everything from the main thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from api.up.programs import Process, Program, exit_reason, last_words

FIRST_DELAY_S = 0.1
MAX_DELAY_S = 5.0
STEADY_S = 5.0
_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a program: started, exited, restarting, stopped, killed."""

    kind: str
    program: str
    pid: int
    detail: str = ""


@dataclass(slots=True)
class Slot:
    """One program and its present process, None between a death and the restart."""

    program: Program
    process: Process | None = None
    started_s: float = 0.0
    restarts: int = 0
    delay_s: float = FIRST_DELAY_S
    due_s: float = 0.0
    last_exit: str = ""
    next: Program | None = None  # what follows once the present process has ended as it was asked to
    leaving_s: float | None = None  # until when it may take its time to do so


class Supervisor:
    """Runs `programs` until `stop()`. `on_event` is told what happens, from within `start`, `tick` and `stop`."""

    def __init__(
        self,
        programs: Sequence[Program],
        on_event: Callable[[Event], None] = lambda _: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.slots = [Slot(program) for program in programs]
        self._on_event = on_event
        self._now = now

    def start(self) -> None:
        """Start every program, in the order given."""
        for slot in self.slots:
            self._start(slot)

    def replace(self, programs: Sequence[Program]) -> None:
        """Let these programs run from now on: new ones start, changed ones stop and start again, others stop.

        It does not wait: `tick` sees to the rest.
        """
        wanted = {program.name: program for program in programs}
        for slot in self.slots:
            program = wanted.pop(slot.program.name, None)
            meant = slot.next if slot.leaving_s is not None else slot.program
            if program == meant:
                continue
            slot.next = program
            if slot.leaving_s is None:
                slot.leaving_s = self._now() + slot.program.stop_s
                if slot.process is not None:
                    slot.process.terminate()
        for program in wanted.values():
            self.slots.append(Slot(program))
            self._start(self.slots[-1])

    def tick(self) -> None:
        """Reap what has died, and start what is due again."""
        now = self._now()
        for slot in list(self.slots):
            if slot.leaving_s is not None:
                self._leave(slot, now)
                continue
            if slot.process is not None:
                code = slot.process.exit_code()
                if code is not None:
                    self._died(slot, slot.process, code, now)
            if slot.process is None and now >= slot.due_s:
                slot.restarts += 1
                self._start(slot)

    def next_due_s(self) -> float | None:
        """Seconds until a restart is due, None when none is pending."""
        pending = [slot.due_s for slot in self.slots if slot.process is None and slot.leaving_s is None]
        return max(0.0, min(pending) - self._now()) if pending else None

    def stop(self, hurry: Callable[[], bool] = lambda: False) -> list[str]:
        """Stop all programs, highest phase first; returns the names of those that had to be killed.

        `hurry` is asked while waiting: True (a second Ctrl-C) kills the rest at once.
        """
        killed: list[str] = []
        for phase in sorted({slot.program.phase for slot in self.slots}, reverse=True):
            running = [slot for slot in self.slots if slot.program.phase == phase and slot.process is not None]
            for slot in running:
                if slot.process:
                    slot.process.terminate()
            killed += [slot.program.name for slot in running if self._ended(slot, hurry) is False]
        return killed

    def _leave(self, slot: Slot, now: float) -> None:
        """Once the process has ended, start what follows it; kill it when it takes too long."""
        process = slot.process
        if process is not None and (code := process.exit_code()) is None:
            if slot.leaving_s is not None and now >= slot.leaving_s:
                process.kill_group()
            return
        slot.process, slot.leaving_s = None, None
        if slot.next is None:
            self.slots.remove(slot)
        if process is not None and code is not None:
            process.kill_group()  # what it may have left behind
            self._on_event(Event("stopped", slot.program.name, process.pid, exit_reason(code)))
        if slot.next is not None:
            slot.program, slot.next, slot.delay_s = slot.next, None, FIRST_DELAY_S
            self._start(slot)

    def _start(self, slot: Slot) -> None:
        slot.process = Process(slot.program)
        slot.started_s = self._now()
        self._on_event(Event("started", slot.program.name, slot.process.pid))

    def _died(self, slot: Slot, process: Process, code: int, now: float) -> None:
        if now - slot.started_s >= STEADY_S:
            slot.delay_s = FIRST_DELAY_S
        slot.last_exit = exit_reason(code)
        slot.process = None
        slot.due_s = now + slot.delay_s
        detail = f"{slot.last_exit}; starting again in {slot.delay_s:g} s"
        if code > 0 and (said := last_words(slot.program.log)):
            detail += f"; it said: {said}"
        slot.delay_s = min(2 * slot.delay_s, MAX_DELAY_S)
        self._on_event(Event("exited", slot.program.name, process.pid, detail))

    def _ended(self, slot: Slot, hurry: Callable[[], bool]) -> bool:
        """Wait for a terminated program and its group; False when it had to be killed."""
        process = slot.process
        if process is None:
            return True
        deadline = self._now() + slot.program.stop_s
        while self._now() < deadline and not hurry():
            code = process.exit_code()
            if code is not None and not process.group_alive():
                slot.process = None
                self._on_event(Event("stopped", slot.program.name, process.pid, exit_reason(code)))
                return True
            time.sleep(_POLL_S)
        process.kill_group()
        while process.exit_code() is None:
            time.sleep(_POLL_S)
        slot.process = None
        self._on_event(Event("killed", slot.program.name, process.pid, f"did not end in {slot.program.stop_s:g} s"))
        return False


def pids(slots: Iterable[Slot]) -> dict[str, int]:
    """Program name to process id, of those that run now."""
    return {slot.program.name: slot.process.pid for slot in slots if slot.process is not None}


def restarts(slots: Iterable[Slot]) -> dict[str, int]:
    """Program name to how often it was started again."""
    return {slot.program.name: slot.restarts for slot in slots}
