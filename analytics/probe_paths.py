"""The paths of synthetic checks: `[probes.NAME]` gives the path `probe.NAME`, its phases are the stages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analytics.paths import End, Path, Stage, StageClass, paths_from
from collector.points import Point
from collector.probes.settings import ENDS, LAST, NS, START, Check, checks_from

_COMPUTE = ("tls", "first_byte", "logon")  # the other side works; the rest is the network


def declared_paths(document: Mapping[str, Any], points: Mapping[str, Point], source: str = "") -> dict[str, Path]:
    """The paths of `[paths.NAME]`, and of each check that has none of its own. Raises ConfigError."""
    own = paths_from(document, points, source)
    made = {path.name: path for path in (path_of(name, one) for name, one in checks_from(document, source).items())}
    return {**made, **own}


def path_of(name: str, check: Check) -> Path:
    """The path of a check: it begins at the intended time, and what has no end by its timeout is unfinished."""
    stages, before = [], START
    for phase in check.phases:
        after = LAST if phase == check.phases[-1] else ENDS[phase]
        kind: StageClass = "compute" if phase in _COMPUTE else "network"
        stages.append(Stage(name=phase, start=End(point=before), end=End(point=after), kind=kind))
        before = after
    first, last = End(point=START, service=f"probe-{name}"), End(point=LAST, service=f"probe-{name}")
    # Stamps are handed over when the check has ended, up to a timeout after its start, and a poll later.
    age_ns = check.ns("timeout") + 2 * NS
    return Path(
        name=f"probe.{name}", max_age=f"{age_ns}ns", stages=stages, description=f"{check.kind} check of {check.target}",
        first=first, last=last,
    )  # fmt: skip
