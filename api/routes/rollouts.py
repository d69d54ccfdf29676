"""`/v1/rollouts`: may the canary go on? Shaped for Argo Rollouts' web metric provider and Flagger's webhooks.

Argo asks with GET and reads `decision` by a JSON path. Flagger posts its own payload and reads the status alone: 200
opens a gate, anything else keeps it closed.
"""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from analytics.compare import watching
from analytics.compare.burning import Budgets, chosen
from analytics.paths import Path
from api.answers import Answer, Span
from api.door import Door, StateDep, opens_for
from api.params import time_ns
from api.problems import ProblemError, bad_parameter
from api.routes.compare import SIDE, json_of
from api.routes.latency import PATH
from api.shapes import WHOLE, path_of
from api.state import State
from collector.settings import ConfigError

router = APIRouter(route_class=Door, tags=["rollouts"])
BEGIN = Annotated[
    str | None,
    Query(
        alias="from",
        max_length=64,
        description="Start, the same at every look: RFC 3339 or epoch nanoseconds. Left out, it is the canary's first "
        "message of the last day.",
    ),
]
# When each of Flagger's hooks wants a 200.
_OPEN: dict[str, tuple[str, ...]] = {
    "promotion": ("advance",),
    "progress": ("advance", "hold"),
    "rollback": ("rollback",),
}


class Metric(Answer):
    """What one metric says of the canary."""

    name: str = Field(
        description="The percentile of the reference, the outcome, the business measure or the objective."
    )
    kind: str = Field(description="`latency`, `outcome`, `kpi` or `burn`.")
    threshold_ns: int | None = Field(description="Latencies above it count; null for others.")
    baseline_hits: int | None = Field(description="Messages of the baseline that count.")
    baseline_total: int | None = Field(description="Messages of the baseline.")
    canary_hits: int | None = Field(description="Messages of the canary that count.")
    canary_total: int | None = Field(description="Messages of the canary.")
    baseline_share: float | None = Field(description="Share, or mean of a business measure.")
    canary_share: float | None = Field(description="The same of the canary.")
    limit: float | None = Field(description="Of burn: the burn rate that must not be exceeded; null for others.")
    ratio: float | None = Field(description="Canary over baseline; of burn the canary's burn rate.")
    ratio_low: float | None = Field(description="Lower end of an interval that holds at all looks at once.")
    ratio_high: float | None = Field(description="Its upper end; null: not bounded yet.")
    p_value: float | None = Field(description="That it is worse; holds at all looks at once.")
    p_holm: float | None = Field(description="After Holm's adjustment over the metrics.")
    state: str = Field(description="`worse`, `good`, `no difference` or `absent`.")
    said: str = Field(description="Why it is absent.")


class Level(Answer):
    """A percentile of both sides; its intervals hold at all looks at once."""

    name: str = Field(description="The percentile.")
    baseline_ns: int | None = Field(description="Of the baseline.")
    baseline_ci: list[int] | None = Field(description="Its interval; null: not bounded yet.")
    canary_ns: int | None = Field(description="Of the canary.")
    canary_ci: list[int] | None = Field(description="Its interval; null: not bounded yet.")


class Analysis(Span):
    """The decision, and what is behind it."""

    path: str = Field(description="The path.")
    baseline: str = Field(description="The old side.")
    canary: str = Field(description="The new side.")
    decision: Literal["advance", "hold", "rollback"] = Field(description="What to do.")
    completeness: float | None = Field(description="Share of produced events behind it; null: not known.")
    blocks: int = Field(description="Blocks of 10 s that both sides have.")
    baseline_count: int = Field(description="Messages of the baseline.")
    canary_count: int = Field(description="Messages of the canary.")
    thresholds_from: str = Field(description="Of which messages the thresholds are.")
    alpha: float = Field(description="Chance that a good canary is ever rolled back.")
    margin: float = Field(description="Times as many slow messages that are acceptable.")
    metrics: list[Metric] = Field(description="The metrics.")
    levels: list[Level] = Field(description="Percentiles of both sides.")
    reasons: list[str] = Field(description="Why, in words.")


class FlaggerHook(BaseModel):
    """What Flagger posts to a webhook. `metadata` has the question: path, baseline, canary, gate and more."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "examples": [
                {
                    "name": "gateway",
                    "namespace": "trading",
                    "phase": "Progressing",
                    "checksum": "85d557f47b",
                    "metadata": {
                        "gate": "promotion",
                        "path": "order",
                        "baseline": "gateway=1",
                        "canary": "gateway=2",
                    },
                }
            ]
        },
    )

    name: str = Field(max_length=253, description="The canary's name.")
    namespace: str = Field(default="", max_length=253, description="Its namespace.")
    phase: str = Field(default="", max_length=64, description="Its phase.")
    checksum: str = Field(default="", max_length=128, description="Of its specification.")
    metadata: dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=2_000)]] = Field(
        max_length=32,
        description="`gate` (`promotion`, `progress` or `rollback`), `path`, `baseline`, `canary`, and if wanted "
        "`stage`, `from`, `objective`, `slo` (names, by comma), `margin`, `alpha`.",
    )


_KNOWN = {"gate", "path", "baseline", "canary", "stage", "from", "objective", "slo", "margin", "alpha"}


@router.get(
    "/v1/rollouts/analysis",
    response_model=Analysis,
    openapi_extra=opens_for("read", query=True),
    summary="May the canary go on?",
)
def analysis(
    state: StateDep,
    path: PATH,
    baseline: SIDE,
    canary: SIDE,
    from_: BEGIN = None,
    stage: Annotated[str, Query(max_length=400, description="The stage.")] = WHOLE,
    objective: Annotated[
        str | None, Query(max_length=40, description="For the burn rate: `5ms=99.9%`.", examples=["5ms=99.9%"])
    ] = None,
    slo: Annotated[
        str | None,
        Query(
            max_length=2_000,
            description="Objectives in force whose budgets count, by comma; `all`: all of the path.",
            examples=["order-latency"],
        ),
    ] = None,
    margin: Annotated[
        float, Query(gt=1, le=100, description="Times as many slow messages that are acceptable.")
    ] = watching.MARGIN,
    alpha: Annotated[
        float, Query(gt=0, le=0.5, description="Chance that a good canary is ever rolled back.")
    ] = watching.ALPHA,
) -> Response:
    """Joins latency, outcomes and burn into `advance`, `hold` or `rollback`; may be asked as often as one likes."""
    return json_of(_look(state, path, baseline, canary, from_, stage, objective, slo, margin, alpha))


@router.post(
    "/v1/rollouts/gate",
    response_model=Analysis,
    openapi_extra=opens_for("read", query=True),
    responses={409: {"description": "The gate stays closed; `detail` says why."}},
    summary="A gate for Flagger",
)
def gate(state: StateDep, body: FlaggerHook) -> Response:
    """Answers a Flagger webhook: 200 opens the gate, 409 keeps it closed and says why.

    `promotion` opens when the canary may advance, `progress` unless it must be rolled back, `rollback` when it must.
    """
    asked = body.metadata
    unknown = sorted(set(asked) - _KNOWN)
    if unknown:
        raise bad_parameter(f"metadata.{unknown[0]}", f"unknown; metadata may have {', '.join(sorted(_KNOWN))}", "body")
    for name in ("path", "baseline", "canary"):
        if not asked.get(name):
            raise bad_parameter(f"metadata.{name}", "is missing", "body")
    which = asked.get("gate", "progress")
    if which not in _OPEN:
        raise bad_parameter("metadata.gate", f"must be one of {', '.join(_OPEN)}, got {which[:40]!r}", "body")
    numbers = {}
    for name, default in (("margin", watching.MARGIN), ("alpha", watching.ALPHA)):
        try:
            numbers[name] = float(asked.get(name, default))
        except ValueError:
            raise bad_parameter(f"metadata.{name}", f"{asked[name][:40]!r} is no number", "body") from None
    found = _look(
        state, asked["path"], asked["baseline"], asked["canary"], asked.get("from"), asked.get("stage", WHOLE),
        asked.get("objective"), asked.get("slo"), numbers["margin"], numbers["alpha"],
    )  # fmt: skip
    if found["decision"] not in _OPEN[which]:
        reasons = " ".join(found["reasons"])
        raise ProblemError(409, "gate-closed", f"{body.name}: {found['decision']}. {reasons}"[:2_000])
    return json_of(found)


def _look(
    state: State, path: str, baseline: str, canary: str, from_: str | None, stage: str, objective: str | None,
    slo: str | None, margin: float, alpha: float,
) -> dict[str, Any]:  # fmt: skip
    known = path_of(state, path)
    if from_ is not None and from_.startswith("-"):
        raise bad_parameter(
            "from", "must be the same at every look: RFC 3339 or epoch nanoseconds, not relative to now"
        )
    now = time.time_ns()
    try:
        found = watching.look(
            state.reader,
            known,
            baseline,
            canary,
            from_ns=None if from_ is None else time_ns(from_, "from", now),
            to_ns=now,
            stage=stage,
            objective=None if objective is None else watching.objective_from(objective),
            budgets=_budgets(state, known, slo),
            margin=margin,
            alpha=alpha,
        )
    except ConfigError as error:
        raise bad_parameter(error.field, error.problem) from error
    except ValueError as error:
        raise ProblemError(422, "bad-request", str(error)) from error
    return {
        "path": path,
        "baseline": baseline,
        "canary": canary,
        "from_ns": found.from_ns,
        "to_ns": found.to_ns,
        "completeness": found.completeness,
        **msgspec.to_builtins(found.decision),
    }


def _budgets(state: State, path: Path, names: str | None) -> Budgets:
    """The objectives in force that are asked for, as the last evaluation left them. Raises ValueError."""
    if not names:
        return Budgets()
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if state.slos is None:
        raise ValueError("slo: no objectives are evaluated here")
    goals = chosen(state.slos.objectives, wanted, path)
    return Budgets(goals, state.slos.book.alerts(), state.slos.settings.calendars)
