"""The real kernel, where it may be used: otherwise a skip that says what is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from collector.sched.bpf_syscall import VerifierError
from collector.sched.choose import explain
from collector.sched.kernel_pairs import KernelPairs
from collector.sched.perf_ring import PerfRings
from collector.sched.tracefs import TracefsError


@pytest.fixture
def kernel_pairs() -> Iterator[Callable[..., KernelPairs]]:
    """Makes attached `KernelPairs`; closes them after the test."""
    made: list[KernelPairs] = []

    def make(**arguments: Any) -> KernelPairs:
        try:
            made.append(KernelPairs(**arguments))
        except VerifierError:
            raise  # our program is wrong: no reason to skip
        except (TracefsError, OSError) as error:
            pytest.skip(f"no eBPF here: {explain('ebpf', error)}")
        return made[-1]

    yield make
    for pairs in made:
        pairs.close()


@pytest.fixture
def perf_rings() -> Iterator[Callable[[], PerfRings]]:
    """Makes open `PerfRings`; closes them after the test."""
    made: list[PerfRings] = []

    def make() -> PerfRings:
        try:
            made.append(PerfRings(pages=2048))
        except (TracefsError, OSError) as error:
            pytest.skip(f"no perf rings here: {explain('perf', error)}")
        return made[-1]

    yield make
    for rings in made:
        rings.close()
