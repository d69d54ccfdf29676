"""Answers as JSON, Arrow, Parquet or CSV, by `?format=` or the Accept header.

JSON carries the whole answer: what was asked, its completeness, and the rows under the answer's own name. The other
three are the rows alone, with the rest in the headers `Tailsight-Answer` (JSON) and, in Arrow and Parquet, in the
schema's metadata under `tailsight`.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
import polars as pl
from fastapi import Query, Request
from starlette.responses import Response

from api.problems import ProblemError

Format = Literal["json", "arrow", "parquet", "csv"]
MEDIA: Mapping[str, str] = {
    "json": "application/json",
    "arrow": "application/vnd.apache.arrow.stream",
    "parquet": "application/vnd.apache.parquet",
    "csv": "text/csv",
}
FORMAT = Annotated[
    Format | None,
    Query(alias="format", description="The answer's format; it goes before the Accept header.", examples=["csv"]),
]
# A cell that begins so is a formula to a spreadsheet (OWASP ASVS 1.2.10).
_TRIGGERS = ("=", "+", "-", "@", "\t", "\r", "\n", "\0")


def chosen(request: Request, asked: str | None) -> str:
    """The format to answer in. Raises a 406 problem when Accept names none that we have."""
    if asked is not None:
        return asked
    accept = request.headers.get("accept", "*/*")
    ranked: list[tuple[float, int, str]] = []
    for place, part in enumerate(accept.split(",")):
        media, *parameters = [p.strip().lower() for p in part.split(";")]
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = 0.0
        ranked.append((-quality, place, media))
    for negative, _, media in sorted(ranked):
        if negative == 0:
            continue
        for name, ours in MEDIA.items():
            if media in (ours, "*/*", ours.partition("/")[0] + "/*"):
                return name
    raise ProblemError(406, "format-not-offered", f"Accept names none of {', '.join(MEDIA.values())}")


def answer(
    request: Request,
    asked: str | None,
    name: str,
    rows: Sequence[Mapping[str, Any]],
    about: Mapping[str, Any],
    schema: Mapping[str, Any] | None = None,
) -> Response:
    """A response with `rows` under `name` and `about` beside them, in the format asked for.

    `schema` (column name to polars type) fixes the columns of the tabular formats, so that an empty answer has them
    too. Nested values become JSON text there.
    """
    media = chosen(request, asked)
    headers = {"Vary": "Accept", "Cache-Control": "no-store"}
    if media == "json":
        return Response(msgspec.json.encode({**about, name: rows}), media_type=MEDIA["json"], headers=headers)
    extra = msgspec.json.encode(about).decode()
    headers["Tailsight-Answer"] = extra.encode("ascii", "backslashreplace").decode()
    frame = _frame(rows, schema or {})
    body = safe_csv(frame) if media == "csv" else _columnar(frame, media, extra)
    headers["Content-Disposition"] = f'attachment; filename="{name}.{media}"'
    return Response(body, media_type=MEDIA[media], headers=headers)


def safe_csv(frame: pl.DataFrame) -> bytes:
    """The frame as CSV in which no text cell is a formula: such a cell gets an apostrophe before it."""
    texts = [name for name, kind in frame.schema.items() if kind == pl.String]
    pattern = r"^[=+\-@\t\r\n\x00]"
    return (
        frame.with_columns(
            pl.when(pl.col(name).str.contains(pattern)).then("'" + pl.col(name)).otherwise(pl.col(name)).alias(name)
            for name in texts
        )
        .write_csv()
        .encode()
    )


def is_formula(cell: str) -> bool:
    """Whether a spreadsheet would take the cell for a formula or a control sequence."""
    return cell.startswith(_TRIGGERS)


def _frame(rows: Sequence[Mapping[str, Any]], schema: Mapping[str, Any]) -> pl.DataFrame:
    flat = [
        {
            key: msgspec.json.encode(value).decode() if isinstance(value, list | tuple | dict) else value
            for key, value in row.items()
        }
        for row in rows
    ]
    if not flat:
        return pl.DataFrame(schema=dict(schema))
    overrides = {name: kind for name, kind in schema.items() if name in flat[0]}
    return pl.DataFrame(flat, schema_overrides=overrides, infer_schema_length=None)


def _columnar(frame: pl.DataFrame, media: str, about: str) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = frame.to_arrow().replace_schema_metadata({"tailsight": about})
    sink = io.BytesIO()
    if media == "parquet":
        pq.write_table(table, sink, compression="zstd")
    else:
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    return sink.getvalue()
