"""`/v1/session`: how a browser signs in with a token, asks who it is, and signs out."""

from __future__ import annotations

from typing import Any

import anyio.to_thread
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import Headers

from api.answers import Answer
from api.auth import SCOPES, RefusedError, same_origin
from api.door import Door, StateDep, cookie_of, is_open, opens_for, refuse
from api.sessions import COOKIE, COOKIES, CSRF, SECURE_COOKIE, Session, csrf_of

router = APIRouter(route_class=Door, tags=["page"])


class SignIn(BaseModel):
    """A token to sign in with."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"token": "ts_3fa85f64c0de_..."}]})

    token: str = Field(min_length=1, max_length=200, description="The token; it is not stored.")


class SessionState(Answer):
    """Who asks, and whether that is enough."""

    needed: bool = Field(description="Whether a token is needed here; on loopback it is not, by default.")
    open: bool = Field(description="Whether questions are answered now: by a session, or because none is needed.")
    name: str = Field(description="The token's name; empty without a session.")
    scopes: list[str] = Field(description="What is open.")
    csrf: str = Field(description=f"To be sent as {CSRF} by requests that change something; empty without a session.")


@router.get(
    "/v1/session", response_model=SessionState, openapi_extra=opens_for("public"), summary="Is a browser signed in?"
)
def current(state: StateDep, request: Request, response: Response) -> dict[str, Any]:
    """Whether a token is needed here, and what the session's opens. Never needs a token itself."""
    response.headers["Cache-Control"] = "no-store"
    if is_open(state, request):
        return {"needed": False, "open": True, "name": "", "scopes": list(SCOPES), "csrf": ""}
    secret = cookie_of(request)
    if secret and same_origin(Headers(scope=request.scope)):
        try:
            who = state.sessions.find(secret)
        except RefusedError:
            pass
        else:
            scopes = sorted(who.scopes)
            return {"needed": True, "open": True, "name": who.name, "scopes": scopes, "csrf": csrf_of(secret)}
    return {"needed": True, "open": False, "name": "", "scopes": [], "csrf": ""}


@router.post(
    "/v1/session",
    status_code=201,
    response_model=SessionState,
    openapi_extra=opens_for("public"),
    responses={401: {"description": "The token opens nothing."}, 403: {"description": "A page of another origin."}},
    summary="Sign in",
)
async def sign_in(state: StateDep, request: Request, response: Response, body: SignIn) -> dict[str, Any]:
    """Opens a session with the scopes of a token: a cookie that scripts cannot read and other sites cannot send."""
    if not same_origin(Headers(scope=request.scope)):
        raise await refuse(state, request, 403, "foreign_page", "only a page of this server can sign in")

    def opened() -> Session:
        made = state.sessions.open(body.token.strip())
        state.audit.record(made.principal.name, "session.open", made.principal.token_id)
        return made

    try:
        made = await anyio.to_thread.run_sync(opened)  # it waits for the disk
    except RefusedError as error:
        raise await refuse(state, request, 401, "bad_token", str(error)) from None
    who = made.principal
    secure = request.url.scheme == "https" or request.headers.get("origin", "").startswith("https://")
    response.headers["Cache-Control"] = "no-store"
    response.set_cookie(
        SECURE_COOKIE if secure else COOKIE,
        made.secret,
        max_age=round(state.settings.session_hours * 3600),
        path="/",
        secure=secure,
        httponly=True,
        samesite="strict",
    )
    return {"needed": True, "open": True, "name": who.name, "scopes": sorted(who.scopes), "csrf": made.csrf}


@router.delete(
    "/v1/session", status_code=204, response_model=None, openapi_extra=opens_for("public"), summary="Sign out"
)
async def sign_out(state: StateDep, request: Request, response: Response) -> None:
    """Ends the session of the cookie; without one nothing happens."""
    secret = cookie_of(request)
    if not secret:
        return
    shown = state.sessions.shows(secret, request.headers.get(CSRF, ""))
    if not (shown and same_origin(Headers(scope=request.scope))):
        raise await refuse(state, request, 403, "no_csrf", f"send the session's CSRF token as {CSRF}")
    await anyio.to_thread.run_sync(state.sessions.close, secret)
    for name in COOKIES:
        response.delete_cookie(name, path="/", secure=name == SECURE_COOKIE, httponly=True, samesite="strict")
