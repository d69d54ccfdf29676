"""`tailsight import kpis` and `tailsight query kpis`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli.frame import Run, command
from api.cli.hlog import importing
from api.cli.outcome import Answer, Code, CommandError
from api.cli.query import FromOption, ToOption, plain, range_fields, time_range
from api.cli.query import app as query
from api.cli.times import format_time

if TYPE_CHECKING:
    from rich.console import Console

    from analytics.kpis import KpiDefinition


def register(root: typer.Typer) -> None:
    """The commands are in the tree once this module is imported."""


@command(importing, "kpis", examples=("tailsight import kpis kpis.csv", "tailsight import kpis orders.parquet"))
def import_kpis(
    run: Run, file: Annotated[Path, typer.Argument(help="CSV or Parquet; columns as docs/kpis.md names them.")]
) -> Answer:
    """Take in business measures from a file: of intervals, or of messages where there is a column `key`.

    The same file again changes nothing; corrected values replace what was there. Exit code 4 for a value that cannot be
    taken; it names the row, and nothing of its portion of 10,000 rows is stored.
    """
    import msgspec
    import polars as pl

    from analytics.kpis import MAX_VALUES, KpiError, KpiValue, record
    from api.cli.opened import opened

    if not file.exists():
        raise CommandError(Code.USAGE, f"there is no file {file}")
    try:
        parquet = file.suffix == ".parquet"
        frame = pl.read_parquet(file) if parquet else pl.read_csv(file, infer_schema=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise CommandError(Code.DATA, f"{file}: {str(error).splitlines()[0]}") from None
    version = int(file.stat().st_mtime_ns)
    intervals = messages = 0
    with opened(run, create=True) as store:
        for at in range(0, frame.height, MAX_VALUES):
            values = []
            for number, row in enumerate(frame[at : at + MAX_VALUES].iter_rows(named=True), at):
                fields = {name: value for name, value in row.items() if value not in (None, "")}
                try:
                    values.append(msgspec.convert({"version": version, **fields}, KpiValue, strict=False))
                except msgspec.ValidationError as error:
                    raise CommandError(Code.DATA, f"{file}: row {number + 1}: {error}") from None
            try:
                done = record(store, values, declared(run), time.time_ns())
            except KpiError as error:
                raise CommandError(Code.DATA, f"{file}: rows from {at + 1}: {error}") from None
            intervals += done.intervals
            messages += done.messages
    value = {"file": file, "intervals": intervals, "messages": messages}
    return Answer(
        value,
        lambda console: console.print(f"{intervals} values of intervals, {messages} of messages taken from {file}"),
    )


@command(
    query, "kpis", examples=("tailsight query kpis --from -1d --by region", "tailsight query kpis --name fill --json")
)
def query_kpis(
    run: Run,
    name: Annotated[str | None, typer.Option("--name", help="Only this measure.")] = None,
    by: Annotated[str, typer.Option("--by", help="Split by these: cohort, channel, region, offer, with commas.")] = "",
    step: Annotated[str | None, typer.Option("--step", help="Length of a step. (default: the whole time)")] = None,
    from_: FromOption = "-1d",
    to: ToOption = None,
) -> Answer:
    """Business measures over time, each value in its newest version. Exit code 1 when there is none."""
    from analytics.kpis import DIMENSIONS, series
    from api.cli.opened import opened
    from collector.settings import ConfigError, duration_ns

    from_ns, to_ns = time_range(from_, to)
    try:
        length = None if step is None else duration_ns(step, "step")
        with opened(run) as store:
            found = plain(
                series(
                    store,
                    declared(run),
                    from_ns=from_ns or 0,
                    to_ns=to_ns or time.time_ns(),
                    step_ns=length,
                    names=[name] if name else (),
                    by=[one.strip() for one in by.split(",") if one.strip()],
                )
            )
    except (ValueError, ConfigError) as error:
        raise CommandError(Code.USAGE, str(error)) from None

    def show(console: Console) -> None:
        from dashboards.terminal import plain_table

        body = [
            (
                format_time(row["start_ns"])[:19], row["name"], *(row[one] for one in DIMENSIONS),
                "-" if row["value"] is None else f"{row['value']:.6g}", f"{row['weight']:g}", row["values"],
            )
            for row in found
        ]  # fmt: skip
        console.print(plain_table("KPIs", ("from", "name", *DIMENSIONS, "value", "weight", "values"), body))

    return Answer({**range_fields(from_ns, to_ns), "kpis": found}, show, Code.OK if found else Code.FINDING)


def declared(run: Run) -> dict[str, KpiDefinition]:
    """The measures of the configuration in force."""
    from analytics.kpis import kpis_from
    from collector.settings import read_toml

    return kpis_from(read_toml(run.config_file) if run.config_file else {}, str(run.config_file or ""))
