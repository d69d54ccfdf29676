"""`tailsight import assignments`: who got which arm of an experiment, from the flag system's export."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from api.cli.acting import actor, control_of
from api.cli.frame import Run, command
from api.cli.hlog import importing
from api.cli.outcome import Answer, Code, CommandError


def register(root: typer.Typer) -> None:
    """The command is in the tree once this module is imported."""


@command(importing, "assignments", examples=("tailsight import assignments flags.csv", "... flags.parquet --json"))
def import_assignments(
    run: Run,
    file: Annotated[Path, typer.Argument(help="CSV or Parquet; columns as docs/money.md names them.")],
    experiment: Annotated[
        str | None, typer.Option("--experiment", help="The experiment, where the file has no column of that name.")
    ] = None,
) -> Answer:
    """Take in who got which arm: columns arm, key (or label and unit), and as far as known dose, ts_ns and experiment.

    The same file again changes nothing. Exit code 4 for a row that cannot be taken.
    """
    import msgspec
    import polars as pl

    from analytics.money.assignments import MAX_ASSIGNMENTS, Assignment, record
    from analytics.money.effects import SensitivityError
    from api.audit import Audit
    from api.cli.opened import opened

    if not file.exists():
        raise CommandError(Code.USAGE, f"there is no file {file}")
    try:
        frame = pl.read_parquet(file) if file.suffix == ".parquet" else pl.read_csv(file, infer_schema=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise CommandError(Code.DATA, f"{file}: {str(error).splitlines()[0]}") from None
    known = {"version": int(file.stat().st_mtime_ns), **({"experiment": experiment} if experiment else {})}
    taken = 0
    with opened(run, create=True) as store:
        for at in range(0, frame.height, MAX_ASSIGNMENTS):
            values = []
            for number, row in enumerate(frame[at : at + MAX_ASSIGNMENTS].iter_rows(named=True), at):
                fields = {name: value for name, value in row.items() if value not in (None, "")}
                try:
                    values.append(msgspec.convert({**known, **fields}, Assignment, strict=False))
                except msgspec.ValidationError as error:
                    raise CommandError(Code.DATA, f"{file}: row {number + 1}: {error}") from None
            try:
                taken += record(store, values, time.time_ns())
            except SensitivityError as error:
                raise CommandError(Code.DATA, f"{file}: rows from {at + 1}: {error}") from None
    with control_of(run) as control:
        Audit(control).record(actor(), "assignments.record", str(file)[:200], "ok", {"assignments": taken})
    return Answer({"file": file, "assignments": taken}, lambda console: console.print(f"{taken} assignments taken"))
