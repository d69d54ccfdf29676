"""`tailsight query sensitivity`: what a millisecond does to a business measure."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from api.cli.frame import Run, command
from api.cli.outcome import Answer, Code, CommandError
from api.cli.query import FromOption, PathOption, StageOption, ToOption, app, time_range
from api.cli.query_tail import ModeOption, modes_of, progress

if TYPE_CHECKING:
    from rich.console import Console

    from analytics.money.exposures import Exposure


def register(root: typer.Typer) -> None:
    """The command is in the tree once this module is imported."""


@command(
    app,
    "sensitivity",
    examples=(
        "tailsight query sensitivity --path order --kpi conversion --from -30d",
        "... --stage venue --by cohort --json",
        "... --exposure exceedance --threshold 5ms --horizon 2d",
        "... --design natural --change 1763716800000000000 --treated site=east",
    ),
)
def sensitivity(
    run: Run,
    path: PathOption,
    kpi: Annotated[str, typer.Option("--kpi", help="The business measure, declared under [kpis.NAME].")],
    exposure: Annotated[
        Literal["latency", "exceedance", "p99", "data_age"],
        typer.Option(help="A latency, slowness beyond --threshold, the p99 of the window around, or the data's age."),
    ] = "latency",
    stage: StageOption = None,
    threshold: Annotated[
        str | None, typer.Option("--threshold", metavar="DURATION", help="Of --exposure exceedance: what is slow.")
    ] = None,
    window: Annotated[str, typer.Option("--window", metavar="DURATION", help="Of --exposure p99: its window.")] = "1m",
    by: Annotated[
        Literal["cohort", "channel", "region", "offer"] | None,
        typer.Option("--by", help="Ask within each value of this too."),
    ] = None,
    design: Annotated[
        Literal["auto", "experiment", "natural", "strata", "dml"],
        typer.Option("--design", help="auto: the best that the data hold."),
    ] = "auto",
    experiment: Annotated[
        str | None, typer.Option("--experiment", help="The experiment whose assignments were imported.")
    ] = None,
    change: Annotated[
        str | None,
        typer.Option("--change", metavar="ID|TIME", help="Of --design natural: a recorded change, or ns since 1970."),
    ] = None,
    treated: Annotated[
        str | None, typer.Option("--treated", metavar="LABEL=VALUE", help="Of --design natural: whom it struck.")
    ] = None,
    horizon: Annotated[
        str, typer.Option("--horizon", metavar="DURATION", help="Leave out what is younger: its value may still come.")
    ] = "0s",
    absent: Annotated[
        Literal["left-out", "zero"], typer.Option("--absent", help="What a message without a value counts as.")
    ] = "left-out",
    most: Annotated[
        str | None, typer.Option("--most", metavar="DURATION", help="Leave out latencies beyond. (default: the 99.5 %)")
    ] = None,
    mode: ModeOption = "users",
    from_: FromOption = "-7d",
    to: ToOption = None,
) -> Answer:
    """How a business measure answers to latency, by the best design that the data hold, or that there is no answer.

    The naive slope stands beside it as a warning. Exit code 1: no detectable effect, a failed check, or refused. Exit
    code 4: too little data.
    """
    from analytics.kpis import kpis_from
    from analytics.money import designs
    from analytics.money.ask import ask
    from analytics.money.effects import SensitivityError
    from analytics.money.told import told
    from api.cli.opened import opened, path_named
    from collector.settings import duration_ns

    now = time.time_ns()
    start, end = time_range(from_, to or "now")
    known = path_named(run, path)
    kpis = kpis_from(run.document(), run.source)
    exposed = _exposure(exposure, stage, threshold, window)
    if (change is None) != (treated is None) or (change is None) == (design == "natural"):
        raise CommandError(Code.USAGE, "--change and --treated go together, with --design natural")
    with opened(run) as store, progress(run, "sensitivity") as tell:
        try:
            found = ask(
                store, known, kpi, kpis, from_ns=start or 0, to_ns=end or now, exposure=exposed, by=by or "",
                design=design, experiment=experiment or "",
                struck=designs.struck_by(store, change, treated) if change and treated else None,
                horizon_ns=duration_ns(horizon, "--horizon"),
                absent="zero" if absent == "zero" else "left out",
                most=None if most is None else duration_ns(most, "--most") / 1e6,
                modes=modes_of(mode), now_ns=now, progress=tell,
            )  # fmt: skip
        except SensitivityError as error:
            raise CommandError(Code.DATA, str(error), kind="sensitivity") from error
    value = told(found)

    def show(console: Console) -> None:
        from dashboards.sensitivity_view import sensitivity_tables

        for table in sensitivity_tables(value):
            console.print(table)
        for note in value["notes"]:
            console.print(f"- {note}", style="dim")
        console.print(value["sentence"], style="bold")

    claimed = found.result.answer.seen and not found.result.checks_failed
    return Answer(value, show, Code.OK if claimed else Code.FINDING)


def _exposure(
    kind: Literal["latency", "exceedance", "p99", "data_age"], stage: str | None, threshold: str | None, window: str
) -> Exposure:
    from analytics.money.exposures import END_TO_END, Exposure
    from collector.settings import duration_ns

    over = None if threshold is None else duration_ns(threshold, "--threshold")
    seconds = duration_ns(window, "--window") // 1_000_000_000
    return Exposure(kind, stage or END_TO_END, over, seconds)
