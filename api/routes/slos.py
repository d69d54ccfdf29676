"""`/v1/slos` and `/v1/alerts`: objectives, their budgets and burn rates, and what alerts."""

from __future__ import annotations

from typing import Annotated, Any

import polars as pl
from fastapi import APIRouter, Query, Request, Response
from fastapi import Path as InPath
from pydantic import Field

from analytics.slo import stored
from api.answers import Answer, Span, in_formats
from api.door import Door, PrincipalDep, StateDep, opens_for
from api.negotiate import FORMAT, answer
from api.params import FROM, TO, span, step_s
from api.problems import ProblemError
from api.slo_book import UnknownEpisodeError
from api.slo_engine import Snapshot
from api.state import State

router = APIRouter(route_class=Door, tags=["objectives"])
_READ = opens_for("read", query=True)
NAME = Annotated[str, InPath(max_length=200, description="The objective.", examples=["order-latency"])]
_STEPS: dict[str, Any] = {
    **dict.fromkeys(("start_ns", "end_ns", "good", "total", "uncertain"), pl.Int64),
    **dict.fromkeys(("burn", "least", "most"), pl.Float64),
}


class Side(Answer):
    """One window of a rule."""

    objective: str = Field(description="Whose burn is looked at.")
    window_s: int = Field(description="Length of the window, seconds.")
    factor: float = Field(description="Burn rate that has to be exceeded.")
    burn: float = Field(description="Burn rate of the window; uncertain events count half.")
    least: float = Field(description="Smallest burn rate that the counts allow.")
    most: float = Field(description="Largest burn rate that the counts allow.")
    good: int | float = Field(description="Events that are surely good.")
    total: int = Field(description="Events.")
    uncertain: int | float = Field(description="Events that may be good: in the bucket that the threshold cuts.")
    missing: float = Field(description="Share of the produced events that did not arrive.")


class AlertState(Answer):
    """Where one rule of an objective stands. Times are epoch nanoseconds, 0 where they have not come."""

    objective: str = Field(description="The objective.")
    rule: str = Field(description="The rule; `blind` fires when nothing could be said for too long.")
    severity: str = Field(description="page, ticket or what the document says.")
    state: str = Field(description="inactive, pending, firing, acknowledged or resolved.")
    since_ns: int = Field(description="Since when it is so.")
    breach_ns: int = Field(description="First breach of the episode.")
    fired_ns: int = Field(description="When it fired.")
    resolved_ns: int = Field(description="When it ended.")
    episode: str = Field(description="Id of the episode; empty without one.")
    acknowledged_by: str = Field(description="Who has taken it.")
    answer: str = Field(description="What the counts say: over, under, held (cannot be said), insufficient traffic.")
    why: str = Field(description="The reason in words, where there is one.")
    held_by: str = Field(default="", description="The maintenance window that keeps it from being sent, or empty.")
    sides: list[Side] = Field(description="Each window with its value.")


class Budget(Answer):
    """The error budget of the period that holds the newest counts. Shares are of the whole period's budget."""

    period_s: int = Field(description="Length of the period, seconds.")
    good: int | float = Field(description="Events of the period that are surely good.")
    total: int = Field(description="Events of the period.")
    uncertain: int | float = Field(description="Events that may be good.")
    missing: float = Field(description="Share of the produced events that did not arrive.")
    burned: float = Field(description="Share of the budget that is gone; above 1 the objective is missed.")
    remaining: float = Field(description="Share that is left; negative when the objective is missed.")
    burn: float = Field(description="Burn rate of the last hour.")
    exhausted_s: float | None = Field(description="Seconds until nothing is left at this burn; null: nothing burns.")
    forecast: float = Field(description="Share that will be gone at the period's end at this burn.")


class Objective(Answer):
    """An objective, its budget and its rules."""

    name: str = Field(description="Its name.")
    slo: str = Field(description="The SLO that it belongs to.")
    service: str = Field(description="The service.")
    display_name: str = Field(description="Its name for people.")
    description: str = Field(description="What it is about.")
    target: float = Field(description="Share of events that has to be good.")
    indicator: str = Field(description="What is counted, in words.")
    window: str = Field(description="The period.")
    rolling: bool = Field(description="Whether the period ends now, or is one of the calendar.")
    method: str = Field(description="Occurrences, Timeslices or RatioTimeslices.")
    calendar: str = Field(description="The calendar, or empty.")
    version: int = Field(description="Which counts belong to it.")
    runbook: str = Field(default="", description="Its runbook: on this server `/runbooks/NAME`, else as annotated.")
    state: str = Field(description="The worst state of its rules.")
    maintenance: str = Field(default="", description="The maintenance window that it is in, or empty.")
    budget: Budget = Field(description="The error budget.")
    rules: list[AlertState] = Field(description="Its rules.")


class Objectives(Answer):
    """All objectives as the last tick found them."""

    at_ns: int = Field(description="When they were judged, epoch nanoseconds; 0: not yet.")
    counted_to_ns: int = Field(description="End of the newest window that was judged.")
    known_to_ns: int = Field(description="Up to when everything had landed.")
    slos: list[Objective] = Field(description="By name.")


class BurnStep(Answer):
    """Counts and burn rate of one step."""

    start_ns: int = Field(description="Start of the step, epoch nanoseconds.")
    end_ns: int = Field(description="End (exclusive) of the step, epoch nanoseconds.")
    good: int = Field(description="Events that are surely good.")
    total: int = Field(description="Events.")
    uncertain: int = Field(description="Events that may be good.")
    burn: float = Field(description="Burn rate; uncertain events count half.")
    least: float = Field(description="Smallest burn rate that the counts allow.")
    most: float = Field(description="Largest burn rate that the counts allow.")


class Burn(Span):
    """The course of an objective's burn rate."""

    name: str = Field(description="The objective.")
    target: float = Field(description="Share of events that has to be good.")
    step_s: int = Field(description="Length of a step, seconds.")
    steps: list[BurnStep] = Field(description="In time order; steps without events are absent.")


class Alerts(Answer):
    """Alerts that are not inactive."""

    at_ns: int = Field(description="When they were judged, epoch nanoseconds.")
    alerts: list[AlertState] = Field(description="By objective and rule.")


@router.get("/v1/slos", response_model=Objectives, openapi_extra=opens_for("read"), summary="List objectives")
def listed(state: StateDep) -> dict[str, Any]:
    """Every objective with its budget and its rules, as the last tick found them."""
    last = _last(state)
    return {
        "at_ns": last.at_ns,
        "counted_to_ns": last.counted_to_s * 10**9,
        "known_to_ns": last.known_to_s * 10**9,
        "slos": [last.objectives[name] for name in sorted(last.objectives)],
    }


@router.get("/v1/slos/{name}", response_model=Objective, openapi_extra=opens_for("read"), summary="One objective")
def one(state: StateDep, name: NAME) -> dict[str, Any]:
    """One objective with its budget and its rules, as the last tick found them."""
    return dict(_named(state, name))


@router.get(
    "/v1/slos/{name}/burn",
    response_model=Burn,
    openapi_extra=_READ,
    responses=in_formats("Burn rate over time."),
    summary="Burn rate over time",
)
def burn(
    request: Request,
    state: StateDep,
    name: NAME,
    from_: FROM = None,
    to: TO = None,
    step: Annotated[str, Query(max_length=20, description="Length of a step: a multiple of `10s`.")] = "1m",
    format_: FORMAT = None,
) -> Response:
    """Counts and burn rate per step, from the counts that the alerts are judged on."""
    from analytics.slo.burn import Counts, burn_rate

    objective = _named(state, name)
    start, end = span(from_, to)
    length = step_s(step, start, end)
    first = start // (length * 10**9) * length
    level = next(size for size in (3_600, 60, 10) if length % size == 0)
    names, versions, starts, values = stored.rows_of(state.reader, level, first, -(-end // 10**9), name=name)
    del names
    found: dict[int, list[int]] = {}
    for at, version, value in zip(starts.tolist(), versions.tolist(), values.tolist(), strict=True):
        if version == objective["version"]:
            cell = found.setdefault(first + (at - first) // length * length, [0, 0, 0])
            for i in range(3):
                cell[i] += value[i]
    target = objective["target"]
    rows = []
    for at, (good, total, uncertain) in sorted(found.items()):
        counts = Counts(good, total, uncertain)
        least, most = (burn_rate(edge, target) for edge in counts.bounds())
        rows.append(
            {
                "start_ns": at * 10**9, "end_ns": (at + length) * 10**9, "good": good, "total": total,
                "uncertain": uncertain, "burn": burn_rate(counts.ratio, target), "least": least, "most": most,
            }
        )  # fmt: skip
    if len(rows) > state.settings.max_rows:
        detail = f"{len(rows)} rows, at most {state.settings.max_rows} are given: use a larger step or less time"
        raise ProblemError(422, "too-many-rows", detail)
    about = {"from_ns": start, "to_ns": end, "name": name, "target": target, "step_s": length}
    return answer(request, format_, "steps", rows, about, _STEPS)


@router.get("/v1/alerts", response_model=Alerts, openapi_extra=opens_for("read"), summary="List alerts")
def alerts(state: StateDep) -> dict[str, Any]:
    """Alerts that are pending, firing, acknowledged or resolved."""
    last = _last(state)
    rules = [r for name in sorted(last.objectives) for r in last.objectives[name]["rules"] if r["state"] != "inactive"]
    return {"at_ns": last.at_ns, "alerts": rules}


@router.post(
    "/v1/alerts/{episode}/acknowledge",
    response_model=dict[str, str],
    openapi_extra=opens_for("operate"),
    responses={409: {"description": "The alert does not fire."}},
    summary="Acknowledge an alert",
)
def acknowledge(
    state: StateDep,
    who: PrincipalDep,
    episode: Annotated[str, InPath(max_length=64, description="The alert's episode.")],
) -> dict[str, str]:
    """Takes a firing alert: it stays until it ends, and says who has it. Audited."""
    if state.slos is None:
        raise ProblemError(404, "unknown-episode", "no objectives are evaluated")
    try:
        taken = state.slos.book.acknowledge(episode, who.name)
    except UnknownEpisodeError:
        raise ProblemError(404, "unknown-episode", f"no alert has the episode {episode}") from None
    except ValueError as error:
        raise ProblemError(409, "not-firing", str(error)) from None
    detail = {"objective": taken.objective, "rule": taken.rule}
    state.audit.record(who.name, "alert.acknowledge", episode, "ok", detail)
    return {"episode": taken.episode, "state": taken.state, "acknowledged_by": taken.acknowledged_by}


def _last(state: State) -> Snapshot:
    return state.slos.snapshot if state.slos is not None else Snapshot(0, 0, 0, {})


def _named(state: State, name: str) -> dict[str, Any]:
    last = _last(state)
    if name not in last.objectives:
        known = ", ".join(sorted(last.objectives)[:20]) or "none yet"
        raise ProblemError(404, "unknown-objective", f"no objective is called {name[:80]!r}; there are {known}")
    return dict(last.objectives[name])
