"""One program on the virtual clock: where it stamps, and what the faults that strike it do to it.

What really happens to a process (`api.demo.place`) is arithmetic here: a wait, a burn, a held lock, a collection and a
stopped consumer add to the time; a stepped clock adds to the stamps; neighbours on the CPU delay each waking.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from tailsight_probe import hash64

from api.demo.faults import Fault, burden, clock_step_ns, staleness_ns, stall_ns
from api.demo.history.beside import Timeline
from api.demo.history.tape import Spot, Tape
from api.demo.history.virtual import Thread
from api.demo.instances import SHADOW_SPACE, Instance
from collector.record import Mode

_HOG_WAIT_NS = 9_000_000  # three busy neighbours with a slice of 3 ms each


class Program:
    """A program's faults and its threads. `faults` are those that strike it, at any time.

    Beside the main program there may be an `instance` of it: faults strike the main one only, and what a shadow stamps
    is of messages of its own.
    """

    def __init__(
        self,
        name: str,
        service: str,
        tape: Tape,
        faults: Sequence[Fault],
        seed: int,
        instance: Instance | None = None,
        versions: Timeline = ((0, "1"),),
    ) -> None:
        self.name = name
        self.instance = instance
        self.shadow = instance is not None and instance.role == "shadow"
        self._service = service
        self._tape = tape
        self._versions = versions
        self._faults = [fault for fault in faults if fault.at == name and instance is None]
        self._random = random.Random(f"{seed}/{name}")  # noqa: S311 - the same seed gives the same run
        self._threads = 0
        self._first = 0 if instance is None else 100 * (1 + instance.version % 1_000)
        self.struck = bool(self._faults)

    def thread(self) -> Thread:
        """Another thread of it; those of an instance have numbers of their own."""
        self._threads += 1
        number = self._first + self._threads
        return Thread(number, self.wakes) if self._faults else Thread(number)

    def spot(self, point: str, space: str, thread: Thread) -> Spot:
        """Where `thread` stamps."""
        if self.shadow:
            return self.copied(point, space, thread)
        return self._tape.spot(point, self._service, thread.number, space)

    def copied(self, point: str, space: str, thread: Thread) -> Spot:
        """Where `thread` stamps what a shadow gets or answers."""
        return self._tape.spot(point, self._service, thread.number, SHADOW_SPACE[space], Mode.SHADOW)

    def version(self, at_ns: int) -> str:
        """Which version of it runs then."""
        for from_ns, version in self._versions:
            if at_ns >= from_ns:
                return version
        return self._versions[-1][1]

    def lengthened(self, space: str, number: int, computed_ns: int, now: int) -> int:
        """When an instance that is slower by order is done with a message on which it has computed so long."""
        instance = self.instance
        if instance is None:
            return now
        now += round(instance.slower * computed_ns)
        if instance.extra_ns and instance.lengthens(hash64(space, number)):
            now += instance.extra_ns
        return now

    def wakes(self, at_ns: int) -> int:
        """When a thread runs that could run at `at_ns`."""
        for fault in self._faults:
            left = fault.pulse_left_ns(at_ns) if fault.kind in ("gc_pauses", "cpu_hog") else 0
            if left and fault.kind == "gc_pauses":
                at_ns += left
            elif left:
                at_ns += self._random.randrange(_HOG_WAIT_NS)
        return at_ns

    def locked(self, at_ns: int) -> int:
        """When the lock is free that is wanted at `at_ns`."""
        if not self._faults:
            return at_ns
        left = [f.pulse_left_ns(at_ns) for f in self._faults if f.kind == "lock_contention"]
        return at_ns + max(left, default=0)

    def stalled(self, at_ns: int) -> int:
        """When the consumer of a queue goes on."""
        return at_ns + stall_ns(self._faults, at_ns) if self._faults else at_ns

    def touched(self, space: str, number: int, at_ns: int) -> int:
        """When the work on a message goes on that faults may make longer."""
        if not self._faults:
            return at_ns
        more = burden(self._faults, hash64(space, number), at_ns)
        return at_ns + more.wait_ns + more.burn_ns

    def behind_ns(self, space: str, number: int, at_ns: int) -> int:
        """How far behind the reference data are that this message meets."""
        return staleness_ns(self._faults, hash64(space, number), at_ns) if self._faults else 0

    def shown(self, at_ns: int) -> int:
        """What the program's clock shows then."""
        return at_ns + clock_step_ns(self._faults, at_ns) if self._faults else at_ns
