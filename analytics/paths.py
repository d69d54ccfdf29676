"""Paths: the ordered stages of one kind of message, read from `[paths.NAME]` of the configuration.

A stage lies between two ends; an end is a point, perhaps of one service, at its first or last occurrence. Every stage
says in one sentence which two events it lies between; dashboards and reports repeat that sentence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from collector.points import Point
from collector.settings import ConfigError, Section, duration_ns, section

StageClass = Literal["network", "compute", "store", "queue", "scheduler"]
Which = Literal["first", "last"]

END_TO_END = "end_to_end"
UNATTRIBUTED = "unattributed"
MAX_HOPS = 8
MAX_STAGES = 60  # a message's repeated stages are bits of one integer
_DAY_NS = 86_400_000_000_000
_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


class End(Section, frozen=True, kw_only=True):
    """One end of a stage: the first or last stamp of a message at a point, of one service or of any."""

    point: str
    service: str = ""
    which: Which = "first"

    @property
    def sentence(self) -> str:
        """This event in words."""
        return f"the {self.which} {self.point}" + (f" in {self.service}" if self.service else "")


class Stage(Section, frozen=True, kw_only=True, rename={"kind": "class", "start": "from", "end": "to"}):
    """The latency between two ends. `kind` is written `class` in the file, `start` and `end` are `from` and `to`."""

    name: str
    start: End
    end: End
    kind: StageClass = "compute"
    budget: str = ""
    description: str = ""

    def validate(self) -> None:
        """Raise ConfigError when the name is reserved or malformed, the budget no duration, or both ends are one."""
        if not _NAME.fullmatch(self.name):
            raise ConfigError("name", f"{self.name!r} must be lower case letters, digits, '_', '-' and '.', at most 64")
        if self.name in (END_TO_END, UNATTRIBUTED):
            raise ConfigError("name", f"{self.name!r} is added to every path by itself; choose another name")
        if self.budget and duration_ns(self.budget, "budget") <= 0:
            raise ConfigError("budget", f"{self.budget!r} must be longer than nothing")
        if self.start == self.end:
            raise ConfigError(
                "to", "is the same end as `from`: the stage would always be 0; use another point or which"
            )

    @property
    def budget_ns(self) -> int | None:
        """The budget in nanoseconds, None where there is none."""
        return duration_ns(self.budget, "budget") if self.budget else None

    @property
    def sentence(self) -> str:
        """Which two events the stage lies between."""
        return f"from {self.start.sentence} to {self.end.sentence}"


class Path(Section, frozen=True, kw_only=True):
    """The stages of one kind of message, and what makes stamps one message.

    `max_age` separates reused keys; a message without its last end after it is unfinished. `skew` is how much earlier
    than its start a stamp may claim to be (clocks of other hosts). `unlinked` says what a first end is that no link
    leaves on a path with hops and that states no bad outcome: most ticks lead to no order and are `ignored`.
    `value_error` is what the source's own buckets add to every value, as a share of it: 0 for stamps. `revenue_node` is
    the part of the business whose measures (`[kpis.NAME] node`) the path's latency can move; empty: none is named.
    """

    name: str
    max_age: str
    stages: list[Stage]
    description: str = ""
    hops: int = 0
    conflation: Which = "last"
    unlinked: Literal["ignored", "unfinished"] = "ignored"
    skew: str = ""
    rollup: tuple[str, ...] = ()
    first: End | None = None
    last: End | None = None
    value_error: float = 0.0
    revenue_node: str = ""

    def validate(self) -> None:
        """Raise ConfigError that names the field which makes no sense."""
        if not _NAME.fullmatch(self.name):
            raise ConfigError("name", f"{self.name!r} must be lower case letters, digits, '_', '-' and '.', at most 64")
        if not 0 < duration_ns(self.max_age, "max_age") <= _DAY_NS:
            raise ConfigError("max_age", f"{self.max_age!r} must be longer than nothing and at most a day")
        if self.skew and duration_ns(self.skew, "skew") > self.max_age_ns:
            raise ConfigError("skew", f"{self.skew!r} is longer than max_age {self.max_age!r}; make it shorter")
        if not 0 <= self.value_error <= 1:
            raise ConfigError("value_error", f"must be a share from 0 to 1, got {self.value_error}")
        if not 0 <= self.hops <= MAX_HOPS:
            raise ConfigError("hops", f"must be 0 to {MAX_HOPS}, got {self.hops}")
        if not 1 <= len(self.stages) <= MAX_STAGES:
            raise ConfigError("stages", f"a path has 1 to {MAX_STAGES} stages, got {len(self.stages)}")
        for index, stage in enumerate(self.stages):
            try:
                stage.validate()
            except ConfigError as error:
                raise ConfigError(f"stages[{index}].{error.field}", error.problem) from error
            if stage.name in {s.name for s in self.stages[:index]}:
                raise ConfigError(f"stages[{index}].name", f"{stage.name!r} is used twice; stage names are unique")
        if self.first_end.which != "first":
            raise ConfigError(
                "first.which", 'a message starts at the first stamp of its first end; set which = "first"'
            )
        if self.first_end == self.last_end:
            raise ConfigError("last", "is the same end as the first: every message would last 0; name another end")
        for index, name in enumerate(self.rollup):
            if not _LABEL.fullmatch(name):
                raise ConfigError(f"rollup[{index}]", f"{name!r} is no label name; use letters, digits, '_', '.', '-'")
            if name in self.rollup[:index]:
                raise ConfigError(f"rollup[{index}]", f"{name!r} is listed twice")

    @property
    def first_end(self) -> End:
        """Where a message starts."""
        return self.first or self.stages[0].start

    @property
    def last_end(self) -> End:
        """Where a message is finished."""
        return self.last or self.stages[-1].end

    @property
    def max_age_ns(self) -> int:
        """`max_age` in nanoseconds."""
        return duration_ns(self.max_age, "max_age")

    @property
    def skew_ns(self) -> int:
        """`skew` in nanoseconds: 100 ms unless set, and never more than `max_age`."""
        return duration_ns(self.skew, "skew") if self.skew else min(100_000_000, self.max_age_ns)

    @property
    def reach_ns(self) -> int:
        """How long after a window's end an event can still change what is in it.

        A message's own events come within `max_age` of its start; a link may lead from a start `skew` later.
        """
        return self.max_age_ns + (self.skew_ns if self.hops else 0)

    @property
    def reach_before_ns(self) -> int:
        """How long before a window an event can lie that changes what is in it.

        Whether a stamp `max_age` before it is of a headless message depends on starts before that, and whether those
        are starts on first ends before them.
        """
        return 3 * self.max_age_ns + self.skew_ns

    @property
    def stage_names(self) -> list[str]:
        """The stages in order, then `end_to_end` and `unattributed`."""
        return [*(s.name for s in self.stages), END_TO_END, UNATTRIBUTED]

    @property
    def ends(self) -> list[End]:
        """Every end of the path once: the first, the last, then the stages' in order."""
        found = [self.first_end, self.last_end]
        for stage in self.stages:
            found += [stage.start, stage.end]
        return list(dict.fromkeys(found))

    def sentence(self, stage: str) -> str:
        """Which two events `stage` lies between. Raises KeyError with the known names."""
        if stage == END_TO_END:
            return f"from {self.first_end.sentence} to {self.last_end.sentence}"
        if stage == UNATTRIBUTED:
            return f"what of {END_TO_END} the stages {', '.join(s.name for s in self.stages)} do not cover"
        for known in self.stages:
            if known.name == stage:
                return known.sentence
        raise KeyError(f"path {self.name} has no stage {stage!r}; it has {self.stage_names}")


def paths_from(document: Mapping[str, Any], points: Mapping[str, Point], source: str = "") -> dict[str, Path]:
    """The paths of the `[paths.NAME]` tables of a configuration document.

    Raises ConfigError that names the field: wrong types, unknown names, undeclared points, ends that are one.
    """
    declared = document.get("paths", {})
    if not isinstance(declared, Mapping):
        raise ConfigError("paths", "must be tables like [paths.order]", source)
    paths: dict[str, Path] = {}
    for name, body in declared.items():
        where = f"paths.{name}"
        if not isinstance(body, Mapping):
            raise ConfigError(where, f"must be a table, got {body!r}", source)
        if "name" in body:
            raise ConfigError(f"{where}.name", "is the table's name already; remove it", source)
        try:
            path = section({"name": name, **body}, Path, where, source)
        except ConfigError as error:
            field = error.field if error.field.startswith(where) else f"{where}.{error.field}"
            raise ConfigError(field, error.problem, source) from error
        _check_points(path, points, where, source)
        paths[name] = path
    return paths


def _check_points(path: Path, points: Mapping[str, Point], where: str, source: str) -> None:
    places = [
        (f"stages[{i}].{side}", end)
        for i, s in enumerate(path.stages)
        for side, end in (("from", s.start), ("to", s.end))
    ]
    places += [(side, end) for side, end in (("first", path.first), ("last", path.last)) if end is not None]
    for place, end in places:
        if end.point not in points:
            raise ConfigError(
                f"{where}.{place}.point",
                f"{end.point!r} is not a point; declare it as [points.{end.point}] or use one of {sorted(points)}",
                source,
            )


def document_of(path: Path) -> dict[str, Any]:
    """The path as it would be written in the configuration: plain values, defaults included."""
    built: dict[str, Any] = msgspec.to_builtins(path)
    return built
