"""Latency of a path's stages: percentiles, series, histogram and heatmap, from counts or from raw stamps.

Every answer says what it is built on: how many latencies, how many unfinished beside them, how complete the data is,
how wrong a value may be, and why a percentile is refused.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from typing import Literal

import msgspec
import numpy as np

from analytics import buckets, tally
from analytics.completeness import asked as completeness
from analytics.paths import Path
from analytics.percentiles import percentiles as percentiles_of
from analytics.stitch import ClockSettings
from collector.store import Store

NS = 1_000_000_000
Source = Literal["counts", "raw"]
_FIELDS = {"p50": "p50_ns", "p90": "p90_ns", "p95": "p95_ns", "p99": "p99_ns", "p99.9": "p999_ns", "p99.99": "p9999_ns"}


class StageLatency(msgspec.Struct, frozen=True, kw_only=True):
    """The latency of one stage in [from_ns, to_ns). Keys of `ci`, `value_error`, `refused` and `with_unfinished` are
    the percentile fields' names.

    `unfinished` messages never reached the path's last end and have no value here; `with_unfinished` says where a
    percentile would be if each of them had taken longer than everything else (null: among them). `headless` messages of
    the whole path, whatever the stage and rollup, have no known start and are in no other number. `missing` finished
    without this stage. `below_resolution` latencies are smaller than their clock error. `value_error` is the largest
    distance to the true order statistic in ns. `completeness` is null where it is unknown.
    """

    path: str
    stage: str
    rollup: str
    from_ns: int
    to_ns: int
    count: int
    unfinished: int
    headless: int
    missing: int
    negative: int
    below_resolution: int
    error_unknown: int
    repeated: int
    max_error_ns: int
    mean_ns: float | None
    min_ns: int | None
    p50_ns: int | None
    p90_ns: int | None
    p95_ns: int | None
    p99_ns: int | None
    p999_ns: int | None
    p9999_ns: int | None
    max_ns: int | None
    ci: dict[str, tuple[int, int]]
    value_error: dict[str, int]
    with_unfinished: dict[str, int | None]
    refused: dict[str, str]
    completeness: float | None
    sentence: str = ""


class Bar(msgspec.Struct, frozen=True):
    """Latencies from `low_ns` to `high_ns`, both included, and how many."""

    low_ns: int
    high_ns: int
    count: int


class Cell(msgspec.Struct, frozen=True):
    """A bar of one step of time that starts at `start_ns`."""

    start_ns: int
    low_ns: int
    high_ns: int
    count: int


def percentiles(
    store: Store,
    path: Path | str,
    *,
    stage: str | None = None,
    from_ns: int | None = None,
    to_ns: int | None = None,
    rollup: str = "",
    source: Source = "counts",
    clock: ClockSettings | None = None,
) -> list[StageLatency]:
    """Every stage of `path` (or one) in [from_ns, to_ns), by default all that is kept. Stages without rows are absent.

    Counts answer for whole 10 s windows: the range is widened to them, and each answer says its own. `source="raw"`
    stitches the stamps of exactly the range and needs a `Path`. Raises ValueError when the range is empty or `source`
    unknown, TypeError for raw with a name.
    """
    return _answers(store, path, stage, from_ns, to_ns, rollup, source, None, clock)


def series(
    store: Store,
    path: Path | str,
    *,
    step_s: int,
    stage: str | None = None,
    from_ns: int | None = None,
    to_ns: int | None = None,
    rollup: str = "",
    source: Source = "counts",
    clock: ClockSettings | None = None,
) -> list[StageLatency]:
    """`percentiles` per step of `step_s` seconds (a multiple of 10), in time order; steps without rows are absent."""
    _check_step(step_s)
    return _answers(store, path, stage, from_ns, to_ns, rollup, source, step_s, clock)


def histogram(
    store: Store,
    path: Path | str,
    stage: str,
    *,
    from_ns: int | None = None,
    to_ns: int | None = None,
    rollup: str = "",
    source: Source = "counts",
) -> list[Bar]:
    """The counts of one stage by bucket, ascending."""
    reach = _reach(store, path, from_ns, to_ns, source)
    if reach is None:
        return []
    tallies = _tallies(store, path, stage, *reach, rollup, source, None, None)
    return [
        Bar(int(buckets.low(b)), int(buckets.high(b)), n)
        for one in tallies.values()
        for b, n in sorted(one.buckets.items())
    ]


def heatmap(
    store: Store,
    path: Path | str,
    stage: str,
    *,
    step_s: int,
    from_ns: int | None = None,
    to_ns: int | None = None,
    rollup: str = "",
    source: Source = "counts",
    per_octave: int = 1 << buckets.SUB_BUCKET_BITS,
) -> list[Cell]:
    """The counts of one stage by step of `step_s` seconds (a multiple of 10) and bucket, ascending.

    With a `per_octave` (a power of two) below 128, as many neighbouring buckets are added up as leave so many per
    octave; their edges stay edges of buckets, so that the counts are exact.
    """
    _check_step(step_s)
    shift = (1 << buckets.SUB_BUCKET_BITS).bit_length() - per_octave.bit_length()
    if per_octave < 1 or per_octave & (per_octave - 1) or shift < 0:
        raise ValueError(f"per_octave must be a power of two from 1 to 128, got {per_octave}")
    reach = _reach(store, path, from_ns, to_ns, source)
    if reach is None:
        return []
    tallies = _tallies(store, path, stage, *reach, rollup, source, step_s, None)
    last = (1 << shift) - 1
    cells = []
    for (second, _), one in sorted(tallies.items()):
        merged: Counter[int] = Counter()
        for b, n in one.buckets.items():
            merged[b >> shift << shift] += n
        edges = sorted(merged)
        lows, highs = buckets.low(np.array(edges)).tolist(), buckets.high(np.array(edges) + last).tolist()
        cells += [Cell(second * NS, low, high, merged[b]) for b, low, high in zip(edges, lows, highs, strict=True)]
    return cells


def latency_of(
    one: tally.Tally,
    *,
    path: str,
    stage: str,
    rollup: str,
    from_ns: int,
    to_ns: int,
    completeness: float | None,
    sentence: str = "",
    source_error: float = 0.0,
) -> StageLatency:
    """The answer for one tally."""
    counted = one.counts
    found = {_FIELDS[name]: p for name, p in percentiles_of(counted).items()}
    given = {name: p for name, p in found.items() if not p.refused}
    total = counted.count
    return StageLatency(
        path=path,
        stage=stage,
        rollup=rollup,
        from_ns=from_ns,
        to_ns=to_ns,
        count=total,
        unfinished=one.sums["unfinished"],
        headless=one.headless,
        missing=one.sums["missing"],
        negative=one.sums["negative"],
        below_resolution=one.sums["below_resolution"],
        error_unknown=one.sums["error_unknown"],
        repeated=one.sums["repeated"],
        max_error_ns=one.max_error_ns,
        mean_ns=counted.sum_ns / total if total else None,
        min_ns=one.min_ns,
        max_ns=one.max_ns,
        p50_ns=found["p50_ns"].value_ns,
        p90_ns=found["p90_ns"].value_ns,
        p95_ns=found["p95_ns"].value_ns,
        p99_ns=found["p99_ns"].value_ns,
        p999_ns=found["p999_ns"].value_ns,
        p9999_ns=found["p9999_ns"].value_ns,
        ci={name: (p.low_ns or 0, p.high_ns or 0) for name, p in given.items()},
        value_error={
            name: (p.error_ns or 0) + math.ceil(source_error * abs(p.value_ns or 0)) for name, p in given.items()
        },
        with_unfinished={name: p.with_unfinished_ns for name, p in given.items()},
        refused={name: p.refused for name, p in found.items() if p.refused},
        completeness=completeness,
        sentence=sentence,
    )


def _answers(
    store: Store,
    path: Path | str,
    stage: str | None,
    from_ns: int | None,
    to_ns: int | None,
    rollup: str,
    source: Source,
    step_s: int | None,
    clock: ClockSettings | None,
) -> list[StageLatency]:
    reach = _reach(store, path, from_ns, to_ns, source)
    if reach is None:
        return []
    begin, end = reach
    first = begin if step_s is None else begin // (step_s * NS) * step_s * NS
    share_of = completeness(store, first, end, step_s)
    tallies = _tallies(store, path, stage, begin, end, rollup, source, step_s, clock)
    name = path if isinstance(path, str) else path.name
    order = {s: i for i, s in enumerate(path.stage_names)} if isinstance(path, Path) else {}
    shares = {c.from_ns // NS: c.share for c in share_of()}
    answers = []
    for (second, which), one in sorted(
        tallies.items(), key=lambda item: (item[0][0], order.get(item[0][1], 99), item[0][1])
    ):
        known = isinstance(path, Path) and which in order
        answers.append(
            latency_of(
                one,
                path=name,
                stage=which,
                rollup=rollup,
                from_ns=begin if step_s is None else max(begin, second * NS),
                to_ns=end if step_s is None else min(end, (second + step_s) * NS),
                completeness=shares.get(second),
                sentence=path.sentence(which) if known and isinstance(path, Path) else "",
                source_error=path.value_error if isinstance(path, Path) else 0.0,
            )
        )
    return answers


def _reach(
    store: Store, path: Path | str, from_ns: int | None, to_ns: int | None, source: Source
) -> tuple[int, int] | None:
    """The range in ns that an answer is of; None when everything is asked for and there is nothing."""
    if source not in ("counts", "raw"):
        raise ValueError(f"source must be 'counts' or 'raw', got {source!r}")
    if from_ns is None or to_ns is None:
        all_of_it = tally.extent(store, path if isinstance(path, str) else path.name)
        if all_of_it is None and source == "counts":
            return None
        first, last = all_of_it or (0, time.time_ns() // NS)
        open_ended = (from_ns is None) != (to_ns is None)
        from_ns = first * NS if from_ns is None else from_ns
        to_ns = last * NS if to_ns is None else to_ns
        if open_ended and from_ns >= to_ns:
            return None  # asked for what lies beyond everything there is: windows may be behind the clock
    if from_ns >= to_ns:
        raise ValueError(f"the range is empty: from_ns {from_ns} is not before to_ns {to_ns}")
    if source == "raw":
        return from_ns, to_ns
    begin, end = tally.widen(from_ns, to_ns)
    return begin * NS, end * NS


def _tallies(
    store: Store,
    path: Path | str,
    stage: str | None,
    from_ns: int,
    to_ns: int,
    rollup: str,
    source: Source,
    step_s: int | None,
    clock: ClockSettings | None,
) -> tally.Tallies:
    name = path if isinstance(path, str) else path.name
    if source == "counts":
        return tally.stored(store, name, from_ns // NS, to_ns // NS, stage=stage, rollup=rollup, step_s=step_s)
    if isinstance(path, str):
        raise TypeError(f"source='raw' stitches stamps and needs the configured path, got the name {path!r}")
    return tally.raw(store, path, from_ns, to_ns, stage=stage, rollup=rollup, step_s=step_s, clock=clock)


def _check_step(step_s: int) -> None:
    if step_s <= 0 or step_s % 10:
        raise ValueError(f"step_s must be a positive multiple of 10, the finest window, got {step_s}")
