"""`/v1/tokens`: make, list and revoke tokens."""

from __future__ import annotations

import dataclasses
import time
from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field

from api.answers import Answer
from api.auth import Scope
from api.door import Door, PrincipalDep, StateDep, opens_for
from api.params import time_ns
from api.problems import ProblemError, bad_parameter

router = APIRouter(route_class=Door, tags=["tokens"])


class NewToken(BaseModel):
    """What a token is for."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "ci", "scopes": ["operate"]}]})

    name: str = Field(min_length=1, max_length=100, description="Whose it is; the audit log shows it.")
    scopes: list[Scope] = Field(
        min_length=1,
        max_length=5,
        description="agent: ingest; read: queries; sql: the SQL door; operate: changes and tokens; executive: reports.",
    )
    expires: str | None = Field(
        default=None,
        max_length=40,
        description="When it ends: RFC 3339 or epoch nanoseconds. Never, when left out.",
        examples=["2030-01-01T00:00:00Z"],
    )


class Token(Answer):
    """A token without its secret. Times are epoch nanoseconds; null where there is none."""

    id: str = Field(
        description="The token's id, the part between the first two underscores.", examples=["3fa85f64c0de"]
    )
    name: str = Field(description="Whose it is.")
    scopes: list[str] = Field(description="What it opens.")
    created_ns: int = Field(description="When it was made.")
    expires_ns: int | None = Field(description="When it ends.")
    revoked_ns: int | None = Field(description="When it was revoked.")
    last_used_ns: int | None = Field(description="When it last opened something; exact to some seconds.")


class MadeToken(Token):
    """A new token; the only answer that ever has the secret."""

    token: str = Field(description="The token itself. It is not stored and cannot be shown again.")


class TokenList(Answer):
    """All tokens, newest first, revoked ones too."""

    tokens: list[Token] = Field(description="The tokens.")


@router.post(
    "/v1/tokens", status_code=201, response_model=MadeToken, openapi_extra=opens_for("operate"), summary="Make a token"
)
def create(state: StateDep, who: PrincipalDep, body: NewToken) -> dict[str, Any]:
    """Makes a token with scopes and, if wanted, an end. A token can only make tokens with scopes that it has itself."""
    beyond = sorted(set(body.scopes) - who.scopes)
    if beyond:
        raise ProblemError(403, "forbidden", f"a token without scope {', '.join(beyond)} cannot hand it out")
    expires_ns = None
    if body.expires is not None:
        if body.expires.startswith("-"):
            raise bad_parameter("expires", "must be a moment to come", "body")
        expires_ns = time_ns(body.expires, "expires", time.time_ns())
    try:
        row, token = state.tokens.create(body.name, body.scopes, expires_ns)
    except ValueError as error:
        raise bad_parameter("expires", str(error), "body") from None
    state.audit.record(
        who.name, "token.create", row.id, "ok", {"name": body.name, "scopes": row.scopes, "expires_ns": expires_ns}
    )
    return {**dataclasses.asdict(row), "token": token}


@router.get("/v1/tokens", response_model=TokenList, openapi_extra=opens_for("operate"), summary="List tokens")
def listed(state: StateDep) -> dict[str, Any]:
    """All tokens without their secrets."""
    return {"tokens": [dataclasses.asdict(row) for row in state.tokens.list()]}


@router.delete(
    "/v1/tokens/{id}",
    status_code=204,
    response_model=None,
    openapi_extra=opens_for("operate"),
    summary="Revoke a token",
)
def revoke(
    state: StateDep,
    who: PrincipalDep,
    token_id: Annotated[str, Path(alias="id", max_length=32, description="The token's id.", examples=["3fa85f64c0de"])],
) -> None:
    """Closes the token from the next request on. Doing it again changes nothing."""
    if not state.tokens.revoke(token_id):
        raise ProblemError(404, "not-found", "there is no token with this id; GET /v1/tokens lists them")
    state.audit.record(who.name, "token.revoke", token_id)
