"""`/v1/kpis`: business measures in, and their course over time."""

from __future__ import annotations

import time
from typing import Annotated, Any

import msgspec
import polars as pl
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from analytics import kpis as analysis
from api.answers import Answer, Span, in_formats
from api.door import Door, PrincipalDep, StateDep, opens_for
from api.negotiate import FORMAT, answer
from api.params import FROM, TO, span, step_s, time_ns
from api.problems import ProblemError, bad_parameter
from api.shapes import plain

router = APIRouter(route_class=Door, tags=["kpis"])
_SCHEMA = {
    **dict.fromkeys(("start_ns", "end_ns", "values"), pl.Int64),
    **dict.fromkeys(("name", *analysis.DIMENSIONS), pl.String),
    **dict.fromkeys(("value", "weight"), pl.Float64),
}


class NewValue(BaseModel):
    """One value of a declared measure, of an interval or of one message."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"name": "order_success", "when": "-1m", "numerator": 97, "denominator": 100, "region": "eu"}]
        },
    )

    name: str = Field(min_length=1, max_length=64, description="The measure, declared under `[kpis.NAME]`.")
    when: str = Field(max_length=40, description="The interval's begin: RFC 3339, epoch nanoseconds or `-5m`.")
    duration_s: float = Field(default=60.0, ge=0, le=366 * 86_400, description="The interval's length.")
    value: float | None = Field(default=None, description="The value; or give numerator and denominator.")
    numerator: float | None = Field(default=None, description="Of a ratio.")
    denominator: float | None = Field(default=None, description="Of a ratio; its weight.")
    key: str | None = Field(
        default=None,
        max_length=300,
        description="Of this message: `space:id`, 0x and hex, or decimal. Else of the interval.",
    )
    cohort: str = Field(default="", max_length=200, description="Who: a group of customers.")
    channel: str = Field(default="", max_length=200, description="By which way they came.")
    region: str = Field(default="", max_length=200, description="Where.")
    offer: str = Field(default="", max_length=200, description="The type of offer.")
    version: int | None = Field(
        default=None, ge=0, lt=1 << 63, description="Orders corrections; the time of receipt when left out."
    )


class NewValues(BaseModel):
    """Values to take in."""

    model_config = ConfigDict(extra="forbid")

    values: list[NewValue] = Field(min_length=1, max_length=analysis.MAX_VALUES, description="All or none are taken.")


class Taken(Answer):
    """What was taken."""

    intervals: int = Field(description="Values of intervals.")
    messages: int = Field(description="Values of messages.")


class KpiStep(Answer):
    """A measure in one step."""

    start_ns: int = Field(description="Begin, epoch nanoseconds.")
    end_ns: int = Field(description="End (exclusive), epoch nanoseconds.")
    name: str = Field(description="The measure.")
    cohort: str = Field(description="Empty unless split by it.")
    channel: str = Field(description="Empty unless split by it.")
    region: str = Field(description="Empty unless split by it.")
    offer: str = Field(description="Empty unless split by it.")
    value: float | None = Field(
        description="Ratio of sums, sum, or mean, as it is declared; null: nothing to divide by."
    )
    weight: float = Field(description="Sum of denominators, or how many values.")
    values: int = Field(description="How many values it is made of, each in its newest version.")


class Kpis(Span):
    """Measures over time."""

    definitions: dict[str, dict[str, Any]] = Field(description="What is declared, by name.")
    nodes: dict[str, list[str]] = Field(description="Which paths name which revenue node.")
    paths_without_node: list[str] = Field(description="Paths that name none: their latency cannot be tied to money.")
    kpis: list[KpiStep] = Field(description="By step, name and dimensions.")


@router.post("/v1/kpis", response_model=Taken, openapi_extra=opens_for("operate"), summary="Take in business measures")
def record(state: StateDep, who: PrincipalDep, body: NewValues) -> dict[str, Any]:
    """Takes values of intervals and of messages, all or none. A value again, or corrected, replaces what was there."""
    now = time.time_ns()
    values = [
        analysis.KpiValue(
            **one.model_dump(exclude={"when", "duration_s"}),
            ts_ns=time_ns(one.when, f"values.{number}.when", now),
            duration_ns=round(one.duration_s * analysis.NS),
        )
        for number, one in enumerate(body.values)
    ]
    try:
        taken = analysis.record(state.store, values, state.kpis, now)
    except analysis.KpiError as error:
        raise ProblemError(422, "bad-kpi", str(error)) from None
    state.audit.record(who.name, "kpi.record", values[0].name, "ok", {"values": len(values)})
    return plain(taken)


@router.get(
    "/v1/kpis",
    response_model=Kpis,
    openapi_extra=opens_for("read", query=True),
    responses=in_formats("Measures by step."),
    summary="Business measures over time",
)
def listed(
    request: Request,
    state: StateDep,
    name: Annotated[str | None, Query(max_length=64, description="Only this measure.")] = None,
    by: Annotated[
        str, Query(max_length=100, description="Split by these: cohort, channel, region, offer, with commas.")
    ] = "",
    from_: FROM = None,
    to: TO = None,
    step: Annotated[
        str | None, Query(max_length=20, description="Length of a step, e.g. `1m`; left out: the whole time is one.")
    ] = None,
    format_: FORMAT = None,
) -> Response:
    """Ratios of sums, sums or means, each value in its newest version. Intervals count where they begin."""
    start, end = span(from_, to, "-1d")
    length = None if step is None else step_s(step, start, end) * analysis.NS
    try:
        found = analysis.series(
            state.reader, state.kpis, from_ns=start, to_ns=end, step_ns=length, names=[name] if name else (),
            by=[part.strip() for part in by.split(",") if part.strip()],
        )  # fmt: skip
    except ValueError as error:
        raise bad_parameter("by", str(error)) from None
    nodes: dict[str, list[str]] = {}
    for path in sorted(state.paths.values(), key=lambda one: one.name):
        nodes.setdefault(path.revenue_node, []).append(path.name)
    about = {
        "from_ns": start, "to_ns": end, "paths_without_node": nodes.pop("", []), "nodes": nodes,
        "definitions": {one: msgspec.structs.asdict(definition) for one, definition in sorted(state.kpis.items())},
    }  # fmt: skip
    return answer(request, format_, "kpis", [plain(one) for one in found], about, _SCHEMA)
