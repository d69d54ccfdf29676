"""Which version of a program runs when: 1, a new number with every bad deploy, the old one when it ends. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from api.demo.faults import Fault

FIRST = 1


def deployed_by(fault: Fault, faults: Iterable[Fault]) -> int:
    """The version that a bad deploy brings: no number comes twice at one place."""
    earlier = [f for f in faults if f.kind == "bad_deploy" and f.at == fault.at]
    return FIRST + 1 + sum((f.start_ns, f.id) < (fault.start_ns, fault.id) for f in earlier)


def version_at(place: str, faults: Sequence[Fault], now_ns: int) -> int:
    """The version that is meant to run at a place: that of its newest bad deploy which has not been rolled back."""
    bad = [f for f in faults if f.kind == "bad_deploy" and f.at == place and f.active(now_ns)]
    if not bad:
        return FIRST
    return deployed_by(max(bad, key=lambda f: (f.start_ns, f.id)), faults)


def brought(faults: Sequence[Fault], place: str, version: int) -> list[Fault]:
    """The faults of a place that a program of this version can have: of the bad deploys only its own."""
    return [f for f in faults if f.at == place and (f.kind != "bad_deploy" or deployed_by(f, faults) == version)]
