"""`tailsight query changepoints`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from api.cli.frame import Run, command
from api.cli.outcome import Answer, Code, CommandError
from api.cli.query import FromOption, PathOption, StageOption, ToOption, plain
from api.cli.query import app as query
from api.cli.query_queues import objective_of, span_of
from api.cli.query_tail import ModeOption

if TYPE_CHECKING:
    from rich.console import Console


def register(root: typer.Typer) -> None:
    """The command is in the tree once this module is imported."""


@command(
    query,
    "changepoints",
    examples=("tailsight query changepoints --path order --from -2h", "... --scores 'model_*' --objective 5ms:0.99"),
)
def changepoints(
    run: Run,
    path: PathOption,
    from_: FromOption = "-1h",
    to: ToOption = None,
    stage: StageOption = None,
    mode: ModeOption = "users",
    scores: Annotated[
        str | None, typer.Option(help="Gauges to search, with commas; name* for all that begin so. (default: *score*)")
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(metavar="THRESHOLD:SHARE", help="Measures how long before a breach warnings came."),
    ] = None,
) -> Answer:
    """When percentiles, counts, the mix of labels and scores changed, and which recorded changes stand next to it.

    Exit code 1 when something changed.
    """
    from rich.progress import Progress

    from analytics.changepoints.findings import changepoints as ask
    from api.cli.opened import opened, path_named

    start, end = span_of(from_, to)
    wanted = None if objective is None else objective_of(objective)
    known = path_named(run, path)
    with opened(run) as store, Progress(console=run.stderr(), transient=True) as bar:
        task = bar.add_task("searching", total=None)

        def progress(done: int, of: int) -> None:
            bar.update(task, completed=done, total=of)

        try:
            answer = ask(
                store,
                known,
                from_ns=start,
                to_ns=end,
                stages=None if stage is None else [stage],
                scores=None if scores is None else [name for name in scores.split(",") if name],
                objective=wanted,
                rollup="" if mode == "users" else f"mode={mode}",
                progress=progress,
            )
        except KeyError as error:
            raise CommandError(Code.USAGE, str(error.args[0]), kind="unknown_stage") from error
    found = plain([answer])[0]

    def show(console: Console) -> None:
        from dashboards.changepoints_view import show_changepoints

        show_changepoints(console, found)

    return Answer(found, show, Code.FINDING if found["found"] else Code.OK)
