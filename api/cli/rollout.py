"""`tailsight rollout watch`: may the canary go on?"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from api.cli.frame import Run, command
from api.cli.outcome import Answer, Code, CommandError
from api.cli.query import FromOption, PathOption, StageOption, stage_known, time_range
from api.cli.times import format_time

if TYPE_CHECKING:
    from rich.console import Console

    from analytics.compare.burning import Budgets
    from analytics.compare.watching import KpiQuestion, Objective
    from analytics.paths import Path

app = typer.Typer(no_args_is_help=True)
_CODES = {"advance": Code.OK, "rollback": Code.FINDING, "hold": Code.DATA}


def register(root: typer.Typer) -> None:
    """Add the group to the command tree."""
    root.add_typer(app, name="rollout", help="Decide whether a canary may go on.")


@command(
    app,
    "watch",
    examples=(
        "tailsight rollout watch --path order --baseline gateway=1 --canary gateway=2 --for 10m",
        "... --slo order-latency --kpi conversion --kpi-baseline cohort=a --kpi-canary cohort=b",
        "... --objective 5ms=99.9% --once --json",
    ),
)
def watch(
    run: Run,
    path: PathOption,
    baseline: Annotated[str, typer.Option("--baseline", help="The old side: label=value[,label=value].")],
    canary: Annotated[str, typer.Option("--canary", help="The new side, written like --baseline.")],
    stage: StageOption = None,
    from_: FromOption = None,
    every: Annotated[str, typer.Option("--every", metavar="DURATION", help="Time between looks.")] = "10s",
    for_: Annotated[
        str, typer.Option("--for", metavar="DURATION", help="Give up after so long without a decision.")
    ] = "30m",
    once: Annotated[bool, typer.Option("--once", help="Look once.")] = False,
    objective: Annotated[
        str | None, typer.Option("--objective", metavar="DURATION=SHARE", help="For the burn rate: 5ms=99.9%.")
    ] = None,
    slo: Annotated[
        list[str] | None,
        typer.Option(
            "--slo", metavar="NAME", help="An objective in force whose budget counts; `all`: all of the path."
        ),
    ] = None,
    kpi: Annotated[str | None, typer.Option("--kpi", help="A business measure, by name.")] = None,
    kpi_baseline: Annotated[
        str, typer.Option("--kpi-baseline", help="Its rows of the old side, by cohort, channel and region.")
    ] = "",
    kpi_canary: Annotated[str, typer.Option("--kpi-canary", help="Its rows of the new side.")] = "",
    kpi_worse: Annotated[
        Literal["lower", "higher"], typer.Option("--kpi-worse", help="Which direction is bad.")
    ] = "lower",
    margin: Annotated[
        float, typer.Option("--margin", min=1.01, max=100.0, help="Times as many slow messages that are acceptable.")
    ] = 2.0,
    alpha: Annotated[
        float, typer.Option("--alpha", min=0.0001, max=0.5, help="Chance that a good canary is ever rolled back.")
    ] = 0.05,
) -> Answer:
    """Look at a canary again and again until it is shown to be worse or shown to be good enough.

    Looking often costs nothing: the evidence holds at all looks at once. Exit code 0: advance; 1: roll back; 4: hold,
    neither is shown yet.
    """
    import msgspec

    from analytics.compare.watching import RolloutError, look
    from api.cli.opened import opened, path_named
    from collector.settings import duration_ns

    known = path_named(run, path)
    stage_known(known, stage)
    from_ns, _ = time_range(from_, None)
    pause_s, patience_s = (duration_ns(text, name) / 1e9 for text, name in ((every, "--every"), (for_, "--for")))
    if pause_s < 1:
        raise CommandError(Code.USAGE, f"--every must be at least 1s, got {every}")
    target = None if objective is None else objective_of(objective)
    kpis = _kpis(kpi, kpi_baseline, kpi_canary, kpi_worse)
    end = time.monotonic() + patience_s
    with opened(run) as store:
        while True:
            try:
                found = look(
                    store,
                    known,
                    baseline,
                    canary,
                    from_ns=from_ns,
                    stage=stage or "end_to_end",
                    objective=target,
                    budgets=_budgets(run, known, slo or []),
                    kpis=kpis,
                    alpha=alpha,
                    margin=margin,
                )
            except ValueError as error:
                raise CommandError(
                    Code.DATA if isinstance(error, RolloutError) else Code.USAGE, str(error), kind="rollout"
                ) from error
            decision = found.decision
            # The canary's first message is the beginning of every later look, also when it is a day ago.
            if decision.canary_count:
                from_ns = found.from_ns
            if once or decision.decision != "hold" or time.monotonic() + pause_s > end:
                break
            run.stderr().print(
                f"hold: {decision.blocks} blocks, {decision.canary_count:,} messages of the canary", style="dim"
            )
            time.sleep(pause_s)
    value = {
        "path": path,
        "baseline": baseline,
        "canary": canary,
        "from": format_time(found.from_ns),
        "to": format_time(found.to_ns),
        "completeness": found.completeness,
        **msgspec.to_builtins(decision),
    }

    def show(console: Console) -> None:
        from dashboards.compare_view import levels_table, rollout_table
        from dashboards.terminal import share as complete

        console.print(rollout_table([m for m in value["metrics"] if m["state"] != "absent"]))
        console.print(levels_table(value["levels"]))
        for line in value["reasons"]:
            console.print(line)
        console.print(f"thresholds: {value['thresholds_from']}", style="dim")
        console.print(f"complete: {complete(value['completeness'])}", style="dim")
        console.print(value["decision"], style="bold")

    return Answer(value, show, _CODES[decision.decision])


def _budgets(run: Run, path: Path, names: list[str]) -> Budgets:
    """The objectives in force that are asked for, with their alerts as they stand."""
    from analytics.compare.burning import Budgets, chosen
    from analytics.slo.settings import SloSettings
    from api.cli.acting import control_of
    from api.slo_book import SloBook
    from collector.settings import section

    if not names:
        return Budgets()
    with control_of(run) as control:
        book = SloBook(control)
        objectives, alerts = book.compiled().objectives, book.alerts()
    try:
        goals = chosen(objectives, names, path)
    except ValueError as error:
        raise CommandError(Code.USAGE, f"--slo: {error}", kind="rollout") from error
    settings = section(run.document().get("slo", {}), SloSettings, "slo", run.source)
    return Budgets(goals, alerts, settings.calendars)


def objective_of(text: str) -> Objective:
    """`5ms=99.9%` as an objective. Raises CommandError."""
    from analytics.compare.watching import objective_from
    from collector.settings import ConfigError

    try:
        return objective_from(text)
    except (ValueError, ConfigError) as error:
        raise CommandError(Code.USAGE, f"--objective {text}: {error}") from error


def _kpis(name: str | None, baseline: str, canary: str, worse: Literal["lower", "higher"]) -> list[KpiQuestion]:
    from analytics.compare.watching import KpiQuestion

    if name is None:
        return []
    if not baseline or not canary or baseline == canary:
        raise CommandError(Code.USAGE, "--kpi needs --kpi-baseline and --kpi-canary, which differ")
    return [KpiQuestion(name, baseline, canary, worse)]
