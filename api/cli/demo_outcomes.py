"""`tailsight demo outcomes`: what the back office knows of orders and customers, for whoever wants to import it."""

from __future__ import annotations

import csv
import itertools
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from api.cli.frame import Run, command
from api.cli.outcome import Answer, Code, CommandError
from api.cli.query import FromOption, ToOption, range_fields, time_range

if TYPE_CHECKING:
    from rich.console import Console

_CHUNK = 50_000
_SHOWN = 20


def register(demo: typer.Typer) -> None:
    """Add the command to `tailsight demo`."""
    command(
        demo,
        "outcomes",
        examples=(
            "tailsight demo outcomes kpis --csv kpis.csv",
            "tailsight demo outcomes orders --from -1h --parquet orders.parquet",
        ),
    )(outcomes)


def outcomes(
    run: Run,
    what: Annotated[
        Literal["orders", "kpis"],
        typer.Argument(help="Every settled order, or KPIs per minute and kind of customer."),
    ] = "kpis",
    from_: FromOption = None,
    to: ToOption = None,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write all rows there as CSV, with a header.")
    ] = None,
    parquet_file: Annotated[
        Path | None, typer.Option("--parquet", metavar="FILE", help="Write all rows there as Parquet.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="The most rows that --json prints.")] = 10_000,
) -> Answer:
    """Export what the customer's own system knows: orders with their outcome, or KPIs per minute.

    Without --csv and --parquet the rows are printed. Exit code 1 when there are none, 3 when there is no blotter.
    """
    from api.demo.business import columns, file_of, read

    from_ns, to_ns = time_range(from_, to)
    file = file_of(run.data)
    if not file.exists():
        raise CommandError(
            Code.UNREACHABLE,
            f"there is no order blotter in {run.data}",
            kind="no_blotter",
            hint="`tailsight up` and `tailsight demo` write one, a second after the first orders are settled.",
        )
    names = columns(what)
    value: dict[str, Any] = {"what": what, **range_fields(from_ns, to_ns)}
    try:
        written = {}
        for place, write in ((csv_file, _write_csv), (parquet_file, _write_parquet)):
            if place is not None:
                written[str(place)] = write(place, names, read(file, what, from_ns, to_ns))
        if written:
            rows = max(written.values())
            words = "\n".join(f"Wrote {n} {what} to {place}." for place, n in written.items())
            answer = value | {"rows": rows, "files": list(written)}
            return Answer(answer, lambda out: out.print(words), Code.OK if rows else Code.FINDING)
        found = [dict(zip(names, row, strict=True)) for row in read(file, what, from_ns, to_ns, limit + 1)]
    except sqlite3.Error as error:
        raise CommandError(Code.DATA, f"{file} cannot be read: {error}", kind="blotter") from error
    cut = len(found) > limit
    shown = found[:limit]

    def show(console: Console) -> None:
        from dashboards.terminal import plain_table

        body = [tuple(str(row[name]) for name in names) for row in shown[-_SHOWN:]]
        console.print(plain_table(f"{what}, the last {len(body)}", names, body))

    return Answer(value | {"truncated": cut, what: shown}, show, Code.OK if shown else Code.FINDING)


def _write_csv(place: Path, names: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> int:
    with place.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(names)
        count = 0
        for chunk in _chunks(rows):
            writer.writerows(chunk)
            count += len(chunk)
    return count


def _write_parquet(place: Path, names: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from api.demo.business import kind_of

    types = {"text": pa.string(), "whole": pa.int64(), "real": pa.float64()}
    schema = pa.schema([(name, types[kind_of(name)]) for name in names])
    count = 0
    with pq.ParquetWriter(place, schema) as writer:
        for chunk in _chunks(rows):
            data = dict(zip(names, zip(*chunk, strict=True), strict=True))
            writer.write_table(pa.table({name: list(column) for name, column in data.items()}, schema=schema))
            count += len(chunk)
    return count


def _chunks(rows: Iterable[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    left = iter(rows)
    while chunk := list(itertools.islice(left, _CHUNK)):
        yield chunk
