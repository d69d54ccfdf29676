"""`tailsight query whatif`: percentiles if a stage were faster, no thread waited for a CPU, or requests were hedged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from api.cli.frame import Run, command
from api.cli.outcome import Answer, Code, CommandError
from api.cli.query import FromOption, PathOption, ToOption, app

if TYPE_CHECKING:
    from rich.console import Console


def register(root: typer.Typer) -> None:
    """The command is in the tree once this module is imported."""


@command(
    app,
    "whatif",
    examples=(
        "tailsight query whatif --path order --stage check --faster 2 --from -15m",
        "... --path order --without scheduler",
        "... --path order --hedge-after 2ms --json",
    ),
)
def whatif(
    run: Run,
    path: PathOption,
    stage: Annotated[str | None, typer.Option("--stage", help="The stage that is faster, with --faster.")] = None,
    faster: Annotated[
        float | None, typer.Option("--faster", help="How many times as fast: 2 takes half the time.")
    ] = None,
    without: Annotated[
        str | None, typer.Option("--without", help="`scheduler`: no thread had waited for a CPU.")
    ] = None,
    hedge_after: Annotated[
        str | None,
        typer.Option("--hedge-after", metavar="DURATION", help="A second request after so long without an answer."),
    ] = None,
    from_: FromOption = "-15m",
    to: ToOption = None,
) -> Answer:
    """Percentiles as recorded and as they would be, with the assumptions that this makes.

    Exit code 1 when too few messages are there for any percentile, 4 when there are none.
    """
    import msgspec

    from analytics.whatif import asking
    from api.cli.compare import choice_of
    from api.cli.opened import opened, path_named
    from collector.settings import duration_ns

    asked = [
        name for name, one in (("--faster", faster), ("--without", without), ("--hedge-after", hedge_after)) if one
    ]
    if len(asked) != 1:
        raise CommandError(Code.USAGE, "give one of --faster (with --stage), --without and --hedge-after")
    if (faster is None) != (stage is None):
        raise CommandError(Code.USAGE, "--stage and --faster go together")
    if without not in (None, "scheduler"):
        raise CommandError(Code.USAGE, f"--without knows `scheduler`, got {without!r}")
    known = path_named(run, path)
    with opened(run) as store:
        time = choice_of(store, known, "all", from_, to)
        try:
            if faster is not None and stage is not None:
                found = asking.faster(store, known, stage, faster, from_ns=time.from_ns, to_ns=time.to_ns)
            elif hedge_after is not None:
                after_ns = duration_ns(hedge_after, "--hedge-after")
                found = asking.hedged(store, known, after_ns, from_ns=time.from_ns, to_ns=time.to_ns)
            else:
                found = asking.without_scheduler(store, known, from_ns=time.from_ns, to_ns=time.to_ns)
        except asking.WhatIfError as error:
            raise CommandError(Code.DATA, str(error), kind="whatif") from error
    value = msgspec.to_builtins(found)

    def show(console: Console) -> None:
        from dashboards.compare_view import whatif_table
        from dashboards.terminal import count, share

        console.print(f"{path}: if {value['what']}", style="bold")
        console.print(whatif_table(value["effects"]))
        if value["extra_load"] is not None:
            console.print(f"It sends {value['extra_load']:.2%} more requests.")
        rests = f"{count(value['messages'])} messages, {value['sampled']:.3g} of all"
        console.print(f"From {rests}; complete: {share(value['completeness'])}", style="dim")
        for line in value["assumptions"]:
            console.print(f"- {line}", style="dim")

    given = any(not effect["refused"] for effect in value["effects"])
    return Answer(value, show, Code.OK if given else Code.FINDING)
