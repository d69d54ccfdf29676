"""What is to run now: the main programs in the versions that were deployed, canaries and shadows beside them.

`tailsight up` and `tailsight demo` ask it several times a second. A deploy, a roll-back, an instance that begins or
ends is a change, and is told to `record` when it is carried out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from api.demo.control import FOLDER, Control
from api.demo.faults import Fault
from api.demo.instances import Instance, Instances
from api.demo.programs import beside
from api.demo.versions import FIRST, version_at
from api.up.programs import Program

_STAYS_NS = 1_000_000_000  # an instance that gets no more messages may finish those it has


@dataclass(frozen=True, slots=True)
class Change:
    """What was changed, as `changes` has it; version 0 where it leads to none."""

    at_ns: int
    what: str
    service: str
    version: int
    labels: dict[str, str] = field(default_factory=dict)
    kind: str = "deploy"


def _nothing(_change: Change) -> None:
    """Tell nobody."""


class Rollout:
    """The plan as it changes. Instances of an earlier session are over."""

    def __init__(self, data: Path, base: Sequence[Program], record: Callable[[Change], None] = _nothing) -> None:
        self._base = list(base)
        self._record = record
        self._control = Control(data / FOLDER)
        self._instances = Instances(data / FOLDER)
        now_ns = time.time_ns()
        self._instances.end((), now_ns - 2 * _STAYS_NS)
        self._ordered: list[Fault] = self._control.changed() or []
        self._beside: list[Instance] = []
        self._versions = self._wanted_versions(now_ns)
        self._running: dict[str, Instance] = {}
        self._current = self._plan()

    def programs(self) -> list[Program]:
        """What is to run at first."""
        return self._current

    def replan(self) -> list[Program] | None:
        """What is to run from now on, None when that has not changed since the last call."""
        now_ns = time.time_ns()
        if (ordered := self._control.changed()) is not None:
            self._ordered = ordered
        if (routed := self._instances.changed()) is not None:
            self._beside = [one.instance for one in routed]
        versions = self._wanted_versions(now_ns)
        for place, version in versions.items():
            before = self._versions[place]
            if version != before:
                self._record(deployment(place, before, version, now_ns))
        wanted = {one.id: one for one in self._beside if not one.ended(now_ns - _STAYS_NS)}
        for name, instance in wanted.items():
            if name not in self._running:
                self._record(instance_change(instance, "begins", now_ns))
        for name, instance in self._running.items():
            if name not in wanted:
                self._record(instance_change(instance, "ended", now_ns))
        self._versions, self._running = versions, wanted
        before_plan, self._current = self._current, self._plan()
        return None if self._current == before_plan else self._current

    def _wanted_versions(self, now_ns: int) -> dict[str, int]:
        return {program.name: version_at(program.name, self._ordered, now_ns) for program in self._base}

    def _plan(self) -> list[Program]:
        plan = []
        for program in self._base:
            version = self._versions[program.name]
            told = ("--version", str(version))
            plan.append(program if version == FIRST else replace(program, arguments=(*program.arguments, *told)))
        mains = {program.name: program for program in self._base}
        return plan + [beside(mains[i.at], i.id, i.version, i.ports) for i in self._running.values() if i.at in mains]


def deployment(place: str, before: int, after: int, at_ns: int) -> Change:
    """The change that a deploy or a roll-back is."""
    words = f"{place} {before} -> {after}" + (" (rolled back)" if after < before else "")
    labels = {"place": place, "from_version": str(before), "to_version": str(after)}
    return Change(at_ns, words, place.partition("-")[0], after, labels)


def instance_change(instance: Instance, what: str, at_ns: int) -> Change:
    """The change that an instance's begin or end is."""
    words, labels = instance_words(instance, what, str(instance.version)), instance_labels(instance)
    return Change(at_ns, words, instance.at.partition("-")[0], instance.version, labels)


def instance_words(instance: Instance, what: str, version: str) -> str:
    """An instance's begin or end in words."""
    return f"{instance.role} of {instance.at} {what}: version {version}, {100 * instance.share:g} %"


def instance_labels(instance: Instance) -> dict[str, str]:
    """The labels of that change."""
    return {"place": instance.at, "instance": instance.id, "role": instance.role, "share": f"{instance.share:g}"}
