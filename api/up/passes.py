"""Tokens for what `tailsight up` starts, where the server asks for one on loopback too: made once, kept in files."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from api.audit import Audit
from api.auth import RefusedError, Scope, Tokens
from api.control import Control


def token_file(control: Control, data: Path, name: str, scope: Scope, actor: str) -> Path:
    """DIR/tokens/NAME (0600) with a valid token of one scope; a new one when there is none that still opens anything.

    The token is listed as `tailsight up: NAME`, and the audit log says who made it.
    """
    folder = data / "tokens"
    folder.mkdir(mode=0o700, exist_ok=True)
    file = folder / name
    tokens = Tokens(control)
    with contextlib.suppress(OSError, UnicodeError, RefusedError):
        if scope in tokens.check(file.read_text("ascii").strip()).scopes:
            file.chmod(0o600)
            return file
    row, secret = tokens.create(f"tailsight up: {name}", [scope])
    Audit(control).record(actor, "token.create", row.id, "ok", {"name": row.name, "scopes": row.scopes})
    draft = file.with_name(f"{name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as stream:
        stream.write(secret + "\n")
    draft.replace(file)
    return file
