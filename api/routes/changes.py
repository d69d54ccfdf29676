"""`/v1/changes`: who changed what and when. Recorded by people and by pipelines, shown beside the latencies."""

from __future__ import annotations

import time
import uuid
from typing import Annotated, Any, Literal

import msgspec
import polars as pl
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, field_validator

from api.answers import Answer, Span, in_formats
from api.door import Door, PrincipalDep, StateDep, opens_for
from api.negotiate import FORMAT, answer
from api.params import FROM, TO, read_cursor, span, time_ns, write_cursor
from api.problems import ProblemError
from api.state import State
from collector.store import OutcomeUnknownError
from collector.store.blocks import from_rows
from collector.store.schema import table_types

router = APIRouter(route_class=Door, tags=["changes"])
Kind = Literal["deploy", "config", "flag", "slo", "rule", "network"]
_TEXT = {"who": pl.String, "what": pl.String, "host": pl.String, "service": pl.String, "version": pl.String}
_SCHEMA = {"ts_ns": pl.Int64, "id": pl.String, "kind": pl.String, **_TEXT, "url": pl.String, "labels": pl.String}
_COLUMNS = (
    "toUnixTimestamp64Nano(ts) AS ts_ns, id, kind, who, what, host, service, version, url, labels, "
    "toUnixTimestamp64Nano(recorded) AS recorded_ns"
)


class NewChange(BaseModel):
    """A change to record."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"kind": "deploy", "what": "engine 2.4.1", "service": "engine", "version": "2.4.1"}]
        },
    )

    kind: Kind = Field(description="deploy, config, flag, slo, rule or network.")
    what: str = Field(min_length=1, max_length=2_000, description="What was changed, in words.")
    who: str = Field(default="", max_length=200, description="Who did it; the token's name when left out.")
    when: str | None = Field(
        default=None, max_length=40, description="RFC 3339, epoch nanoseconds or `-5m`; now when left out."
    )
    host: str = Field(default="", max_length=255, description="The host, if it is about one.")
    service: str = Field(default="", max_length=200, description="The service, if it is about one.")
    version: str = Field(default="", max_length=200, description="The version it leads to.")
    url: str = Field(default="", max_length=2_000, description="Where to read more: http or https.")
    labels: dict[Annotated[str, Field(max_length=100)], Annotated[str, Field(max_length=500)]] = Field(
        default_factory=dict, max_length=50, description="Anything else worth filtering by."
    )
    id: uuid.UUID | None = Field(
        default=None, description="Give one and the request may be repeated: the change is recorded once."
    )

    @field_validator("url")
    @classmethod
    def _is_web(cls, url: str) -> str:
        # It is shown as a link: javascript: and the like must not get that far.
        if url and not url.startswith(("https://", "http://")):
            raise ValueError("must start with https:// or http://")
        return url


class Change(Answer):
    """A recorded change."""

    ts_ns: int = Field(description="When it took effect, epoch nanoseconds.")
    id: str = Field(description="Its id.")
    kind: str = Field(description="deploy, config, flag, slo, rule or network.")
    who: str = Field(description="Who did it.")
    what: str = Field(description="What was changed.")
    host: str = Field(description="The host, or empty.")
    service: str = Field(description="The service, or empty.")
    version: str = Field(description="The version, or empty.")
    url: str = Field(description="Where to read more, or empty.")
    labels: dict[str, str] = Field(description="Further labels.")
    recorded_ns: int = Field(description="When it was recorded, epoch nanoseconds.")


class ChangePage(Span):
    """Changes, newest first."""

    changes: list[Change] = Field(description="The changes.")
    next: str | None = Field(description="Cursor of the next page; null at the end.")


@router.post(
    "/v1/changes",
    status_code=201,
    response_model=Change,
    openapi_extra=opens_for("operate"),
    responses={409: {"description": "Another change has this id."}},
    summary="Record a change",
)
def record(state: StateDep, who: PrincipalDep, body: NewChange) -> dict[str, Any]:
    """Records who changed what and when. With an `id` of your own it can be repeated after a lost answer."""
    now = time.time_ns()
    row: dict[str, Any] = {
        "ts": now if body.when is None else time_ns(body.when, "when", now),
        "id": str(body.id or uuid.uuid4()),
        "kind": body.kind,
        "who": body.who or who.name,
        "what": body.what,
        "host": body.host,
        "service": body.service,
        "version": body.version,
        "url": body.url,
        "labels": msgspec.json.encode(body.labels, order="sorted").decode(),
        "recorded": now,
    }
    before = _by_id(state, row["id"]) if body.id else None
    if before is not None:
        if any(before[name] != row[name] for name in ("kind", "what", "service", "version", "host", "url", "labels")):
            raise ProblemError(409, "id-taken", f"another change has the id {row['id']}")
        return _shown(before)
    token = f"changes/{row['id']}"
    try:
        state.store.insert("changes", from_rows(table_types()["changes"], [row]), token=token)
    except OutcomeUnknownError:
        state.store.settle(token)
        if _by_id(state, row["id"]) is None:
            raise
    detail = {"kind": body.kind, "who": row["who"], "what": body.what[:200], "service": body.service}
    state.audit.record(who.name, "change.record", row["id"], "ok", detail)
    shown = _shown(
        {"ts_ns": row["ts"], "recorded_ns": now, **{k: v for k, v in row.items() if k not in ("ts", "recorded")}}
    )
    state.broker.publish("change", shown)
    return shown


@router.get(
    "/v1/changes",
    response_model=ChangePage,
    openapi_extra=opens_for("read", query=True),
    responses=in_formats("Changes, newest first."),
    summary="List changes",
)
def listed(
    request: Request,
    state: StateDep,
    from_: FROM = None,
    to: TO = None,
    kind: Annotated[Kind | None, Query(description="Only this kind.")] = None,
    service: Annotated[str | None, Query(max_length=200, description="Only this service.")] = None,
    limit: Annotated[int, Query(ge=1, le=1_000, description="Rows per page.")] = 100,
    cursor: Annotated[str | None, Query(max_length=200, description="`next` of the page before.")] = None,
    format_: FORMAT = None,
) -> Response:
    """Changes of a time, newest first, page by page. The default time is the last 7 days."""
    start, end = span(from_, to, "-7d")
    where = "ts >= fromUnixTimestamp64Nano({start:Int64}, 'UTC') AND ts < fromUnixTimestamp64Nano({end:Int64}, 'UTC')"
    params: dict[str, Any] = {"start": start, "end": end, "limit": limit + 1}
    if kind is not None:
        where += " AND kind = {kind:String}"
        params["kind"] = kind
    if service is not None:
        where += " AND service = {service:String}"
        params["service"] = service
    if cursor is not None:
        where += " AND (toUnixTimestamp64Nano(ts), id) < ({at:Int64}, {id:String})"
        params["at"], params["id"] = read_cursor(cursor, (int, str))
    sql = f"SELECT {_COLUMNS} FROM changes WHERE {where} ORDER BY ts DESC, id DESC LIMIT {{limit:UInt32}}"  # noqa: S608 - constants only, values are bound
    rows = [_shown(row) for row in state.reader.query(sql, params).iter_rows(named=True)]
    more = len(rows) > limit
    rows = rows[:limit]
    about = {
        "from_ns": start,
        "to_ns": end,
        "next": write_cursor(rows[-1]["ts_ns"], rows[-1]["id"]) if more else None,
    }
    return answer(request, format_, "changes", rows, about, _SCHEMA)


def changes_since(state: State, recorded_ns: int, limit: int) -> list[dict[str, Any]]:
    """Changes recorded after a moment, oldest first."""
    sql = (
        f"SELECT {_COLUMNS} FROM changes "  # noqa: S608 - constants only
        "WHERE recorded > fromUnixTimestamp64Nano({at:Int64}, 'UTC') ORDER BY recorded LIMIT {n:UInt32}"
    )
    rows = state.reader.query(sql, {"at": recorded_ns, "n": limit})
    return [_shown(row) for row in rows.iter_rows(named=True)]


def changes_of_batch(state: State, batch: int) -> list[dict[str, Any]]:
    """Changes that a collector shipped in one batch, by the batch's 64-bit name."""
    sql = (
        f"SELECT {_COLUMNS} FROM changes "  # noqa: S608 - constants only
        "WHERE batch = {batch:UInt64} ORDER BY seq LIMIT 1000"
    )
    return [_shown(row) for row in state.reader.query(sql, {"batch": batch}).iter_rows(named=True)]


def _by_id(state: State, change_id: str) -> dict[str, Any] | None:
    sql = f"SELECT {_COLUMNS} FROM changes WHERE id = {{id:String}} LIMIT 1"  # noqa: S608 - constants only
    frame = state.reader.query(sql, {"id": change_id})
    return None if frame.is_empty() else frame.row(0, named=True)


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "labels": msgspec.json.decode(row["labels"] or "{}")}
