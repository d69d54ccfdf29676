"""Feeds from the collector's rows through the real store to REST and the command line."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
import pytest

from analytics.feed_decisions import judge
from collector.decode import registry
from collector.feeds.channel import Channel
from collector.feeds.rows import Rows
from collector.frames import encode
from collector.keys import hash64
from collector.record import STAMPS, Columns
from tests.api.frames_kit import Agent, stamp
from tests.api.live import ROOT, Live, running
from tests.collector.feeds.lines import placed, streams

NOW = time.time_ns() // 10**9 * 10**9
START = NOW - 60 * 10**9


def send(live: Live, agent: Agent, columns: list[Columns]) -> None:
    from collector.frames import Stream

    body, first = b"", agent.next
    for one in columns:
        body += encode(one, stream=Stream(agent.collector, 1), seq_first=agent.next, created_ns=time.time_ns())
        agent.next += len(one)
    headers, _ = Agent().batch([stamp(1, "app_ingress", NOW)])
    headers["Tailsight-Batch"] = f"{agent.collector}/1/{first}"
    with live.client() as client:
        got = client.post("/v1/ingest", headers=headers, content=body).json()
        assert (got["stored"], got["quarantined"]) == (agent.next - first, 0), got


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Live, Any]]:
    sent, truth = streams(3, datagrams=1200, sessions=2)
    offset = START - sent[0].at_ns
    for one in sent:
        one.at_ns += offset
    channel = Channel("itch", ("A", "B"), registry.make("itch"))
    rows = Rows("host-1")
    edges = np.array_split(np.arange(len(sent)), 5)
    for i, part in enumerate(edges):
        channel.take(*placed([sent[k] for k in part.tolist()]))
        span = START + i * 10**10, START + (i + 1) * 10**10
        rows.add("itch", "itch", channel.report(span[1]), span, {"A": i, "B": 0}, 500)
    with running(tmp_path_factory.mktemp("feeds")) as started:
        agent = Agent()
        send(started, agent, rows.take())
        yield started, truth


def test_intervals_add_up_to_the_truth_of_the_stream(live: tuple[Live, Any]) -> None:
    started, truth = live
    with started.client() as client:
        got = client.get("/v1/feeds", params={"from": str(START - 1), "to": str(NOW)}).json()
    by = {line["line"]: line for line in got["lines"]}
    assert list(by) == ["", "A", "B"]
    assert [by[x]["missing"] for x in ("A", "B", "")] == [*truth.missing, truth.missing_both]
    assert [by[x]["messages"] for x in ("A", "B", "")] == [*truth.messages, truth.messages_both]
    assert (by[""]["pairs"], by[""]["divergent"]) == (truth.pairs, truth.divergent)
    assert [by[x]["won"] for x in ("A", "B")] == truth.won
    assert by["A"]["won_share"] + by["B"]["won_share"] == pytest.approx(1)
    assert [by[x]["kernel_drops"] for x in ("A", "B", "")] == [10, 0, 10]
    assert by[""]["missing_share"] == pytest.approx(truth.missing_both / (truth.messages_both + truth.missing_both))
    assert by["B"]["skew_mean_ns"] > 0
    assert by[""]["delay_error_ns"] == 500
    assert got["decisions"] is None
    assert "completeness" in got


def test_steps_add_up_to_the_whole(live: tuple[Live, Any]) -> None:
    started, truth = live
    with started.client() as client:
        asked = {"from": str(START), "to": str(NOW), "step": "10s", "format": "csv"}
        frame = pl.read_csv(io.BytesIO(client.get("/v1/feeds", params=asked).content), null_values=[""])
    lines = frame.filter(pl.col("line") == "A")
    assert len(lines) == 5
    assert lines["missing"].sum() == truth.missing[0]


def test_a_channel_can_be_asked_for_and_an_unknown_one_is_empty(live: tuple[Live, Any]) -> None:
    with live[0].client() as client:
        assert len(client.get("/v1/feeds", params={"from": str(START), "channel": "itch"}).json()["lines"]) == 3
        assert client.get("/v1/feeds", params={"from": str(START), "channel": "none"}).json()["lines"] == []
        assert client.get("/v1/feeds", params={"max_data_age": "old", "decisions": "x"}).status_code == 422


def test_decisions_on_bad_data_are_counted_where_there_is_something_to_judge_by(live: tuple[Live, Any]) -> None:
    started, _ = live
    labels = '{"notional":"250.5","symbol":"7"}'
    rows = [
        {**stamp(n, "app_decision", START + n), "data_age_ns": n * 1_000_000, "label_set": hash64("labels", labels)}
        for n in range(10)
    ]
    from collector.record import LABEL_SETS

    sets = Columns.from_rows(LABEL_SETS, [{"label_set": hash64("labels", labels), "labels": labels}])
    send(started, Agent(), [sets, Columns.from_rows(STAMPS, rows)])
    asked = {"from": str(START), "to": str(NOW), "decisions": "app_decision", "max_data_age": "6ms"}
    with started.client() as client:
        got = client.get("/v1/feeds", params=asked).json()["decisions"]
    assert (got["decisions"], got["aged"], got["notional"], got["lacking"]) == (10, 3, 2505.0, [])
    assert got["bad"] >= 3
    assert got["bad_notional"] == pytest.approx(250.5 * got["bad"])


def test_the_command_line_shows_the_same(live: tuple[Live, Any]) -> None:
    started, truth = live

    def ask(*words: str) -> subprocess.CompletedProcess[str]:
        words = ("-m", "api.cli", "query", "feeds", "--data", str(started.data), "--from", str(START), *words)
        env = {**os.environ, "COLUMNS": "240", "PYTHONPATH": f"{ROOT}:{ROOT}/collector/probe/src"}
        return subprocess.run([sys.executable, *words], cwd=ROOT, env=env, capture_output=True, text=True, check=False)

    done = ask("--json")
    assert done.returncode == 1, done.stderr  # both lines lost some
    by = {line["line"]: line for line in json.loads(done.stdout)["lines"]}
    assert (by["A"]["missing"], by[""]["missing"]) == (truth.missing[0], truth.missing_both)
    shown = ask("--decisions", "nowhere").stdout
    for text in ("itch", "all", f"{truth.messages_both:,}", "0 of 0 decisions", "not judged for lack of"):
        assert text in shown, shown
    nothing = ask("--channel", "none")
    assert (nothing.returncode, "no feed was followed" in nothing.stdout) == (1, True)


def test_judging_by_plain_values() -> None:
    at = np.array([10, 20, 30, 40, 50], dtype=np.int64)
    spans = [
        ("sequence_gap", 18, 22, {"channel": "c", "line": "all"}),
        ("sequence_gap", 28, 60, {"channel": "c", "line": "A"}),  # the other line filled it
        ("feed_stale", 35, 45, {"channel": "c", "instrument": "X"}),
    ]
    got = judge(
        at, [1, None, 9, 1, 1], ["X", "X", "X", "X", "Y"], [1.0, 2.0, 4.0, 8.0, None], spans, watched=True, max_age_ns=5
    )
    assert (got.aged, got.gapped, got.stale, got.bad) == (1, 1, 1, 3)
    assert (got.notional, got.bad_notional, got.lacking) == (15.0, 14.0, ())
    none = judge(at, [None] * 5, [None] * 5, [None] * 5, [], watched=False, max_age_ns=None)
    assert (none.aged, none.gapped, none.stale, none.bad, none.notional) == (None, None, None, 0, None)
    assert len(none.lacking) == 3
