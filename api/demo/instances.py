"""Instances beside the main programs: a canary takes a share of the traffic, a shadow gets a copy of it.

One JSON file per instance in DIR/demo/instances, written by commands; the instance itself writes `ID.ready` once it
listens, with the moment from which it is routed to. Which messages are its own follows from their keys (as with
faults), so that every program agrees without asking. A shadow's stamps carry mode `shadow` and keys of their own key
space, so that they cannot be taken for those of the message that was copied. All but `Instances` is pure.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from api.demo.control import Records
from api.demo.faults import mixed

Role = Literal["canary", "shadow"]
FOLDER = "instances"
SETTLING_NS = 500_000_000  # from "it listens" to "it is routed to": every program has read of it by then
LEAVING_NS = 500_000_000  # from the order to end it to the moment that it holds, for the same reason
MOST_VERSION = 65_535
SHADOW_SPACE = {"feed": "shadow-feed", "order": "shadow-order"}
PLACES: dict[Role, tuple[str, ...]] = {
    "canary": ("inference", "engine", "gateway-east", "gateway-west"),
    "shadow": ("inference", "gateway-east", "gateway-west"),
}
WHY_NOT = {
    "feed": "the feed is where messages begin: there is no traffic to share",
    "venue-east": "the venue is not ours: an order book cannot be split",
    "venue-west": "the venue is not ours: an order book cannot be split",
    "links": "the network is no service with versions",
    "engine": "a shadow engine would send orders of its own, which somebody would have to take; run a canary there",
}


class InstanceError(ValueError):
    """An instance that cannot be; the message says what can."""


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """One instance as it was ordered.

    `slower` 0.05: it computes 5 % longer. `extra_ns`: and so much longer on `size` of its messages.
    """

    id: str
    role: Role
    at: str
    share: float
    version: int
    start_ns: int
    end_ns: int | None = None
    slower: float = 0.0
    extra_ns: int = 0
    size: float = 1.0
    ports: dict[str, int] = {}

    def owns(self, key: int) -> bool:
        """Whether the message with this key (that of its stamps) is among its share: always the same answer."""
        return mixed(key ^ mixed(self.start_ns)) < self.share * 2**64

    def lengthens(self, key: int) -> bool:
        """Whether `extra_ns` touches this message."""
        return mixed(key ^ mixed(self.start_ns ^ self.version)) < self.size * 2**64

    def ended(self, now_ns: int) -> bool:
        """Whether it is over."""
        return self.end_ns is not None and now_ns >= self.end_ns


class Ready(msgspec.Struct, frozen=True):
    """From when an instance is routed to, on both clocks."""

    realtime_ns: int
    monotonic_ns: int


class Routed(msgspec.Struct, frozen=True):
    """An instance and since when it is ready, None while it is not."""

    instance: Instance
    ready: Ready | None = None

    def takes(self, key: int, now_ns: int) -> bool:
        """Whether the message goes there (or a copy of it); `now_ns` is CLOCK_REALTIME."""
        ready = self.ready is not None and self.ready.realtime_ns <= now_ns
        return ready and not self.instance.ended(now_ns) and self.instance.owns(key)

    def takes_sent_at(self, key: int, monotonic_ns: int) -> bool:
        """As `takes`, for a time on CLOCK_MONOTONIC that comes with the message: both sides must decide alike."""
        if self.ready is None:
            return False
        return self.takes(key, self.ready.realtime_ns + monotonic_ns - self.ready.monotonic_ns)


def canary(routes: Iterable[Routed], at: str, key: int, now_ns: int) -> Instance | None:
    """The canary that the message goes to instead of the main instance; the first one that takes it."""
    return next((r.instance for r in routes if _is(r, "canary", at) and r.takes(key, now_ns)), None)


def shadows(routes: Iterable[Routed], at: str, key: int, now_ns: int) -> list[Instance]:
    """The shadows that get a copy of the message."""
    return [r.instance for r in routes if _is(r, "shadow", at) and r.takes(key, now_ns)]


def owner(routes: Iterable[Routed], at: str, key: int, monotonic_ns: int) -> str:
    """The instance whose message this is by the time it carries, "" for the main one."""
    found = (r.instance.id for r in routes if _is(r, "canary", at) and r.takes_sent_at(key, monotonic_ns))
    return next(found, "")


def checked(instance: Instance) -> Instance:
    """The instance itself. Raises InstanceError with what would be right."""
    places = PLACES[instance.role]
    if instance.at not in places:
        why = f": {WHY_NOT[instance.at]}" if instance.at in WHY_NOT else ""
        raise InstanceError(f"no {instance.role} can run at {instance.at!r}{why}; it can at {', '.join(places)}")
    if not 0 < instance.share <= 1:
        raise InstanceError(f"the share must be above 0 % and at most 100 %, got {100 * instance.share:g} %")
    if not 0 < instance.size <= 1:
        raise InstanceError(f"the size must be above 0 % and at most 100 %, got {100 * instance.size:g} %")
    if not 1 <= instance.version <= MOST_VERSION:
        raise InstanceError(f"the version must be a number of 1 to {MOST_VERSION}, got {instance.version}")
    if not 0 <= instance.slower <= 100 or not 0 <= instance.extra_ns <= 1_000_000_000:
        raise InstanceError("slower must be 0 % to 10,000 %, extra at most 1 s")
    return instance


class Instances:
    """The folder: the commands' side, and the watchers' view (`changed`)."""

    def __init__(self, folder: Path) -> None:
        self._records = Records(folder / FOLDER, Instance)
        self._folder = folder / FOLDER

    def order(self, instance: Instance) -> Instance:
        """Order an instance; returns it with its id. Raises InstanceError when it cannot be."""
        number = uuid.uuid4().hex[:8]
        named = checked(msgspec.structs.replace(instance, id=f"{instance.at}.{instance.role}-{number}"))
        now_ns = time.time_ns()
        beside = [i for i in self._records.read() if i.at == named.at and i.role == named.role and not i.ended(now_ns)]
        if beside:
            raise InstanceError(f"{beside[0].id} runs beside {named.at} already; stop it first")
        self._records.write(named)
        return named

    def end(self, names: Sequence[str], now_ns: int, role: Role | None = None) -> list[Instance]:
        """End the named instances, all (of a role) when no name is given; returns those ended."""
        ended = []
        for instance in self._records.read():
            asked = instance.id in names or (not names and role in (None, instance.role))
            if asked and not instance.ended(now_ns) and instance.end_ns is None:
                ended.append(msgspec.structs.replace(instance, end_ns=now_ns + LEAVING_NS))
                self._records.write(ended[-1])
        return ended

    def ready(self, name: str) -> None:
        """The instance listens: it is routed to `SETTLING_NS` from now on."""
        moment = Ready(time.time_ns() + SETTLING_NS, time.monotonic_ns() + SETTLING_NS)
        draft = self._folder / f".{name}.ready.new"
        draft.write_bytes(msgspec.json.encode(moment))
        draft.replace(self._folder / f"{name}.ready")

    def read(self) -> list[Routed]:
        """All instances ever ordered here, oldest first."""
        return [Routed(instance, self._ready_of(instance.id)) for instance in self._records.read()]

    def changed(self) -> list[Routed] | None:
        """The instances that have not ended, None when no file has changed since the last call."""
        found = self._records.changed()
        if found is None:
            return None
        now_ns = time.time_ns()
        return [Routed(i, self._ready_of(i.id)) for i in found if not i.ended(now_ns)]

    def one(self, name: str) -> Instance:
        """The instance of that id. Raises KeyError."""
        return {instance.id: instance for instance in self._records.read()}[name]

    def _ready_of(self, name: str) -> Ready | None:
        try:
            return msgspec.json.decode((self._folder / f"{name}.ready").read_bytes(), type=Ready)
        except FileNotFoundError:
            return None


def _is(routed: Routed, role: Role, at: str) -> bool:
    return routed.instance.role == role and routed.instance.at == at
