"""`tailsight demo`: the order path alone, and what can be made to go wrong in it."""

from __future__ import annotations

from typing import Annotated

import typer

from api.cli import demo_fault, demo_instances, demo_outcomes
from api.cli.frame import Run, command
from api.cli.outcome import Answer, Code, CommandError
from api.cli.up import CompressionOption, ProfileOption, RateOption, SeedOption, session

app = typer.Typer()


def register(root: typer.Typer) -> None:
    """Add the group to the command tree."""
    demo_fault.register(app)
    demo_instances.register(app)
    demo_outcomes.register(app)
    root.add_typer(app, name="demo")


@command(app, "demo", examples=("tailsight demo --rate 500", "tailsight demo --profile day"), group=True)
def demo(
    run: Run,
    rate: RateOption = 200.0,
    seed: SeedOption = None,
    profile: ProfileOption = "flat",
    compression: CompressionOption = 1.0,
    for_: Annotated[str | None, typer.Option("--for", metavar="DURATION", help="Stop by itself.")] = None,
) -> Answer:
    """Run the order path without server and agent: feed, inference, engine, gateways and venues on loopback.

    Its stamps stay in the probe's rings until an agent reads them. `tailsight up` runs it with everything else.
    """
    from api.demo.programs import Load, order_path
    from api.up.hold import AlreadyRunningError, Hold

    try:
        with Hold(run.data, "demo") as hold:
            load = Load(rate, 1 if seed is None else seed, profile, compression, seed)
            programs = order_path(run.data, load)
            return session(run, hold, programs, url="", for_=for_)
    except AlreadyRunningError as error:
        raise CommandError(Code.UNREACHABLE, str(error), kind="already_running") from error
