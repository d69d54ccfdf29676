"""A 64-bit digest of many messages at once, to tell whether two lines carried the same under one number.

Messages of one length are hashed together: the sum of their 8-byte words times odd constants, one per place, and of the
length. A change within one word always changes it; other changes escape with a chance of 2^-63. It is no defence
against somebody who wants two messages to agree.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from collector.packet.block import rows_at

_PIECE = 4 << 20  # bytes gathered at once


def digests(data: NDArray[np.uint8], starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The digest of `data[starts[i] : starts[i] + lengths[i]]`, uint64[n]."""
    out = np.zeros(len(starts), dtype=np.uint64)
    if not len(starts):
        return out
    sizes = np.unique(lengths)
    for size in sizes.tolist():
        index = np.flatnonzero(lengths == size) if len(sizes) > 1 else np.arange(len(lengths))
        words = -(-size // 8)
        out[index] = (size * 0x9E3779B97F4A7C15) & 0xFFFF_FFFF_FFFF_FFFF
        if not words:
            continue
        step = max(1, _PIECE // (words * 8))
        for low in range(0, len(index), step):
            part = index[low : low + step]
            rows = np.zeros((len(part), words * 8), dtype=np.uint8)
            rows[:, :size] = rows_at(data, starts[part], size)
            with np.errstate(over="ignore"):
                out[part] += rows.view("<u8") @ _factors(words)
    return out


@cache
def _factors(count: int) -> NDArray[np.uint64]:
    # The same for every count: more words only add factors.
    rng = np.random.default_rng(0x7A11)
    return rng.integers(0, 1 << 63, count, dtype=np.uint64) << np.uint64(1) | np.uint64(1)
