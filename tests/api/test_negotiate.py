from __future__ import annotations

import csv
import io
import json
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from api.negotiate import answer, chosen, is_formula, safe_csv
from api.problems import ProblemError

ROWS = [
    {"stage": "decide", "p99_ns": 1_795_168_800_123_456_789, "mean_ns": 1.5, "ci": {"p99": [1, 2]}, "note": None},
    {"stage": "=cmd|' /C calc'!A0", "p99_ns": None, "mean_ns": -0.5, "ci": {}, "note": "-1+1"},
]
SCHEMA = {"stage": pl.String, "p99_ns": pl.Int64, "mean_ns": pl.Float64, "ci": pl.String, "note": pl.String}


def request(accept: str | None = None) -> Request:
    headers = [] if accept is None else [(b"accept", accept.encode())]
    return Request({"type": "http", "headers": headers, "method": "GET", "path": "/", "query_string": b""})


@pytest.mark.parametrize(
    ("accept", "name"),
    [
        (None, "json"),
        ("*/*", "json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "json"),
        ("text/csv", "csv"),
        ("text/*", "csv"),
        ("application/json;q=0.1, text/csv;q=0.9", "csv"),
        ("application/vnd.apache.arrow.stream", "arrow"),
        ("application/vnd.apache.parquet, application/json;q=0", "parquet"),
    ],
)
def test_accept_decides(accept: str | None, name: str) -> None:
    assert chosen(request(accept), None) == name
    assert chosen(request(accept), "parquet") == "parquet"


@pytest.mark.parametrize("accept", ["image/png", "application/json;q=0", "nonsense", ""])
def test_nothing_offered_is_406(accept: str) -> None:
    with pytest.raises(ProblemError) as caught:
        chosen(request(accept), None)
    assert caught.value.status_code == 406


def read(fmt: str) -> tuple[pl.DataFrame, dict[str, Any]]:
    response = answer(request(), fmt, "stages", ROWS, {"path": "ordre é"}, SCHEMA)
    body = bytes(response.body)
    about = json.loads(response.headers["tailsight-answer"].encode("ascii").decode("unicode_escape"))
    if fmt == "parquet":
        return pl.read_parquet(io.BytesIO(body)), about
    return pl.read_ipc_stream(io.BytesIO(body)), about


@pytest.mark.parametrize("fmt", ["arrow", "parquet"])
def test_columnar_answers_read_back_exactly(fmt: str) -> None:
    frame, about = read(fmt)
    assert frame["p99_ns"].to_list() == [1_795_168_800_123_456_789, None]
    assert frame["mean_ns"].to_list() == [1.5, -0.5]
    assert frame["stage"].to_list() == [row["stage"] for row in ROWS]
    assert json.loads(frame["ci"][0]) == {"p99": [1, 2]}
    assert about == {"path": "ordre é"}


@pytest.mark.parametrize("fmt", ["arrow", "parquet", "csv"])
def test_an_empty_answer_has_its_columns(fmt: str) -> None:
    body = bytes(answer(request(), fmt, "stages", [], {}, SCHEMA).body)
    if fmt == "csv":
        assert body.decode().strip() == ",".join(SCHEMA)
    else:
        frame = pl.read_parquet(io.BytesIO(body)) if fmt == "parquet" else pl.read_ipc_stream(io.BytesIO(body))
        assert dict(frame.schema) == SCHEMA


def test_metadata_travels_inside_arrow() -> None:
    body = bytes(answer(request(), "arrow", "stages", ROWS, {"completeness": 1}, SCHEMA).body)
    metadata = pa.ipc.open_stream(io.BytesIO(body)).schema.metadata
    assert json.loads(metadata[b"tailsight"]) == {"completeness": 1}


@settings(max_examples=50)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5), st.integers(-5, 5))
def test_no_csv_cell_is_a_formula_and_numbers_stay_numbers(texts: list[str], number: int) -> None:
    texts = [*texts, *(t + texts[0] for t in ("=", "+", "-", "@", "\t", "\r", "\n", "\0"))]
    body = safe_csv(pl.DataFrame({"text": texts, "n": [number] * len(texts)}))
    rows = list(csv.reader(io.StringIO(body.decode(), newline="")))[1:]
    assert not any(is_formula(row[0]) for row in rows)
    assert [int(row[1]) for row in rows] == [number] * len(texts)
    assert [row[0].removeprefix("'") if is_formula(t) else row[0] for row, t in zip(rows, texts, strict=True)] == texts
