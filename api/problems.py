"""Errors as RFC 9457 problems: what was wrong, where, what to do, and an id that the log has too.

A problem never carries SQL, a path of this machine or a stack; those go to the log under the same id.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from api.control import StandbyError
from collector.log import logger
from collector.store import OutcomeUnknownError, StoreError

MEDIA_TYPE = "application/problem+json"

# ClickHouse's codes for a query that hit one of its limits.
_LIMITS = {
    158: "reads too many rows",
    159: "took too long",
    160: "would take too long",
    241: "needs too much memory",
    307: "reads too many bytes",
    396: "returns too many rows",
}

_log = logger("api")


class FieldProblem(BaseModel):
    """One wrong parameter, header or field of a body."""

    name: str = Field(description="The parameter, header or dotted body field.", examples=["step"])
    where: str = Field(description="query, path, header, body or cookie.", examples=["query"])
    problem: str = Field(description="What is wrong with it and what is accepted.")


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str = Field(
        description="A stable name of the kind of problem.", examples=["urn:tailsight:problem:bad-request"]
    )
    title: str = Field(description="The kind of problem, in words.")
    status: int = Field(description="The HTTP status.", examples=[422])
    detail: str = Field(description="What was wrong here, and what to do.")
    id: str = Field(description="The server's log has this id too.", examples=["9f86d081884c7d65"])
    errors: list[FieldProblem] | None = Field(default=None, description="Each wrong parameter, where there are any.")


class ProblemError(HTTPException):
    """Ends a request with a problem. `kind` is the last part of its type; `members` are further ones of its body."""

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        errors: Sequence[FieldProblem] = (),
        retry_after: float | None = None,
        headers: dict[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        extra = dict(headers or {})
        if retry_after is not None:
            extra["Retry-After"] = str(max(1, math.ceil(retry_after)))
        super().__init__(status, detail, extra)
        self.kind = kind
        self.errors = tuple(errors)
        self.members = dict(members or {})

    def response(self) -> Response:
        """The problem as a response, with a fresh id."""
        return problem_response(
            self.status_code, self.kind, self.detail, errors=self.errors, headers=self.headers, members=self.members
        )


def bad_parameter(name: str, problem: str, where: str = "query") -> ProblemError:
    """A 422 that names one wrong parameter."""
    return ProblemError(
        422, "bad-request", f"{name}: {problem}", errors=[FieldProblem(name=name, where=where, problem=problem)]
    )


def problem_response(
    status: int,
    kind: str,
    detail: str,
    *,
    errors: Sequence[FieldProblem] = (),
    headers: Any = None,
    problem_id: str = "",
    members: Mapping[str, Any] | None = None,
) -> Response:
    """One problem as an HTTP response."""
    body: dict[str, Any] = {
        **(members or {}),
        "type": f"urn:tailsight:problem:{kind}",
        "title": kind.replace("-", " ").capitalize(),
        "status": status,
        "detail": detail,
        "id": problem_id or secrets.token_hex(8),
    }
    if errors:
        body["errors"] = [e.model_dump() for e in errors]
    return Response(msgspec.json.encode(body), status, dict(headers or {}), MEDIA_TYPE)


def store_problem(error: StoreError, problem_id: str = "") -> Response:
    """What a client is told of a failed store: a limit it hit, or to try again; the store's words stay in the log."""
    limit = _LIMITS.get(error.code)
    if limit is not None:
        return problem_response(
            422,
            "query-too-costly",
            f"the query {limit}; ask for less time, fewer stages or a larger step",
            problem_id=problem_id,
        )
    if error.retryable or isinstance(error, OutcomeUnknownError):
        return problem_response(
            503,
            "store-unavailable",
            "the store does not answer at the moment; it is being restarted, try again",
            headers={"Retry-After": "1"},
            problem_id=problem_id,
        )
    return problem_response(
        500, "store-failed", "the store refused the query; the log has the reason", problem_id=problem_id
    )


def _field(error: dict[str, Any]) -> FieldProblem:
    where, *names = [str(part) for part in error["loc"]] or ["body"]
    return FieldProblem(name=".".join(names) or where, where=where, problem=str(error["msg"]))


def install(app: FastAPI) -> None:
    """Give `app` the handlers that turn every exception into a problem."""

    async def on_problem(_request: Request, error: Exception) -> Response:
        if isinstance(error, ProblemError):
            return error.response()
        if not isinstance(error, HTTPException):
            raise error
        kind = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "refused")
        detail = {
            404: "there is nothing at this path; /openapi.json lists what there is",
            405: "this path has other methods; the Allow header names them",
        }.get(error.status_code, str(error.detail))
        return problem_response(error.status_code, kind, detail, headers=error.headers)

    async def on_invalid(_request: Request, error: Exception) -> Response:
        if not isinstance(error, RequestValidationError):
            raise error
        fields = [_field(e) for e in error.errors()]
        detail = "; ".join(f"{f.name}: {f.problem}" for f in fields)
        return problem_response(422, "bad-request", detail, errors=fields)

    async def on_store(request: Request, error: Exception) -> Response:
        if not isinstance(error, StoreError):
            raise error
        problem_id = secrets.token_hex(8)
        _log.warning("store_error", id=problem_id, path=request.url.path, code=error.code, error=str(error))
        return store_problem(error, problem_id)

    async def on_standby(_request: Request, error: Exception) -> Response:
        return problem_response(409, "standby", str(error))

    async def on_any(request: Request, error: Exception) -> Response:
        problem_id = secrets.token_hex(8)
        _log.error("unexpected_error", id=problem_id, path=request.url.path, exc_info=error)
        return problem_response(
            500, "internal", "an error in the server; its log has the details under this id", problem_id=problem_id
        )

    app.add_exception_handler(HTTPException, on_problem)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(StoreError, on_store)
    app.add_exception_handler(StandbyError, on_standby)
    app.add_exception_handler(Exception, on_any)
