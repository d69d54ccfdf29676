"""Who may do what: tokens `ts_<id>_<secret>` with scopes, checked at one place for every route.

A secret has 256 random bits, so its SHA-256 is stored as it is: there is nothing to guess and no salt to add. Requests
from this machine need no token by default; "from this machine" means a loopback peer, no proxy header, a loopback
Host (a page of another site cannot reach us by rebinding its name) and no foreign Origin.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import sqlite3
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, get_args
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from api.control import Control
from api.server_settings import is_loopback

Scope = Literal["agent", "read", "sql", "operate", "executive"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
# Who may read figures may read the reports made of them; the other way round not.
INCLUDED: dict[str, frozenset[str]] = {"executive": frozenset({"read"})}
_PROXY_HEADERS = ("x-forwarded-for", "forwarded", "x-real-ip", "via")
# Compared against when the id is unknown, so that both refusals take the same time.
_NOBODY = hashlib.sha256(b"nobody").digest()


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: `name` for the audit log, the scopes, and the token's id ("" for this machine's own users)."""

    name: str
    scopes: frozenset[str]
    token_id: str = ""
    expires_ns: int | None = None


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A token as it may be shown: everything but the secret."""

    id: str
    name: str
    scopes: tuple[str, ...]
    created_ns: int
    expires_ns: int | None
    revoked_ns: int | None
    last_used_ns: int | None


def opens(principal: Principal, scope: str) -> bool:
    """Whether who asks may pass a door of this scope."""
    return scope in principal.scopes or not principal.scopes.isdisjoint(INCLUDED.get(scope, ()))


class RefusedError(Exception):
    """A token that opens nothing; the message says why, in words fit for the client."""


class Tokens:
    """Tokens in the control state."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._used: dict[str, int] = {}

    def create(self, name: str, scopes: Collection[str], expires_ns: int | None = None) -> tuple[TokenRow, str]:
        """Make a token; the second value is the token itself, which nobody can be shown again.

        Raises ValueError for an unknown or missing scope, or an expiry that has passed.
        """
        unknown = sorted(set(scopes) - set(SCOPES))
        if unknown or not scopes:
            raise ValueError(f"scopes must be some of {', '.join(SCOPES)}; got {', '.join(unknown) or 'none'}")
        now = time.time_ns()
        if expires_ns is not None and expires_ns <= now:
            raise ValueError("the expiry lies in the past")
        row = TokenRow(secrets.token_hex(6), name, tuple(sorted(set(scopes))), now, expires_ns, None, None)
        token = f"ts_{row.id}_{secrets.token_urlsafe(32)}"
        with self._control.transaction() as db:
            db.execute(
                "INSERT INTO tokens (id, name, scopes, hash, created_ns, expires_ns) VALUES (?, ?, ?, ?, ?, ?)",
                (row.id, name, " ".join(row.scopes), _digest(token), now, expires_ns),
            )
        return row, token

    def list(self) -> list[TokenRow]:
        """All tokens, newest first."""
        rows = self._control.rows("SELECT * FROM tokens ORDER BY created_ns DESC, id")
        return [
            TokenRow(
                r["id"],
                r["name"],
                tuple(r["scopes"].split()),
                r["created_ns"],
                r["expires_ns"],
                r["revoked_ns"],
                max(filter(None, (r["last_used_ns"], self._used.get(r["id"]))), default=None),
            )
            for r in rows
        ]

    def revoke(self, token_id: str) -> bool:
        """Close a token for good, from the next request on. False when there is no such token."""
        with self._control.transaction() as db:
            cursor = db.execute(
                "UPDATE tokens SET revoked_ns = coalesce(revoked_ns, ?) WHERE id = ?", (time.time_ns(), token_id)
            )
            return cursor.rowcount == 1

    def check(self, token: str) -> Principal:
        """Whose token this is. Raises RefusedError when it is unknown, wrong, revoked or expired."""
        parts = token.split("_", 2)
        known = len(parts) == 3 and parts[0] == "ts" and len(parts[1]) <= 32
        rows = self._control.rows("SELECT * FROM tokens WHERE id = ?", (parts[1],)) if known else []
        matches = hmac.compare_digest(rows[0]["hash"] if rows else _NOBODY, _digest(token))
        if not (rows and matches):
            raise RefusedError("the token is not known here")
        return self._opened(rows[0])

    def by_id(self, token_id: str) -> Principal:
        """Whose token has this id, for a session that was opened with it. Raises RefusedError when it opens nothing."""
        rows = self._control.rows("SELECT * FROM tokens WHERE id = ?", (token_id,))
        if not rows:
            raise RefusedError("the token is not known here")
        return self._opened(rows[0])

    def _opened(self, row: sqlite3.Row) -> Principal:
        now = time.time_ns()
        if row["revoked_ns"] is not None:
            raise RefusedError("the token has been revoked")
        if row["expires_ns"] is not None and row["expires_ns"] <= now:
            raise RefusedError("the token has expired")
        self._used[row["id"]] = now
        return Principal(row["name"], frozenset(row["scopes"].split()), row["id"], row["expires_ns"])

    def still_valid(self, principal: Principal) -> bool:
        """Whether a token that opened a long answer would still open it."""
        if not principal.token_id:
            return True
        rows = self._control.rows("SELECT revoked_ns FROM tokens WHERE id = ?", (principal.token_id,))
        expired = principal.expires_ns is not None and principal.expires_ns <= time.time_ns()
        return bool(rows) and rows[0]["revoked_ns"] is None and not expired

    def write_last_used(self) -> None:
        """Put the times of last use on disk; called now and then, not per request."""
        used, self._used = self._used, {}
        if used:
            with self._control.transaction() as db:
                db.executemany("UPDATE tokens SET last_used_ns = ? WHERE id = ?", [(at, k) for k, at in used.items()])


def from_this_machine(peer: str, headers: Headers) -> bool:
    """Whether a request surely comes from a program on this machine and not through a proxy or a web page."""
    if not is_loopback(peer) or any(name in headers for name in _PROXY_HEADERS):
        return False
    host = urlsplit("//" + headers.get("host", "")).hostname or ""
    origin = headers.get("origin")
    return is_loopback(host) and (origin is None or is_loopback(urlsplit(origin).hostname or ""))


def same_origin(headers: Headers) -> bool:
    """Whether a browser sends this for a page of this server, or for what its user typed; programs do not say."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host", "")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
