"""The engine's part in an experiment: which order waits how long, told to a file; and the waiting itself.

Whoever ordered it may be gone: the engine ends an experiment by itself when its time is over, its budget is used, the
kill file is there or the assignments cannot be written. A delayed order waits beside the others, so that no other waits
for it.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable

import msgspec

from api.demo.experiments import (
    CONTROL,
    DELAYED,
    HEADER,
    Experiment,
    ExperimentError,
    Experiments,
    Tally,
    checked,
    empty,
    over,
)
from api.demo.stopping import Stop

_POLL_S = 0.05
_SILENT_NS = 2_000_000_000  # who is not watched delays nobody
MOST_UNTOLD = 100_000  # assignments in memory

log = logging.getLogger(__name__)


class Trial:
    """Assigns orders to the arms of the experiment that runs. `look` is called several times a second."""

    def __init__(self, experiments: Experiments) -> None:
        self._experiments = experiments
        self._lock = threading.Lock()
        self._ordered: list[Experiment] = []
        self._running: Experiment | None = None
        self._tally: Tally | None = None
        self._untold: list[str] = []
        self._past: set[str] = set()  # known to be over
        self._looked_ns = 0

    def dose_ns(self, key: int, now_ns: int) -> int:
        """Assign the order with this key; how long it waits, 0 in the control arm and without an experiment."""
        if self._running is None:
            return 0
        with self._lock:
            one, tally = self._running, self._tally
            if one is None or tally is None or now_ns < one.start_ns or over(one, tally, now_ns):
                return 0
            if now_ns - self._looked_ns > _SILENT_NS:  # nobody would see the kill file
                return 0
            if len(self._untold) >= MOST_UNTOLD:
                self._tally = _ended(tally, now_ns, "assignments come faster than they are written")
                return 0
            waits = one.delays(key)
            arm, dose_ms = (DELAYED, one.dose_ms) if waits else (CONTROL, 0.0)
            self._untold.append(f"{one.id},{arm},0x{key:016x},{dose_ms:g},{now_ns}\n")
            self._tally = msgspec.structs.replace(
                tally, delayed=tally.delayed + waits, control=tally.control + (not waits)
            )
            return one.dose_ns if waits else 0

    def look(self, now_ns: int) -> None:
        """Take notice of orders and stop rules, and tell what was assigned."""
        self._looked_ns = now_ns
        found = self._experiments.changed()
        if found is not None:
            self._ordered = found
        with self._lock:
            if self._running is not None:
                self._running = next((one for one in self._ordered if one.id == self._running.id), None)
            if self._running is None:
                self._begin(now_ns)
            one, before = self._running, self._tally
            if one is None or before is None:
                return
            told, self._untold = self._untold, []
            why = over(one, before, now_ns, killed=self._experiments.killed)
            if why and before.ended_ns is None:
                self._tally = _ended(before, min(now_ns, max(one.end_ns, one.start_ns)), why)
            tally = self._tally
            if why:
                self._running = None
                self._past.add(one.id)
        try:
            if told:
                with self._experiments.journal(one.id).open("a", encoding="ascii") as file:
                    file.write("".join(told))
            if told or why:
                self._experiments.tell(tally or before)
        except OSError as error:
            log.warning("the experiment %s ends: %s", one.id, error)
            with self._lock:
                self._running, self._tally = None, None
                self._past.add(one.id)
            with contextlib.suppress(OSError):  # it has ended for us anyway
                self._experiments.stop(one.id, f"assignments cannot be written: {error}", now_ns)

    def _begin(self, now_ns: int) -> None:
        self._untold = []
        for one in self._ordered:
            if one.id in self._past or now_ns < one.start_ns:
                continue
            if over(one, self._experiments.tally(one), now_ns, killed=self._experiments.killed):
                self._past.add(one.id)
                continue
            try:
                self._tally = self._counted(checked(one))  # whoever wrote the file
            except (OSError, ExperimentError) as error:
                log.warning("the experiment %s does not begin: %s", one.id, error)
                self._past.add(one.id)
                continue
            self._running = one
            return

    def _counted(self, one: Experiment) -> Tally:
        """What the file holds: after a restart of the engine the budget is what is left of it."""
        file = self._experiments.journal(one.id)
        if not file.exists():
            file.write_text(HEADER, encoding="ascii")
            return empty(one)
        with file.open("r+b") as cut:  # what was cut off when the engine was killed is no assignment
            whole = file.read_bytes().rfind(b"\n") + 1
            cut.truncate(whole)
        with file.open(encoding="ascii") as lines:
            arms = [line.split(",", 2)[1] for line in itertools.islice(lines, 1, None)]
        delayed = arms.count(DELAYED)
        return msgspec.structs.replace(empty(one), delayed=delayed, control=len(arms) - delayed)


def _ended(tally: Tally, now_ns: int, why: str) -> Tally:
    return msgspec.structs.replace(tally, ended_ns=now_ns, why=why)


def watched(trial: Trial, stop: Stop) -> threading.Thread:
    """A thread that looks 20 times a second until `stop`, and once more; it has been started."""

    def run() -> None:
        while not stop:
            trial.look(time.time_ns())
            time.sleep(_POLL_S)
        trial.look(time.time_ns())

    thread = threading.Thread(target=run, name="experiments", daemon=True)
    thread.start()
    return thread


class Waiting:
    """Orders that wait for their time, in a thread of their own; they go on in the order of their times."""

    def __init__(self) -> None:
        self._due: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="waiting", daemon=True)

    def start(self) -> None:
        """From now on what is put goes on in time."""
        self._thread.start()

    def put(self, at_ns: int, go_on: Callable[[], None]) -> None:
        """Have `go_on` called when CLOCK_MONOTONIC says `at_ns`."""
        with self._changed:
            heapq.heappush(self._due, (at_ns, next(self._numbers), go_on))
            self._changed.notify()

    def close(self) -> None:
        """Let go on at once what waits still."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout=2)

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._due:
                    if self._closed:
                        return
                    self._changed.wait()
                    continue
                left_ns = self._due[0][0] - time.monotonic_ns()
                if left_ns > 0 and not self._closed:
                    self._changed.wait(left_ns * 1e-9)
                    continue
                _, _, go_on = heapq.heappop(self._due)
            go_on()
