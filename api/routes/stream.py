"""`/v1/stream`: new windows, changes and collector states as Server-Sent Events, resumable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal, get_args

import anyio.to_thread
import msgspec
from fastapi import APIRouter, Header, Query
from starlette.responses import StreamingResponse

from api.auth import Principal
from api.door import Door, PrincipalDep, StateDep, opens_for
from api.problems import ProblemError, bad_parameter
from api.routes.changes import changes_since
from api.state import State
from api.stream import Event, Reader
from collector.store import StoreError

router = APIRouter(route_class=Door, tags=["stream"])
Kind = Literal["window", "change", "collector"]
KEEPALIVE_S = 10.0
# A window computed just before the cursor may have been published just after it.
OVERLAP_NS = 10 * 10**9
REPLAY_ROWS = 5_000


@router.get(
    "/v1/stream",
    response_class=StreamingResponse,
    openapi_extra=opens_for("read"),
    responses={
        200: {
            "description": "Events until the client leaves. `window`, `change` and `collector` carry data; `gap` says "
            "that events between the cursor and now are missing: ask the other routes; `dropped` says that this "
            "reader was too slow and is cut: come back with the last id.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        }
    },
    summary="Follow what happens",
)
async def stream(
    state: StateDep,
    who: PrincipalDep,
    path: Annotated[str | None, Query(max_length=64, description="Only windows of this path.")] = None,
    kinds: Annotated[
        str | None,
        Query(
            max_length=60,
            description="Comma-separated: window, change, collector. All when left out.",
            examples=["window"],
        ),
    ] = None,
    after: Annotated[
        int | None, Query(ge=0, lt=1 << 63, description="Resume after this event id; Last-Event-ID goes before it.")
    ] = None,
    last_event_id: Annotated[
        str | None, Header(alias="Last-Event-ID", max_length=40, description="Sent by EventSource when it reconnects.")
    ] = None,
) -> StreamingResponse:
    """Server-Sent Events. An event may come twice after a reconnect, never not at all without a `gap`."""
    wanted = frozenset(kinds.split(",")) if kinds else frozenset(get_args(Kind))
    unknown = sorted(wanted - set(get_args(Kind)))
    if unknown:
        raise bad_parameter("kinds", f"{unknown[0]!r} is none of {', '.join(get_args(Kind))}")
    if path is not None and path not in state.paths:
        raise bad_parameter("path", f"there is no path {path!r}; there are {', '.join(state.paths) or 'none'}")
    if last_event_id is not None:
        if not last_event_id.isdigit() or int(last_event_id) >= 1 << 63:
            raise bad_parameter("Last-Event-ID", "is not an id that this stream gave", "header")
        after = int(last_event_id)
    reader = Reader(wanted, path, asyncio.get_running_loop())
    accepted, whole = state.broker.subscribe(reader, after)
    if not accepted:
        raise ProblemError(429, "too-many-readers", "no more streams can be opened now", retry_after=5)
    body = _events(state, who, reader, None if whole else after)
    return StreamingResponse(body, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def _events(state: State, who: Principal, reader: Reader, from_store: int | None) -> AsyncIterator[bytes]:
    try:
        yield b"retry: 2000\n\n"
        if from_store is not None:
            for part in await anyio.to_thread.run_sync(lambda: _replay(state, reader, from_store)):
                yield part
        quiet = 0.0
        while True:
            for event in state.broker.take(reader):
                yield written(event)
                quiet = 0.0
            if reader.missed:
                yield b'event: dropped\ndata: {"reason":"this reader was too slow"}\n\n'
                return
            if reader.closed or not state.tokens.still_valid(who):
                return
            try:
                await asyncio.wait_for(reader.wake.wait(), 1.0)
            except TimeoutError:
                quiet += 1.0
                if quiet >= KEEPALIVE_S:
                    quiet = 0.0
                    yield b": still here\n\n"
    finally:
        state.broker.unsubscribe(reader)


def _replay(state: State, reader: Reader, after: int) -> list[bytes]:
    """What the store knows of the time after an event id that the memory no longer has."""
    since = max(0, after - OVERLAP_NS)
    events: list[Event] = []
    gap = "collector" in reader.kinds  # their states are not kept
    try:
        if "window" in reader.kinds:
            windows = windows_since(state, since, reader.path)
            gap = gap or len(windows) >= REPLAY_ROWS
            events += [Event(row.pop("computed_ns"), "window", row) for row in windows]
        if "change" in reader.kinds:
            changes = changes_since(state, since, REPLAY_ROWS)
            gap = gap or len(changes) >= REPLAY_ROWS
            events += [Event(row["recorded_ns"], "change", row) for row in changes]
    except StoreError:
        gap = True
    parts = [written(event) for event in sorted(events, key=lambda event: event.id)]
    if gap:
        parts.append(b'event: gap\ndata: {"after":%d}\n\n' % after)
    return parts


def windows_since(state: State, computed_ns: int, path: str | None) -> list[dict[str, Any]]:
    """Commit records of windows computed after a moment, oldest first."""
    where = " AND path = {path:String}" if path is not None else ""
    sql = (
        "SELECT path, level, toUnixTimestamp(window) * 1000000000 AS window_ns, generation, "  # noqa: S608 - constants only
        "toString(state) AS state, messages, finished, unfinished, headless, completeness, "
        "toUnixTimestamp64Nano(computed) AS computed_ns FROM windows "
        f"WHERE level > 0 AND computed > fromUnixTimestamp64Nano({{at:Int64}}, 'UTC'){where} "
        "ORDER BY computed LIMIT {n:UInt32}"
    )
    params = {"at": computed_ns, "n": REPLAY_ROWS, **({"path": path} if path is not None else {})}
    return state.reader.query(sql, params).to_dicts()


def written(event: Event) -> bytes:
    """An event as the wire has it."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.id, event.kind.encode(), msgspec.json.encode(event.data))
