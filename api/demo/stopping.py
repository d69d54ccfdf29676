"""A stop flag that SIGTERM and SIGINT raise, so that each program of the order path ends by itself."""

from __future__ import annotations

import signal
import time
from types import FrameType

_SLICE_S = 0.2


class Stop:
    """False until the program is asked to end. Make it in the main thread."""

    def __init__(self) -> None:
        self._asked = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def __bool__(self) -> bool:
        return self._asked

    def sleep_until_ns(self, monotonic_ns: int) -> None:
        """Sleep until CLOCK_MONOTONIC says `monotonic_ns`, or until asked to stop."""
        while not self._asked:
            left = (monotonic_ns - time.monotonic_ns()) * 1e-9
            if left <= 0:
                return
            time.sleep(min(left, _SLICE_S))  # sleep() resumes after a signal's handler, hence the slices

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True
