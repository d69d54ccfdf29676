"""From the analytics' values to what answers show: completeness, paths, stages and rollups by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from analytics.completeness import Share, asked, completeness
from analytics.paths import END_TO_END, Path
from api.problems import ProblemError, bad_parameter
from api.state import State


def path_of(state: State, name: str) -> Path:
    """The configured path. Raises a 422 problem with the known names."""
    if name not in state.paths:
        raise bad_parameter(
            "path", f"there is no path {name[:64]!r}; there are {', '.join(sorted(state.paths)) or 'none'}"
        )
    return state.paths[name]


def check_stage(path: Path, stage: str | None) -> str | None:
    """The stage, if the path has it. Raises a 422 problem with the known names."""
    if stage is not None and stage not in path.stage_names:
        raise bad_parameter(
            "stage", f"path {path.name} has no stage {stage[:64]!r}; it has {', '.join(path.stage_names)}"
        )
    return stage


def check_rollup(path: Path, rollup: str) -> str:
    """A rollup `label=value` whose label the path counts, or "". Raises a 422 problem.

    Messages that are not users' are counted by their mode on every path.
    """
    if rollup and rollup not in ("mode=shadow", "mode=synthetic"):
        label, equals, _ = rollup.partition("=")
        if not equals or label not in path.rollup:
            known = ", ".join(f"{name}=..." for name in path.rollup) or "none"
            raise bad_parameter("rollup", f"{rollup[:80]!r} is not counted for path {path.name}; it counts {known}")
    return rollup


def shown(value: Share) -> dict[str, Any]:
    """Completeness as answers have it."""
    return {
        "share": value.share,
        "produced": value.produced,
        "missing": value.missing,
        "waiting_for": list(value.waiting_for),
        "known_to_ns": value.known_to_ns,
        "known_share": value.known_share,
    }


def completeness_of(state: State, from_ns: int, to_ns: int) -> dict[str, Any]:
    """The completeness of a time, for the answer about it."""
    return shown(completeness(state.reader, from_ns, to_ns)[0])


def completeness_soon(state: State, from_ns: int, to_ns: int) -> Callable[[], dict[str, Any]]:
    """The same, asked now and told when it is called: the answer itself is computed meanwhile."""
    soon = asked(state.reader, from_ns, to_ns)
    return lambda: shown(soon()[0])


def plain(value: Any) -> dict[str, Any]:
    """A struct as plain values."""
    built: dict[str, Any] = msgspec.to_builtins(value)
    return built


def bounded(state: State, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, if they are not more than an answer may have. Raises a 422 problem."""
    if len(rows) > state.settings.max_rows:
        most = state.settings.max_rows
        detail = f"more than {most} rows: use a larger step, less time or a narrower question"
        raise ProblemError(422, "too-many-rows", detail)
    return rows


WHOLE = END_TO_END
