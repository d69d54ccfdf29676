"""What every test shares: where real data lies, and that in CI a missing package is a failure."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The default run is deterministic; `pytest --hypothesis-profile explore` looks for new examples.
settings.register_profile("default", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("explore", max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")

# A skip whose reason starts so is one that an installed package would lift (tests/needs.py writes it).
NEEDS_PACKAGE = "needs the package"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real captures and files, named by TAILSIGHT_REAL_DATA."""
    folder = os.environ.get("TAILSIGHT_REAL_DATA", "")
    if not folder:
        pytest.skip("TAILSIGHT_REAL_DATA names no folder of real captures and files")
    path = Path(folder)
    assert path.is_dir(), f"TAILSIGHT_REAL_DATA={folder} is not a folder"
    return path


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and os.environ.get("CI") == "true" and isinstance(report.longrepr, tuple):
        reason = str(report.longrepr[2]).removeprefix("Skipped: ")
        if reason.startswith((NEEDS_PACKAGE, "TAILSIGHT_REAL_DATA")):
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} was skipped in CI: {reason}. Add the package to .ci/run"
    return report
