"""Real network namespaces: pairs joined by veth, and the calling thread inside one of them."""

from __future__ import annotations

import ctypes
import itertools
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from collector.clock import ClockReading, HostClock
from tests.needs import program

_numbers = itertools.count()
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Pair:
    """Two namespaces: `left` has interface `l0` with 10.99.0.1, `right` has `r0` with 10.99.0.2."""

    left: str
    right: str


def as_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: packet sockets and network namespaces")


def run(*words: str) -> str:
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return done.stdout


@contextmanager
def pair() -> Iterator[Pair]:
    as_root()
    ip = program("ip", "iproute2")
    tag = f"{os.getpid()}-{next(_numbers)}"
    made = Pair(f"tsl-{tag}", f"tsr-{tag}")
    names = {made.left: ("l0", "10.99.0.1"), made.right: ("r0", "10.99.0.2")}
    try:
        for name in names:
            subprocess.run([ip, "netns", "add", name], check=True)
        run(ip, "-n", made.left, "link", "add", "l0", "type", "veth", "peer", "name", "r0", "netns", made.right)
        for name, (interface, address) in names.items():
            for key in ("all", interface):
                run(ip, "netns", "exec", name, "sh", "-c", f"echo 1 > /proc/sys/net/ipv6/conf/{key}/disable_ipv6")
            run(ip, "-n", name, "address", "add", f"{address}/24", "dev", interface)
            run(ip, "-n", name, "link", "set", "lo", "up")
            run(ip, "-n", name, "link", "set", interface, "up")
        yield made
    finally:
        for name in names:
            subprocess.run([ip, "netns", "delete", name], check=False, capture_output=True)


@contextmanager
def inside(name: str) -> Iterator[None]:
    """The calling thread's new sockets are made in the namespace."""
    with Path("/proc/thread-self/ns/net").open() as home, Path(f"/run/netns/{name}").open() as there:
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(home.fileno())


def _enter(fd: int) -> None:
    if _libc.setns(fd, 0x40000000):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def reading() -> ClockReading:
    return HostClock().read()
