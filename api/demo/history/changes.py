"""What a history says was changed: deploys and roll-backs, canaries and shadows that begin and end. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from api.demo.history.beside import Timeline
from api.demo.history.calendar import Day, timelines
from api.demo.rollout import instance_labels, instance_words


@dataclass(frozen=True, slots=True)
class Change:
    """One row of `changes`, of kind deploy."""

    ts_ns: int
    place: str
    what: str
    version: str
    labels: dict[str, str]


def changes(days: Sequence[Day], before: Sequence[Day] = ()) -> list[Change]:
    """All of `days`, oldest first. `before` are days that say what ran when they began."""
    versions = timelines([*before, *days])
    return sorted((one for day in days for one in _of(day, versions)), key=lambda one: (one.ts_ns, one.what))


def _of(day: Day, versions: dict[str, Timeline]) -> Iterator[Change]:
    for deploy in day.deploys:
        cuts = [deploy.ts_ns]
        if deploy.fault is not None and deploy.fault.end_ns is not None:
            cuts.append(deploy.fault.end_ns)
        for at_ns in cuts:
            old, new = (_version(versions[deploy.place], t) for t in (at_ns - 1, at_ns))
            if old == new:
                continue  # a later deploy had replaced what is rolled back
            words = f"{deploy.place} {old} -> {new}" + ("" if at_ns == deploy.ts_ns else " (rolled back)")
            yield Change(
                at_ns, deploy.place, words, new, {"place": deploy.place, "from_version": old, "to_version": new}
            )
    for one in day.beside:
        version, labels = day.name_of(one), instance_labels(one)
        yield Change(one.start_ns, one.at, instance_words(one, "begins", version), version, labels)
        if one.end_ns is not None:
            yield Change(one.end_ns, one.at, instance_words(one, "ended", version), version, labels)


def _version(timeline: Timeline, at_ns: int) -> str:
    return next(version for from_ns, version in timeline if at_ns >= from_ns)
