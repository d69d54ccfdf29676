"""`tailsight demo`: the order path alone, and what can be made to go wrong in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from api.cli import demo_fault, demo_history, demo_instances, demo_outcomes, demo_record
from api.cli.frame import Run, command
from api.cli.outcome import Answer, Code, CommandError
from api.cli.up import CompressionOption, OtelOption, SeedOption, receiver, session

if TYPE_CHECKING:
    from api.up.programs import Program

app = typer.Typer()
MOST_RATE = 50.0  # of a history: an hour must fit a spool and the memory of the process that makes it


def register(root: typer.Typer) -> None:
    """Add the group to the command tree."""
    demo_fault.register(app)
    demo_instances.register(app)
    demo_outcomes.register(app)
    demo_record.register(app)
    root.add_typer(app, name="demo")


@command(
    app,
    "demo",
    examples=("tailsight demo --rate 500", "tailsight demo --profile day", "tailsight demo --history 30d"),
    group=True,
)
def demo(
    run: Run,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.01, max=20_000, help="Quotes per second on average. (default: 200; of a history 1, at most 50)"
        ),
    ] = None,
    seed: SeedOption = None,
    profile: Annotated[
        Literal["flat", "day"] | None,
        typer.Option(
            help="The load: always the same, or a trading day's. (default: flat; of a history of a day or longer, day)"
        ),
    ] = None,
    compression: CompressionOption = 1.0,
    otel: OtelOption = False,
    for_: Annotated[str | None, typer.Option("--for", metavar="DURATION", help="Stop by itself.")] = None,
    history: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION", help="Make the past of an order path instead, marked synthetic; whole hours, at once."
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Where a history ends. (default: the last full hour)")
    ] = None,
) -> Answer:
    """Run the order path without server and agent: feed, inference, engine, gateways and venues on loopback.

    Its stamps stay in the probe's rings until an agent reads them. `tailsight up` runs it with everything else.
    With --history it runs on a virtual clock, into the store; killed and called again, it goes on.
    """
    from api.demo.programs import DEFAULT_RATE, Load, order_path
    from api.up.hold import AlreadyRunningError, Hold

    if history is not None:
        if for_ is not None or compression != 1.0 or otel:
            raise CommandError(Code.USAGE, "--for, --compression and --otel are of a live order path, not of a history")
        if rate is not None and rate > MOST_RATE:
            raise CommandError(Code.USAGE, f"--rate of a history is at most {MOST_RATE:g}, got {rate:g}")
        return demo_history.history(
            run, history, rate=rate, seed=1 if seed is None else seed, profile=profile, until=until
        )
    if until is not None:
        raise CommandError(Code.USAGE, "--until needs --history; a live order path ends with --for")
    if rate is not None and rate < 1:
        raise CommandError(Code.USAGE, f"--rate of a live order path is at least 1, got {rate:g}")
    try:
        with Hold(run.data, "demo") as hold:
            number = 1 if seed is None else seed
            load = Load(DEFAULT_RATE if rate is None else rate, number, profile or "flat", compression, seed)
            plan = order_path(run.data, load)
            if otel:
                plan += _quotes(run, load.seed)
            return session(run, hold, plan, url="", for_=for_)
    except AlreadyRunningError as error:
        raise CommandError(Code.UNREACHABLE, str(error), kind="already_running") from error


def _quotes(run: Run, seed: int) -> list[Program]:
    """The quote service, exporting to where the configuration says that an agent takes OTLP."""
    from api.demo.quotes.plan import quote_service
    from collector.agent.__main__ import settings_of

    found = receiver(settings_of(run.config_file, None, None), own=False, source=str(run.config_file or ""))
    run.stderr().print(f"quotes-api and quotes-client export to http://{found.http}; an agent must take OTLP there")
    return quote_service(run.data, found, seed=seed)
