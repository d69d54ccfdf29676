"""`/v1/scenarios`: investment scenarios, valued; and those that somebody has saved."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Response
from fastapi import Path as InPath
from pydantic import BaseModel, ConfigDict, Field

from analytics.money.finance import FinanceError
from analytics.money.plans import MOST_DRAWS, plans
from analytics.money.scenario_files import Scenarios, scenarios_from
from api.answers import Answer
from api.cost_answers import plain
from api.door import Door, PrincipalDep, StateDep, opens_for
from api.plan_book import PlanBook, PlanError, check_name
from api.problems import ProblemError, bad_parameter
from api.routes.compare import json_of
from collector.settings import ConfigError

router = APIRouter(route_class=Door, tags=["money"])


class Swing(Answer):
    """The net present value with one input at its ends."""

    name: str = Field(description="The input.")
    at_low: float = Field(description="At its low end, all others at their likeliest.")
    at_high: float = Field(description="At its high end.")


class AtEffect(Answer):
    """The net present value with a larger or smaller effect."""

    multiple: float = Field(description="The effect times this.")
    npv: float = Field(description="The net present value.")


class Plan(Answer):
    """One scenario in money of today."""

    name: str = Field(description="The scenario.")
    description: str = Field(description="What it is.")
    npv: float = Field(description="Net present value at the likeliest values.")
    p5: float = Field(description="5 % of the draws are below.")
    p50: float = Field(description="Half of the draws are below.")
    p95: float = Field(description="95 % of the draws are below.")
    p_positive: float = Field(description="Probability of a value above zero.")
    irr: float | None = Field(description="Internal rate of return per year; null: none, or several.")
    passes_gate: bool = Field(description="It brings at least `gate` times what it takes.")
    p_gate: float = Field(description="Probability of that.")
    cost_per_decision: float = Field(description="Blended cost of a decision, capex and opex included.")
    gain_per_month: float = Field(description="What it brings once it works.")
    saved_ms: float = Field(description="Milliseconds saved.")
    per_ms: float = Field(description="Money per month and millisecond.")
    per_dollar: float | None = Field(description="Present value that each dollar brings; null: it costs nothing.")
    rank_per_ms: int = Field(description="Place by `per_ms`, from 1.")
    rank_per_dollar: int = Field(description="Place by `per_dollar`, from 1.")
    break_even_effect: float | None = Field(description="The effect at which the value is zero.")
    clamped_ms: float = Field(description="Gain that was not counted: the effect was not measured so far.")
    at_effect: list[AtEffect] = Field(description="The value at other effects.")
    tornado: list[Swing] = Field(description="Inputs by how much they decide.")


class Beats(Answer):
    """How probable it is that one scenario is worth more than another."""

    a: str = Field(description="This one.")
    b: str = Field(description="Than that one.")
    probability: float = Field(description="Over the common draws.")


class Plans(Answer):
    """Scenarios, best first."""

    currency: str = Field(description="The currency.")
    months: int = Field(description="How long is looked ahead.")
    gate: float = Field(description="What has to be brought for each dollar.")
    design: str = Field(description="How the effect was found.")
    source: str = Field(description="Where it is from.")
    measured: bool = Field(description="Whether it was measured by an accepted design.")
    draws: int = Field(description="Draws of the Monte Carlo.")
    seed: int = Field(description="Their seed.")
    scenarios: list[Plan] = Field(description="By net present value.")
    beats: list[Beats] = Field(description="Every pair.")
    cost_per_decision_today: float = Field(description="As declared.")
    sentence: str = Field(description="In words.")


class Saved(Answer):
    """Scenarios that were saved."""

    name: str = Field(description="Their name.")
    saved_ns: int = Field(description="When, epoch nanoseconds.")
    saved_by: str = Field(description="By whom.")


class SavedScenarios(Answer):
    """All that were saved."""

    scenarios: list[Saved] = Field(description="By name.")


class NewScenarios(BaseModel):
    """Scenarios to value, and perhaps to save."""

    model_config = ConfigDict(extra="forbid")

    business: dict[str, Any] = Field(description="As `[business]` of a scenario file (docs/money.md).")
    scenarios: dict[str, dict[str, Any]] = Field(description="As `[scenarios.NAME]`.", max_length=20)
    draws: int = Field(default=MOST_DRAWS, ge=1_000, le=MOST_DRAWS, description="Draws of the Monte Carlo.")
    seed: int = Field(default=1, ge=0, lt=1 << 32, description="Their seed.")
    save: str = Field(default="", max_length=64, description="Keep them under this name; empty: only answer.")


@router.get(
    "/v1/scenarios", response_model=SavedScenarios, openapi_extra=opens_for("read"), summary="List saved scenarios"
)
def listed(state: StateDep) -> dict[str, Any]:
    """Scenarios that were saved, by name."""
    return {"scenarios": PlanBook(state.control).names()}


@router.get(
    "/v1/scenarios/{name}",
    response_model=Plans,
    openapi_extra=opens_for("read", query=True),
    summary="Value saved scenarios",
)
def one(state: StateDep, name: Annotated[str, InPath(max_length=64, description="Their name.")]) -> Response:
    """Saved scenarios, valued now with the default draws."""
    try:
        return json_of(plain(plans(PlanBook(state.control).load(name), MOST_DRAWS)))
    except PlanError as error:
        raise ProblemError(404, "unknown-scenarios", str(error)) from error


@router.post(
    "/v1/scenarios",
    response_model=Plans,
    openapi_extra=opens_for("operate", query=True),
    summary="Value scenarios",
)
def value(state: StateDep, who: PrincipalDep, body: NewScenarios) -> Response:
    """Values scenarios: net present value, risk, ranking, what decides. With `save` they are kept; audited."""
    document = {"business": body.business, "scenarios": body.scenarios}
    given = _read(document)
    try:
        if body.save:
            check_name(body.save)
        found = plans(given, body.draws, body.seed)
        if body.save:
            PlanBook(state.control).save(body.save, document, who.name)
            state.audit.record(who.name, "scenarios.save", body.save, "ok", {"scenarios": sorted(given.scenarios)})
    except (FinanceError, PlanError) as error:
        raise bad_parameter("save" if isinstance(error, PlanError) else "draws", str(error), "body") from error
    return json_of(plain(found))


def _read(document: dict[str, Any]) -> Scenarios:
    try:
        return scenarios_from(document)
    except ConfigError as error:
        raise bad_parameter(error.field, error.problem, "body") from error
