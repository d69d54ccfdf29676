"""`tailsight agent`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from api.cli import agent_trigger
from api.cli.frame import Run, command
from api.cli.outcome import Answer


def register(root: typer.Typer) -> None:
    """Add the command and its group to the tree."""

    app = typer.Typer()

    @command(app, "agent", examples=("tailsight agent --server http://127.0.0.1:8472",), group=True)
    def agent(
        run: Run,
        server: Annotated[
            str | None, typer.Option(metavar="URL", help="Where to ship to. (default: [agent] server)")
        ] = None,
        token_file: Annotated[
            str | None, typer.Option(metavar="FILE", help="Token of scope agent. (default: [agent] token_file)")
        ] = None,
        otlp: Annotated[
            str | None,
            typer.Option(metavar="HOST:PORT", help="Take OTLP over HTTP there, whatever [agent] says of it."),
        ] = None,
    ) -> Answer:
        """Run the collectors of this host and ship what they take. SIGTERM drains and stops it.

        Logs go to standard error. Exit code 0 after a clean stop, 1 when events are left in the spool.
        """
        from collector.agent.__main__ import settings_of

        # A wrong configuration is said here, as by every command.
        settings_of(run.config_file, server, token_file, otlp)
        words = ["--data", str(run.data)]
        given = {"--config": run.config_file, "--server": server, "--token-file": token_file, "--otlp": otlp}
        for name, value in given.items():
            words += [name, str(value)] if value is not None else []
        words += ["--json"] if run.json else []
        # The same process from here on, without the command line's memory. -P: never import from where it was called.
        root = str(Path(__file__).resolve().parents[2])
        paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        arguments = [sys.executable, "-P", "-m", "collector.agent", *words]
        os.execve(sys.executable, arguments, {**os.environ, "PYTHONPATH": paths})  # noqa: S606 - this program's agent

    agent_trigger.register(app)
    root.add_typer(app, name="agent")
