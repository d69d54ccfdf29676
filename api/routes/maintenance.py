"""`/v1/maintenance`: times in which alerts are judged and recorded, and not sent."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from analytics.slo.maintenance import Window
from api.answers import Answer
from api.door import Door, PrincipalDep, StateDep, opens_for
from api.maintenance import Maintenance, UnknownWindowError, shown
from api.params import time_ns
from api.problems import ProblemError, bad_parameter
from api.state import State
from collector.settings import ConfigError, duration_ns

router = APIRouter(route_class=Door, tags=["objectives"])


class NewWindow(BaseModel):
    """A maintenance window to declare. It lasts at most 7 days."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "name": "gateway-upgrade", "objectives": ["order-*"], "why": "new firmware",
                    "start": "2030-01-05T20:00:00Z", "end": "2030-01-05T22:00:00Z",
                }
            ]
        },
    )  # fmt: skip

    name: str = Field(min_length=1, max_length=100, description="Its name; no other window may have it.")
    objectives: list[Annotated[str, Field(max_length=200)]] = Field(
        default_factory=list, max_length=100, description="Patterns of objectives that it is about; `*` is all."
    )
    services: list[Annotated[str, Field(max_length=200)]] = Field(
        default_factory=list, max_length=100, description="Patterns of services whose objectives it is about."
    )
    start: str = Field(
        default="now", max_length=64, description="When it begins: RFC 3339, epoch nanoseconds, or `now`."
    )
    end: str = Field(max_length=64, description="When it ends: a time, or `+2h` after its start; at most 7 days.")
    why: str = Field(min_length=1, max_length=500, description="Why; notifications say it.")
    send: Literal["hold", "annotate"] = Field(
        default="hold",
        description="hold: nobody is told, and what fires at the end is told then; annotate: sent, and says so.",
    )
    budget: Literal["burns", "pauses"] = Field(
        default="burns", description="pauses: what happens in the window is neither good nor bad."
    )


class MaintenanceWindow(Answer):
    """A maintenance window. Times are epoch nanoseconds, 0 where they have not come."""

    name: str = Field(description="Its name.")
    state: str = Field(description="planned, active or over.")
    start_ns: int = Field(description="When it begins.")
    end_ns: int = Field(description="When it ends (exclusive).")
    who: str = Field(description="Who wants it.")
    why: str = Field(description="Why.")
    objectives: list[str] = Field(description="Patterns of objectives.")
    services: list[str] = Field(description="Patterns of services.")
    send: str = Field(description="hold or annotate.")
    budget: str = Field(description="burns or pauses.")
    declared_ns: int = Field(description="When it was declared; 0: in the configuration.")
    declared_by: str = Field(description="Who declared it.")
    ended_ns: int = Field(description="When somebody ended it early.")
    ended_by: str = Field(description="Who did.")
    about: list[str] = Field(description="The objectives in force that it is about.")
    held: list[str] = Field(description="Episodes that fire and that nobody has been told of because of it.")


class HeldEpisode(Answer):
    """An episode that began in a window."""

    episode: str = Field(description="Its id.")
    window: str = Field(description="The window.")
    objective: str = Field(description="The objective.")
    rule: str = Field(description="The rule.")
    held_ns: int = Field(description="When it fired, epoch nanoseconds.")
    let_go_ns: int = Field(description="When it was told or ended; 0: it is held.")
    outcome: str = Field(
        description="Empty: held; told: sent at the window's end; over: it ended before, nobody heard."
    )


class MaintenanceList(Answer):
    """All maintenance windows of the last month, and what they held."""

    windows: list[MaintenanceWindow] = Field(description="By start.")
    held: list[HeldEpisode] = Field(description="Newest first, at most 1,000.")


@router.get(
    "/v1/maintenance",
    response_model=MaintenanceList,
    openapi_extra=opens_for("read"),
    summary="List maintenance windows",
)
def listed(
    state: StateDep,
    past: Annotated[bool, Query(description="Also windows that are over and what they held.")] = False,
) -> dict[str, Any]:
    """Windows that are planned or active, with the episodes that they hold now."""
    now = time.time_ns()
    book = _book(state)
    held = book.held(all_=past)
    some = [one for one in book.declared() if past or one.window.end_ns > now]
    fields = ("episode", "window", "objective", "rule", "held_ns", "let_go_ns", "outcome")
    return {
        "windows": [shown(one, held, now, lambda window: _about(state, window)) for one in some],
        "held": [{name: getattr(one, name) for name in fields} for one in held],
    }


@router.post(
    "/v1/maintenance",
    status_code=201,
    response_model=MaintenanceWindow,
    openapi_extra=opens_for("operate"),
    responses={409: {"description": "A window has this name already, or would be over already."}},
    summary="Declare a maintenance window",
)
def add(state: StateDep, who: PrincipalDep, body: NewWindow) -> dict[str, Any]:
    """Declares a window in the name of who asks. Audited."""
    now = time.time_ns()
    start = now if body.start == "now" else time_ns(body.start, "start", now)
    window = Window(
        body.name, start, _end_ns(body.end, start, now), who.name, body.why, tuple(body.objectives),
        tuple(body.services), body.send, body.budget == "burns",
    )  # fmt: skip
    try:
        made = _book(state).add(window, who.name)
    except ConfigError as error:
        raise bad_parameter(error.field, error.problem, "body") from None
    except ValueError as error:
        raise ProblemError(409, "window-refused", str(error)) from None
    detail = {"start_ns": made.window.start_ns, "end_ns": window.end_ns, "why": window.why, "send": window.send,
              "budget": body.budget, "objectives": window.objectives, "services": window.services}  # fmt: skip
    state.audit.record(who.name, "maintenance.add", window.name, "ok", detail)
    return shown(made, [], now, lambda one: _about(state, one))


@router.post(
    "/v1/maintenance/{name}/end",
    response_model=MaintenanceWindow,
    openapi_extra=opens_for("operate"),
    responses={409: {"description": "The window is over."}},
    summary="End a maintenance window",
)
def end(
    state: StateDep,
    who: PrincipalDep,
    name: Annotated[str, Path(max_length=100, description="The window's name.")],
) -> dict[str, Any]:
    """Ends a window now, also one of the configuration: what fires is told within a tick (10 s). Audited."""
    book = _book(state)
    try:
        made = book.end(name, who.name)
    except UnknownWindowError as error:
        raise ProblemError(404, "unknown-window", str(error.args[0])) from None
    except ValueError as error:
        raise ProblemError(409, "window-refused", str(error)) from None
    state.audit.record(who.name, "maintenance.end", name)
    return shown(made, book.held(), time.time_ns(), lambda one: _about(state, one))


def _end_ns(text: str, start_ns: int, now_ns: int) -> int:
    if not text.startswith("+"):
        return time_ns(text, "end", now_ns)
    try:
        return start_ns + duration_ns(text[1:], "end")
    except ConfigError as error:
        raise bad_parameter("end", error.problem, "body") from None


def _book(state: State) -> Maintenance:
    return state.slos.maintenance if state.slos is not None else Maintenance(state.control)


def _about(state: State, window: Window) -> list[str]:
    last = state.slos.snapshot.objectives if state.slos is not None else {}
    return [name for name in sorted(last) if window.about(name, str(last[name]["service"]))]
