"""Who waits behind whom: time that a message waits for a thread while the thread works on another, slow one.

A stage that ends on another thread than it began on is a hand-over: part of it is waiting for that thread. Where the
thread was at work on a slow stage of another message meanwhile, that stage is what was waited for, and the wait is its
consequence. What remains stays with the hand-over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from analytics import overlap
from analytics.paths import End, Path
from analytics.tail.stages import between
from analytics.tail.tailset import Ints

Place = tuple[str, int]  # host and thread
_ASYNCHRONOUS = 0.5  # of a stage's slow spans: with something else done inside them


@dataclass(frozen=True, slots=True)
class Work:
    """Stages at work on threads: when, which message's, which stage (code), by place."""

    place: list[Place]
    start: Ints
    end: Ints
    code: Ints


def begins(path: Path) -> list[int | None]:
    """For each stage the stage whose end is its begin; None where there is none, so that its thread is not known."""
    ends = {stage.end: i for i, stage in enumerate(path.stages)}
    return [ends.get(stage.start) for stage in path.stages]


def offsets(frame: pl.DataFrame, path: Path) -> list[Ints | None]:
    """When each stage began after its message's start, int64[n], in ns; None where the stages before leave it open.

    Known from the first end on, and from the last end back where a gap lies between. Rows with unknown stages are wrong
    beyond them: leave them out.
    """
    took = [frame[f"ns_{i}"].fill_null(0).to_numpy() for i in range(len(path.stages))]
    zero = np.zeros(frame.height, dtype=np.int64)
    at: dict[End, Ints] = {path.first_end: zero, path.last_end: frame["e2e_ns"].fill_null(0).to_numpy()}
    for _ in path.stages:
        for i, stage in enumerate(path.stages):
            if stage.start in at and stage.end not in at:
                at[stage.end] = at[stage.start] + took[i]
            elif stage.end in at and stage.start not in at:
                at[stage.start] = at[stage.end] - took[i]
    return [at.get(stage.start) for stage in path.stages]


def handed_over(frame: pl.DataFrame, path: Path, number: int) -> np.ndarray:
    """Whether the stage ends on another thread than it began on, bool[n]; a transit always does."""
    before = begins(path)[number]
    if between(path.stages[number]) is not None or before is None:
        return np.ones(frame.height, dtype=np.bool_)
    same = (pl.col(f"host_{number}") == pl.col(f"host_{before}")) & (
        pl.col(f"thread_{number}") == pl.col(f"thread_{before}")
    )
    return ~frame.select(same.fill_null(value=False)).to_series().to_numpy()


def slow_work(frame: pl.DataFrame, path: Path, floors: Sequence[int], codes: Sequence[int]) -> Work:
    """Where threads were at work on a stage for longer than its floor (ns): stages that begin and end on one thread.

    A stage during which its thread passes other ends of stages is no work: the thread does something else meanwhile.
    """
    places: list[Place] = []
    start, end, code = [], [], []
    began = offsets(frame, path)
    passed = _passed(frame, path, began)
    for i, floor in enumerate(floors):
        offset = began[i]
        if offset is None:
            continue
        took = frame[f"ns_{i}"].fill_null(0).to_numpy()
        rows = np.flatnonzero((took > floor) & ~handed_over(frame, path, i))
        if not len(rows):
            continue
        first = frame["start_ns"].to_numpy()[rows] + offset[rows]
        picked = frame[rows]
        mine = list(zip(picked[f"host_{i}"].to_list(), picked[f"thread_{i}"].to_list(), strict=True))
        if _interrupted(mine, first, first + took[rows], passed) > _ASYNCHRONOUS:
            continue
        places += mine
        start.append(first)
        end.append(first + took[rows])
        code.append(np.full(len(rows), codes[i], dtype=np.int64))
    empty = np.zeros(0, dtype=np.int64)
    joined = [np.concatenate(one) if one else empty for one in (start, end, code)]
    return Work(places, *joined)


def behind(frame: pl.DataFrame, path: Path, number: int, work: Sequence[Work], codes: int) -> tuple[Ints, int]:
    """How long the messages of `frame` waited in stage `number` while its thread was at work on slow stages of others:
    sums per code, int64[codes], and the sum of the whole stage. Moments that several claim are counted once."""
    took = frame[f"ns_{number}"].fill_null(0).to_numpy()
    offset = offsets(frame, path)[number]
    out = np.zeros(codes, dtype=np.int64)
    if offset is None or not len(took):
        return out, int(took.sum())
    over = handed_over(frame, path, number)
    first = frame["start_ns"].to_numpy() + offset
    places = list(zip(frame[f"host_{number}"].to_list(), frame[f"thread_{number}"].to_list(), strict=True))
    rows_of = _rows(places)
    busy: dict[Place, list[tuple[int, int, int]]] = {}
    for one in work:
        for place, a, b, c in zip(one.place, one.start.tolist(), one.end.tolist(), one.code.tolist(), strict=True):
            if place in rows_of:
                busy.setdefault(place, []).append((a, b, c))
    for place, spans in busy.items():
        rows = rows_of[place][over[rows_of[place]]]
        # A stage of the same message begins when this one ends, so that none is laid to its own account.
        table = np.array(spans, dtype=np.int64).T
        cut = overlap.segments(table[0], table[1], np.zeros(len(spans), dtype=np.int64))
        out += overlap.parts(first[rows], first[rows] + took[rows], cut, table[2], codes).sum(axis=0)
    return out, int(took.sum())


def _passed(frame: pl.DataFrame, path: Path, began: Sequence[Ints | None]) -> Mapping[Place, Ints]:
    """When each thread passed an end of a stage, ascending."""
    found: dict[Place, list[Ints]] = {}
    start = frame["start_ns"].to_numpy()
    for i in range(len(path.stages)):
        offset = began[i]
        if offset is None:
            continue
        end = pl.Series("at", start + offset + frame[f"ns_{i}"].fill_null(0).to_numpy())
        there = frame.select(pl.col(f"host_{i}").alias("host"), pl.col(f"thread_{i}").alias("thread")).with_columns(end)
        for (host, thread), group in there.filter(frame[f"ns_{i}"].is_not_null()).group_by(["host", "thread"]):
            found.setdefault((str(host), int(str(thread))), []).append(group["at"].to_numpy())
    return {place: np.sort(np.concatenate(one)) for place, one in found.items()}


def _interrupted(places: Sequence[Place], start: Ints, end: Ints, passed: Mapping[Place, Ints]) -> float:
    """The share of spans inside which their thread passed an end of a stage."""
    inside = 0
    for place, a, b in zip(places, start.tolist(), end.tolist(), strict=True):
        events = passed.get(place)
        if events is not None:
            inside += bool(np.searchsorted(events, b, side="left") > np.searchsorted(events, a, side="right"))
    return inside / max(len(places), 1)


def _rows(places: Sequence[Place]) -> Mapping[Place, Ints]:
    found: dict[Place, list[int]] = {}
    for row, place in enumerate(places):
        found.setdefault(place, []).append(row)
    return {place: np.array(rows, dtype=np.int64) for place, rows in found.items()}
