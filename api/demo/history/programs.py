"""One program on the virtual clock: where it stamps, and what the faults that strike it do to it.

What really happens to a process (`api.demo.place`) is arithmetic here: a wait, a burn, a held lock, a collection and a
stopped consumer add to the time; a stepped clock adds to the stamps; neighbours on the CPU delay each waking.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from tailsight_probe import hash64

from api.demo.faults import Fault, burden, clock_step_ns, staleness_ns, stall_ns
from api.demo.history.tape import Spot, Tape
from api.demo.history.virtual import Thread

_HOG_WAIT_NS = 9_000_000  # three busy neighbours with a slice of 3 ms each


class Program:
    """A program's faults and its threads. `faults` are those that strike it, at any time."""

    def __init__(self, name: str, service: str, tape: Tape, faults: Sequence[Fault], seed: int) -> None:
        self.name = name
        self._service = service
        self._tape = tape
        self._faults = [fault for fault in faults if fault.at == name]
        self._random = random.Random(f"{seed}/{name}")  # noqa: S311 - the same seed gives the same run
        self._threads = 0
        self.struck = bool(self._faults)

    def thread(self) -> Thread:
        """Another thread of it."""
        self._threads += 1
        return Thread(self._threads, self.wakes) if self._faults else Thread(self._threads)

    def spot(self, point: str, space: str, thread: Thread) -> Spot:
        """Where `thread` stamps."""
        return self._tape.spot(point, self._service, thread.number, space)

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
