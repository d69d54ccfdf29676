"""`/v1/gauges`: sampled levels: which there are, and their course over time."""

from __future__ import annotations

from typing import Annotated, Any

import polars as pl
from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from analytics import gauges as analysis
from api.answers import Answer, Completeness, Span, in_formats
from api.door import Door, StateDep, opens_for
from api.negotiate import FORMAT, answer
from api.params import FROM, TO, span, step_ns
from api.problems import bad_parameter
from api.shapes import bounded, completeness_of, plain

router = APIRouter(route_class=Door, tags=["gauges"], prefix="/v1/gauges")
MAX_LABELS = 16
_NAMES: dict[str, Any] = {
    **dict.fromkeys(("name", "hosts", "services"), pl.String),
    **dict.fromkeys(("series", "count", "first_ns", "last_ns"), pl.Int64),
}
_STEPS: dict[str, Any] = {
    **dict.fromkeys(("start_ns", "end_ns"), pl.Int64),
    **dict.fromkeys(("name", "host", "service", "labels"), pl.String),
    "count": pl.Int64,
    **dict.fromkeys(("min", "max", "mean", "last"), pl.Float64),
    "last_ns": pl.Int64,
}


class GaugeName(Answer):
    """One gauge and where it was read."""

    name: str = Field(description="Its name.", examples=["scheduler_delay_p99_ns"])
    hosts: list[str] = Field(description="Hosts with readings, at most 100.")
    services: list[str] = Field(description="Services with readings, at most 100; empty text: of no service.")
    series: int = Field(description="Series: different hosts, services and label sets.")
    count: int = Field(description="Readings.")
    first_ns: int = Field(description="The first reading, epoch nanoseconds.")
    last_ns: int = Field(description="The last reading, epoch nanoseconds.")


class GaugeNames(Span):
    """The gauges that were read in a time."""

    completeness: Completeness = Field(description="What the answer is built on.")
    names: list[GaugeName] = Field(description="By name.")


class GaugeStep(Answer):
    """The readings of one series in one step."""

    start_ns: int = Field(description="Start of the step, epoch nanoseconds.")
    end_ns: int = Field(description="End (exclusive) of the step, epoch nanoseconds.")
    name: str = Field(description="The gauge.")
    host: str = Field(description="On which host.")
    service: str = Field(description="Of which service; empty: of none.")
    labels: dict[str, str] = Field(description="Its labels.")
    count: int = Field(description="Readings in the step.")
    min: float = Field(description="Smallest.")
    max: float = Field(description="Largest.")
    mean: float = Field(description="Mean of the readings.")
    last: float = Field(description="The last one.")
    last_ns: int = Field(description="When the last one was read, epoch nanoseconds.")


class Gauges(Span):
    """The course of gauges."""

    name: str = Field(description="The name asked for.")
    step_ns: int | None = Field(description="Length of a step; null: each series is one row.")
    completeness: Completeness = Field(description="What the answer is built on.")
    gauges: list[GaugeStep] = Field(
        description="By step, name, host, service and labels; steps without readings are absent."
    )


@router.get(
    "/names",
    response_model=GaugeNames,
    openapi_extra=opens_for("read", query=True),
    responses=in_formats("The names."),
    summary="Which gauges there are",
)
def named(
    request: Request,
    state: StateDep,
    prefix: Annotated[
        str, Query(max_length=200, description="Only names that begin so.", examples=["scheduler_"])
    ] = "",
    from_: FROM = None,
    to: TO = None,
    format_: FORMAT = None,
) -> Response:
    """The gauges with readings in this time, where they were read, and how many series each has."""
    start, end = span(from_, to)
    found = analysis.names(state.reader, from_ns=start, to_ns=end, prefix=prefix, limit=state.settings.max_rows + 1)
    about = {"from_ns": start, "to_ns": end, "completeness": completeness_of(state, start, end)}
    return answer(request, format_, "names", bounded(state, [plain(one) for one in found]), about, _NAMES)


@router.get(
    "",
    response_model=Gauges,
    openapi_extra=opens_for("read", query=True),
    responses=in_formats("The gauges by step."),
    summary="Gauges over time",
)
def listed(
    request: Request,
    state: StateDep,
    name: Annotated[
        str,
        Query(
            min_length=1,
            max_length=200,
            description="The gauge, or the beginning of names and `*`. GET /v1/gauges/names lists them.",
            examples=["scheduler_steal_ns", "scheduler_*"],
        ),
    ],
    host: Annotated[str, Query(max_length=200, description="Only of this host.")] = "",
    service: Annotated[
        str | None, Query(max_length=200, description="Only of this service; empty: only of none.")
    ] = None,
    labels: Annotated[
        str,
        Query(
            max_length=1_000,
            description="Only series with these labels: `label=value`, more of them after commas.",
            examples=["kind=run_queue"],
        ),
    ] = "",
    from_: FROM = None,
    to: TO = None,
    step: Annotated[
        str | None,
        Query(
            max_length=20,
            description="Length of a step: a multiple of `1s`. Without one each series is one row.",
            examples=["1m"],
        ),
    ] = None,
    format_: FORMAT = None,
) -> Response:
    """Minimum, maximum, mean and last reading of each series, per step; a step without readings is absent."""
    start, end = span(from_, to)
    length = None if step is None else step_ns(step, start, end)
    found = analysis.series(
        state.reader,
        name,
        from_ns=start,
        to_ns=end,
        step_ns=length,
        host=host,
        service=service,
        labels=label_filter(labels),
        limit=state.settings.max_rows + 1,
    )
    about = {
        "name": name, "from_ns": start, "to_ns": end, "step_ns": length,
        "completeness": completeness_of(state, start, end),
    }  # fmt: skip
    return answer(request, format_, "gauges", bounded(state, [plain(one) for one in found]), about, _STEPS)


def label_filter(text: str) -> dict[str, str]:
    """`a=b,c=d` as a mapping. Raises a 422 problem that names `labels`."""
    wanted: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        label, equals, value = part.partition("=")
        if not equals or not label:
            raise bad_parameter("labels", f"{part[:80]!r} is not label=value")
        wanted[label] = value
    if len(wanted) > MAX_LABELS:
        raise bad_parameter("labels", f"at most {MAX_LABELS} labels may be asked for")
    return wanted
