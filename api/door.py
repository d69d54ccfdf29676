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

from api.auth import SCOPES, Principal, RefusedError, from_this_machine, opens, same_origin
from api.limits import INGEST
from api.params import check_names, names_of
from api.problems import ProblemError
from api.sessions import COOKIES, CSRF
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
            async with state.slots.take(principal.token_id or peer_of(request)):
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
    text = _credentials(request) if scope == "sql" else request.headers.get("authorization")
    if text is None:
        if is_open(state, request):
            return _LOCAL
        if cookie_of(request) and scope not in ("agent", "sql"):  # those are for programs
            return await _of_session(state, request, scope)
        raise await refuse(
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
        raise await refuse(state, request, 401, "bad_token", str(error)) from None
    return await _within(state, request, principal, scope)


def is_open(state: State, request: Request) -> bool:
    """Whether who asks is a program or a page of this machine, and these need no token here."""
    return state.settings.open_on_loopback and from_this_machine(peer_of(request), Headers(scope=request.scope))


def cookie_of(request: Request) -> str:
    """The session that a browser states; empty when it states none."""
    return next((value for name in COOKIES if (value := request.cookies.get(name))), "")


async def _of_session(state: State, request: Request, scope: str) -> Principal:
    """Who asks by a session: only a page of this server may, and who changes anything has to show its CSRF token.

    The cookie is SameSite=Strict; other ports of this host are of the same site and get it too, so that the origin is
    looked at as well.
    """
    secret = cookie_of(request)
    if not same_origin(Headers(scope=request.scope)):
        raise await refuse(state, request, 403, "foreign_page", "a session is for the pages of this server only")
    try:
        principal = state.sessions.find(secret)
    except RefusedError as error:
        raise await refuse(state, request, 401, "bad_session", f"{error}; sign in again") from None
    if request.method not in ("GET", "HEAD") and not state.sessions.shows(secret, request.headers.get(CSRF, "")):
        detail = f"a session that changes something has to send its CSRF token as {CSRF}; GET /v1/session has it"
        raise await refuse(state, request, 403, "no_csrf", detail, principal.name)
    return await _within(state, request, principal, scope)


async def _within(state: State, request: Request, principal: Principal, scope: str) -> Principal:
    """The principal, if it has the scope and is within its rate."""
    if not opens(principal, scope):
        detail = f"this needs a token with scope {scope}; this one has {', '.join(sorted(principal.scopes))}"
        raise await refuse(state, request, 403, "scope", detail, principal.name)
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


async def refuse(
    state: State, request: Request, status: int, reason: str, detail: str, actor: str = "unknown"
) -> ProblemError:
    """The problem to raise for who may not: counted, limited per address, and audited as far as that allows."""
    state.metrics.refused.labels(reason).inc()
    wait = state.rates.hit("refused", peer_of(request))
    if wait is not None:
        return ProblemError(429, "too-many-refusals", "too many refused requests", retry_after=wait)
    about = {"reason": reason, "peer": peer_of(request), "method": request.method}
    await anyio.to_thread.run_sync(
        lambda: state.audit.record(actor, "auth.refused", request.url.path[:200], "refused", about)
    )
    headers = {"WWW-Authenticate": 'Bearer realm="tailsight"'} if status == 401 else None
    return ProblemError(status, "unauthorized" if status == 401 else "forbidden", detail, headers=headers)


def peer_of(request: Request) -> str:
    """The address that asks."""
    return request.client.host if request.client else "unix"
