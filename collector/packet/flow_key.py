"""A 64-bit name for a flow, the same in both directions.

Two different flows share a name with a probability of n^2 / 2^65: about 3 in 10^8 for a million flows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]

_A, _B, _C = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def flow_keys(source: U64, target: U64, protocol: NDArray[np.int64]) -> tuple[U64, NDArray[np.bool_]]:
    """Names of flows between two endpoints, and whether a packet runs from the larger endpoint to the smaller.

    `source` and `target` are 64-bit endpoints: address and port (IPv4), or `endpoint6` of them.
    """
    swapped = source > target
    low, high = np.minimum(source, target), np.maximum(source, target)
    with np.errstate(over="ignore"):
        key = mix(mix(low) + high + protocol.astype(np.uint64) * _A)
    return key, swapped


def endpoint4(address: NDArray[np.int64], port: NDArray[np.int64]) -> U64:
    """An IPv4 address and port in 48 bits, exactly."""
    return ((address << 16) | port).view(np.uint64)


def endpoint6(high: U64, low: U64, port: NDArray[np.int64]) -> U64:
    """An IPv6 address and port mixed into 64 bits."""
    with np.errstate(over="ignore"):
        return mix(mix(high + _A) + low + port.astype(np.uint64) * _B)


def mix(x: U64) -> U64:
    """The finaliser of splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014)."""
    with np.errstate(over="ignore"):
        y = x >> np.uint64(30)
        y ^= x
        y *= _B
        y ^= y >> np.uint64(27)
        y *= _C
        y ^= y >> np.uint64(31)
        return y
