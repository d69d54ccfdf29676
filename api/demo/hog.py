"""`python -m api.demo.hog CPU START AMOUNT PERIOD`: keeps one CPU busy in pulses, as a neighbour may."""

from __future__ import annotations

import os
import sys
import time


def main() -> None:
    """From `START` (CLOCK_REALTIME ns) on, compute for `AMOUNT` of every `PERIOD` nanoseconds, until SIGTERM."""
    cpu, start_ns, amount_ns, period_ns = map(int, sys.argv[1:])
    os.sched_setaffinity(0, {cpu})
    while True:
        phase_ns = (time.time_ns() - start_ns) % period_ns
        if phase_ns >= amount_ns:
            time.sleep((period_ns - phase_ns) * 1e-9)


if __name__ == "__main__":
    main()
