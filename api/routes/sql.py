"""`/clickhouse`: ClickHouse's HTTP interface, read-only, for Grafana's ClickHouse data source, drivers and curl.

Only in front of the embedded store; where the store is a ClickHouse server, its own port is the door.
"""

from __future__ import annotations

import gzip
import secrets
import time
from collections.abc import Callable, Coroutine
from typing import Any

import anyio.to_thread
from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse, Response

from api.door import Door, StateDep, opens_for
from api.problems import ProblemError
from api.sql.asking import ask
from api.sql.metadata import DISPLAY_NAME, TIMEZONE
from api.sql.statement import statement
from collector.log import logger
from collector.store import StoreError

_log = logger("sql")
_GZIP_FROM = 1_024
_TYPES = {
    "JSON": "application/json", "JSONCompact": "application/json", "JSONStrings": "application/json",
    "JSONEachRow": "application/x-ndjson", "CSV": "text/csv", "CSVWithNames": "text/csv",
    "TabSeparated": "text/tab-separated-values; charset=UTF-8", "Parquet": "application/vnd.apache.parquet",
    "Arrow": "application/vnd.apache.arrow.file", "ArrowStream": "application/vnd.apache.arrow.stream",
}  # fmt: skip
# ClickHouse's HTTP statuses of the errors that clients tell apart; 500 is its own for the rest.
_STATUS = {
    62: 400,
    36: 400,
    47: 404,
    60: 404,
    81: 404,
    73: 400,
    456: 400,
    457: 400,
    48: 501,
    497: 403,
    516: 401,
    164: 403,
}


class SqlDoor(Door):
    """A door whose refusals have ClickHouse's form: its drivers read no other."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with refusals translated."""
        inner = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await inner(request)
            except ProblemError as error:
                code, name = {401: (516, "AUTHENTICATION_FAILED"), 403: (497, "ACCESS_DENIED")}.get(
                    error.status_code, (202, "TOO_MANY_SIMULTANEOUS_QUERIES")
                )
                return _failed(StoreError(str(error.detail), code=code, name=name), error.status_code, error.headers)

        return handle


router = APIRouter(route_class=SqlDoor, tags=["sql"])


@router.get("/clickhouse/ping", openapi_extra=opens_for("public"), include_in_schema=False)
def ping() -> PlainTextResponse:
    """As ClickHouse's: it answers."""
    return PlainTextResponse("Ok.\n")


@router.api_route(
    "/clickhouse", methods=["GET", "POST"], openapi_extra=opens_for("sql", query=True), include_in_schema=False
)
@router.api_route(
    "/clickhouse/", methods=["GET", "POST"], openapi_extra=opens_for("sql", query=True), include_in_schema=False
)
async def sql(request: Request, state: StateDep) -> Response:
    """One statement. Without one a GET says that the door is open."""
    began = time.monotonic()
    body = (await request.body()).decode("utf-8", "replace")
    query = dict(request.query_params)
    if request.method == "GET" and not query.get("query"):
        return PlainTextResponse("Ok.\n")
    query_id = ""
    try:
        one = statement(query, body)
        query_id = one.query_id
        answer = await anyio.to_thread.run_sync(lambda: bytes(ask(state, one)))
    except StoreError as error:
        _log.info("sql_refused", code=error.code, error=str(error)[:300], agent=_agent(request))
        return _failed(error, _STATUS.get(error.code, 503 if error.retryable and not error.code else 500))
    seconds = time.monotonic() - began
    _log.info("sql_answered", seconds=round(seconds, 3), bytes=len(answer), agent=_agent(request))
    headers = {
        "Content-Type": _TYPES.get(
            one.form, "text/plain; charset=UTF-8" if one.form != "Native" else "application/octet-stream"
        ),
        "X-ClickHouse-Query-Id": query_id or secrets.token_hex(8),
        "X-ClickHouse-Format": one.form,
        "X-ClickHouse-Timezone": TIMEZONE,
        "X-ClickHouse-Server-Display-Name": DISPLAY_NAME,
        "X-ClickHouse-Summary": f'{{"elapsed_ns":"{round(seconds * 1e9)}"}}',
    }
    if len(answer) >= _GZIP_FROM and "gzip" in request.headers.get("accept-encoding", ""):
        answer = await anyio.to_thread.run_sync(lambda: gzip.compress(answer, 1))
        headers["Content-Encoding"] = "gzip"
    return Response(answer, headers=headers)


def _failed(error: StoreError, status: int, headers: Any = None) -> Response:
    text = str(error).partition(" (ClickHouse ")[0]
    about = {"X-ClickHouse-Exception-Code": str(error.code or 1002), "X-ClickHouse-Timezone": TIMEZONE}
    kept = {name: value for name, value in (headers or {}).items() if name in ("Retry-After", "WWW-Authenticate")}
    return PlainTextResponse(
        f"Code: {error.code or 1002}. DB::Exception: {text}. ({error.name or 'UNKNOWN_EXCEPTION'})\n",
        status,
        headers={**about, **kept},
    )


def _agent(request: Request) -> str:
    """Grafana says in it which user, dashboard and panel asks."""
    return request.headers.get("user-agent", "")[:300]
