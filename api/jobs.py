"""Scheduled work in the server: each job has a thread, a period, a pause switch and a record of how it goes.

A job never ends because it failed: the error is logged, counted and shown, and the job runs again at its next time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from api.control import Control
from collector.log import logger

_log = logger("jobs")
FAILING_RUNS = 5  # one failure is a hiccup of the store; so many in a row will not mend themselves


@dataclass(frozen=True, slots=True)
class Job:
    """What to run and how often. `run` returns how much it did, for the log."""

    name: str
    period_s: float
    run: Callable[[], int]


@dataclass(slots=True)
class JobState:
    """How a job goes. Times are wall-clock nanoseconds, None before the first run."""

    name: str
    period_s: float
    paused: bool = False
    runs: int = 0
    errors: int = 0
    errors_in_a_row: int = 0
    done: int = 0
    last_start_ns: int | None = None
    last_success_ns: int | None = None
    last_seconds: float | None = None
    last_error: str = ""
    began_ns: int = field(default_factory=time.time_ns)  # a first run that is under way is not late


class Jobs:
    """Runs jobs until `stop`."""

    def __init__(self, control: Control, jobs: Sequence[Job]) -> None:
        self._control = control
        self._jobs = {job.name: job for job in jobs}
        paused = {row["name"] for row in control.rows("SELECT name FROM jobs WHERE paused = 1")}
        self.states = {job.name: JobState(job.name, job.period_s, job.name in paused) for job in jobs}
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._running = {job.name: threading.Lock() for job in jobs}

    def start(self) -> None:
        """Start one thread per job."""
        for job in self._jobs.values():
            thread = threading.Thread(target=self._loop, args=(job,), name=f"job-{job.name}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self, timeout_s: float) -> None:
        """Let running jobs finish and start no more; waits at most `timeout_s` for all together."""
        self._stop.set()
        end = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def pause(self, name: str, paused: bool) -> JobState:
        """Pause or resume a job; remembered over restarts. Raises KeyError with the known names."""
        if name not in self.states:
            raise KeyError(f"there is no job {name!r}; there are {', '.join(self.states)}")
        with self._control.transaction() as db:
            db.execute(
                "INSERT INTO jobs VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET paused = excluded.paused",
                (name, int(paused)),
            )
        self.states[name].paused = paused
        return self.states[name]

    def run_once(self, name: str) -> None:
        """Run a job now in this thread; errors are recorded, never raised."""
        job, state = self._jobs[name], self.states[name]
        with self._running[name]:
            state.last_start_ns = time.time_ns()
            started = time.monotonic()
            state.runs += 1
            try:
                state.done += job.run()
            except Exception as error:  # noqa: BLE001 - a job must not end because one run failed
                state.errors += 1
                state.errors_in_a_row += 1
                state.last_error = f"{type(error).__name__}: {error}"[:500]
                _log.warning("job_failed", job=name, error=state.last_error, exc_info=state.errors == 1)
            else:
                state.last_success_ns = time.time_ns()
                state.errors_in_a_row = 0
                state.last_error = ""
            state.last_seconds = time.monotonic() - started

    def failing(self) -> list[str]:
        """Jobs that are not paused and have failed again and again."""
        return [s.name for s in self.states.values() if not s.paused and s.errors_in_a_row >= FAILING_RUNS]

    def late(self, now_ns: int) -> list[str]:
        """Jobs that are not paused and have not succeeded for 30 s and 10 of their periods: they fail, or catch up."""
        return [
            s.name
            for s in self.states.values()
            if not s.paused
            and s.last_start_ns is not None
            and now_ns - (s.last_success_ns or (0 if s.errors else s.began_ns)) > max(30.0, 10 * s.period_s) * 1e9
        ]

    def _loop(self, job: Job) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            if not self.states[job.name].paused:
                self.run_once(job.name)
            # A run longer than its period is followed by the next at once, and the missed ones are not made up.
            due = max(due + job.period_s, time.monotonic())
            self._stop.wait(due - time.monotonic())
