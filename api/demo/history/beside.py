"""What runs beside the main programs of a span, and which version every program is when. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from api.demo.faults import Fault
from api.demo.instances import Instance, Ready, Role, Routed
from api.demo.versions import version_at

Timeline = tuple[tuple[int, str], ...]  # from when on which version, newest first


@dataclass(frozen=True, slots=True)
class Beside:
    """Instances that are routed to from their begin to their end, and the versions' names.

    `names` are the instances' versions, `versions` those of the main programs; a place without any has version 1.
    """

    routes: tuple[Routed, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, Timeline] = field(default_factory=dict)

    def at(self, place: str, role: Role) -> list[Instance]:
        """The instances of a place."""
        return [r.instance for r in self.routes if r.instance.at == place and r.instance.role == role]

    def timeline(self, place: str, instance: Instance | None) -> Timeline:
        """Which version a main program, or an instance beside it, is when."""
        if instance is not None:
            return ((0, self.names.get(instance.id, str(instance.version))),)
        return self.versions.get(place, ((0, "1"),))


def routed(instances: Iterable[Instance]) -> tuple[Routed, ...]:
    """Instances that listen from their begin on; there is one clock."""
    return tuple(Routed(one, Ready(one.start_ns, one.start_ns)) for one in instances)


def deployed(faults: Sequence[Fault]) -> Beside:
    """Nothing beside; versions as bad deploys among `faults` bring them."""
    places = {fault.at for fault in faults if fault.kind == "bad_deploy"}
    return Beside(versions={place: _timeline(place, faults) for place in places})


def _timeline(place: str, faults: Sequence[Fault]) -> Timeline:
    mine = [fault for fault in faults if fault.kind == "bad_deploy" and fault.at == place]
    cuts = {0, *(f.start_ns for f in mine), *(f.end_ns for f in mine if f.end_ns is not None)}
    return tuple((at_ns, str(version_at(place, faults, at_ns))) for at_ns in sorted(cuts, reverse=True))
