"""Faults: which kinds there are, where each can strike, and whom it touches when. Pure: the time is passed in.

A fault touches a share `size` of the messages. Kinds that strike messages choose them by a hash of their key (that
of their stamps, `tailsight_probe.hash64`); kinds that strike a whole program strike in pulses of `amount_ns`, one every
`amount_ns / size`, so that they touch the same share of the time. Kinds that strike packets draw them at random. Fault
times are CLOCK_REALTIME nanoseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from api.demo import rss

Scope = Literal["message", "pulse", "link", "queue", "whole"]
_MS = 1_000_000
_ALL = ("feed", "inference", "engine", "gateway-east", "gateway-west", "venue-east", "venue-west")
_SERVING = _ALL[1:]
LINES = ("line-a", "line-b")
LINKS = (*LINES, "orders-east", "orders-west", "market-east", "market-west")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault: what it does, where it can strike, and how hard unless said otherwise."""

    description: str
    places: tuple[str, ...]
    scope: Scope
    amount_ns: int


KINDS = {
    "slow_dependency": Kind("what the program asks answers late", _SERVING, "message", 20 * _MS),
    "bad_deploy": Kind("a new version computes too long on some messages", _SERVING, "message", 3 * _MS),
    "stale_reference": Kind("a replica of the reference data is not refreshed any more", ("engine",), "message", 0),
    "cpu_hog": Kind("other processes want the CPU that the program runs on", _ALL, "pulse", 50 * _MS),
    "lock_contention": Kind("somebody else holds the lock of the desk", ("engine",), "pulse", 20 * _MS),
    "gc_pauses": Kind("garbage collections over a large heap stop the program", _ALL, "pulse", 20 * _MS),
    "queue_backlog": Kind(
        "the consumer of the queue stops, then catches up", ("inference", "engine"), "pulse", 100 * _MS
    ),
    "link": Kind("packets are delayed, lost or throttled", LINKS, "link", 0),
    "feed_gap": Kind("one feed line is silent", LINES, "pulse", 100 * _MS),
    "clock_step": Kind("the clock that the program's stamps are taken from steps", _ALL, "whole", 20 * _MS),
    "lost_nic_queue": Kind("a receive queue of the host's NIC loses what arrives on it", rss.HOSTS, "queue", 0),
}


class FaultError(ValueError):
    """A fault that cannot be; the message says what can."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault as it was ordered. `end_ns` None: until it is stopped."""

    id: str
    kind: str
    at: str
    size: float
    amount_ns: int
    start_ns: int
    end_ns: int | None = None
    delay_ns: int = 0  # of a link
    loss: float = 0.0
    rate_bps: float = 0.0  # bits per second, 0: as fast as it goes
    delays: tuple[tuple[float, int], ...] = ()  # of a link: quantiles of a delay that is drawn for each packet (ns)
    queue: int | None = None  # of a lost NIC queue

    def active(self, now_ns: int) -> bool:
        """Whether it strikes now."""
        return self.start_ns <= now_ns and (self.end_ns is None or now_ns < self.end_ns)

    def touches(self, key: int) -> bool:
        """Whether it strikes this message: always the same answer for the same fault and key."""
        return mixed(key ^ mixed(self.start_ns)) < self.size * 2**64

    def pulse_left_ns(self, now_ns: int) -> int:
        """How long the pulse lasts that strikes now, 0 between pulses."""
        if not self.active(now_ns):
            return 0
        return max(0, self.amount_ns - (now_ns - self.start_ns) % self.period_ns)

    def next_pulse_ns(self, now_ns: int) -> int:
        """How long until the next pulse begins."""
        return self.period_ns - (now_ns - self.start_ns) % self.period_ns

    @property
    def period_ns(self) -> int:
        """From one pulse's begin to the next one's."""
        return max(1, round(self.amount_ns / self.size))


def checked(fault: Fault) -> Fault:
    """The fault itself; a lost NIC queue that names no queue gets one that carries a flow.

    Raises FaultError with what would be right.
    """
    kind = KINDS.get(fault.kind)
    if kind is None:
        raise FaultError(f"there is no fault {fault.kind!r}; there are {', '.join(KINDS)}")
    if fault.at not in kind.places:
        raise FaultError(f"{fault.kind} cannot strike {fault.at!r}; it can strike {', '.join(kind.places)}")
    if not 0 < fault.size <= 1:
        raise FaultError(f"the size must be above 0 % and at most 100 %, got {100 * fault.size:g} %")
    if fault.amount_ns < 0 and fault.kind != "clock_step":
        raise FaultError(f"the amount must not be negative, got {fault.amount_ns} ns")
    if kind.scope == "pulse" and fault.amount_ns < _MS:
        raise FaultError(f"a pulse of {fault.kind} lasts at least 1 ms, got {fault.amount_ns} ns")
    if kind.scope == "link" and not (fault.delay_ns > 0 or 0 < fault.loss <= 1 or fault.rate_bps > 0 or fault.delays):
        raise FaultError("a link's fault needs a delay, a loss of 0 to 100 %, a rate, or a profile")
    if kind.scope == "queue":
        return _with_queue(fault)
    if fault.queue is not None:
        raise FaultError(f"{fault.kind} has no queue; lost_nic_queue has")
    return fault


def _with_queue(fault: Fault) -> Fault:
    if fault.queue is None:
        return msgspec.structs.replace(fault, queue=rss.used_queues(fault.at)[0])
    if not 0 <= fault.queue < rss.QUEUES:
        raise FaultError(f"the NIC of {fault.at} has the receive queues 0 to {rss.QUEUES - 1}, got {fault.queue}")
    return fault


@dataclass(frozen=True, slots=True)
class Burden:
    """What faults add to the work on one message: time spent waiting, and time spent computing."""

    wait_ns: int = 0
    burn_ns: int = 0


def burden(faults: Iterable[Fault], key: int, now_ns: int) -> Burden:
    """What the message's work is made longer by."""
    wait = burn = 0
    for fault in faults:
        if fault.active(now_ns) and fault.touches(key):
            wait += fault.amount_ns if fault.kind == "slow_dependency" else 0
            burn += fault.amount_ns if fault.kind == "bad_deploy" else 0
    return Burden(wait, burn)


def stall_ns(faults: Iterable[Fault], now_ns: int) -> int:
    """How long the queue's consumer stands still from now on."""
    return max((f.pulse_left_ns(now_ns) for f in faults if f.kind == "queue_backlog"), default=0)


def staleness_ns(faults: Iterable[Fault], key: int, now_ns: int) -> int:
    """How far the replica is behind that answers this message."""
    behind = (
        now_ns - f.start_ns for f in faults if f.kind == "stale_reference" and f.active(now_ns) and f.touches(key)
    )
    return max(behind, default=0)


def clock_step_ns(faults: Sequence[Fault], now_ns: int) -> int:
    """How far the program's clock is off."""
    return sum(f.amount_ns for f in faults if f.kind == "clock_step" and f.active(now_ns))


def mixed(x: int) -> int:
    """SplitMix64's finaliser (Steele, Lea and Flood, OOPSLA 2014): 64 well-mixed bits."""
    x = (x + 0x9E3779B97F4A7C15) & 0xFFFF_FFFF_FFFF_FFFF
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFF_FFFF_FFFF_FFFF
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & 0xFFFF_FFFF_FFFF_FFFF
    return x ^ (x >> 31)
