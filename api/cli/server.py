"""`tailsight server`."""

from __future__ import annotations

from typing import Annotated

import typer

from api.cli.frame import Run, command
from api.cli.outcome import Answer, Code


def register(root: typer.Typer) -> None:
    """Add the command to the tree."""

    @command(root, "server", examples=("tailsight server --port 8472",))
    def server(
        run: Run,
        host: Annotated[str | None, typer.Option(help="Address to listen on. (default: [server] host)")] = None,
        port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one. (default: [server] port)")] = None,
    ) -> Answer:
        """Run the server: REST, ingest, jobs, and the embedded store. SIGTERM stops it.

        DIR/server.json says where it listens. Logs go to standard error.
        """
        from api.server import run_server

        code = run_server(run.data, run.config, host, port)
        return Answer({"exit_code": code}, None, Code.OK if code == 0 else Code.UNREACHABLE)
