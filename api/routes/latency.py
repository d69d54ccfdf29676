"""`/v1/latency`: percentiles, their course over time, and the counts behind them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict

import polars as pl
from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field

from analytics import latency as analysis
from analytics.cover import widen
from analytics.paths import Path
from api.answers import Answer, Completeness, Span, in_formats
from api.door import Door, StateDep, opens_for
from api.negotiate import FORMAT, answer
from api.params import FROM, TO, span, step_s
from api.problems import ProblemError
from api.shapes import WHOLE, check_rollup, check_stage, completeness_soon, path_of, plain
from api.state import State

router = APIRouter(route_class=Door, tags=["latency"], prefix="/v1/latency")

PATH = Annotated[str, Query(max_length=400, description="The path; GET /v1/paths lists them.", examples=["order"])]
STAGE = Annotated[
    str | None,
    Query(
        max_length=400, description="One stage, `end_to_end` or `unattributed`; all when left out.", examples=["decide"]
    ),
]
ONE_STAGE = Annotated[
    str, Query(max_length=400, description="The stage, `end_to_end` or `unattributed`.", examples=["decide"])
]
ROLLUP = Annotated[
    str,
    Query(
        max_length=200,
        description="Only messages with this label, as `label=value`; GET /v1/paths says which labels are counted.",
        examples=["host=gateway-1"],
    ),
]
STEP = Annotated[str, Query(max_length=20, description="Length of a step: a multiple of `10s`.", examples=["1m"])]

_NUMBERS = (
    "count",
    "unfinished",
    "headless",
    "missing",
    "negative",
    "below_resolution",
    "error_unknown",
    "repeated",
    "max_error_ns",
)
_VALUES = ("min_ns", "p50_ns", "p90_ns", "p95_ns", "p99_ns", "p999_ns", "p9999_ns", "max_ns")
_STAGES: dict[str, Any] = {
    **dict.fromkeys(("path", "stage", "rollup"), pl.String),
    **dict.fromkeys(("from_ns", "to_ns", *_NUMBERS, *_VALUES), pl.Int64),
    "mean_ns": pl.Float64,
    **dict.fromkeys(("ci", "value_error", "with_unfinished", "refused"), pl.String),
    "completeness": pl.Float64,
    "sentence": pl.String,
}
_BARS: dict[str, Any] = dict.fromkeys(("low_ns", "high_ns", "count"), pl.Int64)
_CELLS: dict[str, Any] = {"start_ns": pl.Int64, **_BARS}


class StageLatency(Answer):
    """The latency of one stage. Keys of `ci`, `value_error`, `with_unfinished` and `refused` are percentile fields."""

    path: str = Field(description="The path.")
    stage: str = Field(description="The stage.", examples=["decide"])
    rollup: str = Field(description="The label the messages have, or empty for all.")
    from_ns: int = Field(description="Start of what is counted, epoch nanoseconds; whole 10 s windows.")
    to_ns: int = Field(description="End (exclusive) of what is counted, epoch nanoseconds.")
    count: int = Field(description="Latencies.")
    unfinished: int = Field(description="Messages that never reached the path's end; they have no latency here.")
    headless: int = Field(
        description="Messages of the whole path whose first stamp is missing: they have no latency and no stage."
    )
    missing: int = Field(description="Finished messages without this stage.")
    negative: int = Field(description="Latencies below zero: the clocks disagree by more than the stage takes.")
    below_resolution: int = Field(description="Latencies smaller than their own clock error.")
    error_unknown: int = Field(description="Latencies for which no clock bound is known.")
    repeated: int = Field(description="Messages that passed an end of the stage more than once.")
    max_error_ns: int = Field(description="Largest known clock error among them.")
    mean_ns: float | None = Field(description="Mean; null without latencies.")
    min_ns: int | None = Field(description="Exact minimum.")
    p50_ns: int | None = Field(description="Median; null when refused.")
    p90_ns: int | None = Field(description="90th percentile; null when refused.")
    p95_ns: int | None = Field(description="95th percentile; null when refused.")
    p99_ns: int | None = Field(description="99th percentile; null when refused.")
    p999_ns: int | None = Field(description="99.9th percentile; null when refused.")
    p9999_ns: int | None = Field(description="99.99th percentile; null when refused.")
    max_ns: int | None = Field(description="Exact maximum.")
    ci: dict[str, list[int]] = Field(description="Distribution-free 95 % interval [low, high] in ns.")
    value_error: dict[str, int] = Field(description="Largest distance to the true order statistic, ns.")
    with_unfinished: dict[str, int | None] = Field(
        description="The percentile if every unfinished message took longer than all others; null: among them."
    )
    refused: dict[str, str] = Field(description="Why a percentile is not given: how many samples it needs.")
    completeness: float | None = Field(description="Share of produced events behind it; null: not known yet.")
    sentence: str = Field(description="Which two events the stage lies between.")


class Latency(Span):
    """Percentiles of every stage."""

    path: str = Field(description="The path.")
    completeness: Completeness = Field(description="What the answer is built on.")
    stages: list[StageLatency] = Field(description="The stages in the path's order; those without messages are absent.")


class Series(Span):
    """Percentiles per step and stage, in time order."""

    path: str = Field(description="The path.")
    step_s: int = Field(description="Length of a step, seconds.")
    completeness: Completeness = Field(description="What the answer is built on.")
    series: list[StageLatency] = Field(description="One per step and stage; steps without messages are absent.")


class Bar(Answer):
    """Latencies from `low_ns` to `high_ns`, both included."""

    low_ns: int = Field(description="Smallest latency of the bucket, ns.")
    high_ns: int = Field(description="Largest latency of the bucket, ns.")
    count: int = Field(description="How many.")


class Cell(Bar):
    """A bar of one step."""

    start_ns: int = Field(description="Start of the step, epoch nanoseconds.")


class Histogram(Span):
    """Counts of one stage by bucket, ascending; 0.78 % wide."""

    path: str = Field(description="The path.")
    stage: str = Field(description="The stage.")
    completeness: Completeness = Field(description="What the answer is built on.")
    bars: list[Bar] = Field(description="Buckets with latencies in them.")


class Heatmap(Span):
    """Counts of one stage by step and bucket, ascending."""

    path: str = Field(description="The path.")
    stage: str = Field(description="The stage.")
    step_s: int = Field(description="Length of a step, seconds.")
    completeness: Completeness = Field(description="What the answer is built on.")
    cells: list[Cell] = Field(description="Cells with latencies in them.")


@dataclass(frozen=True, slots=True)
class Asked:
    """What every question here is about, checked: a path, a time in whole windows, and messages of one label or all."""

    path: Path
    start: int
    end: int
    rollup: str

    @property
    def reach(self) -> Reach:
        """As `analytics.latency` takes it."""
        return {"from_ns": self.start, "to_ns": self.end, "rollup": self.rollup}

    def about(self, state: State) -> Callable[..., dict[str, Any]]:
        """What every answer here says of itself, asked of the store now and there when it is called for."""
        soon = completeness_soon(state, self.start, self.end)
        reach = {"path": self.path.name, "from_ns": self.start, "to_ns": self.end}
        return lambda **more: {**reach, "completeness": soon(), **more}


class Reach(TypedDict):
    """Which messages."""

    from_ns: int
    to_ns: int
    rollup: str


async def asked(state: StateDep, path: PATH, from_: FROM = None, to: TO = None, rollup: ROLLUP = "") -> Asked:
    """The question; the time is widened to the windows that are counted. It waits for nothing."""
    chosen = path_of(state, path)
    first, last = widen(*span(from_, to))
    return Asked(chosen, first * 10**9, last * 10**9, check_rollup(chosen, rollup))


AskedDep = Annotated[Asked, Depends(asked)]
_READ = opens_for("read", query=True)


@router.get(
    "", response_model=Latency, openapi_extra=_READ, responses=in_formats("Percentiles."), summary="Percentiles"
)
def percentiles(
    request: Request,
    state: StateDep,
    asked: AskedDep,
    stage: STAGE = None,
    format_: FORMAT = None,
) -> Response:
    """Count, mean, extremes and percentiles of each stage, each with its interval, its error, or why it is refused."""
    about = asked.about(state)
    rows = analysis.percentiles(
        state.reader,
        asked.path,
        stage=check_stage(asked.path, stage),
        **asked.reach,
    )
    return answer(request, format_, "stages", [plain(row) for row in rows], about(), _STAGES)


@router.get(
    "/series",
    response_model=Series,
    openapi_extra=_READ,
    responses=in_formats("Percentiles over time."),
    summary="Percentiles over time",
)
def series(
    request: Request,
    state: StateDep,
    asked: AskedDep,
    step: STEP,
    stage: STAGE = None,
    format_: FORMAT = None,
) -> Response:
    """The same per step. Each step is computed from its own counts; percentiles are never averaged."""
    seconds = step_s(step, asked.start, asked.end)
    about = asked.about(state)
    rows = analysis.series(
        state.reader,
        asked.path,
        step_s=seconds,
        stage=check_stage(asked.path, stage),
        **asked.reach,
    )
    return answer(
        request, format_, "series", _bounded(state, [plain(row) for row in rows]), about(step_s=seconds), _STAGES
    )


@router.get(
    "/histogram",
    response_model=Histogram,
    openapi_extra=_READ,
    responses=in_formats("Counts by bucket."),
    summary="Histogram",
)
def histogram(
    request: Request,
    state: StateDep,
    asked: AskedDep,
    stage: ONE_STAGE = WHOLE,
    format_: FORMAT = None,
) -> Response:
    """The counts behind one stage's percentiles; they add up over times, stages' do not."""
    check_stage(asked.path, stage)
    about = asked.about(state)
    bars = analysis.histogram(state.reader, asked.path, stage, **asked.reach)
    return answer(request, format_, "bars", [plain(bar) for bar in bars], about(stage=stage), _BARS)


@router.get(
    "/heatmap",
    response_model=Heatmap,
    openapi_extra=_READ,
    responses=in_formats("Counts by step and bucket."),
    summary="Heatmap",
)
def heatmap(
    request: Request,
    state: StateDep,
    asked: AskedDep,
    step: STEP,
    stage: ONE_STAGE = WHOLE,
    per_octave: Annotated[
        Literal["1", "2", "4", "8", "16", "32", "64", "128"],
        Query(description="Buckets per octave; below 128 neighbours are added up, for a picture.", examples=["8"]),
    ] = "128",
    format_: FORMAT = None,
) -> Response:
    """The histogram per step, for a picture of how the whole distribution moves."""
    check_stage(asked.path, stage)
    seconds = step_s(step, asked.start, asked.end)
    about = asked.about(state)
    cells = analysis.heatmap(
        state.reader,
        asked.path,
        stage,
        step_s=seconds,
        per_octave=int(per_octave),
        **asked.reach,
    )
    return answer(
        request,
        format_,
        "cells",
        _bounded(state, [plain(cell) for cell in cells]),
        about(stage=stage, step_s=seconds),
        _CELLS,
    )


def _bounded(state: State, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if len(rows) > state.settings.max_rows:
        raise ProblemError(
            422,
            "too-many-rows",
            f"{len(rows)} rows, at most {state.settings.max_rows} are given: use a larger step, less time or one stage",
        )
    return rows
