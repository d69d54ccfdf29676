from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from api.control import Control
from tests.api.live import Live, running

TOML = """
[paths.order]
max_age = "1s"
[[paths.order.stages]]
name = "decide"
from = {point = "app_ingress"}
to = {point = "app_decision"}
"""


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    control = Control(tmp_path / "control.sqlite")
    yield control
    control.close()


@pytest.fixture(scope="session")
def plain_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """One server with default settings for all tests that leave it as it is; starting one takes a second or more."""
    with running(tmp_path_factory.mktemp("plain"), TOML) as live:
        yield live
