"""Which messages are the tail, which the body, and what each of them took, stage by stage, to the nanosecond.

A message that never reached the path's end took at least the path's `max_age`: it is in the tail with that time, the
stages it is known to have passed, and the remainder as `unfinished`. One that ended early because it was refused or
shed is not slow: it is counted apart. One that may still arrive is undecided and left out.

    sum of stages + unattributed + unfinished = what the message took, exactly
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analytics.paths import UNATTRIBUTED, Path

Ints = NDArray[np.int64]
UNFINISHED = "unfinished"
# An unfinished message with one of these ended there and then.
ENDED = ("error", "rejected", "shed")
BODY = (0.4, 0.6)
_BAND = 0.1  # of the tail's size, to each side of the quantile
_LEAST_BAND = 10


@dataclass(frozen=True, slots=True)
class Cuts:
    """Where the tail begins, and the ends (included) of the body and of a narrow band around the tail's begin, ns."""

    q: float
    count: int
    tail_ns: int
    body_low_ns: int
    body_high_ns: int
    band_low_ns: int
    band_high_ns: int


@dataclass(frozen=True, slots=True)
class Apart:
    """Messages that are in no number: failed early, by outcome, and those that may still arrive."""

    failed: dict[str, int]
    undecided: int


def parts(path: Path) -> list[str]:
    """What a message's time is divided into, in order."""
    return [*(stage.name for stage in path.stages), UNATTRIBUTED, UNFINISHED]


def took(frame: pl.DataFrame, path: Path, known_to_ns: int | None = None) -> tuple[pl.DataFrame, Apart]:
    """The messages of a population's frame with `took_ns`, `finished` and the columns `part_0` ... of `parts(path)`.

    `known_to_ns` is up to when stamps have landed: an unfinished message is decided only when `max_age` has passed by
    then (None: all have). A stage that is not known is 0 and its time unattributed.
    """
    stages = [f"ns_{i}" for i in range(len(path.stages))]
    ended = pl.col("e2e_ns").is_null() & pl.col("outcome").cast(pl.String).is_in(ENDED)
    open_ = pl.col("e2e_ns").is_null() & ~ended
    late = pl.lit(known_to_ns is not None) & (pl.col("start_ns") + path.max_age_ns > (known_to_ns or 0))
    unfinished = frame.filter(pl.col("e2e_ns").is_null()).select(
        failed=ended, undecided=open_ & late, outcome=pl.col("outcome").cast(pl.String)
    )
    failed = unfinished.filter("failed")["outcome"].value_counts().sort("outcome").rows()
    apart = Apart(dict(failed), int(unfinished["undecided"].sum()))
    whole = pl.col("e2e_ns").fill_null(path.max_age_ns)
    known = pl.sum_horizontal([pl.col(name).fill_null(0) for name in stages])
    finished = pl.col("e2e_ns").is_not_null()
    kept = frame if not len(unfinished) else frame.filter(finished | (open_ & ~late))
    k = len(stages)
    return kept.with_columns(
        whole.alias("took_ns"),
        finished.alias("finished"),
        *(pl.col(name).fill_null(0).alias(f"part_{i}") for i, name in enumerate(stages)),
        pl.when(finished).then(whole - known).otherwise(0).alias(f"part_{k}"),
        pl.when(finished).then(0).otherwise(whole - known).alias(f"part_{k + 1}"),
    ), apart


def cuts(values: Ints, q: float) -> Cuts:
    """The cuts of what messages took, int64[n], for the slowest `q` of them. Raises ValueError for too few or a bad q.

    The tail holds everything as slow as its fastest member, so ties can make it larger than q.
    """
    wanted = ranks(len(values), q)
    parted = np.partition(values, sorted(set(wanted)))
    return Cuts(q, len(values), *(int(parted[rank]) for rank in wanted))


def ranks(n: int, q: float) -> tuple[int, int, int, int, int]:
    """The ranks, from 0, of the cuts among n values in ascending order, in the order of the fields of `Cuts`.

    Raises ValueError for too few or a bad q.
    """
    if not 0 < q <= 0.5:
        raise ValueError(f"q is the slowest share of messages, above 0 and at most 0.5; got {q}")
    if n < 10:
        raise ValueError(f"a tail needs at least 10 messages to be told from a body, there are {n}")
    size = max(1, round(q * n))
    near = max(_LEAST_BAND, round(_BAND * size))
    last = n - 1
    return n - size, int(BODY[0] * n), min(last, int(BODY[1] * n)), max(0, n - size - near), min(last, n - size + near)


def apportion(sums: Ints, count: int) -> list[int]:
    """Means of sums over `count`, in whole ns, that add up to the whole's rounded mean: the largest remainders are
    rounded up (Hare's quota)."""
    if not count:
        return [0] * len(sums)
    exact = [int(value) for value in sums]
    floors = [value // count for value in exact]
    total = sum(exact)
    missing = (2 * total + count) // (2 * count) - sum(floors)
    order = sorted(range(len(exact)), key=lambda i: (-(exact[i] - floors[i] * count), i))
    for i in order[:missing]:
        floors[i] += 1
    return floors
