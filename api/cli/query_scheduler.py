"""`tailsight query gauges` and `tailsight query scheduler`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from api.cli.frame import Run, command
from api.cli.outcome import Answer, Code, CommandError
from api.cli.query import FromOption, PathOption, ToOption, app, plain, range_fields, time_range

if TYPE_CHECKING:
    from rich.console import Console


def register(root: typer.Typer) -> None:
    """The commands are in the tree once this module is imported."""


HostOption = Annotated[str, typer.Option("--host", help="Only of this host.")]
ServiceOption = Annotated[str | None, typer.Option("--service", help="Only of this service.")]
# As many rows as a terminal can be scrolled through; scripts take REST, which says when there are more.
_MOST = 100_000


@command(
    app,
    "gauges",
    examples=(
        "tailsight query gauges",
        "tailsight query gauges scheduler_steal_ns --from -1h --step 1m",
        "... 'scheduler_*' --label kind=run_queue --json",
    ),
)
def gauges(
    run: Run,
    name: Annotated[
        str, typer.Argument(help="The gauge, or the beginning of names and *. Without it: which there are.")
    ] = "",
    from_: FromOption = "-15m",
    to: ToOption = None,
    step: Annotated[str | None, typer.Option(help="Length of one row: 1s, 1m. Without it one row per series.")] = None,
    host: HostOption = "",
    service: ServiceOption = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", help="Only series with label=value. Repeatable.")
    ] = None,
) -> Answer:
    """Sampled levels: which there are, or the smallest, largest, mean and last reading of each series.

    Exit code 1 when nothing was read.
    """
    from analytics import gauges as analysis
    from api.cli.opened import opened
    from collector.settings import duration_ns

    from_ns, to_ns = time_range(from_, to or "now")
    step_ns = None if step is None else duration_ns(step, "--step")
    if step_ns is not None and step_ns <= 0:
        raise CommandError(Code.USAGE, f"--step must be longer than nothing; got {step!r}")
    wanted = dict(part.partition("=")[::2] for part in label or ())
    if any("=" not in part for part in label or ()):
        raise CommandError(Code.USAGE, f"--label must be label=value; got {', '.join(label or ())}")
    assert from_ns is not None  # noqa: S101 - both have defaults
    assert to_ns is not None  # noqa: S101
    with opened(run) as store:
        if not name:
            return _names(plain(analysis.names(store, from_ns=from_ns, to_ns=to_ns)), range_fields(from_ns, to_ns))
        rows = plain(
            analysis.series(
                store,
                name,
                from_ns=from_ns,
                to_ns=to_ns,
                step_ns=step_ns,
                host=host,
                service=service,
                labels=wanted,
                limit=_MOST,
            )
        )
    value = {"name": name, **range_fields(from_ns, to_ns), "step_ns": step_ns, "gauges": rows}

    def show(console: Console) -> None:
        from api.cli.times import format_time
        from dashboards.terminal import count, number, plain_table

        body = [
            (
                format_time(row["start_ns"])[:19],
                row["name"],
                row["host"],
                row["service"],
                " ".join(f"{k}={v}" for k, v in row["labels"].items()),
                count(row["count"]),
                *(number(row[field]) for field in ("min", "mean", "max", "last")),
            )
            for row in rows
        ]
        columns = ("from", "gauge", "host", "service", "labels", "readings", "min", "mean", "max", "last")
        console.print(plain_table(f"gauges {name}", columns, body))

    return Answer(value, show, Code.OK if rows else Code.FINDING)


def _names(rows: list[dict[str, Any]], asked: dict[str, Any]) -> Answer:
    def show(console: Console) -> None:
        from dashboards.terminal import count, plain_table

        body = [
            (
                row["name"],
                ", ".join(row["hosts"]),
                ", ".join(filter(None, row["services"])),
                row["series"],
                count(row["count"]),
            )
            for row in rows
        ]
        console.print(plain_table("gauges", ("gauge", "hosts", "services", "series", "readings"), body))

    return Answer({**asked, "names": rows}, show, Code.OK if rows else Code.FINDING)


@command(
    app,
    "scheduler",
    examples=("tailsight query scheduler --from -15m", "... --per thread --service engine --json"),
)
def scheduler(
    run: Run,
    from_: FromOption = "-15m",
    to: ToOption = None,
    per: Annotated[
        Literal["host", "service", "cpu", "thread"], typer.Option(help="One row per host, service, CPU or thread.")
    ] = "service",
    host: HostOption = "",
    service: ServiceOption = None,
    culprits: Annotated[int, typer.Option(min=0, max=1_000, help="How many culprits to name.")] = 10,
) -> Answer:
    """How long threads waited for a CPU, who had it, what stole time, and what could not be seen.

    Exit code 1 when nobody measured.
    """
    from analytics import scheduler as analysis
    from api.cli.opened import opened

    from_ns, to_ns = time_range(from_, to or "now")
    assert from_ns is not None  # noqa: S101 - both have defaults
    assert to_ns is not None  # noqa: S101
    with opened(run) as store:
        rows = plain(
            analysis.delays(store, from_ns=from_ns, to_ns=to_ns, per=per, host=host, service=service or "", limit=_MOST)
        )
        how = plain(analysis.mechanisms(store, from_ns, to_ns, host))
        unseen = plain(analysis.not_observable(store, from_ns, to_ns, host))
        guilty = plain(analysis.culprits(store, from_ns=from_ns, to_ns=to_ns, host=host, limit=culprits))
        sums = plain(analysis.counters(store, from_ns, to_ns, host))
        collected = plain(analysis.collections(store, from_ns, to_ns, host))
    value = {
        "per": per, **range_fields(from_ns, to_ns), "mechanisms": how, "not_observable": unseen, "culprits": guilty,
        "counters": sums, "collections": collected, "delays": rows,
    }  # fmt: skip

    def show(console: Console) -> None:
        from dashboards.scheduler_view import scheduler_view

        for part in scheduler_view(value):
            console.print(part)

    return Answer(value, show, Code.OK if rows or how or collected else Code.FINDING)


@command(
    app,
    "budget",
    examples=("tailsight query budget --path order --from -15m", "... --pick sample --limit 2000 --json"),
)
def budget(
    run: Run,
    path: PathOption,
    from_: FromOption = "-15m",
    to: ToOption = None,
    pick: Annotated[
        Literal["slowest", "sample"], typer.Option(help="The slowest messages, or a sample to compare them with.")
    ] = "slowest",
    limit: Annotated[int, typer.Option(min=1, max=5_000, help="How many messages.")] = 500,
) -> Answer:
    """Each stage of a path as the sum of what kept its thread from working, and of what remains.

    Exit code 1 when no message matches.
    """
    from analytics.budget import stage_budgets
    from api.cli.opened import opened, path_named

    from_ns, to_ns = time_range(from_, to or "now")
    assert from_ns is not None  # noqa: S101 - both have defaults
    assert to_ns is not None  # noqa: S101
    known = path_named(run, path)
    with opened(run) as store:
        found = plain([stage_budgets(store, known, from_ns=from_ns, to_ns=to_ns, pick=pick, limit=limit)])[0]

    def show(console: Console) -> None:
        from dashboards.scheduler_view import budget_view

        for part in budget_view(found):
            console.print(part)

    return Answer({**range_fields(from_ns, to_ns), **found}, show, Code.OK if found["messages"] else Code.FINDING)
