"""`tailsight report`: the executive report, by hand, and those that the server has made."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli.frame import Run, command
from api.cli.outcome import Answer, Code, CommandError

if TYPE_CHECKING:
    from rich.console import Console

    from analytics.money.scenario_files import Scenarios
    from analytics.report.gather import Progress
    from api.reports.making import Known

app = typer.Typer(no_args_is_help=True)


def register(root: typer.Typer) -> None:
    """Add the group to the command tree."""
    root.add_typer(app, name="report", help="What latency was and what it cost, on a page for who decides on money.")


@command(
    app,
    "executive",
    examples=(
        "tailsight report executive --period 7d --out week.html",
        "tailsight report executive --period 2026-W46 --path order --scenarios plan.toml --out week.pdf",
    ),
)
def executive(
    run: Run,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to write: .html, .pdf or .json.")],
    period: Annotated[
        str, typer.Option("--period", help="7d, 2026-W46, 2026-11, or FROM/TO as dates or times (UTC).")
    ] = "7d",
    path: Annotated[list[str] | None, typer.Option("--path", help="Only this path; may be given again.")] = None,
    kpi: Annotated[str, typer.Option("--kpi", help="Only this business measure. (default: those of the paths)")] = "",
    scenarios: Annotated[
        str,
        typer.Option("--scenarios", help="Investments: a file (`tailsight scenarios new`), or a saved plan's name."),
    ] = "",
    rollup: Annotated[str, typer.Option("--rollup", help="Only one label's messages, as label=value.")] = "",
    title: Annotated[str, typer.Option("--title", help="What stands above it.")] = "Latency and what it costs",
) -> Answer:
    """Write the executive report: one page that has to be read, then what it rests on.

    What is not known is said in a sentence. Exit code 1 when no message was seen in the period (the file is written),
    4 when charts or pages cannot be drawn.
    """
    from analytics.report.gather import NothingToReportError
    from analytics.report.period import period as read_period
    from api.cli.opened import opened
    from api.reports.making import Wanted, make
    from dashboards.report.blocks import DrawingError, MissingExtraError
    from dashboards.report.files import FORMATS, drawn

    kind = next((one for one in FORMATS if out.suffix.lower() == f".{one}"), None)
    if kind is None:
        raise CommandError(Code.USAGE, f"--out {out}: the name must end in .html, .pdf or .json")
    if not out.resolve().parent.is_dir():
        raise CommandError(Code.USAGE, f"--out {out}: there is no folder {out.resolve().parent}")
    if not 0 < len(title) <= 100:
        raise CommandError(Code.USAGE, "--title must have 1 to 100 characters")
    now_ns = time.time_ns()
    wanted = Wanted(
        time=read_period(period, now_ns), title=title, paths=tuple(path or ()), kpi=kpi, rollup=rollup,
        scenarios=_scenarios(run, scenarios),
    )  # fmt: skip
    known = _known(run, wanted.paths)
    with opened(run) as store, _progress(run) as tell:
        try:
            report = make(store, known, wanted, now_ns, tell)
        except NothingToReportError as error:
            raise CommandError(Code.USAGE, str(error), kind="nothing_to_report") from None
    try:
        data = drawn(report, (kind,))[kind]
    except MissingExtraError as error:
        raise CommandError(Code.USAGE, str(error), kind="missing_extra") from None
    except DrawingError as error:
        raise CommandError(Code.DATA, str(error), kind="drawing") from None
    out.write_bytes(data)
    value = {
        "file": out, "format": kind, "bytes": len(data), "from_ns": report.from_ns, "to_ns": report.to_ns,
        "headline": report.headline,
    }  # fmt: skip

    def show(console: Console) -> None:
        for line in report.headline:
            console.print(f"- {line}", soft_wrap=True, markup=False)
        console.print(f"{out}: {len(data):,} bytes", soft_wrap=True, markup=False)

    seen = any(one.count or one.unfinished for one in report.paths)
    return Answer(value, show, Code.OK if seen else Code.FINDING)


@command(app, "list", examples=("tailsight report list",))
def list_(run: Run) -> Answer:
    """Reports that the server has made and keeps in DIR/reports, the newest first. Exit code 1 when there is none."""
    from api.reports.shelf import Shelf

    found = Shelf(run.data / "reports").all()

    def show(console: Console) -> None:
        from analytics.report.words import moment
        from dashboards.terminal import plain_table

        body = [(one.id, one.title, moment(one.made_ns), " ".join(one.formats)) for one in found]
        console.print(plain_table("Reports", ("id", "title", "made (UTC)", "as"), body))

    return Answer({"reports": found}, show, Code.OK if found else Code.FINDING)


def _scenarios(run: Run, named: str) -> Scenarios | None:
    """What --scenarios names: a file, or a plan that was saved in the data directory."""
    from analytics.report.gather import NothingToReportError
    from api.cli.acting import control_of
    from api.reports.making import scenarios_of

    if not (run.data / "control.sqlite").exists():
        return scenarios_of(named, Path(), None)
    with control_of(run) as control:
        try:
            return scenarios_of(named, Path(), control)
        except NothingToReportError as error:
            raise CommandError(Code.USAGE, str(error), kind="nothing_to_report") from None


def _known(run: Run, names: tuple[str, ...]) -> Known:
    """What the configuration declares, and what the control state holds where there is one."""
    from analytics.slo.settings import SloSettings
    from api.cli.acting import control_of
    from api.cli.costs import declared as money
    from api.cli.kpis import declared
    from api.cli.opened import declared_paths, learned_paths
    from api.reports.making import Known, episodes
    from api.slo_book import SloBook
    from collector.settings import section

    paths = dict(declared_paths(run))
    if not paths or not paths.keys() >= set(names):
        paths |= {name: one.path for name, one in learned_paths(run).items() if name not in paths}
    if not (run.data / "control.sqlite").exists():
        return Known(paths=paths, kpis=declared(run), money=money(run))
    calendars = section(run.document().get("slo", {}), SloSettings, "slo", run.source).calendars
    with control_of(run) as control:
        objectives = SloBook(control).compiled(paths, calendars).objectives
        return Known(
            paths=paths, kpis=declared(run), money=money(run), objectives=tuple(objectives), episodes=episodes(control)
        )


@contextmanager
def _progress(run: Run) -> Iterator[Progress]:
    """A bar on standard error where somebody watches."""
    from rich.progress import BarColumn, Progress, TextColumn

    console = run.stderr()
    columns = (BarColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("report", total=None)

        def tell(what: str, done: int, of: int) -> None:
            bar.update(task, description=what, completed=done, total=of)

        yield tell
