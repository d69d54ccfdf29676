"""The one choke point: every route is a `Door`, which checks scope, rate, parameters and cost before it opens.

It runs before the body is read. A route without a declared scope cannot be created, so that nothing is open by
forgetting.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Literal, cast

import anyio.to_thread
from fastapi import Depends, Request
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.responses import Response

from api.auth import SCOPES, Principal, RefusedError, from_this_machine, opens
from api.limits import INGEST
from api.params import check_names, names_of
from api.problems import ProblemError
from api.state import State

SCOPE = "x-tailsight-scope"
COST = "x-tailsight-cost"
_LOCAL = Principal("local", frozenset(SCOPES))


def opens_for(
    scope: Literal["public", "agent", "read", "sql", "operate", "executive"], *, query: bool = False
) -> dict[str, Any]:
    """The route's `openapi_extra`: who may pass, and whether passing takes a query slot."""
    extra: dict[str, Any] = {SCOPE: scope, COST: "query" if query else "light"}
    if scope != "public":
        extra["security"] = [{"token": []}]
    return extra


class Door(APIRoute):
    """A route that lets in who has its scope, and nothing that it does not know."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with every check before it."""
        inner = super().get_route_handler()
        extra = self.openapi_extra or {}
        scope = extra.get(SCOPE)
        if scope is None:
            raise TypeError(f"{self.path} does not say who may use it; give it openapi_extra=opens_for(...)")

        taken = names_of(self.dependant)

        async def handle(request: Request) -> Response:
            state = state_of(request)
            principal = await authorize(state, request, scope)
            request.state.principal = principal
            if scope != "sql":  # ClickHouse's clients send settings of theirs, which are read over
                check_names(request.query_params, taken)
            if extra[COST] != "query":
                return await inner(request)
            if state.store.away:
                raise ProblemError(503, "store-unavailable", "the store is being restarted; try again", retry_after=1)
            async with state.slots.take(principal.token_id or _peer(request)):
                return await inner(request)

        return handle


def state_of(request: Request) -> State:
    """The server's state."""
    return cast(State, request.app.state.tailsight)


def principal_of(request: Request) -> Principal:
    """Who asks, as the door has found out."""
    return cast(Principal, request.state.principal)


StateDep = Annotated[State, Depends(state_of)]
PrincipalDep = Annotated[Principal, Depends(principal_of)]


async def authorize(state: State, request: Request, scope: str) -> Principal:
    """Who asks, if they may. Raises a 401, 403 or 429 problem, audited as far as the rate of refusals allows."""
    if scope == "public":
        return _LOCAL
    settings = state.settings
    text = _credentials(request) if scope == "sql" else request.headers.get("authorization")
    if text is None:
        if settings.open_on_loopback and from_this_machine(_peer(request), Headers(scope=request.scope)):
            return _LOCAL
        raise await _refuse(
            state,
            request,
            401,
            "no_token",
            "this server needs a token: send Authorization: Bearer ts_..., made with `tailsight token create`",
        )
    kind, _, token = text.partition(" ")
    try:
        principal = state.tokens.check(token.strip() if kind.lower() == "bearer" else "")
    except RefusedError as error:
        raise await _refuse(state, request, 401, "bad_token", str(error)) from None
    if not opens(principal, scope):
        detail = f"this needs a token with scope {scope}; this one has {', '.join(sorted(principal.scopes))}"
        raise await _refuse(state, request, 403, "scope", detail, principal.name)
    lane = "ingest" if request.url.path.startswith(INGEST) else "query"
    wait = state.rates.hit(lane, f"token:{principal.token_id}")
    if wait is not None:
        raise ProblemError(429, "too-many-requests", "this token is over its rate", retry_after=wait)
    return principal


def _credentials(request: Request) -> str | None:
    """The token that a ClickHouse client sends as its password, as a Bearer header; None when it sends none."""
    text = request.headers.get("authorization", "")
    kind, _, given = text.partition(" ")
    password = request.headers.get("x-clickhouse-key", "")
    if kind.lower() == "basic":
        with contextlib.suppress(ValueError):
            password = base64.b64decode(given, validate=True).decode("utf-8", "replace").partition(":")[2] or password
    elif text:
        return text
    return f"Bearer {password}" if password else None


async def _refuse(
    state: State, request: Request, status: int, reason: str, detail: str, actor: str = "unknown"
) -> ProblemError:
    state.metrics.refused.labels(reason).inc()
    wait = state.rates.hit("refused", _peer(request))
    if wait is not None:
        return ProblemError(429, "too-many-refusals", "too many refused requests", retry_after=wait)
    about = {"reason": reason, "peer": _peer(request), "method": request.method}
    await anyio.to_thread.run_sync(
        lambda: state.audit.record(actor, "auth.refused", request.url.path[:200], "refused", about)
    )
    headers = {"WWW-Authenticate": 'Bearer realm="tailsight"'} if status == 401 else None
    return ProblemError(status, "unauthorized" if status == 401 else "forbidden", detail, headers=headers)


def _peer(request: Request) -> str:
    return request.client.host if request.client else "unix"
