"""Buckets: the log-linear index that every count, percentile and histogram of Tailsight uses.

The index is HdrHistogram's with 7 sub-bucket bits (the counts index of a histogram with 2 significant digits and
lowest discernible value 1): values up to 255 have a bucket each, above that every octave has 128 buckets, so that a
bucket is at most 1/128 = 0.78 % wide and its midpoint at most 0.39 % wrong.
Layout: https://github.com/HdrHistogram/HdrHistogram, AbstractHistogram.countsArrayIndex.

The top bits of the IEEE 754 double of `v` are its exponent and the first 7 bits of its mantissa, which is the index up
to an offset. The same expression runs in numpy and in SQL. Exact for |v| < 2^53 (104 days in nanoseconds).
A negative latency `-v` has bucket `-1 - index(v)`: order is kept, and no value is clamped.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SUB_BUCKET_BITS = 7
_SHIFT = 52 - SUB_BUCKET_BITS
# index(128) = 128: the double of 2^7 has biased exponent 1023 + 7, and 128 sub-buckets per octave.
_OFFSET = ((1023 + SUB_BUCKET_BITS) << SUB_BUCKET_BITS) - (1 << SUB_BUCKET_BITS)
_LINEAR = 1 << SUB_BUCKET_BITS
MAX_VALUE = 1 << 53


def index(values: NDArray[Any] | int) -> NDArray[np.int64]:
    """Bucket of each latency in nanoseconds: int64[n] in (a scalar gives a 0-d array), int64[n] out."""
    v = np.asarray(values, dtype=np.int64)
    magnitude = np.abs(v)
    bits = (magnitude.astype(np.float64).view(np.uint64) >> np.uint64(_SHIFT)).astype(np.int64)
    positive = np.where(magnitude < _LINEAR, magnitude, bits - _OFFSET)
    return np.where(v >= 0, positive, -1 - positive)


def low(buckets: NDArray[Any] | int) -> NDArray[np.int64]:
    """The smallest value of each bucket, in nanoseconds."""
    b = np.asarray(buckets, dtype=np.int64)
    return np.where(b >= 0, _edge(np.maximum(b, 0)), -(_edge(np.maximum(-b, 0)) - 1))


def high(buckets: NDArray[Any] | int) -> NDArray[np.int64]:
    """The largest value of each bucket (HdrHistogram's highest equivalent value), in nanoseconds."""
    b = np.asarray(buckets, dtype=np.int64)
    return np.where(b >= 0, _edge(np.maximum(b, 0) + 1) - 1, -_edge(np.maximum(-1 - b, 0)))


def midpoint(buckets: NDArray[Any] | int) -> NDArray[np.int64]:
    """The middle of each bucket, rounded towards zero: the value itself where the bucket holds one value."""
    lows, highs = low(buckets), high(buckets)
    return np.where(lows >= 0, (lows + highs) // 2, -((-lows - highs) // 2))


def half_width(buckets: NDArray[Any] | int) -> NDArray[np.int64]:
    """The largest distance of a bucket's values to its midpoint, in nanoseconds: 0 where it holds one value."""
    return (high(buckets) - low(buckets) + 1) // 2


def index_sql(value: str) -> str:
    """The bucket of the SQL expression `value` (an Int64), as Int16. Must equal `index`; a test compares them."""
    return f"toInt16(if({value} >= 0, {_positive_sql(value)}, -1 - {_positive_sql(f'(-{value})')}))"


def _positive_sql(value: str) -> str:
    return (
        f"if({value} < {_LINEAR}, toInt32({value}), "
        f"toInt32(bitShiftRight(reinterpretAsUInt64(toFloat64({value})), {_SHIFT})) - {_OFFSET})"
    )


def _edge(b: NDArray[np.int64]) -> NDArray[np.int64]:
    """The smallest value of a bucket >= 0."""
    return np.where(
        b < _LINEAR,
        b,
        ((np.maximum(b, _LINEAR) + _OFFSET).astype(np.uint64) << np.uint64(_SHIFT)).view(np.float64).astype(np.int64),
    )
