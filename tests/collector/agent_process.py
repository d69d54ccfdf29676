"""Runs a real agent whose one source counts: `python -m tests.collector.agent_process URL DATA TOTAL CHUNK`.

The source is like a ring: it knows how far it was read, and gives everything behind that again.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from collector.agent.run import run_agent
from collector.agent.settings import AgentSettings
from collector.clock import ClockReading
from collector.record import GAUGES, Columns, DropReason
from collector.sources import Availability, Poll


class Counting:
    """Gauges with the values 0..total-1; every 1000th value is lost on purpose and counted."""

    name = "counting"
    period_s = 0.002

    def __init__(self, total: int, chunk: int) -> None:
        self._total, self._chunk, self._next = total, chunk, 0
        self.safe = 0

    def start(self, positions: Mapping[str, int]) -> Availability:
        self._next = self.safe = positions.get("n", 0)
        return Availability("running")

    def poll(self, clock: ClockReading) -> Poll:
        end = min(self._next + self._chunk, self._total)
        values = np.array([v for v in range(self._next, end) if v % 1000], dtype="<f8")
        drops = {DropReason.RING_OVERWRITTEN: end - self._next - len(values)}
        self._next = end
        n = len(values)
        if not n:
            return Poll(drops=drops, positions={"n": end})
        zeros = np.zeros(n, "<u2")
        columns = Columns(
            GAUGES,
            {
                "ts_ns": np.full(n, clock.realtime_ns, "<i8"), "name": zeros, "host": zeros, "service": zeros,
                "label_set": np.zeros(n, "<u8"), "value": values,
            },
            {"name": ["n"], "host": ["h"], "service": [""]},
        )  # fmt: skip
        return Poll([columns], drops, {"n": end})

    def durable(self, positions: Mapping[str, int]) -> None:
        assert positions["n"] >= self.safe
        self.safe = positions["n"]

    def close(self) -> None:
        pass


def main(url: str, data: str, total: str, chunk: str) -> int:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    settings = AgentSettings(
        server=url,
        collectors=("counting",),
        linger_s=0.01,
        heartbeat_s=0.2,
        request_timeout_s=2.0,
        segment_bytes=1 << 16,
        nice=0,
        spool_min_free_bytes=0,
    )
    return run_agent(settings, Path(data), stop, lambda *_: Counting(int(total), int(chunk)))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
