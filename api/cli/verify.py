"""`tailsight verify`: the same question asked in two ways must have one answer."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.frame import Run, command
from api.cli.outcome import Answer, Code, CommandError
from api.cli.query import FromOption, ToOption, plain, range_fields, time_range

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(no_args_is_help=True)
_SHOWN = 5  # differences per source on a terminal; --json has all


def register(root: typer.Typer) -> None:
    """Add the group to the command tree."""
    root.add_typer(app, name="verify", help="Check that answers agree with each other.")


@command(app, "percentiles", examples=("tailsight verify percentiles --from -1h",))
def percentiles(
    run: Run,
    path: Annotated[str | None, typer.Option("--path", help="One path instead of all.")] = None,
    from_: FromOption = None,
    to: ToOption = None,
) -> Answer:
    """Compute percentiles from the messages and from every level of counts, and compare.

    Exit code 1 when any two differ.
    """
    from analytics.verify import verify_percentiles
    from api.cli.opened import declared_paths, opened, path_named, window_settings

    from_ns, to_ns = time_range(from_, to)
    paths = declared_paths(run) if path is None else {path: path_named(run, path)}
    clock = window_settings(run).clock
    with opened(run) as store:
        rows = plain(verify_percentiles(store, paths, from_ns=from_ns, to_ns=to_ns, clock=clock))
    agree = not any(row["differences"] for row in rows)

    def show(console: Console) -> None:
        from dashboards.terminal import plain_table

        body = [
            (row["path"], row["source"], row["stages"], row["latencies"], row["skipped"] or _verdict(row))
            for row in rows
        ]
        names = ("path", "source", "stages", "latencies", "against the counts of 10 s")
        console.print(plain_table("Percentiles, computed in several ways", names, body))
        for row in rows:
            for difference in row["differences"][:_SHOWN]:
                console.print(f"{row['path']} {row['source']}: {difference}", style="bold red")
        if not rows:
            console.print("There is nothing to compare yet.")

    return Answer(
        {**range_fields(from_ns, to_ns), "agree": agree, "checks": rows}, show, Code.OK if agree else Code.FINDING
    )


@command(app, "audit", examples=("tailsight verify audit",))
def audit(run: Run) -> Answer:
    """Recompute the hash chain of the audit log, in the control state and in the store.

    Exit code 1, and the first leaf that does not hold, when it was changed, shortened or lengthened.
    """
    from api.audit import Audit
    from api.cli.acting import control_of
    from api.cli.opened import has_store, opened

    if not (run.data / "control.sqlite").exists():
        raise CommandError(
            Code.DATA,
            f"there is no control.sqlite in {run.data}: without it nobody can say how long the audit log was",
            kind="no_control",
            hint="Name another directory with --data DIR, or restore the file from a backup.",
        )
    with control_of(run) as control, opened(run) if has_store(run) else nullcontext() as store:
        verdict = Audit(control).verify(store)

    def show(console: Console) -> None:
        if verdict.first_bad is None:
            console.print(f"The audit log holds: {verdict.leaves} leaves, each hashed over the one before it.")
        else:
            console.print(f"The audit log is broken at leaf {verdict.first_bad}: {verdict.problem}", style="bold red")

    return Answer(verdict, show, Code.OK if verdict.first_bad is None else Code.FINDING)


def _verdict(row: dict[str, Any]) -> str:
    return row["skipped"] or (f"{len(row['differences'])} differences" if row["differences"] else "agree")
