"""`tailsight compare`: two populations, or one and its budgets, as a gate."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from api.cli.frame import Run, command
from api.cli.outcome import Answer, Code, CommandError
from api.cli.query import FromOption, ToOption, stage_known, time_range

if TYPE_CHECKING:
    from rich.console import Console

    from analytics.compare.arms import Arm
    from analytics.compare.reading import Choice
    from analytics.paths import Path as LatencyPath
    from collector.store import Store

_CODES = {"no_regression": Code.OK, "regression": Code.FINDING, "insufficient": Code.DATA}
SideTime = Annotated[str | None, typer.Option(metavar="TIME", help="This side's time, instead of --from or --to.")]


def register(root: typer.Typer) -> None:
    """Add the command to the tree."""
    command(
        root,
        "compare",
        examples=(
            "tailsight compare --path order --a gateway=1 --b gateway=2 --from -30m",
            "... --path order --a-from -2h --a-to -1h --b-from -1h --budget p99=5ms --json",
            "... before.hlog after.hlog",
        ),
    )(compare)


def compare(
    run: Run,
    files: Annotated[
        list[Path] | None,
        typer.Argument(exists=True, dir_okay=False, help="Two files, .hlog or saved baselines, instead of --path."),
    ] = None,
    path: Annotated[str | None, typer.Option("--path", help="Path, as declared in the configuration.")] = None,
    a: Annotated[str, typer.Option("--a", help="The side to compare with: label=value[,label=value], or all.")] = "all",
    b: Annotated[str, typer.Option("--b", help="The side that is judged, written like --a.")] = "all",
    stage: Annotated[
        str | None, typer.Option("--stage", help="One stage; in .hlog files the tag. (default: end_to_end)")
    ] = None,
    from_: FromOption = None,
    to: ToOption = None,
    a_from: SideTime = None,
    a_to: SideTime = None,
    b_from: SideTime = None,
    b_to: SideTime = None,
    budget: Annotated[
        list[str] | None, typer.Option("--budget", metavar="PERCENTILE=DURATION", help="Limit for b. Repeatable.")
    ] = None,
    need: Annotated[
        Literal["p50", "p95", "p99", "p99.9"],
        typer.Option("--need", help="The percentile without which there is no verdict."),
    ] = "p99",
    tolerance: Annotated[
        float, typer.Option("--tolerance", min=0.0, help="Ratio - 1 up to which a slower percentile is accepted: 0.05.")
    ] = 0.0,
    alpha: Annotated[
        float, typer.Option("--alpha", min=0.0001, max=0.5, help="Chance of any false alarm, all tests together.")
    ] = 0.05,
    source: Annotated[
        Literal["auto", "messages", "counts"], typer.Option(help="Messages while they are kept, else counts.")
    ] = "auto",
    save: Annotated[Path | None, typer.Option("--save", metavar="FILE", help="Keep b as a baseline.")] = None,
    baseline: Annotated[
        Path | None,
        typer.Option("--baseline", metavar="FILE", exists=True, dir_okay=False, help="A saved b as this a."),
    ] = None,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="Shadows against the messages they copy, pair by pair.")
    ] = False,
) -> Answer:
    """Compare side b with side a: what share of each is slow, how far percentiles moved, and how sure that is.

    Exit code 0: no regression; 1: a regression, or over a budget; 4: not enough data for a verdict, or no such data.
    """
    from analytics.compare import comparing
    from analytics.compare.files import ArmFileError, load
    from analytics.compare.files import save as saved

    limits = budgets_of(budget or ())
    if pairs:
        return _pairs(run, path, stage, from_, to, alpha)
    try:
        if files:
            if len(files) != 2 or path is not None or baseline is not None:
                raise CommandError(Code.USAGE, "give two files, or --path; --baseline goes with --path")
            (first, _, _), (second, of, at) = (load(file, stage=stage) for file in files)
        else:
            if path is None:
                raise CommandError(Code.USAGE, "give --path, or two files")
            of, at = path, stage or "end_to_end"
            times = ((a_from, a_to), (b_from, b_to))
            held = None if baseline is None else load(baseline, stage=at)
            found = _live(run, path, at, [a, b] if held is None else [b], times, from_, to, source)
            second = found[-1]
            first = found[0] if held is None else held[0]
            if held is not None and (held[1] or path, held[2] or at) != (path, at):
                raise CommandError(
                    Code.USAGE, f"{baseline} is of {held[1]} {held[2]}, asked is {path} {at}", kind="wrong_baseline"
                )
    except ArmFileError as error:
        raise CommandError(Code.DATA, str(error), kind="file") from error
    result = comparing.compare(first, second, alpha=alpha, tolerance=tolerance, needed=need, budgets_ns=limits)
    if save is not None:
        save.write_bytes(saved(second, of, at))
    return answer(result, f"{of} {at}".strip(), save)


def answer(result: Any, title: str, save: Path | None = None) -> Answer:
    """The comparison as an answer, with its exit code."""
    import msgspec

    value = msgspec.to_builtins(result)

    def show(console: Console) -> None:
        from dashboards import compare_view as view

        console.print(view.sides_table([value["a"], value["b"]]))
        console.print(view.quantiles_table(value["quantiles"]))
        console.print(view.tests_table(value["tests"]))
        if value["budgets"]:
            console.print(view.budgets_table(value["budgets"]))
        for line in value["sentences"]:
            console.print(line, style="dim")
        console.print(f"{title}: {value['verdict'].replace('_', ' ')}", style="bold")
        if save is not None:
            console.print(f"b is kept in {save}", style="dim")

    return Answer(value, show, _CODES[value["verdict"]])


def budgets_of(texts: Sequence[str]) -> dict[str, int]:
    """`p99=300us` as nanoseconds. Raises CommandError."""
    from analytics.compare.comparing import quantile_of
    from collector.settings import ConfigError, duration_ns

    out = {}
    for text in texts:
        name, _, limit = text.partition("=")
        try:
            quantile_of(name)
            out[name] = duration_ns(limit, "--budget")
        except (ValueError, ConfigError) as error:
            raise CommandError(Code.USAGE, f"--budget {text}: {error}") from error
    return out


def choice_of(store: Store, path: LatencyPath, labels: str, from_: str | None, to: str | None) -> Choice:
    """A side's labels and time; by default all that is kept. Raises CommandError."""
    from analytics import tally
    from analytics.compare.reading import Choice, labels_from

    from_ns, to_ns = time_range(from_, to)
    kept = tally.extent(store, path.name)
    if kept is None and (from_ns is None or to_ns is None):
        raise CommandError(Code.DATA, f"nothing is stored of path {path.name}", kind="no_data")
    first, last = kept or (0, time.time_ns() // 10**9)
    begin = first * 10**9 if from_ns is None else from_ns
    end = max(last * 10**9, time.time_ns()) if to_ns is None else to_ns
    if begin >= end:
        raise CommandError(Code.DATA, f"nothing of path {path.name} is stored in that time", kind="no_data")
    try:
        return Choice(labels_from(labels), begin, end)
    except ValueError as error:
        raise CommandError(Code.USAGE, str(error)) from error


def _live(
    run: Run,
    path: str,
    stage: str,
    sides: Sequence[str],
    times: Sequence[tuple[str | None, str | None]],
    from_: str | None,
    to: str | None,
    source: Literal["auto", "messages", "counts"],
) -> list[Arm]:
    from analytics.compare.reading import NothingToCompareError, arms
    from api.cli.opened import opened, path_named

    known = path_named(run, path)
    stage_known(known, stage)
    with opened(run) as store:
        chosen = [
            choice_of(store, known, labels, begins or from_, ends or to)
            for labels, (begins, ends) in zip(sides, times[-len(sides) :], strict=True)
        ]
        if len(set(sides)) < len(sides) and len({(x or from_, y or to) for x, y in times}) == 1:
            raise CommandError(
                Code.USAGE,
                "both sides are the same messages",
                hint="Say what differs with --a and --b, or with --a-from, --a-to, --b-from, --b-to.",
            )
        try:
            return arms(store, known, chosen, stage=stage, source=source)
        except NothingToCompareError as error:
            raise CommandError(Code.DATA, str(error), kind="not_kept") from error


def _pairs(run: Run, path: str | None, stage: str | None, from_: str | None, to: str | None, alpha: float) -> Answer:
    import msgspec

    from analytics.compare import pairs
    from api.cli.opened import opened, path_named

    if path is None:
        raise CommandError(Code.USAGE, "--pairs needs --path")
    known = path_named(run, path)
    stage_known(known, stage)
    with opened(run) as store:
        chosen = choice_of(store, known, "all", from_, to)
        frame, shadows = pairs.read(store, known, chosen, stage or "end_to_end")
    value = msgspec.to_builtins(pairs.paired(frame, shadows, alpha=alpha))

    def show(console: Console) -> None:
        from dashboards.compare_view import span
        from dashboards.terminal import duration, plain_table

        body = [(name, duration(at), span((low, high))) for name, (at, low, high) in value["difference"].items()]
        console.print(plain_table(f"{path}: shadow - original, {value['pairs']} pairs", ("", "", "95 %"), body))
        for line in value["sentences"]:
            console.print(line, style="dim")
        console.print(value["verdict"].replace("_", " "), style="bold")

    return Answer(value, show, _CODES[value["verdict"]])
