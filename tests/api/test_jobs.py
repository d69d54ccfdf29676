from __future__ import annotations

import threading
import time

import pytest

from api.control import Control
from api.jobs import FAILING_RUNS, Job, Jobs


def test_a_failing_job_is_counted_and_runs_again(control: Control) -> None:
    ran = threading.Semaphore(0)
    fails = iter([True, True, False])

    def work() -> int:
        ran.release()
        if next(fails, False):
            raise RuntimeError("the store is away")
        return 2

    jobs = Jobs(control, [Job("windows", 0.01, work)])
    jobs.start()
    for _ in range(5):
        assert ran.acquire(timeout=10)
    jobs.stop(5)
    state = jobs.states["windows"]
    assert state.runs >= 5
    assert state.errors == 2
    assert state.done == 2 * (state.runs - 2)
    assert state.last_error == ""
    assert state.last_seconds is not None


def test_a_pause_holds_over_a_restart(control: Control) -> None:
    job = Job("windows", 0.01, lambda: 1)
    assert Jobs(control, [job]).pause("windows", True).paused
    jobs = Jobs(control, [job])
    assert jobs.states["windows"].paused
    jobs.start()
    jobs.stop(5)
    assert jobs.states["windows"].runs == 0
    jobs.pause("windows", False)
    assert not Jobs(control, [job]).states["windows"].paused
    with pytest.raises(KeyError, match="windows"):
        jobs.pause("nothing", True)


def test_a_job_that_never_succeeds_is_late(control: Control) -> None:
    def fail() -> int:
        raise RuntimeError("no")

    jobs = Jobs(control, [Job("bad", 1.0, fail), Job("good", 1.0, lambda: 1)])
    assert jobs.late(time.time_ns()) == []  # nothing has run yet
    jobs.run_once("bad")
    jobs.run_once("good")
    assert jobs.late(time.time_ns()) == ["bad"]
    assert "RuntimeError: no" in jobs.states["bad"].last_error
    assert jobs.late(time.time_ns() + 60 * 10**9) == ["bad", "good"]
    jobs.pause("bad", True)
    assert jobs.late(time.time_ns()) == []


def test_a_job_fails_again_and_again_before_it_counts_as_failing(control: Control) -> None:
    errors = iter([RuntimeError("no")] * FAILING_RUNS)

    def work() -> int:
        if error := next(errors, None):
            raise error
        return 1

    jobs = Jobs(control, [Job("windows", 1.0, work)])
    for _ in range(FAILING_RUNS - 1):
        jobs.run_once("windows")
    assert jobs.failing() == []
    jobs.run_once("windows")
    assert jobs.failing() == ["windows"]
    jobs.pause("windows", True)
    assert jobs.failing() == []
    jobs.pause("windows", False)
    jobs.run_once("windows")
    assert jobs.failing() == []
    assert jobs.states["windows"].errors_in_a_row == 0
