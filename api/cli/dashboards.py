"""`tailsight dashboards`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from api.cli.frame import Run, command
from api.cli.outcome import Answer, Code, CommandError

app = typer.Typer(no_args_is_help=True)


def register(root: typer.Typer) -> None:
    """Add the group to the command tree."""
    from api.cli import dashboards_push

    dashboards_push.register(app)
    root.add_typer(app, name="dashboards", help="Grafana: dashboards and alert rules, as files and in a running one.")


@command(
    app, "build", examples=("tailsight dashboards build", "tailsight dashboards build --out /etc/grafana/tailsight")
)
def build(
    run: Run,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder. (default: deploy/grafana/dashboards)"),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit code 1 if a file would change.")] = False,
) -> Answer:
    """Write every dashboard as Grafana's JSON. A second run changes nothing; boards that are no more are removed."""
    del run
    try:
        from dashboards.grafana.files import FOLDER, stale, write
    except ModuleNotFoundError as error:
        raise CommandError(
            Code.USAGE,
            f"dashboards are built with Grafana's own types, which are not installed ({error.name})",
            hint="the same files are in deploy/grafana/dashboards; to build them: pip install 'tailsight[grafana]'",
        ) from None
    folder = out or FOLDER
    names = stale(folder) if check else write(folder)
    word = "would change" if check else "written"
    return Answer(
        {"folder": str(folder), "changed": names, "written": not check},
        lambda console: console.print(f"{folder}: {len(names)} {word}" + (f": {', '.join(names)}" if names else "")),
        Code.FINDING if check and names else Code.OK,
    )
