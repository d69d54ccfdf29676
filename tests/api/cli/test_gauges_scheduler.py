"""`/v1/gauges` and `/v1/scheduler` of a running server, and the same questions on the command line."""

from __future__ import annotations

import io
import json
import time
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx
import polars as pl
import pytest

from api.routes import gauges, scheduler
from collector.frames import Stream, encode
from collector.keys import hash64
from collector.record import DELAY_COUNTS, GAUGES, INTERVALS, LABEL_SETS, Columns, Table
from tests.api.frames_kit import FRAMES
from tests.api.live import Live, running

if TYPE_CHECKING:
    from tests.api.cli.conftest import Tailsight

NOW = time.time_ns() // 10**10 * 10**10
HOW = '{"mechanism":"eBPF","sees":"machine,preempted,run_queue"}'
TABLES: list[tuple[Table, list[dict[str, Any]]]] = [
    (LABEL_SETS, [{"label_set": hash64("labels", HOW), "labels": HOW}]),
    (
        GAUGES,
        [
            {"ts_ns": NOW - n * 10**9, "name": "scheduler_steal_ns", "host": "h", "value": float(n)} for n in range(20)
        ]
        + [
            {
                "ts_ns": NOW, "name": "scheduler_threshold_ns", "host": "h", "value": 1e4,
                "label_set": hash64("labels", HOW),
            }
        ],
    ),
    (
        DELAY_COUNTS,
        [
            {
                "ts_ns": NOW, "duration_ns": 10**10, "scope": "service", "host": "h", "service": "engine",
                "kind": "run_queue", "cells": ",".join(f"{300 + n}:10" for n in range(first, first + 50)),
                "max_ns": 999_999,
            }
            for first in (0, 50)
        ]
        # What no collector of ours sends counts for nothing.
        + [
            {
                "ts_ns": NOW, "scope": "service", "host": "h", "service": "engine", "kind": "run_queue",
                "cells": "x,:,-5:3,9999999:4,300:-1,300", "max_ns": 5,
            }
        ],
    ),
    (
        INTERVALS,
        [{"ts_ns": NOW, "duration_ns": 50_000, "kind": "preempted", "host": "h", "thread": 9, "culprit": "=hog"}],
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with running(tmp_path_factory.mktemp("gauges"), "[server]\nmax_rows = 50\n") as live:
        collector, body, seq = uuid.uuid4(), b"", 0
        for table, rows in TABLES:
            columns = Columns.from_rows(table, rows)
            body += encode(columns, stream=Stream(collector, 1), seq_first=seq, created_ns=time.time_ns())
            seq += len(columns)
        headers = {
            "Content-Type": FRAMES, "Tailsight-Batch": f"{collector}/1/0", "Tailsight-Attempt": "0",
            "Tailsight-Collector": "agent@h",
        }  # fmt: skip
        with live.client() as client:
            assert client.post("/v1/ingest", headers=headers, content=body).json()["stored"] == seq
        yield live


@pytest.fixture
def client(live: Live) -> Iterator[httpx.Client]:
    with live.client() as client:
        yield client


def test_gauges_come_as_one_row_or_by_step(client: httpx.Client) -> None:
    (row,) = client.get("/v1/gauges?name=scheduler_steal_ns").json()["gauges"]
    assert (row["count"], row["min"], row["max"], row["last"], row["mean"]) == (20, 0, 19, 0, 9.5)
    steps = client.get("/v1/gauges?name=scheduler_steal_ns&step=10s").json()
    assert steps["step_ns"] == 10**10
    assert sum(step["count"] for step in steps["gauges"]) == 20
    names = client.get("/v1/gauges/names?prefix=scheduler_").json()["names"]
    assert [n["name"] for n in names] == ["scheduler_steal_ns", "scheduler_threshold_ns"]


def test_the_scheduler_answers_with_percentiles_culprits_and_mechanism(client: httpx.Client) -> None:
    found = client.get("/v1/scheduler").json()
    (row,) = found["delays"]
    assert (row["service"], row["kind"], row["count"], row["max_ns"]) == ("engine", "run_queue", 1000, 999_999)
    assert row["p50_ns"] is not None
    assert row["refused"] == {"p999_ns": "p99.9 needs at least 3,688 samples, there are 1,000"}
    assert found["mechanisms"][0]["sees"] == ["machine", "preempted", "run_queue"]
    assert found["culprits"][0]["culprit"] == "=hog"
    assert {"name": "scheduler_steal_ns", "host": "h", "service": "", "labels": {}, "total": 190.0} in found["counters"]
    assert client.get("/v1/scheduler?per=cpu").json()["delays"] == []


@pytest.mark.parametrize(
    "route", ["/v1/gauges?name=scheduler_steal_ns", "/v1/gauges/names?prefix=", "/v1/scheduler?per=service"]
)
def test_every_format_has_the_same_rows(client: httpx.Client, route: str) -> None:
    answer = client.get(route).json()
    rows = next(answer[name] for name in ("gauges", "names", "delays") if name in answer)
    for name in ("arrow", "parquet", "csv"):
        reply = client.get(f"{route}&format={name}")
        frame = {"arrow": pl.read_ipc_stream, "parquet": pl.read_parquet, "csv": pl.read_csv}[name](
            io.BytesIO(reply.content)
        )
        assert frame.columns == list(rows[0])
        assert frame["count"].to_list() == [row["count"] for row in rows]


def test_json_answers_fit_their_description(client: httpx.Client) -> None:
    for path, model in (
        ("/v1/gauges?name=*&step=1s&from=-20s", gauges.Gauges),
        ("/v1/gauges/names", gauges.GaugeNames),
        ("/v1/scheduler", scheduler.Scheduler),
    ):
        text = client.get(path).text
        assert model.model_validate_json(text, strict=True).model_dump(mode="json") == json.loads(text)


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/v1/gauges", "name"),
        ("/v1/gauges?name=x&step=100ms", "step"),
        ("/v1/gauges?name=x&step=1s&from=-300d", "step"),
        ("/v1/gauges?name=x&labels=kind", "labels"),
        ("/v1/scheduler?per=world", "per"),
        ("/v1/scheduler?culprits=-1", "culprits"),
    ],
)
def test_wrong_questions_are_named(client: httpx.Client, path: str, named: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 422
    assert [e["name"] for e in answer.json()["errors"]] == [named]


def test_more_rows_than_an_answer_may_have_are_refused(live: Live, client: httpx.Client) -> None:
    del live
    rows = [{"ts_ns": NOW, "name": f"many_{n:02}", "host": "h", "value": 1.0} for n in range(51)]
    collector = uuid.uuid4()
    body = encode(Columns.from_rows(GAUGES, rows), stream=Stream(collector, 1), seq_first=0, created_ns=time.time_ns())
    headers = {
        "Content-Type": FRAMES, "Tailsight-Batch": f"{collector}/1/0", "Tailsight-Attempt": "0",
        "Tailsight-Collector": "agent@h",
    }  # fmt: skip
    assert client.post("/v1/ingest", headers=headers, content=body).status_code == 200
    refused = client.get("/v1/gauges?name=many_*")
    assert refused.status_code == 422
    assert refused.json()["type"].endswith("too-many-rows")
    assert len(client.get("/v1/gauges?name=many_0*").json()["gauges"]) == 10


def test_the_command_line_gives_the_same(live: Live, client: httpx.Client, tailsight: Tailsight) -> None:
    where = ("--data", str(live.data))
    done = tailsight("query", "gauges", "scheduler_*", "--json", *where)
    assert done.code == 0, done
    assert [g["count"] for g in done.json["gauges"]] == [20, 1]
    assert tailsight("query", "gauges", "nothing", *where).code == 1
    assert tailsight("query", "gauges", "x", "--label", "kind", "--json", *where).json["error"]["kind"] == "usage"
    listed = tailsight("query", "gauges", *where)
    assert "scheduler_steal_ns" in listed.out
    asked = tailsight("query", "scheduler", "--json", *where).json
    assert asked["delays"] == client.get("/v1/scheduler").json()["delays"]
    table = tailsight("query", "scheduler", *where).out
    for words in ("engine", "n<3,688", "=hog", "scheduler_steal_ns", "by eBPF"):
        assert words in table
