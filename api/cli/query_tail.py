"""`tailsight query budgets`, `attribution` and `drivers`, and `tailsight explain`: why the slowest are slow."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from api.cli.frame import Run, command
from api.cli.outcome import Answer, Code, CommandError
from api.cli.query import FromOption, PathOption, ToOption, app, plain, time_range
from api.cli.times import format_time, parse_time

if TYPE_CHECKING:
    from rich.console import Console

    from collector.record import Mode

ModeOption = Annotated[
    Literal["users", "synthetic", "shadow"],
    typer.Option("--mode", help="Whose messages: users' are all but synthetic and shadow ones."),
]
QOption = Annotated[float, typer.Option("--q", help="The slowest share of messages that is the tail.")]


def register(root: typer.Typer) -> None:
    """Add `explain` to the command tree; the queries are there once this module is imported."""
    command(
        root,
        "explain",
        examples=(
            "tailsight explain --path order --from -5m",
            "tailsight explain --path order --from 2026-11-21T09:30:00Z --to 2026-11-21T09:35:00Z --json",
            "... --against-from -1d --against-to -23h",
        ),
    )(explain)


@command(app, "budgets", examples=("tailsight query budgets --path order --from -1h", "... --step 5m --json"))
def budgets(
    run: Run,
    path: PathOption,
    from_: FromOption = "-15m",
    to: ToOption = None,
    step: Annotated[str, typer.Option(help="Step of the p99's stability: 10s, 1m, 1h.")] = "1m",
    q: QOption = 0.01,
    mode: ModeOption = "users",
) -> Answer:
    """What each stage and class may take against what it took, its share of the tail, and how repeatable it is.

    Exit code 1 when no message matches.
    """
    from analytics.tail.ask import budgets as ask
    from api.cli.opened import opened, path_named
    from collector.settings import duration_ns

    start, end = _span(from_, to)
    _check_q(q)
    step_ns = duration_ns(step, "--step")
    if step_ns <= 0 or step_ns % 10_000_000_000:
        raise CommandError(Code.USAGE, f"--step must be a multiple of 10s, the finest window; got {step!r}")
    known = path_named(run, path)
    rollup = "" if mode == "users" else f"mode={mode}"
    with opened(run) as store, progress(run, "budgets") as tell:
        found = ask(
            store, known, from_ns=start, to_ns=end, step_s=step_ns // 1_000_000_000, q=q, rollup=rollup,
            modes=modes_of(mode), progress=tell,
        )  # fmt: skip
    value = plain([found])[0]

    def show(console: Console) -> None:
        from dashboards.tail_view import budgets_tables

        for table in budgets_tables(value):
            console.print(table)
        console.print(value["sentence"])

    return Answer(value, show, Code.OK if found.stages else Code.FINDING)


@command(app, "attribution", examples=("tailsight query attribution --path order --from -1h", "... --q 0.001 --json"))
def attribution(
    run: Run,
    path: PathOption,
    from_: FromOption = "-15m",
    to: ToOption = None,
    q: QOption = 0.01,
    mode: ModeOption = "users",
) -> Answer:
    """Which stages the slowest messages spent their time in, and which made them slower than the middle of all.

    Parts add up to the whole exactly; intervals know that messages of one burst are not independent. Exit code 1 with
    too few messages.
    """
    from analytics.tail.ask import attribution as ask
    from api.cli.opened import opened, path_named

    start, end = _span(from_, to)
    _check_q(q)
    known = path_named(run, path)
    with opened(run) as store, progress(run, "attribution") as tell, _enough():
        found = ask(store, known, from_ns=start, to_ns=end, q=q, modes=modes_of(mode), progress=tell)
    value = plain([found])[0]

    def show(console: Console) -> None:
        from dashboards.tail_view import attribution_table, inside_table

        console.print(attribution_table(value))
        if any(one["slowest"] or one["others"] for one in value["inside"]):
            console.print(inside_table(value))
        console.print(value["sentence"])

    return Answer(value, show)


@command(app, "drivers", examples=("tailsight query drivers --path order --from -1h", "... --support 30 --json"))
def drivers(
    run: Run,
    path: PathOption,
    from_: FromOption = "-15m",
    to: ToOption = None,
    q: QOption = 0.01,
    support: Annotated[int, typer.Option(min=2, max=100_000, help="Least messages of a value in the tail.")] = 10,
    mode: ModeOption = "users",
) -> Answer:
    """Who the slowest messages are: labels, hosts, threads, CPUs and data ages over-represented among them, and pairs.

    That nothing stands out is an answer (exit code 0). Exit code 1 with too few messages.
    """
    from analytics.tail.ask import who as ask
    from api.cli.opened import opened, path_named

    start, end = _span(from_, to)
    _check_q(q)
    known = path_named(run, path)
    with opened(run) as store, progress(run, "drivers"), _enough():
        found = ask(store, known, from_ns=start, to_ns=end, q=q, modes=modes_of(mode), support=support)
    value = plain([found])[0]

    def show(console: Console) -> None:
        from dashboards.tail_view import drivers_table

        if value["drivers"]:
            console.print(drivers_table(value))
        console.print(value["sentence"])

    return Answer(value, show)


def explain(
    run: Run,
    path: PathOption,
    from_: FromOption = "-5m",
    to: ToOption = None,
    against_from: Annotated[
        str | None, typer.Option("--against-from", metavar="TIME", help="Compare with this time. (default: before)")
    ] = None,
    against_to: Annotated[
        str | None, typer.Option("--against-to", metavar="TIME", help="End of the time to compare with, not included.")
    ] = None,
    mode: ModeOption = "users",
) -> Answer:
    """Why a path's tail is slower than before: stages with layer, label, share and interval, best first.

    Compares with the equally long time before, and with the middle of the same messages where that has too few. Exit
    code 1 when there is no cause to name; the answer says why.
    """
    from analytics.tail.why import explanation
    from api.cli.opened import declared_paths, opened, path_named

    start, end = _span(from_, to)
    if (against_from is None) != (against_to is None):
        raise CommandError(Code.USAGE, "--against-from and --against-to are given together or not at all")
    against = None
    if against_from is not None and against_to is not None:
        now = time.time_ns()
        against = parse_time(against_from, "--against-from", now), parse_time(against_to, "--against-to", now)
    known = path_named(run, path)
    others = list(declared_paths(run).values())
    with opened(run) as store, progress(run, "explain"):
        try:
            found = explanation(
                store, known, from_ns=start, to_ns=end, against=against, paths=others, modes=modes_of(mode)
            )
        except ValueError as error:
            raise CommandError(Code.USAGE, str(error)) from error
    value = plain([found])[0]

    def show(console: Console) -> None:
        from dashboards.tail_view import causes_table

        if value["causes"]:
            console.print(causes_table(value))
        console.print(value["sentence"])
        for change in value["changes"][:10]:
            console.print(f"{format_time(change['ts_ns'])[:19]} {change['kind']}: {change['what']} ({change['who']})")

    return Answer(value, show, Code.OK if found.causes else Code.FINDING)


def _span(from_: str | None, to: str | None) -> tuple[int, int]:
    start, end = time_range(from_, to or "now")
    if start is None or end is None:
        raise CommandError(Code.USAGE, "--from says where the time begins, for instance -15m")
    return start, end


def _check_q(q: float) -> None:
    if not 0 < q <= 0.5:
        raise CommandError(Code.USAGE, f"--q is a share above 0 and at most 0.5; got {q}")


def modes_of(mode: str) -> tuple[Mode, ...] | None:
    """The modes that `--mode` stands for; None: users' messages."""
    from collector.record import Mode

    return {"users": None, "synthetic": (Mode.SYNTHETIC,), "shadow": (Mode.SHADOW,)}[mode]


@contextmanager
def _enough() -> Iterator[None]:
    """Too few messages are an answer for scripts: exit code 1."""
    try:
        yield
    except ValueError as error:
        raise CommandError(Code.FINDING, str(error), kind="too_few_messages") from error


@contextmanager
def progress(run: Run, what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, where somebody watches and there is more than one slice of messages."""
    from rich.progress import Progress

    console = run.stderr()
    with Progress(console=console, disable=not console.is_terminal, transient=True) as shown:
        task = shown.add_task(what, total=None)

        def tell(done: int, of: int) -> None:
            shown.update(task, completed=done, total=of)

        yield tell
