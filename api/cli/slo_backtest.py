"""`tailsight slo backtest`: what an objective would have done over recorded history."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.frame import Run, command
from api.cli.outcome import Answer, Code, CommandError
from api.cli.query import FromOption, ToOption
from api.cli.slo import app

if TYPE_CHECKING:
    from analytics.slo.objectives import Objective

_TICKS = 2_000_000


def register(root: typer.Typer) -> None:
    """The command is in the tree once this module is imported."""


@command(
    app,
    "backtest",
    examples=("tailsight slo backtest order-latency --from -3d", "tailsight slo backtest new.yaml --fires 2"),
)
def backtest(
    run: Run,
    what: Annotated[str, typer.Argument(metavar="FILE|NAME", help="An OpenSLO document, or an objective in force.")],
    fires: Annotated[
        int | None, typer.Option("--fires", help="Search the thresholds that would have paged so many times.")
    ] = None,
    incident: Annotated[
        list[str] | None, typer.Option("--incident", metavar="FROM/TO", help="A known incident; may be repeated.")
    ] = None,
    from_: FromOption = "-1d",
    to: ToOption = None,
) -> Answer:
    """What an objective would have done: pages, tickets, budget, how soon it would have detected known incidents.

    Counts that the server judged are replayed as they are; a document that is not in force is counted from what is
    stored, and nothing is written. `--from` is rounded down to the hour. Exit code 1 when something would have fired.
    """
    import time

    from analytics.kpis import kpis_from
    from analytics.slo.histories import World
    from analytics.slo.settings import SloSettings
    from api.backtests import Asked, AskedError, live_pages
    from api.backtests import run as run_all
    from api.cli.acting import control_of
    from api.cli.opened import declared_paths, learned_paths, opened
    from api.cli.times import parse_time
    from collector.settings import section
    from dashboards.backtest_view import show_backtest

    now = time.time_ns()
    every, names, in_force = _objectives(run, what)
    incidents = []
    for text in incident or ():
        begin, slash, end = text.partition("/")
        if not slash:
            raise CommandError(Code.USAGE, f"--incident {text!r} is not FROM/TO")
        incidents.append((parse_time(begin, "--incident", now), parse_time(end, "--incident", now)))
    from_ns = parse_time(from_ or "-1d", "--from", now)
    to_ns = now if to is None else parse_time(to, "--to", now)
    settings = section(run.document().get("slo", {}), SloSettings, "slo", run.source)
    paths = {**{name: one.path for name, one in learned_paths(run).items()}, **declared_paths(run)}
    try:
        asked = Asked(from_ns // 10**9, to_ns // 10**9, incidents, fires, fresh=not in_force).checked(now // 10**9)
        with opened(run) as store:
            world = World(store, paths, settings.calendars, kpis_from(run.document(), run.source), now)
            found = run_all(world, every, names, settings, asked, ticks=_TICKS)
    except AskedError as error:
        raise CommandError(Code.USAGE, str(error)) from error
    if in_force:
        with control_of(run) as control:
            for one in found["objectives"]:
                one["live"] = live_pages(control, one["name"], found["from_ns"], found["to_ns"])
    any_fired = any(one["fired"] for one in found["objectives"])
    return Answer(found, lambda console: show_backtest(console, found), Code.FINDING if any_fired else Code.OK)


def _objectives(run: Run, what: str) -> tuple[list[Objective], list[str], bool]:
    """All objectives that may be meant, the names of those that are, and whether they are in force."""
    from api.cli.acting import control_of
    from api.cli.slo import compiled_files
    from api.slo_book import SloBook

    file = Path(what)
    if file.exists():
        _, made = compiled_files(run, [file])
        if made.errors:
            raise CommandError(Code.DATA, str(made.errors[0]), kind="slo")
        objectives = list(made.objectives)
        if not objectives:
            raise CommandError(Code.DATA, f"{file} holds no objective that can be evaluated", kind="slo")
        return objectives, [one.name for one in objectives], False
    with control_of(run) as control:
        objectives = list(SloBook(control).compiled().objectives)
    if what not in {one.name for one in objectives}:
        known: Any = ", ".join(one.name for one in objectives) or "none"
        raise CommandError(
            Code.DATA, f"{what!r} is neither a file nor an objective; there are {known}", kind="not_found"
        )
    return objectives, [what], True
