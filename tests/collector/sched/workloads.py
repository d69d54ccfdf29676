"""Programs whose switches are known, and small helpers around them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from collector.clock import ClockReading

# Two processes on one CPU that hand a byte to and fro: every turn is one wakeup and one switch for each of them.
PING_PONG = """
import os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
a, b = os.pipe(), os.pipe()
turns = int(sys.argv[1])
sys.stdin.readline()
if os.fork() == 0:
    for _ in range(turns):
        os.read(a[0], 1); os.write(b[1], b"x")
    os._exit(0)
for _ in range(turns):
    os.write(a[1], b"x"); os.read(b[0], 1)
os.wait()
"""
SLEEPER = """
import sys, time, threading
print(threading.get_native_id(), flush=True)
sys.stdin.readline()
for _ in range(int(sys.argv[1])):
    time.sleep(0.001)
print(open(f"/proc/self/task/{threading.get_native_id()}/schedstat").read(), flush=True)
sys.stdin.readline()
"""


@contextmanager
def script(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A Python program that waits for a line on its standard input before it works."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def go(process: subprocess.Popen[str]) -> None:
    """Let a `script` take its next step."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def line(process: subprocess.Popen[str]) -> str:
    """The next line a `script` prints."""
    assert process.stdout is not None
    return process.stdout.readline()


def clock_now() -> ClockReading:
    """The clocks as the agent reads them, without a stated bound."""
    monotonic, realtime = time.monotonic_ns(), time.time_ns()
    return ClockReading(realtime, monotonic, realtime - monotonic, 200, None, "none")


def is_root() -> bool:
    """Whether the tests may take and drop capabilities."""
    return os.geteuid() == 0


# Processes that wake, sleep and compete for the CPUs by a seed, each so many times however long it takes: enough waits
# of both kinds for percentiles.
BUSY_BOX = """
import os, random, sys, time
open("/proc/self/comm", "w").write("busybox")
sys.stdin.readline()
children = []
for n in range(int(sys.argv[2])):
    pid = os.fork()
    if pid == 0:
        rng = random.Random(n)
        for _ in range(int(sys.argv[1])):
            end = time.monotonic() + rng.expovariate(1 / 0.0004)
            while time.monotonic() < end: pass
            time.sleep(rng.expovariate(1 / 0.0008))
        os._exit(0)
    children.append(pid)
for pid in children: os.waitpid(pid, 0)
"""


# Two of them on one CPU: `victim` computes; `thief` wakes every millisecond and is favoured, so it takes the CPU.
SPIN = """
import os, sys, time
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
open("/proc/self/comm", "w").write(sys.argv[1])
if sys.argv[1] == "victim": os.nice(5)
print("ready", flush=True)
sys.stdin.readline()
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    if sys.argv[1] == "thief":
        time.sleep(0.001)
        turn = time.monotonic() + 0.0005
        while time.monotonic() < turn: pass
"""

# Computes on the first CPU for so many seconds, says so, and waits.
FAIR_SPIN = """
import os, sys, time
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
sys.stdin.readline()
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end: pass
print("done", flush=True)
sys.stdin.readline()
"""
