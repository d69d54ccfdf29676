"""`POST /v1/slos/backtest`: what an objective would have done over recorded history."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from analytics.slo.compiled import compiled
from analytics.slo.histories import World
from analytics.slo.openslo_read import read
from analytics.slo.settings import SloSettings
from api.answers import Answer, Span
from api.backtests import Asked, AskedError, live_pages
from api.backtests import run as run_all
from api.door import Door, StateDep, opens_for
from api.params import span, time_ns
from api.problems import ProblemError, bad_parameter
from api.slo_book import SloBook

router = APIRouter(route_class=Door, tags=["objectives"])
_TICKS = 15_000  # judged in one request; those in which nothing can fire are not judged


class Incident(BaseModel):
    """A known incident."""

    model_config = ConfigDict(extra="forbid")

    from_: str = Field(alias="from", max_length=64, description="Its begin, as `from` elsewhere.")
    to: str = Field(max_length=64, description="Its end.")


class BacktestQuestion(BaseModel):
    """Which objective, over which time."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"name": "order-latency", "from": "-1d", "fires": 2}]}
    )

    name: str | None = Field(default=None, max_length=200, description="An objective in force.")
    documents: str | None = Field(default=None, max_length=262_144, description="Or OpenSLO v1 documents (YAML).")
    from_: str | None = Field(default=None, alias="from", max_length=64, description="Start; `-1d` when left out.")
    to: str | None = Field(default=None, max_length=64, description="End; now when left out.")
    fires: int | None = Field(default=None, ge=0, le=1_000, description="Search thresholds that page so many times.")
    incidents: list[Incident] = Field(default=[], max_length=100, description="Known incidents, to be detected.")


class WouldFire(Answer):
    """One episode. Times are epoch nanoseconds."""

    rule: str = Field(description="The rule.")
    severity: str = Field(description="page, ticket or what the document says.")
    breach_ns: int = Field(description="First breach.")
    fired_ns: int = Field(description="When it would have fired.")
    resolved_ns: int = Field(description="When it would have ended; 0: it still fires.")


class Detected(Answer):
    """A known incident, and the first page in it."""

    from_ns: int = Field(description="Its begin, epoch nanoseconds.")
    to_ns: int = Field(description="Its end.")
    fired_ns: int | None = Field(description="When the first page in it would have fired; null: none.")
    rule: str = Field(description="Which rule that was.")
    after_s: float | None = Field(description="How long after the begin, seconds.")


class BudgetPoint(Answer):
    """The budget at one moment."""

    at_ns: int = Field(description="When, epoch nanoseconds.")
    remaining: float = Field(description="Share of the budget that was left.")
    burn: float = Field(description="Burn rate of the last hour.")


class Tried(Answer):
    """One value that was tried."""

    value: float = Field(description="The threshold or target.")
    pages: int = Field(description="How often it would have paged.")


class Search(Answer):
    """Which thresholds would have paged so many times."""

    parameter: str = Field(description="`threshold_ns`, `value` or, of what has no threshold, `target`.")
    fires: int = Field(description="How often it should have paged.")
    from_: float | None = Field(alias="from", description="Smallest value that was tried and did; null: none.")
    to: float | None = Field(description="Largest one.")
    tried: list[Tried] = Field(description="All that were tried.")
    note: str = Field(description="What limits the search.")


class LivePage(Answer):
    """What the server told."""

    rule: str = Field(description="The rule.")
    at_ns: int = Field(description="When it fired, epoch nanoseconds.")
    episode: str = Field(description="Id of the episode.")


class Replayed(Answer):
    """What one objective would have done."""

    name: str = Field(description="The objective.")
    target: float = Field(description="Share of events that has to be good.")
    window: str = Field(description="The period.")
    events: int = Field(description="Events of the time asked for.")
    bad: float = Field(description="Of these, those that are not surely good.")
    pages: int = Field(description="How often it would have paged, `blind` apart.")
    tickets: int = Field(description="How many tickets it would have opened.")
    burned: float = Field(description="Share of the budget that was gone at the end.")
    remaining: float = Field(description="Share that was left.")
    fired: list[WouldFire] = Field(description="Each episode, in order of time.")
    detections: list[Detected] = Field(description="Each known incident.")
    surplus_pages: int = Field(description="Pages in no known incident, where some are given.")
    points: list[BudgetPoint] = Field(description="The course of the budget, at most 240 points.")
    stored_counts: bool = Field(description="Whether these are the counts that the server judged.")
    search: Search | None = Field(description="Which thresholds would have paged `fires` times.")
    live: list[LivePage] | None = Field(default=None, description="What the server told of it in this time.")


class Replay(Span):
    """A backtest."""

    objectives: list[Replayed] = Field(description="Each objective.")
    notes: list[str] = Field(description="What limits the answer.")
    ticks_left: int = Field(description="How many ticks more could have been judged.")


@router.post(
    "/v1/slos/backtest",
    response_model=Replay,
    openapi_extra=opens_for("read", query=True),
    summary="What would an objective have done?",
)
def backtest(state: StateDep, body: BacktestQuestion) -> dict[str, Any]:
    """Replays an objective in force, or of documents that are not, over recorded counts; nothing is stored."""
    if (body.name is None) == (body.documents is None):
        raise bad_parameter("name", "give either name or documents", "body")
    now = time.time_ns()
    start, end = span(body.from_, body.to, "-1d")
    incidents = [(time_ns(i.from_, "incidents.from", now), time_ns(i.to, "incidents.to", now)) for i in body.incidents]
    settings = state.slos.settings if state.slos is not None else SloSettings()
    if body.documents is not None:
        found = read(body.documents, "documents")
        made = compiled(found.objects, paths=set(state.paths), calendars=set(settings.calendars), kpis=state.kpis)
        errors = [p for p in (*found.problems, *made.problems) if p.severity == "error"]
        if errors or not made.objectives:
            raise bad_parameter("documents", str(errors[0]) if errors else "hold no objective", "body")
        every = list(made.objectives)
        names = [one.name for one in every]
    else:
        every = list(SloBook(state.control).compiled().objectives)
        names = [str(body.name)]
        if names[0] not in {one.name for one in every}:
            known = ", ".join(sorted(one.name for one in every)[:20]) or "none"
            raise ProblemError(404, "unknown-objective", f"no objective is called {names[0][:80]!r}; there are {known}")
    world = World(state.reader, state.paths, settings.calendars, state.kpis, now)
    try:
        asked = Asked(start // 10**9, end // 10**9, incidents, body.fires, fresh=body.name is None)
        answer = run_all(world, every, names, settings, asked.checked(now // 10**9), ticks=_TICKS)
    except AskedError as error:
        raise ProblemError(422, "bad-request", str(error)) from error
    for one in answer["objectives"]:
        one["live"] = live_pages(state.control, one["name"], start, end) if body.name is not None else None
    return answer
