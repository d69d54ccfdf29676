"""Hours as frames, made in processes of their own: the simulation takes a core, and so does the landing."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np

from api.demo.drop_copy import Copy
from api.demo.history.calendar import HOUR_NS
from api.demo.history.hours import Settings, simulate
from api.demo.history.simulation import OrderPath
from collector.payload import Packed, pack_columns
from collector.record import Columns

FRAME_ROWS = 65_536
_PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h
_AHEAD = 2  # hours per process that are made before they are wanted


@dataclass(frozen=True, slots=True)
class Made:
    """One span as frames: (when it was cut, the frame), in order, and what is in them."""

    begin_ns: int
    end_ns: int
    frames: tuple[tuple[int, Packed], ...]
    stamps: int
    links: int
    quotes: int
    orders: int
    copies: tuple[tuple[int, Copy], ...]

    @property
    def events(self) -> int:
        """Rows of all frames."""
        return sum(packed.events for _, packed in self.frames)


def pack(path: OrderPath, begin_ns: int, end_ns: int) -> Made:
    """What was stamped as frames, each cut when its last event happened, and within the span: a batch lies in a day."""
    frames = []
    rows = {"stamps": 0, "links": 0}
    for columns in path.tape.columns():
        rows[columns.table.name] = rows.get(columns.table.name, 0) + len(columns)
        frames += [_frame(part, begin_ns, end_ns) for part in _parts(columns)]
    frames.sort(key=lambda frame: frame[0])
    return Made(
        begin_ns,
        end_ns,
        tuple(frames),
        rows["stamps"],
        rows["links"],
        path.tape.quotes,
        len(path.done),
        tuple(path.copies),
    )


def make(settings: Settings, begin_ns: int) -> Made:
    """One hour of a history."""
    return pack(simulate(settings, begin_ns), begin_ns, begin_ns + HOUR_NS)


def made(settings: Settings, hours: Iterable[int], processes: int) -> Iterator[Made]:
    """Hours in order, made ahead of time by `processes` processes; 0 makes them here."""
    if not processes:
        for begin_ns in hours:
            yield make(settings, begin_ns)
        return
    # Not fork: the store's client has threads. They end with us, however we end.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=_leash, initargs=(os.getpid(),)) as pool:
        waiting: deque[Future[Made]] = deque()
        try:
            for begin_ns in hours:
                waiting.append(pool.submit(make, settings, begin_ns))
                if len(waiting) > _AHEAD * processes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _parts(columns: Columns) -> Iterator[Columns]:
    for start in range(0, len(columns), FRAME_ROWS):
        yield columns.take(np.arange(start, min(start + FRAME_ROWS, len(columns))))


def _frame(columns: Columns, begin_ns: int, end_ns: int) -> tuple[int, Packed]:
    last_ns = int(columns.values["ts_ns"][-1]) if "ts_ns" in columns.values else begin_ns
    return min(max(last_ns, begin_ns), end_ns - 1), pack_columns(columns)


def _leash(parent: int) -> None:
    """End when the process ends that started this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the leash was on
        os._exit(1)
