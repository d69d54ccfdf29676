"""Windows behind the landing: one thread computes those of the hours that are there while the next ones are made."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from api.demo.history.calendar import HOUR_NS
from api.demo.history.plan import Range

# As many stamps as one run of windows takes in: each costs the planning of some statements, whatever its size.
STAMPS_AT_ONCE = 1_500_000

Compute = Callable[[Range, Callable[[], bool]], int]  # (which windows, whether to give up) -> how many were computed


class Counting:
    """Has `compute` work on the windows of [from_ns, ...) piece by piece, in order, one piece at a time.

    A piece ends an hour before what is there, so that none of its windows changes any more.
    """

    def __init__(self, compute: Compute, from_ns: int) -> None:
        self._compute, self._from_ns = compute, from_ns
        self._pool = ThreadPoolExecutor(1, "history-windows")
        self._stopped = False
        self._running: Future[int] | None = None
        self._stamps = 0
        self.computed = 0
        self.seconds = 0.0

    def __enter__(self) -> Counting:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        self._pool.shutdown()

    def landed(self, to_ns: int, stamps: int) -> None:
        """Another hour is there, which ends at `to_ns`. Raises what computing an earlier piece raised."""
        self._stamps += stamps
        if self._stamps < STAMPS_AT_ONCE or to_ns - HOUR_NS <= self._from_ns:
            return
        if self._running is None or self._running.done():
            self._begin(to_ns - HOUR_NS)

    def finish(self, to_ns: int) -> int:
        """Wait until all windows that start before `to_ns` are computed; return how many. Raises what that raised."""
        self._begin(to_ns)
        self._collect()
        return self.computed

    def _begin(self, to_ns: int) -> None:
        self._collect()
        piece = Range(self._from_ns, to_ns)
        self._from_ns, self._stamps = to_ns, 0
        self._running = self._pool.submit(self._timed, piece)

    def _collect(self) -> None:
        if self._running is not None:
            running, self._running = self._running, None
            self.computed += running.result()

    def _timed(self, piece: Range) -> int:
        began = time.perf_counter()
        try:
            return self._compute(piece, lambda: self._stopped)
        finally:
            self.seconds += time.perf_counter() - began
