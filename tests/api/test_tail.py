"""Why the tail is slow, over REST and on the command line of the same running server."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from tests.api.frames_kit import Agent, stamp
from tests.api.live import ROOT, Live, running

TOML = """
[paths.order]
description = "tick to order"
max_age = "1s"

[[paths.order.stages]]
name = "decide"
class = "compute"
budget = "150us"
from = {point = "app_ingress", service = "engine"}
to = {point = "app_decision", service = "engine"}

[[paths.order.stages]]
name = "send"
class = "compute"
budget = "50us"
from = {point = "app_decision", service = "engine"}
to = {point = "nic_rx", service = "venue"}
"""
MESSAGES = 1_200
NS = 10**9
HALF = 20  # seconds before, and with, the slow decisions
START = (time.time_ns() // 10**10 - 8) * 10**10
RNG = np.random.default_rng(7)
DECIDE = RNG.integers(60_000, 120_000, MESSAGES)
SEND = RNG.integers(10_000, 40_000, MESSAGES)
AT = START + np.arange(MESSAGES) * (2 * HALF * NS // MESSAGES)
SLOW = (AT >= START + HALF * NS) & (RNG.random(MESSAGES) < 0.08)
DECIDE[SLOW] += 3_000_000
SPAN = {"from": str(START + HALF * NS), "to": str(START + 2 * HALF * NS)}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with running(tmp_path_factory.mktemp("tail"), TOML) as live:
        agent, rows = Agent(), []
        for n, at in enumerate(AT.tolist()):
            decided = at + int(DECIDE[n])
            rows += [
                stamp(n, "app_ingress", at),
                stamp(n, "app_decision", decided),
                stamp(n, "nic_rx", decided + int(SEND[n]), service="venue", thread=9),
            ]
        headers, body = agent.batch(rows)
        with live.client() as client:
            assert client.post("/v1/ingest", headers=headers, content=body).json()["stored"] == len(rows)
            end = time.monotonic() + 40
            asked = {"path": "order", "stage": "end_to_end", "from": str(START)}
            while time.monotonic() < end:
                client.post("/v1/ingest/heartbeat", json=[agent.heartbeat()])
                found = client.get("/v1/latency", params=asked).json()["stages"]
                if found and found[0]["count"] == MESSAGES:
                    break
                time.sleep(0.2)
            else:
                raise AssertionError("the windows were not computed in time")
        yield live


@pytest.fixture
def client(live: Live) -> Iterator[httpx.Client]:
    with live.client() as client:
        yield client


def get(client: httpx.Client, path: str, **params: str) -> Any:
    answer = client.get(path, params={"path": "order", **params})
    assert answer.status_code == 200, answer.text
    return answer.json()


def tailsight(live: Live, *words: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "api.cli", *words, "--data", str(live.data)],
        capture_output=True, text=True, timeout=60, check=False, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    return done.returncode, done.stdout or done.stderr


def test_the_slow_stage_is_explained_with_its_share(client: httpx.Client) -> None:
    found = get(client, "/v1/explain", **SPAN)
    (cause,) = found["causes"]
    assert (cause["stage"], cause["layer"], cause["kind"]) == ("decide", "application", "compute")
    assert cause["share"] == 1.0
    assert cause["messages"] >= 30
    assert found["compared_with"] == "span"
    assert found["completeness"]["missing"] == 0
    assert "decide" in found["sentence"]


def test_what_did_not_change_has_no_cause_and_a_reason(client: httpx.Client) -> None:
    quarter = HALF * NS // 2
    found = get(client, "/v1/explain", **{"from": str(START + quarter), "to": str(START + 2 * quarter)})
    assert found["causes"] == []
    assert "no stage is slow more often than before" in found["reason"]


def test_attribution_adds_up_to_what_was_sent(client: httpx.Client) -> None:
    found = get(client, "/v1/attribution", q="0.02", **SPAN)
    whole = np.sort((DECIDE + SEND)[AT >= START + HALF * NS])
    tail = whole[-round(0.02 * len(whole)) :]
    assert found["tail_total_ns"] == int(tail.sum()) == sum(one["total_ns"] for one in found["stages"])
    assert found["tail_mean_ns"] == sum(one["mean_ns"] for one in found["stages"])
    assert [one["kind"] for one in found["stages"]][:2] == ["compute", "network"]


def test_budgets_say_how_often_they_are_broken(client: httpx.Client) -> None:
    found = get(client, "/v1/budgets", step="10s", **SPAN)
    decide = found["stages"][0]
    over = int((DECIDE[AT >= START + HALF * NS] > 150_000).sum())
    assert decide["over_at_least"] <= over <= decide["over_at_most"]
    assert [one["kind"] for one in found["classes"]] == ["compute", "network"]
    assert found["classes"][0]["over"] == over


def test_drivers_are_rows_of_a_table_too(client: httpx.Client) -> None:
    found = get(client, "/v1/drivers", q="0.05", **SPAN)
    assert found["drivers"] == []
    assert found["sentence"]
    text = client.get("/v1/attribution", params={"path": "order", "format": "csv", "q": "0.02", **SPAN}).text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["stage"] for row in rows] == ["decide", "send", "unattributed", "unfinished"]


@pytest.mark.parametrize(
    ("route", "params", "kind"),
    [
        ("attribution", {"from": "2020-01-01T00:00:00Z", "to": "2020-01-01T00:01:00Z"}, "too-few-messages"),
        ("attribution", {"q": "0.9"}, "bad-request"),
        ("drivers", {"path": "nothing"}, "bad-request"),
        ("explain", {"against_from": "-1h"}, "bad-request"),
        ("explain", {"from": "-10m", "to": "-5m", "against_from": "-8m", "against_to": "-1m"}, "bad-request"),
    ],
)
def test_wrong_questions_are_refused_with_what_to_do(
    client: httpx.Client, route: str, params: dict[str, str], kind: str
) -> None:
    answer = client.get(f"/v1/{route}", params={"path": "order", **params})
    assert answer.status_code == 422
    assert answer.json()["type"].endswith(kind), answer.text


def test_the_command_line_gives_the_same_answers(live: Live, client: httpx.Client) -> None:
    span = ("--path", "order", "--from", SPAN["from"], "--to", SPAN["to"])
    code, text = tailsight(live, "explain", *span, "--json")
    assert code == 0, text
    rest = get(client, "/v1/explain", **SPAN)
    assert json.loads(text)["causes"] == rest["causes"]
    code, text = tailsight(live, "query", "attribution", *span, "--q", "0.02")
    assert code == 0, text
    assert "decide" in text
    assert "█" in text
    code, text = tailsight(live, "query", "budgets", *span, "--step", "10s")
    assert code == 0, text
    assert "Repeatability" in text
    code, text = tailsight(live, "query", "drivers", *span, "--q", "0.05")
    assert code == 0, text
    code, text = tailsight(live, "query", "attribution", "--path", "order", "--from", "1000", "--to", "2000", "--json")
    assert (code, json.loads(text)["error"]["kind"]) == (1, "too_few_messages")
