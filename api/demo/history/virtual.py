"""Virtual time: events in order, threads that do one thing at a time, and seeded draws. Nothing here reads a clock."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from api.demo.delays import draws
from api.demo.quantiles import Quantiles

Handler = Callable[..., int]  # (begun_ns, *arguments) -> when the thread is free again
_BLOCK = 1_024


@dataclass(slots=True)
class Thread:
    """One thread of one program: what comes while it is busy waits, in order."""

    number: int
    wakes: Callable[[int], int] | None = None  # when it runs that could run at a time; None: at once
    free_ns: int = 0
    woken_ns: int = -1  # it was delayed until then already
    waking: bool = False  # it will look at what waits when it is free
    waiting: deque[tuple[Handler, tuple[Any, ...]]] = field(default_factory=deque)


class Events:
    """What will happen, by time, and in the order of asking where times are equal."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Thread, Handler | None, tuple[Any, ...]]] = []
        self._asked = 0

    def at(self, time_ns: int, thread: Thread, handler: Handler, *arguments: Any) -> None:
        """Have `thread` call `handler(begun_ns, *arguments)` at that time, or when it is free."""
        self._asked += 1
        heapq.heappush(self._heap, (time_ns, self._asked, thread, handler, arguments))

    def hold(self, until_ns: int, thread: Thread, handler: Handler, *arguments: Any) -> int:
        """For a handler of `thread` that finds that it has to wait: it is called again then, before what waits."""
        thread.waiting.appendleft((handler, arguments))
        return until_ns

    def run(self, until_ns: int | None = None) -> None:
        """Let everything happen that is to happen before `until_ns`."""
        heap, pop = self._heap, heapq.heappop
        while heap and (until_ns is None or heap[0][0] < until_ns):
            time_ns, _, thread, handler, arguments = pop(heap)
            if handler is None:
                thread.waking = False
                handler, arguments = thread.waiting.popleft()
            elif thread.free_ns > time_ns or thread.waiting:
                thread.waiting.append((handler, arguments))
                if not thread.waking:
                    self._wake(thread)
                continue
            begun_ns = time_ns
            if thread.wakes is not None and time_ns != thread.woken_ns:
                begun_ns = thread.wakes(time_ns)
            if begun_ns > time_ns:  # asked again then, because much may have changed
                thread.free_ns = thread.woken_ns = self.hold(begun_ns, thread, handler, *arguments)
            else:
                thread.free_ns = handler(time_ns, *arguments)
            if not thread.waking:
                self._wake(thread)

    def _wake(self, thread: Thread) -> None:
        """Have the thread look at what waits, if anything does, when it is free."""
        if thread.waiting:
            thread.waking = True
            self._asked += 1
            heapq.heappush(self._heap, (thread.free_ns, self._asked, thread, None, ()))


class Draws:
    """Durations of each name of a profile, drawn in blocks from one seed."""

    def __init__(self, profile: Mapping[str, Quantiles], seed: int) -> None:
        self._profile = profile
        # One stream per name, so that one name's draws do not depend on how many another had.
        self._rngs = {name: np.random.default_rng([seed & 0xFFFF_FFFF_FFFF_FFFF, i]) for i, name in enumerate(profile)}

    def of(self, name: str) -> Callable[[], int]:
        """A function that draws one duration of `name`, in nanoseconds. Raises KeyError for a name without any."""
        quantiles, rng = self._profile[name], self._rngs[name]
        block: list[int] = []

        def draw() -> int:
            if not block:
                block.extend(draws(quantiles, rng, _BLOCK))
            return block.pop()

        return draw
