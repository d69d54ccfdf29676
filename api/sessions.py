"""Sessions of browsers: a random cookie that stands for a token, and ends with it, with its time, or on signing out.

The page never keeps the token: it shows it once and gets a cookie that scripts cannot read. Only the cookie's SHA-256
is stored. The CSRF token is derived from the cookie's secret, so that it needs no place of its own and whoever cannot
read an answer of this server cannot know it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass

from api.auth import Principal, RefusedError, Tokens
from api.control import Control

# The secure one where the browser came by TLS: its prefix makes browsers refuse it from other hosts and in plain text.
COOKIE, SECURE_COOKIE = "tailsight", "__Host-tailsight"
COOKIES = (SECURE_COOKIE, COOKIE)
CSRF = "tailsight-csrf"
MOST_PER_TOKEN = 100


@dataclass(frozen=True, slots=True)
class Session:
    """An open session: whose, its secret (the cookie's value), its CSRF token and when it ends."""

    principal: Principal
    secret: str
    csrf: str
    expires_ns: int


class Sessions:
    """Sessions in the control state."""

    def __init__(self, control: Control, tokens: Tokens, length_ns: int) -> None:
        self._control = control
        self._tokens = tokens
        self._length_ns = length_ns

    def open(self, token: str) -> Session:
        """Sign in with a token. Raises RefusedError when it opens nothing.

        A token has at most 100 sessions; the oldest end when more are opened.
        """
        principal = self._tokens.check(token)
        secret, now = secrets.token_urlsafe(32), time.time_ns()
        expires = min(now + self._length_ns, principal.expires_ns or now + self._length_ns)
        with self._control.transaction() as db:
            db.execute("DELETE FROM sessions WHERE expires_ns <= ?", (now,))
            db.execute(
                "DELETE FROM sessions WHERE token_id = ?1 AND hash NOT IN (SELECT hash FROM sessions "
                "WHERE token_id = ?1 ORDER BY created_ns DESC LIMIT ?2)",
                (principal.token_id, MOST_PER_TOKEN - 1),
            )
            db.execute("INSERT INTO sessions VALUES (?, ?, ?, ?)", (_digest(secret), principal.token_id, now, expires))
        return Session(principal, secret, csrf_of(secret), expires)

    def find(self, secret: str) -> Principal:
        """Whose session it is, with the scopes that the token has now. Raises RefusedError when it is over."""
        rows = self._control.rows("SELECT * FROM sessions WHERE hash = ?", (_digest(secret),))
        if not rows or rows[0]["expires_ns"] <= time.time_ns():
            raise RefusedError("the session is over")
        return self._tokens.by_id(rows[0]["token_id"])

    def shows(self, secret: str, csrf: str) -> bool:
        """Whether the CSRF token is that of the session."""
        return hmac.compare_digest(csrf_of(secret).encode(), csrf.encode())

    def close(self, secret: str) -> bool:
        """Sign out. False when there was no such session."""
        with self._control.transaction() as db:
            return db.execute("DELETE FROM sessions WHERE hash = ?", (_digest(secret),)).rowcount == 1


def csrf_of(secret: str) -> str:
    """The CSRF token of a session."""
    return hmac.new(secret.encode("utf-8", "surrogateescape"), b"csrf", hashlib.sha256).hexdigest()


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
