"""What `/readyz` says of jobs that are late and of jobs that fail, over a real store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from api import state
from api.control import Control
from api.jobs import FAILING_RUNS, Job, Jobs
from api.routes.health import readiness
from api.server_settings import ServerSettings
from api.state import State
from api.store_guard import GuardedStore
from collector.landing import Landing
from collector.store.embedded import open_embedded


@pytest.fixture
def here(tmp_path: Path, control: Control) -> Iterator[State]:
    store = GuardedStore(lambda: open_embedded(tmp_path))
    store.open()
    here = state.build(ServerSettings(), store, control, {}, Landing(store, {}))
    here.migrated = True
    yield here
    here.pool.shutdown()
    store.close()


def test_late_is_degraded_and_failing_again_and_again_is_not_ready(here: State, control: Control) -> None:
    assert not readiness(here).ready  # no job has been started
    errors = iter([RuntimeError("the table is gone")] * FAILING_RUNS)

    def work() -> int:
        if error := next(errors, None):
            raise error
        return 1

    here.jobs = Jobs(control, [Job("windows", 1.0, work)])
    assert (readiness(here).ready, readiness(here).degraded) == (True, [])
    here.jobs.run_once("windows")
    report = readiness(here)
    assert (report.ready, report.degraded) == (True, ["jobs behind: windows"])
    while here.jobs.states["windows"].errors < FAILING_RUNS:
        here.jobs.run_once("windows")
    report = readiness(here)
    assert not report.ready
    assert [(check.name, check.detail) for check in report.checks if not check.ok] == [("jobs", "failing: windows")]
    here.jobs.run_once("windows")
    report = readiness(here)
    assert (report.ready, report.degraded) == (True, [])
