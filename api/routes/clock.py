"""`/v1/clock`: how far each host's clock may be from UTC, who says so, and what the messages between hosts say."""

from __future__ import annotations

from typing import Annotated, Any

import polars as pl
from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from analytics.clock_history import clock_incidents, clock_pairs, clock_states
from api.answers import Answer, Span, in_formats
from api.door import Door, StateDep, opens_for
from api.negotiate import FORMAT, answer
from api.params import FROM, TO, span
from api.shapes import plain

router = APIRouter(route_class=Door, tags=["hosts"])
_SCHEMA: dict[str, Any] = {
    **dict.fromkeys(("host", "clock", "source"), pl.String),
    "last_ns": pl.Int64,
    "in_use": pl.Boolean,
    **dict.fromkeys(("error_ns", "max_error_ns", "offset_ns"), pl.Int64),
    "frequency_ppb": pl.Float64,
    **dict.fromkeys(("samples", "without_bound", "steps", "losses"), pl.Int64),
}


class ClockState(Answer):
    """One authority on one host's clock, in the time asked for."""

    host: str = Field(description="The host.")
    clock: str = Field(description="The clock that is bounded.", examples=["realtime"])
    source: str = Field(description="Who states the bound: adjtimex, chrony, ptp or phc.", examples=["chrony"])
    last_ns: int = Field(description="When it last said something, epoch nanoseconds.")
    in_use: bool = Field(description="Whether its bound was the smallest, so that stamps got it.")
    error_ns: int | None = Field(description="Its last bound on the distance to UTC; null when it states none.")
    max_error_ns: int | None = Field(description="Its largest bound in this time.")
    offset_ns: int | None = Field(description="What it believes the clock is off by; positive: slow.")
    frequency_ppb: float | None = Field(description="The clock's frequency error as it says.")
    samples: int = Field(description="How often it was asked in this time, as far as stored.")
    without_bound: int = Field(description="How often it stated none.")
    steps: int = Field(description="Steps of the clock while its bound was in use.")
    losses: int = Field(description="How often it lost its reference.")


class ClockIncident(Answer):
    """A step, or a loss or return of synchronisation."""

    ts_ns: int = Field(description="When, epoch nanoseconds.")
    host: str = Field(description="The host.")
    clock: str = Field(description="The clock.")
    source: str = Field(description="The authority that lost or gained; at a step the one in use.")
    event: str = Field(description="step, sync_lost or sync_gained.")
    error_ns: int | None = Field(description="The bound at that moment.")
    step_ns: int | None = Field(description="How far the clock jumped; null for the other events.")


class ClockPair(Answer):
    """What the messages between two hosts say of the distance of their clocks."""

    a: str = Field(description="One host.")
    b: str = Field(description="The other.")
    forth: int = Field(description="Messages from a to b.")
    back: int = Field(description="Messages from b to a.")
    offset_ns: int | None = Field(description="Clock of b minus clock of a: the middle of the bound.")
    low_ns: int | None = Field(description="It is at least this; null without messages both ways.")
    high_ns: int | None = Field(description="It is at most this.")
    drift_low_ppb: float | None = Field(description="Its slope is at least this; null where too few messages cross.")
    drift_high_ppb: float | None = Field(description="Its slope is at most this.")
    linear: bool = Field(description="False: no line fits, a clock was stepped or changed its speed in this time.")
    claim_ns: int | None = Field(description="The two clocks' own largest bounds, added; null where one states none.")
    claims: list[str] = Field(description="Who stated them.")
    verdict: str = Field(description="consistent, contradiction or unknown.", examples=["consistent"])


class Clocks(Span):
    """The clocks of all hosts in a time."""

    clocks: list[ClockState] = Field(description="By host and authority.")
    events: list[ClockIncident] = Field(description="Newest first, at most 200.")
    pairs: list[ClockPair] = Field(description="Hosts that messages of a path go between; empty unless asked for.")


@router.get(
    "/v1/clock",
    response_model=Clocks,
    openapi_extra=opens_for("read", query=True),
    responses=in_formats("Clocks by host and authority."),
    summary="Clocks and their bounds",
)
def listed(
    request: Request,
    state: StateDep,
    from_: FROM = None,
    to: TO = None,
    pairs: Annotated[
        bool, Query(description="Bound the clocks of pairs of hosts by the messages between them.")
    ] = False,
    format_: FORMAT = None,
) -> Response:
    """Bounds, steps and losses of synchronisation per host; with `pairs=true` what the messages say of them.

    A pair is a contradiction when no distance of the two clocks fits both the messages and the clocks' own bounds.
    """
    start, end = span(from_, to)
    rows = [plain(row) for row in clock_states(state.reader, start, end)]
    found = clock_pairs(state.reader, state.paths.values(), start, end) if pairs else []
    about = {
        "from_ns": start,
        "to_ns": end,
        "events": [plain(row) for row in clock_incidents(state.reader, start, end)],
        "pairs": [plain(row) for row in found],
    }
    return answer(request, format_, "clocks", rows, about, _SCHEMA)
