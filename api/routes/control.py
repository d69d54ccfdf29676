"""`/v1/control`: is this server active or the standby, and what the standby asks for."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from api.answers import Answer
from api.door import Door, StateDep, opens_for
from api.problems import ProblemError
from api.standby.journal import FollowError

router = APIRouter(route_class=Door, tags=["objectives"])


class Control(Answer):
    """Which of a pair of servers judges objectives and tells of alerts."""

    name: str = Field(description="This server's name; empty without a standby.")
    role: str = Field(description="active (alone, too), standby, or candidate: it has begun and listens for the other.")
    acts: bool = Field(description="Whether it judges and tells at this moment.")
    epoch: int = Field(description="How often the role was taken over; the larger one stays.")
    since_ns: int = Field(description="Since when it has this role, epoch nanoseconds.")
    peer: str = Field(description="The other server's address; empty without a standby.")
    peer_role: str = Field(description="What the other one said it is; empty when it was never heard.")
    peer_epoch: int = Field(description="Its epoch.")
    synced_ns: int = Field(description="When everything of the active one was last here; 0: never, or it is active.")
    problem: str = Field(description="Why the other one could not be asked; empty when it could.")


class Change(Answer):
    """A row of the control state that changed."""

    table: str = Field(description="Its table.")
    key: list[str | int] = Field(description="Its key.")
    row: dict[str, Any] | None = Field(description="As it is now; null when it is gone.")


class Followed(Answer):
    """What changed in the control state: episodes, notifications, who was told, objectives, maintenance windows."""

    name: str = Field(description="This server's name.")
    role: str = Field(description="Its role.")
    epoch: int = Field(description="Its epoch.")
    log: str = Field(description="Which journal the numbers are of.")
    seq: int = Field(description="Ask for what comes after this number.")
    reset: bool = Field(description="Everything from the beginning: what is not among it is gone.")
    more: bool = Field(description="There is more; ask again.")
    rows: list[Change] = Field(description="In the order of their last change.")


@router.get("/v1/control", response_model=Control, openapi_extra=opens_for("read"), summary="Active or standby")
def control(state: StateDep) -> dict[str, Any]:
    """Whether this server judges objectives and tells of alerts, and what it knows of the other one of its pair."""
    pair = state.standby
    if pair is None:
        return {
            "name": "", "role": "active", "acts": not state.stopping, "epoch": 0, "since_ns": state.started_ns,
            "peer": "", "peer_role": "", "peer_epoch": 0, "synced_ns": 0, "problem": "",
        }  # fmt: skip
    peer = pair.peer
    return {
        "name": pair.me.name, "role": pair.me.role, "acts": pair.active() and not state.stopping,
        "epoch": pair.me.epoch, "since_ns": pair.since_ns, "peer": pair.settings.peer,
        "peer_role": peer.role if peer else "", "peer_epoch": peer.epoch if peer else 0,
        "synced_ns": pair.synced_ns, "problem": pair.problem,
    }  # fmt: skip


@router.get(
    "/v1/control/follow",
    response_model=Followed,
    openapi_extra=opens_for("operate"),
    responses={409: {"description": "This server has no standby, or another than the one that asks."}},
    summary="What changed in the control state",
)
def follow(
    state: StateDep,
    name: Annotated[str, Query(min_length=1, max_length=100, description="Who asks.")],
    role: Annotated[str, Query(max_length=20, description="What it is.")],
    epoch: Annotated[int, Query(ge=0, le=(1 << 62), description="Its epoch.")],
    log: Annotated[str, Query(max_length=64, description="The journal it goes on in; empty: from the beginning.")] = "",
    after: Annotated[int, Query(ge=0, le=(1 << 62), description="The number it has everything up to.")] = 0,
) -> dict[str, Any]:
    """What the other server of a pair asks for, again and again; to ask is to say that all up to `after` is there."""
    if state.standby is None:
        raise ProblemError(409, "no-standby", "this server has no [standby] peer in its configuration")
    try:
        return state.standby.asked(name, role, epoch, log, after)
    except FollowError as error:
        raise ProblemError(409, "no-standby", str(error)) from None
