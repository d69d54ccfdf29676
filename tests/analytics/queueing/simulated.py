"""Queues whose truth is known: a FIFO server by Lindley's recursion, in nanoseconds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

S = 1_000_000_000


@dataclass(frozen=True)
class Queue:
    arrived_ns: NDArray[np.int64]
    taken_ns: NDArray[np.int64]
    left_ns: NDArray[np.int64]
    depth: NDArray[np.int64]

    @property
    def to_ns(self) -> int:
        return int(self.left_ns[-1]) + 1


def fifo(gap_ns: NDArray[np.int64], service_ns: NDArray[np.int64]) -> Queue:
    """One server, in order of arrival; depth counts who waits or is served when a message comes."""
    arrived = np.cumsum(gap_ns)
    work = np.cumsum(service_ns) - service_ns
    taken = work + np.maximum.accumulate(arrived - work)
    left = taken + service_ns
    depth = np.arange(len(arrived)) - np.searchsorted(left, arrived, side="right")
    return Queue(arrived, taken, left, depth)


def mm1(rng: np.random.Generator, n: int, *, rho: float = 0.8, service_ns: int = S) -> Queue:
    gaps = rng.exponential(service_ns / rho, n).astype(np.int64)
    return fifo(gaps, np.maximum(1, rng.exponential(service_ns, n)).astype(np.int64))


def mm1_quantile(q: float, low: int, high: int | None, *, rho: float = 0.8) -> float:
    """The q-quantile of the time in an M/M/1 queue of mean service 1, given `low` to `high` others on arrival.

    Given n others it is Erlang(n + 1); n is geometric with rho.
    """
    depths = np.arange(low, (high if high is not None else low + 400) + 1)
    weights = rho**depths / np.sum(rho**depths)
    lo, hi = 0.0, 1000.0
    for _ in range(80):
        middle = (lo + hi) / 2
        if float(np.sum(weights * stats.gamma.cdf(middle, depths + 1))) < q:
            lo = middle
        else:
            hi = middle
    return (lo + hi) / 2
