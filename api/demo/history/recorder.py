"""Records what comes into the running order path: the feed's datagrams, how it was started, faults, and latencies."""

from __future__ import annotations

import itertools
import os
import select
import threading
import time
from pathlib import Path

from api.demo.control import FOLDER, Control
from api.demo.history.hours import measured
from api.demo.history.recording import MAX_CONTENT, MAX_SPAN_NS, Datagrams, Inputs, RecordingError
from api.demo.measure import quantiles, watch
from api.demo.tap import NAME, RECORD
from collector.clock import HostClock
from collector.record import Columns

_READ = 1 << 20
_SETTINGS = ("--rate", "--seed", "--profile", "--compression", "--epoch")


def record(data: Path, ring_dir: Path, feed_pid: int, for_ns: int) -> Inputs:
    """Everything that comes in for so long. Raises RecordingError when nothing does, or the tap breaks off."""
    if not 1_000_000_000 <= for_ns <= MAX_SPAN_NS:
        raise RecordingError("a recording lasts 1 s to 1 h")
    load = _load(feed_pid)
    stamps: list[Columns] = []
    done = threading.Event()
    watcher = threading.Thread(target=lambda: stamps.extend(watch(ring_dir, for_ns * 1e-9, done.is_set)))
    watcher.start()
    try:
        from_ns = time.time_ns()
        datagrams = _tapped(data / FOLDER, for_ns)
        to_ns = time.time_ns()
    finally:
        done.set()
        watcher.join()
    faults = tuple(
        fault for fault in Control(data / FOLDER).read()
        if fault.start_ns < to_ns and (fault.end_ns is None or fault.end_ns > from_ns)
    )  # fmt: skip
    return Inputs(
        from_ns=from_ns, to_ns=max(to_ns, datagrams[-1][0]), monotonic_ns=HostClock().read().offset_ns,
        seed=int(load.get("seed", "1")), load=load, faults=faults,
        delays={**measured(), **quantiles(stamps)}, datagrams=datagrams,
    )  # fmt: skip


def _load(pid: int) -> dict[str, str]:
    """How the feed was started."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    except OSError as error:
        raise RecordingError(f"the feed (pid {pid}) has ended: {error.strerror}") from error
    return {a.removeprefix("--"): b for a, b in itertools.pairwise(words) if a in _SETTINGS}


def _tapped(control: Path, for_ns: int) -> Datagrams:
    path = control / NAME
    path.unlink(missing_ok=True)
    os.mkfifo(path, 0o600)
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    held, joined = bytearray(), False
    end_ns = time.monotonic_ns() + for_ns
    try:
        while (left_ns := end_ns - time.monotonic_ns()) > 0:
            if not select.select([fd], [], [], min(0.2, left_ns * 1e-9))[0]:
                continue
            data = os.read(fd, _READ)
            if not data and joined:
                raise RecordingError("the order path's network ended, or this program did not keep up: record again")
            if not data:
                time.sleep(0.01)
            joined = joined or bool(data)
            held += data
            if len(held) > MAX_CONTENT:
                raise RecordingError(f"more than {MAX_CONTENT:,} bytes came in; record a shorter time")
    finally:
        os.close(fd)
        path.unlink(missing_ok=True)
    found = _cut(bytes(held))
    if not found:
        raise RecordingError("no datagram came in; is the market closed? (--profile day)")
    return found


def _cut(data: bytes) -> Datagrams:
    """Whole records; the pipe may have been closed before the last one was read."""
    found, at = [], 0
    while at + RECORD.size <= len(data):
        time_ns, length = RECORD.unpack_from(data, at)
        at += RECORD.size + length
        if at <= len(data):
            found.append((time_ns, data[at - length : at]))
    return tuple(found)
