"""What every program of the order path has: a name, stamps, and a thread that lets faults strike it.

The logic beside it is pure; here is what a fault really does to a process: it waits, it computes, it holds a lock, it
collects garbage, other processes take its CPU.
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tailsight_probe as probe
from tailsight_probe import Mode

from api.demo.control import Control
from api.demo.faults import Burden, Fault, burden, clock_step_ns, staleness_ns, stall_ns
from api.demo.instances import SHADOW_SPACE, Instances, Routed
from api.demo.labels import stamped_by
from api.demo.versions import FIRST, brought

_POLL_S = 0.05
_HOGS = 3
_GARBAGE = 50_000  # objects whose collection is timed to know how many it takes
_MOST_GARBAGE = 2_000_000


class Place:
    """One program: `stamp` it, and ask `touch`, `stall` and `staleness_ns` where faults may strike.

    It is the main instance of its program, or a canary or shadow beside it (`instance`); `routes` are the instances
    that traffic may be handed to. `lock` guards the program's shared state; a fault may hold it.
    With a stepped clock, `stamp` goes through `stamp_at` with the time the stepped clock would show. Links between keys
    carry no time of their own choosing and stay as they are.
    """

    def __init__(self, name: str, service: str, control: Path, version: int = FIRST, instance: str = "") -> None:
        probe.init(service=service)
        probe.watch_gc(min_duration_ns=10_000)
        self._control = Control(control)
        self._instances = Instances(control)
        self.instance = self._instances.one(instance) if instance else None
        self.name = instance or name
        self.version = version
        stamped_by(version)
        self.shadow = self.instance is not None and self.instance.role == "shadow"
        self.routes: list[Routed] = []
        self.lock = threading.Lock()
        self._stamp: Callable[..., None] = self._shadowed if self.shadow else probe.stamp
        self.stamp = self._stamp
        self._faults: list[Fault] = []
        self._step_ns = 0
        self._struck: set[str] = set()

    @classmethod
    def of(cls, name: str, service: str, options: argparse.Namespace) -> Place:
        """The place that a program's arguments say."""
        return cls(name, service, options.control, options.version, options.instance)

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        """What every program can be told."""
        parser.add_argument("--control", type=Path, required=True, help="the demo's control directory")
        parser.add_argument("--version", type=int, default=FIRST, help="the version that the stamps' labels carry")
        parser.add_argument("--instance", default="", help="the canary or shadow that this process is")

    def start(self) -> None:
        """Watch for faults until the process ends; an instance says that it listens."""
        threading.Thread(target=self._watch, name="faults", daemon=True).start()
        if self.instance is not None:
            self._instances.ready(self.instance.id)

    def point(self, name: str, space: str) -> Any:
        """A point for messages of a key space; a shadow's messages have one of their own."""
        return probe.point(name, space=SHADOW_SPACE[space] if self.shadow else space)

    def lengthen(self, space: str, number: int, began_cpu_ns: int) -> None:
        """Let an instance that is slower by order be so; `began_cpu_ns`: `time.thread_time_ns` when the work began."""
        if self.instance is None or not (self.instance.slower or self.instance.extra_ns):
            return
        more = round(self.instance.slower * (time.thread_time_ns() - began_cpu_ns))
        if self.instance.extra_ns and self.instance.lengthens(probe.hash64(space, number)):
            more += self.instance.extra_ns
        _burn(more)

    def stamp_at(self, monotonic_ns: int, point: Any, key: int) -> None:
        """A stamp for a time that the program knows, by its own clock."""
        probe.stamp_at(monotonic_ns + self._step_ns, "monotonic", point, key)

    @property
    def clock_step_ns(self) -> int:
        """How far the program's clock is off, by a fault."""
        return self._step_ns

    def touch(self, space: str, number: int) -> None:
        """Let faults make the work on this message longer. Costs a test when there are none."""
        if self._faults:
            more = burden(self._faults, probe.hash64(space, number), time.time_ns())
            if more != Burden():
                time.sleep(more.wait_ns * 1e-9)
                _burn(more.burn_ns)

    def stall(self) -> None:
        """Let faults stop the consumer of a queue."""
        if self._faults and (left := stall_ns(self._faults, time.time_ns())):
            time.sleep(left * 1e-9)

    def staleness_ns(self, space: str, number: int) -> int:
        """How far behind the reference data are that this message meets."""
        return staleness_ns(self._faults, probe.hash64(space, number), time.time_ns()) if self._faults else 0

    def _watch(self) -> None:
        while True:
            ordered = self._control.changed()
            now_ns = time.time_ns()
            if ordered is not None:
                own = brought(ordered, self.name, self.version)
                self._faults = [f for f in own if f.end_ns is None or f.end_ns > now_ns]
                for fault in self._faults:
                    self._begin(fault)
            elif self._faults:
                self._faults = [f for f in self._faults if f.end_ns is None or f.end_ns > now_ns]
            self._step_ns = clock_step_ns(self._faults, now_ns)
            self.stamp = self._stepped if self._step_ns else self._stamp
            routes = self._instances.changed()
            if routes is not None:
                self.routes = routes
            time.sleep(_POLL_S)

    def _stepped(
        self,
        point: Any,
        key: int,
        depth: int | None = None,
        outcome: int | None = None,
        mode: int | None = None,
        cache: int | None = None,
        data_age_ns: int | None = None,
        labels: int | None = None,
    ) -> None:
        now_ns = time.monotonic_ns() + self._step_ns
        probe.stamp_at(
            now_ns, "monotonic", point, key, depth=depth, outcome=outcome, mode=mode, cache=cache,
            data_age_ns=data_age_ns, labels=labels,
        )  # fmt: skip

    def _shadowed(
        self,
        point: Any,
        key: int,
        depth: int | None = None,
        outcome: int | None = None,
        mode: int | None = None,  # noqa: ARG002 - whatever it was, nobody is served by it
        cache: int | None = None,
        data_age_ns: int | None = None,
        labels: int | None = None,
    ) -> None:
        probe.stamp(
            point, key, depth=depth, outcome=outcome, mode=Mode.SHADOW, cache=cache,
            data_age_ns=data_age_ns, labels=labels,
        )  # fmt: skip

    def _begin(self, fault: Fault) -> None:
        strike = {"cpu_hog": self._hog, "gc_pauses": self._collect, "lock_contention": self._hold}.get(fault.kind)
        if strike is not None and fault.id not in self._struck:
            self._struck.add(fault.id)
            threading.Thread(target=strike, args=(fault,), name=fault.kind, daemon=True).start()

    def _pulses(self, ordered: Fault) -> Iterator[int]:
        """Yield what is left of each pulse when it strikes, until the fault ends or is stopped."""
        while fault := next((f for f in self._faults if f.id == ordered.id), None):
            if left := fault.pulse_left_ns(time.time_ns()):
                yield left
            time.sleep(min(_POLL_S, fault.next_pulse_ns(time.time_ns()) * 1e-9))

    def _hold(self, fault: Fault) -> None:
        for left_ns in self._pulses(fault):
            with self.lock:
                time.sleep(left_ns * 1e-9)

    def _hog(self, fault: Fault) -> None:
        """Share one CPU with busy processes: the program's threads are bound to it as long as the fault lasts."""
        allowed = os.sched_getaffinity(0)
        cpu = min(allowed)
        # Our own module with our own arguments; no shell is involved. They end by themselves, or with us.
        schedule = (str(cpu), str(fault.start_ns), str(fault.amount_ns), str(fault.period_ns))
        argv = [sys.executable, "-m", "api.up.leash", str(os.getpid()), "api.demo.hog", *schedule]
        hogs = [subprocess.Popen(argv, env={**os.environ, "TAILSIGHT_PROBE": "off"}) for _ in range(_HOGS)]  # noqa: S603
        try:
            _bind({cpu})
            for _ in self._pulses(fault):
                pass
        finally:
            _bind(allowed)
            for hog in hogs:
                hog.terminate()
                hog.wait()

    def _collect(self, fault: Fault) -> None:
        """Full collections over as many objects as it takes to last `amount_ns`; the interpreter stands still."""
        heap = [[number] for number in range(_GARBAGE)]
        started = time.monotonic_ns()
        gc.collect()
        took = time.monotonic_ns() - started
        heap.extend([number] for number in range(min(_MOST_GARBAGE, _GARBAGE * fault.amount_ns // took)))
        for left_ns in self._pulses(fault):
            gc.collect()
            time.sleep(left_ns * 1e-9)  # not twice in one pulse


def _burn(for_ns: int) -> None:
    """Compute for so much CPU time of this thread."""
    end = time.thread_time_ns() + for_ns
    while time.thread_time_ns() < end:
        pass


def _bind(cpus: set[int]) -> None:
    """Bind every thread of this process; the affinity of a process is that of each of its threads."""
    for task in Path("/proc/self/task").iterdir():
        try:
            os.sched_setaffinity(int(task.name), cpus)
        except ProcessLookupError:  # it has ended
            continue
