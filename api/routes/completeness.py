"""`/v1/completeness`: which share of what was produced the answers about a time are built on."""

from __future__ import annotations

from typing import Annotated, Any

import polars as pl
from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from analytics.completeness import NS, completeness
from api.answers import Completeness, Span, in_formats
from api.door import Door, StateDep, opens_for
from api.negotiate import FORMAT, answer
from api.params import FROM, TO, span, step_s
from api.shapes import completeness_of, shown

router = APIRouter(route_class=Door, tags=["delivery"])
_SCHEMA: dict[str, Any] = {
    **dict.fromkeys(("from_ns", "to_ns", "produced", "missing", "known_to_ns"), pl.Int64),
    **dict.fromkeys(("share", "known_share"), pl.Float64),
    "waiting_for": pl.String,
}


class Step(Completeness):
    """The completeness of one step."""

    from_ns: int = Field(description="Start of the step, epoch nanoseconds.")
    to_ns: int = Field(description="End (exclusive) of the step, epoch nanoseconds.")


class CompletenessAnswer(Span):
    """Completeness of a time, and of its steps."""

    completeness: Completeness = Field(description="Of the whole time.")
    steps: list[Step] = Field(description="Of each step; one step, the whole time, when no step was asked for.")


@router.get(
    "/v1/completeness",
    response_model=CompletenessAnswer,
    openapi_extra=opens_for("read", query=True),
    responses=in_formats("Completeness by step."),
    summary="Completeness",
)
def listed(
    request: Request,
    state: StateDep,
    from_: FROM = None,
    to: TO = None,
    step: Annotated[
        str | None, Query(max_length=20, description="Length of a step: a multiple of `10s`.", examples=["1m"])
    ] = None,
    format_: FORMAT = None,
) -> Response:
    """(produced - missing) / produced over all collectors, per step; null while a collector is behind.

    The time is widened to whole seconds.

    `known_share` is the share up to `known_to_ns`, where none is behind.
    """
    # Counted by the second: a step that ended inside one would share it with the next, and steps would not add up.
    first, last = span(from_, to)
    start, end = first // NS * NS, -(-last // NS) * NS
    seconds = None if step is None else step_s(step, start, end)
    rows = [
        {"from_ns": one.from_ns, "to_ns": one.to_ns, **shown(one)}
        for one in completeness(state.reader, start, end, seconds)
    ]
    about = {"from_ns": start, "to_ns": end, "completeness": completeness_of(state, start, end)}
    return answer(request, format_, "steps", rows, about, _SCHEMA)
