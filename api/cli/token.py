"""`tailsight token`: who may talk to the server from elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli.acting import actor, control_of
from api.cli.frame import Run, command
from api.cli.outcome import Answer, Code, CommandError
from api.cli.times import format_time, parse_time

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(no_args_is_help=True)


def register(root: typer.Typer) -> None:
    """Add the group to the command tree."""
    root.add_typer(app, name="token", help="Create, list and revoke access tokens.")


@command(app, "create", examples=("tailsight token create grafana --scope read --expires +90d",))
def create(
    run: Run,
    name: Annotated[str, typer.Argument(help="Whose token it is; shown in the audit log.")],
    scope: Annotated[
        list[str], typer.Option("--scope", help="agent, read, sql, operate or executive; may be given again.")
    ],
    expires: Annotated[str | None, typer.Option(metavar="TIME", help="When it ends, for example +90d.")] = None,
) -> Answer:
    """Make a token. It is shown this once; only its hash is stored. The audit log says who made it."""
    from api.audit import Audit
    from api.auth import Tokens

    now_ns = time.time_ns()
    expires_ns = None if expires is None else parse_time(expires, "--expires", now_ns)
    with control_of(run) as control:
        try:
            row, secret = Tokens(control).create(name, scope, expires_ns)
        except ValueError as error:
            raise CommandError(Code.USAGE, str(error), kind="token") from error
        detail = {"name": name, "scopes": row.scopes, "expires_ns": expires_ns}
        Audit(control).record(actor(), "token.create", row.id, "ok", detail)

    def show(console: Console) -> None:
        console.print(f"Token {row.id} for {row.name} ({', '.join(row.scopes)}). Keep it, it is not shown again:")
        console.print(secret, soft_wrap=True)

    return Answer({"id": row.id, "name": row.name, "scopes": row.scopes, "token": secret}, show)


@command(app, "list", examples=("tailsight token list",))
def list_(run: Run) -> Answer:
    """All tokens, newest first, without their secrets."""
    from api.auth import Tokens

    with control_of(run) as control:
        rows = Tokens(control).list()

    def show(console: Console) -> None:
        from dashboards.terminal import plain_table

        now_ns = time.time_ns()
        body = [
            (
                row.id,
                row.name,
                " ".join(row.scopes),
                format_time(row.created_ns)[:19],
                state(row.revoked_ns, row.expires_ns, now_ns),
            )
            for row in rows
        ]
        console.print(plain_table("Tokens", ("id", "name", "scopes", "created", "state"), body))

    return Answer({"tokens": rows}, show)


@command(app, "revoke", examples=("tailsight token revoke 1f3a5b7c9d0e",))
def revoke(run: Run, token_id: Annotated[str, typer.Argument(help="The id that `token list` shows.")]) -> Answer:
    """Close a token for good, from the next request on. The audit log says who did.

    Exit code 4 when there is no such token.
    """
    from api.audit import Audit
    from api.auth import Tokens

    with control_of(run) as control:
        if not Tokens(control).revoke(token_id):
            raise CommandError(Code.DATA, f"no token has the id {token_id!r}", kind="not_found")
        Audit(control).record(actor(), "token.revoke", token_id)
    return Answer({"id": token_id, "revoked": True}, lambda console: console.print(f"Token {token_id} is revoked."))


def state(revoked_ns: int | None, expires_ns: int | None, now_ns: int) -> str:
    """What a token is good for, in one word or two."""
    if revoked_ns is not None:
        return "revoked"
    if expires_ns is None:
        return "valid"
    return "expired" if expires_ns <= now_ns else f"valid until {format_time(expires_ns)[:19]}"
