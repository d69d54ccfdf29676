"""`/v1/sensitivity`: what a millisecond does to a business measure; and who got which arm of an experiment."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from analytics.money import assignments, designs
from analytics.money.ask import ask
from analytics.money.effects import SensitivityError
from analytics.money.exposures import END_TO_END, Exposure
from analytics.money.told import told
from api.answers import Answer, Span
from api.door import Door, PrincipalDep, StateDep, opens_for
from api.params import FROM, TO, span, time_ns
from api.problems import ProblemError, bad_parameter
from api.routes.compare import json_of
from api.routes.latency import PATH, STAGE
from api.routes.tail import MODE, MODES
from api.shapes import path_of
from collector.settings import ConfigError, duration_ns

router = APIRouter(route_class=Door, tags=["money"])
MOST_ROWS = 200_000  # of a request; the command takes a million
_TEXT = 200


class Effect(Answer):
    """One design's estimate: the change of the KPI per unit of exposure, in the KPI's own units."""

    design: str = Field(description="Which design.", examples=["strata"])
    method: str = Field(description="How it was computed.")
    verdict: Literal["effect", "no detectable effect", "refused"] = Field(description="What may be said.")
    sentence: str = Field(description="That in words.")
    n: int = Field(description="Rows.")
    clusters: int = Field(description="Clusters that the error is taken over.")
    strata: int = Field(description="Strata that were compared within.")
    estimate: float | None = Field(description="The change; null when refused.")
    se: float | None = Field(description="Its standard error.")
    low: float | None = Field(description="Its 95 % interval.")
    high: float | None = Field(description="Its 95 % interval.")
    detectable: float | None = Field(description="What would have been seen with a probability of 80 %.")
    first_stage_f: float | None = Field(description="How strongly the assignment or change moved the exposure.")
    reason: str = Field(description="Why there is no estimate.")


class CurvePoint(Answer):
    """The response at one exposure."""

    at: float = Field(description="The exposure.")
    level: float = Field(description="The KPI there, made monotone.")
    low: float = Field(description="Its pointwise 95 % band.")
    high: float = Field(description="Its pointwise 95 % band.")


class ResponseCurve(Answer):
    """The shape of the answer, inside what was seen."""

    direction: Literal["down", "up"] = Field(description="Which way it may go.")
    rows: int = Field(description="Rows.")
    blocks: int = Field(description="Blocks of time that the band is drawn from.")
    saturated_from: float | None = Field(description="Beyond this no further change is detectable; null: none.")
    points: list[CurvePoint] = Field(description="The knots, ascending; straight in between.")


class StudyPeriod(Answer):
    """Treated less control in one period, against the last one before the change."""

    offset: int = Field(description="Periods from the change; -1 is the last before it.")
    kpi: float = Field(description="Of the KPI.")
    kpi_low: float = Field(description="Its 95 % interval.")
    kpi_high: float = Field(description="Its 95 % interval.")
    exposure: float = Field(description="Of the exposure.")
    exposure_low: float = Field(description="Its 95 % interval.")
    exposure_high: float = Field(description="Its 95 % interval.")


class EventStudy(Answer):
    """What a natural experiment stands on."""

    pre_trend_p: float | None = Field(description="p value of no difference before the change.")
    kpi_moved: float | None = Field(description="What the change did to the KPI of the treated.")
    exposure_moved: float | None = Field(description="What it did to their exposure.")
    periods: list[StudyPeriod] = Field(description="In order.")


class GroupAnswer(Answer):
    """The answer among one value of the dimension. Each interval is wrong in 5 % of cases by itself."""

    value: str = Field(description="The value; empty: not known.")
    rows: int = Field(description="Rows.")
    mean: float = Field(description="The KPI's mean.")
    refused: str = Field(description="Why there is no answer.")
    sentence: str = Field(description="The answer in words.")
    answer: Effect | None = Field(description="The estimate; null when there is none.")
    checks_failed: list[str] = Field(description="Checks that moved although they must not: no claim.")


class Sensitivity(Span):
    """How a KPI answers to latency. `answer` may be claimed only if its verdict is `effect` and no check failed."""

    path: str = Field(description="The path.")
    kpi: str = Field(description="The business measure.")
    unit: str = Field(description="Its unit.")
    exposure: str = Field(description="Which exposure.")
    stage: str = Field(description="Of which stage.")
    threshold_ns: int | None = Field(description="What is slow, of `exceedance`.")
    exposure_words: str = Field(description="The exposure in words.")
    exposure_unit: str = Field(description="One of it.")
    sentence: str = Field(description="The answer in words.")
    answer: Effect = Field(description="By the best design that the data hold.")
    rungs: list[Effect] = Field(description="Every design that was tried, best first.")
    naive: Effect = Field(description="A warning: the plain slope, whatever else differs.")
    checks: list[Effect] = Field(description="What must show nothing.")
    checks_failed: list[str] = Field(description="What shows something nevertheless.")
    source: str = Field(description="`messages` or `intervals`.")
    rows: int = Field(description="Rows used.")
    messages: int = Field(description="Messages in this time.")
    sampled: float = Field(description="Share of the messages that were taken.")
    left_out: dict[str, int] = Field(description="Messages or intervals that are in no number, by reason.")
    mean: float = Field(description="The KPI's mean.")
    exposure_mean: float = Field(description="The exposure's mean.")
    least: float = Field(description="The least exposure that was seen; nothing is said below.")
    most: float = Field(description="The largest; nothing is said above.")
    cluster_s: int = Field(description="Length of a cluster, seconds.")
    stratum_s: int = Field(description="Length of a stratum, seconds.")
    curve: ResponseCurve | None = Field(description="The shape; null when there is none.")
    no_curve: str = Field(description="Why there is none.")
    event_study: EventStudy | None = Field(description="Of a natural experiment.")
    by: str = Field(description="The dimension that `groups` are of; empty: none.")
    groups: list[GroupAnswer] = Field(description="The answer within each value, the commonest first, at most 20.")
    completeness: float | None = Field(description="Share of produced events behind it; null: not known.")
    notes: list[str] = Field(description="What else must be known to read it.")


class NewAssignment(BaseModel):
    """Who got which arm: a message by its key, or a unit by the value of a label of its messages."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"arm": "slow", "dose": 5.0, "label": "account", "unit": "4711"}]},
    )

    arm: str = Field(min_length=1, max_length=_TEXT, description="The arm.")
    dose: float | None = Field(default=None, description="What the arm adds, in ms; needed with more than two arms.")
    key: str | None = Field(default=None, max_length=300, description="Of a message: `space:id`, 0x and hex, decimal.")
    label: str = Field(default="", max_length=_TEXT, description="Of units: the label that names them.")
    unit: str = Field(default="", max_length=_TEXT, description="The unit: the label's value.")
    when: str | None = Field(default=None, max_length=40, description="From when it holds; left out: always.")
    version: int | None = Field(default=None, ge=0, lt=1 << 63, description="Orders corrections; default: receipt.")


class NewAssignments(BaseModel):
    """Assignments of one experiment."""

    model_config = ConfigDict(extra="forbid")

    experiment: str = Field(min_length=1, max_length=100, description="Its name.", examples=["slow-quotes"])
    assignments: list[NewAssignment] = Field(
        min_length=1, max_length=assignments.MAX_ASSIGNMENTS, description="All or none are taken."
    )


class TakenAssignments(Answer):
    """What was taken."""

    assignments: int = Field(description="Assignments.")


@router.get(
    "/v1/sensitivity", response_model=Sensitivity, openapi_extra=opens_for("read", query=True), summary="Sensitivity"
)
def sensitivity(
    state: StateDep,
    path: PATH,
    kpi: Annotated[str, Query(max_length=64, description="The business measure.", examples=["conversion"])],
    exposure: Annotated[
        Literal["latency", "exceedance", "p99", "data_age"], Query(description="What the KPI answers to.")
    ] = "latency",
    stage: STAGE = None,
    threshold: Annotated[str | None, Query(max_length=40, description="Of `exceedance`.", examples=["5ms"])] = None,
    window: Annotated[str, Query(max_length=40, description="Of `p99`: the window around a message.")] = "1m",
    by: Annotated[
        Literal["cohort", "channel", "region", "offer"] | None, Query(description="Ask within each value too.")
    ] = None,
    design: Annotated[
        Literal["auto", "experiment", "natural", "strata", "dml"], Query(description="`auto`: the best there is.")
    ] = "auto",
    experiment: Annotated[str | None, Query(max_length=100, description="Whose assignments were imported.")] = None,
    change: Annotated[
        str | None, Query(max_length=100, description="Of `natural`: a change's id, or epoch nanoseconds.")
    ] = None,
    treated: Annotated[
        str | None, Query(max_length=_TEXT, description="Of `natural`: whom it struck.", examples=["site=east"])
    ] = None,
    horizon: Annotated[str, Query(max_length=40, description="Leave out what is younger than this.")] = "0s",
    absent: Annotated[
        Literal["left-out", "zero"], Query(description="What a message without a value counts as.")
    ] = "left-out",
    most: Annotated[str | None, Query(max_length=40, description="Leave out latencies beyond.")] = None,
    mode: MODE = "users",
    from_: FROM = None,
    to: TO = None,
) -> Response:
    """How a business measure answers to latency, or "no detectable effect", or why nothing can be said.

    At most 200,000 rows, a share of the messages beyond.
    """
    known = path_of(state, path)
    start, end = span(from_, to, "-7d")
    try:
        exposed = Exposure(
            exposure, stage or END_TO_END, None if threshold is None else duration_ns(threshold, "threshold"),
            duration_ns(window, "window") // 10**9,
        )  # fmt: skip
        younger, largest = duration_ns(horizon, "horizon"), None if most is None else duration_ns(most, "most") / 1e6
    except ConfigError as error:
        raise bad_parameter(error.field, error.problem) from error
    if (change is None) != (treated is None) or (change is None) == (design == "natural"):
        raise bad_parameter("change", "goes together with treated and with design natural")
    try:
        struck = designs.struck_by(state.reader, change, treated) if change and treated else None
        found = ask(
            state.reader, known, kpi, state.kpis, from_ns=start, to_ns=end, exposure=exposed, by=by or "",
            design=design, struck=struck, experiment=experiment or "", horizon_ns=younger,
            absent="zero" if absent == "zero" else "left out", most=largest, modes=MODES[mode], now_ns=time.time_ns(),
            most_rows=MOST_ROWS,
        )  # fmt: skip
    except SensitivityError as error:
        raise ProblemError(422, "no-estimate", str(error)) from error
    return json_of(told(found))


@router.post(
    "/v1/experiments/assignments",
    response_model=TakenAssignments,
    openapi_extra=opens_for("operate"),
    summary="Take in assignments of an experiment",
)
def assign(state: StateDep, who: PrincipalDep, body: NewAssignments) -> dict[str, Any]:
    """Takes who got which arm from a flag system, all or none; the same again changes nothing."""
    now = time.time_ns()
    values = [
        assignments.Assignment(
            experiment=body.experiment, **one.model_dump(exclude={"when"}),
            ts_ns=0 if one.when is None else time_ns(one.when, f"assignments.{number}.when", now),
        )
        for number, one in enumerate(body.assignments)
    ]  # fmt: skip
    try:
        taken = assignments.record(state.store, values, now)
    except SensitivityError as error:
        raise ProblemError(422, "bad-assignment", str(error)) from None
    state.audit.record(who.name, "assignments.record", body.experiment, "ok", {"assignments": taken})
    return {"assignments": taken}
