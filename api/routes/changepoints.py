"""`/v1/changepoints`: when percentiles, counts, the input's mix and scores changed, and what was done at that time."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import polars as pl
from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from analytics.changepoints.findings import changepoints
from api.answers import Answer, Completeness, Span, in_formats
from api.door import Door, StateDep, opens_for
from api.negotiate import FORMAT, answer
from api.params import FROM, TO, span
from api.problems import bad_parameter
from api.routes.latency import PATH
from api.routes.queues import objectives_of
from api.routes.tail import MODE
from api.shapes import check_stage, completeness_of, path_of, plain

router = APIRouter(route_class=Door, tags=["changepoints"])


class Moved(Answer):
    """One figure before and after."""

    name: str = Field(description="Which: a value of the label, `late`, `rate`, `mean`.")
    before: float = Field(description="Mean before, in `unit`.")
    after: float = Field(description="Mean after.")
    low: float | None = Field(description="Start of the 95 % interval of after - before; null: too few steps.")
    high: float | None = Field(description="Its end.")


class Beside(Answer):
    """A recorded change near in time."""

    ts_ns: int = Field(description="When it took effect, epoch nanoseconds.")
    after_ns: int = Field(description="How long after it the change point lies; negative: before.")
    id: str = Field(description="Its id.")
    kind: str = Field(description="Its kind.")
    who: str = Field(description="Who did it.")
    what: str = Field(description="What was changed.")
    host: str = Field(description="The host, or empty.")
    service: str = Field(description="The service, or empty.")
    version: str = Field(description="The version, or empty.")


class ChangePointRow(Answer):
    """A series changed."""

    subject: Literal["percentile", "count", "mix", "score"] = Field(description="What kind of series.")
    name: str = Field(description="The percentile, `messages`, the label, or the gauge.")
    stage: str = Field(description="The stage; empty for scores.")
    labels: dict[str, str] = Field(description="Host, service and labels of a gauge.")
    unit: str = Field(description="Unit of `moved`.")
    at_ns: int = Field(description="Where it changed, epoch nanoseconds: the first step after it.")
    low_ns: int = Field(description="Start of the interval of that.")
    high_ns: int = Field(description="End of the interval of that.")
    p: float = Field(description="Share of random orders of the series that change as much.")
    q: float = Field(description="The same after Benjamini and Hochberg over all series.")
    count: int = Field(description="Messages, steps or readings around it.")
    moved: list[Moved] = Field(description="Figures before and after, the most changed first.")
    effect: float | None = Field(description="Cramer's V of a mix; after / before of others.")
    before_ns: int | None = Field(description="The percentile before; null when refused.")
    after_ns: int | None = Field(description="The percentile after.")
    changes: list[Beside] = Field(description="Recorded changes near it, the nearest first.")


class AnomalyRow(Answer):
    """One step that stands out."""

    subject: Literal["percentile", "count", "mix", "score"] = Field(description="What kind of series.")
    name: str = Field(description="The percentile, `messages`, or the gauge.")
    stage: str = Field(description="The stage; empty for scores.")
    labels: dict[str, str] = Field(description="Host, service and labels of a gauge.")
    unit: str = Field(description="Unit of `value`.")
    at_ns: int = Field(description="Start of the step, epoch nanoseconds.")
    value: float = Field(description="What it was.")
    usual: float = Field(description="The median of the steps around it, between change points.")
    q: float = Field(description="After Benjamini and Hochberg over all steps of all series.")


class ChangePointList(Span):
    """Change points in order of time."""

    path: str = Field(description="The path.")
    step_s: int = Field(description="Length of a step, seconds.")
    count: int = Field(description="Messages.")
    tested: int = Field(description="Series that were searched.")
    completeness: Completeness = Field(description="What the answer is built on.")
    baseline_to_ns: int = Field(description="End of the baseline of the warnings: the first third of the time.")
    anomalies: list[AnomalyRow] = Field(description="Single steps that stand out, too short for a change point.")
    warnings: list[dict[str, Any]] = Field(
        description="Per stage when it would have warned, its false-alarm probability, and its measured lead time."
    )
    sentence: str = Field(description="How to read it.")
    found: list[ChangePointRow] = Field(description="The change points; empty: nothing stands out.")


_ROWS: dict[str, Any] = {
    **dict.fromkeys(("subject", "name", "stage", "labels", "unit"), pl.String),
    **dict.fromkeys(("at_ns", "low_ns", "high_ns"), pl.Int64),
    **dict.fromkeys(("p", "q"), pl.Float64),
    "count": pl.Int64,
    "moved": pl.String,
    "effect": pl.Float64,
    **dict.fromkeys(("before_ns", "after_ns"), pl.Int64),
    "changes": pl.String,
}


@router.get(
    "/v1/changepoints",
    response_model=ChangePointList,
    openapi_extra=opens_for("read", query=True),
    responses=in_formats("Change points."),
    summary="What changed when",
)
def listed(
    request: Request,
    state: StateDep,
    path: PATH,
    from_: FROM = None,
    to: TO = None,
    stage: Annotated[str | None, Query(max_length=400, description="Percentiles of one stage; else of all.")] = None,
    scores: Annotated[
        str | None,
        Query(
            max_length=1_000,
            description="Gauges to search, with commas; `name*` for all that begin so. Else all with `score` in it.",
        ),
    ] = None,
    objective: Annotated[
        str | None,
        Query(max_length=40, description="`threshold:share`: measures how long before a breach warnings come."),
    ] = None,
    mode: MODE = "users",
    format_: FORMAT = None,
) -> Response:
    """Change points of percentiles, counts, label mixes and scores, with the recorded changes near them."""
    chosen = path_of(state, path)
    check_stage(chosen, stage)
    start, end = span(from_, to, "-1h")
    wanted = None if objective is None else objectives_of(objective)
    if wanted is not None and len(wanted) > 1:
        raise bad_parameter("objective", "one objective may be asked for")
    found = plain(
        changepoints(
            state.reader,
            chosen,
            from_ns=start,
            to_ns=end,
            stages=None if stage is None else [stage],
            scores=None if scores is None else [name for name in scores.split(",") if name][:20],
            objective=wanted[0] if wanted else None,
            rollup="" if mode == "users" else f"mode={mode}",
        )
    )
    rows = found.pop("found")
    about = {**found, "completeness": completeness_of(state, start, end)}
    return answer(request, format_, "found", rows, about, _ROWS)
