"""`tailsight import hlog` and `tailsight export hlog`: HdrHistogram logs in and out."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli.frame import Run, command
from api.cli.outcome import Answer, Code, CommandError
from api.cli.query import FromOption, PathOption, ToOption, range_fields, time_range

if TYPE_CHECKING:
    from rich.console import Console

importing = typer.Typer(no_args_is_help=True)
exporting = typer.Typer(no_args_is_help=True)


def register(root: typer.Typer) -> None:
    """Add both groups to the command tree."""
    root.add_typer(importing, name="import", help="Take in files of other tools.")
    root.add_typer(exporting, name="export", help="Write files for other tools.")


@command(importing, "hlog", examples=("tailsight import hlog jHiccup.hlog --path jvm",))
def import_hlog(
    run: Run,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="HdrHistogram log, plain text.")],
    path: Annotated[
        str | None, typer.Option("--path", help="Path to file it under. (default: the file's name)")
    ] = None,
    stage: Annotated[str, typer.Option("--stage", help="Stage for intervals without a tag.")] = "end_to_end",
    expected_interval: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Correct for coordinated omission; only for a known, constant rate."),
    ] = None,
) -> Answer:
    """Import a HdrHistogram log; values are nanoseconds. The same file imported again changes nothing.

    Logs of up to 2 significant digits are counted without loss; finer ones are also kept at their own precision.
    Exit code 4 when no line can be read, 1 when some lines cannot.
    """
    from analytics.hlog import HlogError
    from analytics.hlog import import_hlog as take
    from api.cli.opened import opened
    from collector.settings import duration_ns

    interval_ns = duration_ns(expected_interval, "--expected-interval") if expected_interval else 0
    name = path or default_path(file)
    with opened(run, create=True) as store, run.stderr().status(f"importing {file}"):
        try:
            done = take(store, file, path=name, stage=stage, expected_interval_ns=interval_ns)
        except HlogError as error:
            raise CommandError(Code.DATA, str(error), kind="hlog") from error

    def show(console: Console) -> None:
        from dashboards.terminal import count

        if done.already:
            console.print(f"{file} was imported before; nothing has changed.")
        loss = "without loss" if done.lossless else f"rounded from {done.digits} digits, also kept as they are"
        stages = ", ".join(f"{each} {count(n)}" for each, n in done.stages.items())
        console.print(
            f"{count(done.values)} values in {done.intervals} intervals ({loss}) as path {done.path}: {stages}"
        )
        for problem in done.errors:
            console.print(problem, style="yellow")
        console.print(f"tailsight query percentiles --path {done.path}", style="dim")

    return Answer(done, show, Code.FINDING if done.errors else Code.OK)


@command(exporting, "hlog", examples=("tailsight export hlog --path order --stage venue --out venue.hlog",))
def export_hlog(
    run: Run,
    path: PathOption,
    stage: Annotated[str | None, typer.Option("--stage", help="One stage instead of all.")] = None,
    from_: FromOption = None,
    to: ToOption = None,
    rollup: Annotated[str, typer.Option(help="Only one label's messages, as label=value.")] = "",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="(default: standard output)")] = None,
) -> Answer:
    """Write counts as a HdrHistogram log, one histogram per stage and 10 s, the stage as its tag.

    Exit code 4 when there is nothing to export.
    """
    from analytics.hlog import export_hlog as give
    from api.cli.opened import opened

    from_ns, to_ns = time_range(from_, to)
    with opened(run) as store:
        try:
            text = give(store, path, stage, from_ns=from_ns, to_ns=to_ns, rollup=rollup)
        except ValueError as error:
            raise CommandError(Code.DATA, str(error), kind="nothing_to_export") from error
    lines = text.count("\n")
    value = {"path": path, "stage": stage, **range_fields(from_ns, to_ns), "lines": lines, "file": out}
    if out is None:
        return Answer({**value, "hlog": text}, lambda _: print_text(text))
    out.write_text(text, encoding="ascii")
    return Answer(value, lambda console: console.print(f"{lines} lines written to {out}"))


def default_path(file: Path) -> str:
    """A path's name made from a file's: lower case, what a name may not hold as "_"."""
    name = re.sub(r"[^a-z0-9_.-]", "_", file.name.lower().removesuffix(".hlog"))
    return name if name[:1].isalpha() else f"log_{name}"


def print_text(text: str) -> None:
    """Write a document to standard output as it is: no wrapping, no styles."""
    sys.stdout.write(text)
