"""Network namespaces as hosts: made for a test, joined by veth to the root namespace or to each other, removed after.

All of them share one machine and so one clock.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Namespace:
    """One namespace: `device` inside has `address`, its peer has `gateway`."""

    name: str
    device: str
    address: str
    gateway: str

    def command(self, *argv: str) -> list[str]:
        """The command line that runs `argv` inside."""
        return ["ip", "netns", "exec", self.name, *argv]

    def run(self, *argv: str) -> str:
        """Run to the end inside; what it wrote."""
        return run(*self.command(*argv))


def run(*argv: str) -> str:
    """Run a command to its end; raises with what it said."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def needs_namespaces() -> None:
    """Skip where namespaces cannot be made."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and iproute2 to make network namespaces")
    try:
        run("ip", "netns", "add", f"ts-try-{os.getpid()}")
        run("ip", "netns", "del", f"ts-try-{os.getpid()}")
    except RuntimeError as error:
        pytest.skip(f"network namespaces cannot be made here: {error}")


@contextmanager
def namespaces(count: int, subnet: int) -> Iterator[list[Namespace]]:
    """`count` namespaces, each joined to the root namespace by a veth pair of its own in 10.98.`subnet`+i.0/24."""
    needs_namespaces()
    tag = f"{os.getpid() % 100_000}"
    made: list[Namespace] = []
    try:
        for i in range(count):
            name, outside, inside = f"ts{tag}h{i}", f"to{tag}v{i}", f"ti{tag}v{i}"
            net = f"10.98.{subnet + i}"
            space = Namespace(name, inside, f"{net}.2", f"{net}.1")
            run("ip", "netns", "add", name)
            made.append(space)
            run("ip", "link", "add", outside, "type", "veth", "peer", "name", inside, "netns", name)
            run("ip", "addr", "add", f"{net}.1/24", "dev", outside)
            run("ip", "link", "set", outside, "up")
            space.run("ip", "addr", "add", f"{net}.2/24", "dev", inside)
            space.run("ip", "link", "set", inside, "up")
            space.run("ip", "link", "set", "lo", "up")
            space.run("ip", "route", "add", "default", "via", f"{net}.1")
        yield made
    finally:
        for space in made:
            subprocess.run(["ip", "netns", "del", space.name], capture_output=True, timeout=30)
