from __future__ import annotations

from typing import Any

import pytest

from collector.sched.settings import SchedulerSettings
from collector.settings import ConfigError, section


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"threshold": "soon"}, "scheduler.threshold"),
        ({"report": "0s"}, "report"),
        ({"ring_mib": 3}, "ring_mib"),
        ({"groups": 1}, "groups"),
        ({"observe": "pids"}, "pids"),
        ({"pids": [1]}, "pids"),
        ({"observe": "cgroup"}, "cgroup"),
        ({"mechanism": "magic"}, "mechanism"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(body: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=field.rpartition(".")[2]):
        section(body, SchedulerSettings, "scheduler")


def test_the_defaults_are_valid() -> None:
    assert section({}, SchedulerSettings, "scheduler") == SchedulerSettings()
