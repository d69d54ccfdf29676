"""`/v1/messages`: single messages: the slowest of a path, and the timeline of one."""

from __future__ import annotations

import time
from typing import Annotated, Any

import msgspec
import polars as pl
from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field

from analytics import budget
from analytics import messages as analysis
from analytics.events import Event, events
from analytics.paths import Path as MeasuredPath
from api.answers import Answer, Completeness, Span, in_formats
from api.door import Door, StateDep, opens_for
from api.negotiate import FORMAT, answer
from api.negotiate import chosen as chosen_format
from api.params import FROM, TO, key_text, message_key, read_cursor, span, time_ns, write_cursor
from api.problems import ProblemError, bad_parameter
from api.routes.latency import ONE_STAGE, PATH
from api.shapes import WHOLE, check_stage, completeness_of, path_of, plain

router = APIRouter(route_class=Door, tags=["messages"], prefix="/v1/messages")
MAX_DEPTH = 10_000
MAX_EVENTS = 200
_SLOW: dict[str, Any] = {
    "key": pl.String,
    **dict.fromkeys(("start_ns", "e2e_ns", "e2e_error_ns", "unattributed_ns"), pl.Int64),
    **dict.fromkeys(("outcome", "mode", "labels", "stages"), pl.String),
    "completeness": pl.Float64,
}
_STAMPS: dict[str, Any] = {
    **dict.fromkeys(("ts_ns", "since_start_ns"), pl.Int64),
    **dict.fromkeys(("key", "point", "host", "service"), pl.String),
    "thread": pl.Int64,
    "clock": pl.String,
    **dict.fromkeys(("error_ns", "depth"), pl.Int64),
    **dict.fromkeys(("label_set", "outcome", "mode", "cache"), pl.String),
    **dict.fromkeys(("data_age_ns", "step_ns"), pl.Int64),
    "handoff": pl.Boolean,
    "parts": pl.String,
    "remaining_ns": pl.Int64,
}


class MessageStage(Answer):
    """What one stage took in one message."""

    stage: str = Field(description="The stage.")
    value_ns: int | None = Field(description="Its latency; null when an end is missing.")
    error_ns: int | None = Field(description="Bound of the clock error; null when unknown.")
    host: str = Field(description="Host of the stage's later end.")
    depth: int | None = Field(description="Queue depth seen at the stage's first end; null when not stated.")


class SlowMessage(Answer):
    """One message and where its time went."""

    key: str = Field(description="Its key; ask /v1/messages/{key} for its stamps.", examples=["0x00c0ffee00c0ffee"])
    start_ns: int = Field(description="Its first stamp, epoch nanoseconds.")
    e2e_ns: int = Field(description="End to end.")
    e2e_error_ns: int | None = Field(description="Bound of the clock error; null when unknown.")
    unattributed_ns: int = Field(description="What the stages do not cover.")
    outcome: str = Field(description="How it ended.", examples=["ok"])
    mode: str = Field(description="How it was served.", examples=["normal"])
    labels: dict[str, Any] = Field(description="Its labels.")
    stages: list[MessageStage] = Field(description="The stages in the path's order.")
    completeness: float | None = Field(description="Completeness of its window; null when not known then.")


class Slowest(Span):
    """The slowest messages, slowest first."""

    path: str = Field(description="The path.")
    stage: str = Field(description="By which stage they are ordered.")
    completeness: Completeness = Field(description="What the answer is built on.")
    next: str | None = Field(description="Cursor of the next page; null at the end.")
    messages: list[SlowMessage] = Field(description="The messages.")


class Part(Answer):
    """What kept a thread from working."""

    kind: str = Field(description="What kind of interval.", examples=["run_queue"])
    culprit: str = Field(description="Who; empty: not known.", examples=["backup"])
    ns: int = Field(description="How much of the time.")


class Stamp(Answer):
    """One stamp of a message."""

    ts_ns: int = Field(description="When, epoch nanoseconds.")
    since_start_ns: int = Field(description="Time since the first stamp shown.")
    key: str = Field(description="The message's key, or that of a message it comes from.")
    point: str = Field(description="Where.", examples=["app_ingress"])
    host: str = Field(description="On which host.")
    service: str = Field(description="In which service.")
    thread: int = Field(description="On which thread.")
    clock: str = Field(description="The clock that took the time.")
    error_ns: int | None = Field(description="Bound of the distance to UTC; null when unknown.")
    depth: int | None = Field(description="Queue depth seen here; null when not stated.")
    label_set: str | None = Field(description="Id of its label set; null without labels.")
    outcome: str = Field(description="How the message ended, where this stamp says it.")
    mode: str = Field(description="How it was served, where this stamp says it.")
    cache: str = Field(description="What the cache answered, where this stamp says it.")
    data_age_ns: int | None = Field(description="Age of the data used; null when not stated.")
    step_ns: int = Field(description="Time since the stamp before.")
    handoff: bool = Field(description="Whether the stamp before was made by another thread.")
    parts: list[Part] | None = Field(
        description="What kept this thread from working in that time, largest first; null where nobody measured."
    )
    remaining_ns: int | None = Field(description="`step_ns` less the parts: work, and delays below the threshold.")


class SaidEvent(Answer):
    """What a program said about the message."""

    ts_ns: int = Field(description="When, epoch nanoseconds.")
    key: str = Field(description="The message's key, or that of a message it comes from.")
    host: str = Field(description="On which host.")
    service: str = Field(description="Which service.")
    kind: str = Field(description="decision, log, span, ...", examples=["decision"])
    body: str = Field(description="In its words.")
    attributes: dict[str, Any] = Field(description="What it said in fields: reason, inputs, versions, trace id.")


class Timeline(Span):
    """All stamps of one message and of the messages it comes from."""

    key: str = Field(description="The message's key.")
    completeness: Completeness = Field(description="Completeness of the time between its first and last stamp.")
    stamps: list[Stamp] = Field(description="The stamps in order of time.")
    events: list[SaidEvent] = Field(
        description="What programs said about it, in order of time, the newest 200; only in JSON."
    )


_READ = opens_for("read", query=True)


@router.get(
    "", response_model=Slowest, openapi_extra=_READ, responses=in_formats("Messages."), summary="The slowest messages"
)
def slowest(
    request: Request,
    state: StateDep,
    path: PATH,
    stage: ONE_STAGE = WHOLE,
    from_: FROM = None,
    to: TO = None,
    limit: Annotated[int, Query(ge=1, le=1_000, description="Rows per page.")] = 20,
    cursor: Annotated[
        str | None, Query(max_length=200, description="`next` of the page before; it keeps that page's time.")
    ] = None,
    format_: FORMAT = None,
) -> Response:
    """Finished messages that start in the time, slowest first by end to end or one stage. No shadow traffic."""
    chosen = path_of(state, path)
    check_stage(chosen, stage)
    start, end = span(from_, to)
    offset = 0
    if cursor is not None:
        offset, start, end = (int(part) for part in read_cursor(cursor, (int, int, int)))
        if offset > MAX_DEPTH or not start < end < 1 << 63:
            raise bad_parameter("cursor", f"leads deeper than {MAX_DEPTH} messages; ask for less time")
    found = analysis.slowest(state.reader, chosen, from_ns=start, to_ns=end, stage=stage, limit=offset + limit + 1)
    page = [_shown(chosen, one) for one in found[offset : offset + limit]]
    more = len(found) > offset + limit
    about = {
        "path": path,
        "stage": stage,
        "from_ns": start,
        "to_ns": end,
        "completeness": completeness_of(state, start, end),
        "next": write_cursor(offset + limit, start, end) if more else None,
    }
    return answer(request, format_, "messages", page, about, _SLOW)


@router.get(
    "/{key}",
    response_model=Timeline,
    openapi_extra=_READ,
    responses=in_formats("The timeline."),
    summary="The timeline of one message",
)
def timeline(
    request: Request,
    state: StateDep,
    key: Annotated[
        str,
        Path(
            max_length=300,
            description="`0x` and hex digits, decimal digits, or `space:id`; `space:'17'` is the text 17.",
            examples=["order:17", "0x00c0ffee00c0ffee"],
        ),
    ],
    from_: FROM = None,
    to: TO = None,
    format_: FORMAT = None,
) -> Response:
    """Every stamp of the message and of its parents, in order of time, and what was said about them.

    `trace:` and a W3C trace id gives all spans of the trace. Without `from` and `to` all that is kept.
    """
    number = message_key(key)
    now = time.time_ns()
    start = None if from_ is None else time_ns(from_, "from", now)
    end = None if to is None else time_ns(to, "to", now)
    if start is not None and end is not None and start >= end:
        raise bad_parameter("from", "must lie before to")
    found = analysis.timeline(state.reader, number, start, end)
    if not found:
        raise ProblemError(404, "not-found", f"no stamp of message {key_text(number)} is kept in this time")
    steps = budget.steps(state.reader, found)
    stamps = [{**plain(stamp), **plain(step)} for stamp, step in zip(found, steps, strict=True)]
    for stamp in stamps:
        stamp["key"] = key_text(stamp["key"])
        stamp["label_set"] = key_text(stamp["label_set"]) if stamp["label_set"] else None
    first, last = stamps[0]["ts_ns"], stamps[-1]["ts_ns"] + 1
    about: dict[str, Any] = {
        "key": key_text(number),
        "from_ns": first,
        "to_ns": last,
        "completeness": completeness_of(state, first, last),
    }
    if chosen_format(request, format_) == "json":
        keys = analysis.around(state.reader, number, start, end)
        said = events(state.reader, keys=keys, from_ns=start, to_ns=end, limit=MAX_EVENTS)
        about["events"] = [shown_event(one) for one in reversed(said)]
    return answer(request, format_, "stamps", stamps, about, _STAMPS)


def shown_event(event: Event) -> dict[str, Any]:
    """An event as answers have it."""
    row = plain(event)
    del row["batch"], row["seq"]
    return {**row, "key": key_text(event.key)}


def _shown(path: MeasuredPath, message: analysis.SlowMessage) -> dict[str, Any]:
    stages = [
        {"stage": stage.name, "value_ns": value, "error_ns": error, "host": host, "depth": depth}
        for stage, value, error, host, depth in zip(
            path.stages,
            message.stage_ns,
            message.stage_error_ns,
            message.stage_host,
            message.stage_depth,
            strict=True,
        )
    ]
    return {
        "key": key_text(message.key),
        "start_ns": message.start_ns,
        "e2e_ns": message.e2e_ns,
        "e2e_error_ns": message.e2e_error_ns,
        "unattributed_ns": message.unattributed_ns,
        "outcome": message.outcome,
        "mode": message.mode,
        "labels": msgspec.json.decode(message.labels or "{}"),
        "stages": stages,
        "completeness": message.completeness,
    }
