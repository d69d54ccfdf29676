"""`/v1/events`: what programs said about messages: decisions with their reasons, log lines, spans."""

from __future__ import annotations

from typing import Annotated, Any

import polars as pl
from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from analytics import events as analysis
from api.answers import Span, in_formats
from api.door import Door, StateDep, opens_for
from api.negotiate import FORMAT, answer
from api.params import FROM, TO, message_key, read_cursor, span, write_cursor
from api.routes.messages import SaidEvent, shown_event

router = APIRouter(route_class=Door, tags=["events"])
_SCHEMA: dict[str, Any] = {
    "ts_ns": pl.Int64,
    **dict.fromkeys(("key", "host", "service", "kind", "body", "attributes"), pl.String),
}


class EventPage(Span):
    """Events, newest first."""

    next: str | None = Field(description="Cursor of the next page; null at the end.")
    events: list[SaidEvent] = Field(description="The events.")


@router.get(
    "/v1/events",
    response_model=EventPage,
    openapi_extra=opens_for("read", query=True),
    responses=in_formats("Events, newest first."),
    summary="What programs said",
)
def listed(
    request: Request,
    state: StateDep,
    key: Annotated[
        str | None,
        Query(max_length=300, description="Only of one message: as in /v1/messages/{key}.", examples=["order:17"]),
    ] = None,
    kind: Annotated[str | None, Query(max_length=200, description="Only this kind.", examples=["decision"])] = None,
    service: Annotated[str | None, Query(max_length=200, description="Only this service.")] = None,
    from_: FROM = None,
    to: TO = None,
    limit: Annotated[int, Query(ge=1, le=1_000, description="Rows per page.")] = 100,
    cursor: Annotated[str | None, Query(max_length=200, description="`next` of the page before.")] = None,
    format_: FORMAT = None,
) -> Response:
    """Events of a time, newest first, page by page: by key, by kind, by service. Key 0 is of no message."""
    start, end = span(from_, to)
    before = None
    if cursor is not None:
        start, end, *last = (int(part) for part in read_cursor(cursor, (int, int, int, int, int)))
        before = (last[0], last[1], last[2])
    found = analysis.events(
        state.reader,
        keys=None if key is None else [message_key(key)],
        kind=kind,
        service=service,
        from_ns=start,
        to_ns=end,
        before=before,
        limit=limit + 1,
    )
    page = found[:limit]
    last_one = page[-1] if len(found) > limit else None
    about = {
        "from_ns": start,
        "to_ns": end,
        "next": last_one and write_cursor(start, end, last_one.ts_ns, last_one.batch, last_one.seq),
    }
    return answer(request, format_, "events", [shown_event(one) for one in page], about, _SCHEMA)
