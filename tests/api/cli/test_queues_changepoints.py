"""`/v1/queues`, `/v1/changepoints` of a running server, and the same questions on the command line."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest

from analytics import windows
from analytics.paths import paths_from
from api.routes import changepoints, queues
from collector.points import BUILT_IN
from collector.settings import read_toml
from collector.store.connect import connect
from collector.store.schema import Retention, migrate
from collector.store.settings import StoreSettings
from tests.analytics.queueing.simulated import mm1
from tests.analytics.world import label_set, put, put_rows, stamp
from tests.api.live import Live, running

if TYPE_CHECKING:
    from tests.api.cli.conftest import Tailsight

S = 1_000_000_000
MS = 1_000_000
NOW = time.time_ns() // (10 * S) * 10 * S
FROM, TO = NOW - 660 * S, NOW - 60 * S
N = 2_000
TOML = """
[retention]
label_sets = 175200

[paths.work]
max_age = "20s"
rollup = ["priority"]

[[paths.work.stages]]
name = "prepare"
class = "compute"
from = {point = "app_ingress"}
to = {point = "app_transform"}

[[paths.work.stages]]
name = "wait"
class = "queue"
budget = "200ms"
from = {point = "app_transform"}
to = {point = "app_decision"}

[[paths.work.stages]]
name = "work"
class = "compute"
from = {point = "app_decision"}
to = {point = "app_egress"}
"""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    data = tmp_path_factory.mktemp("queues")
    (data / "tailsight.toml").write_text(TOML)
    store = connect(StoreSettings(), data)
    migrate(store, Retention(label_sets=175_200))  # interned with a date of long ago
    queue = mm1(np.random.default_rng(3), N, service_ns=230 * MS)
    waiting = np.arange(N) - np.searchsorted(queue.taken_ns, queue.arrived_ns, side="right")
    sets = [label_set(store, {"priority": name}) for name in ("high", "low")]
    stamps = []
    for i in range(N):
        at = FROM + int(queue.arrived_ns[i])
        stamps += [
            stamp(i + 1, "app_ingress", at - 50, label_set=sets[i % 3 == 0]),
            stamp(i + 1, "app_transform", at, depth=int(waiting[i])),
            stamp(i + 1, "app_decision", FROM + int(queue.taken_ns[i])),
            stamp(i + 1, "app_egress", FROM + int(queue.left_ns[i])),
        ]
    put(store, stamps)
    read = np.arange(0, 600 * S, 200 * MS)
    level = np.searchsorted(queue.arrived_ns, read, side="right") - np.searchsorted(queue.taken_ns, read, side="right")
    blank = {"host": "a", "service": "", "label_set": 0}
    depth = [
        {**blank, "ts": FROM + int(t), "name": "queue_depth", "value": float(v)}
        for t, v in zip(read, level, strict=True)
    ]
    rng = np.random.default_rng(1)
    score = [
        {
            **blank,
            "ts": FROM + k * 5 * S,
            "name": "model_score",
            "value": float(rng.normal(0.5 + 0.2 * (k >= 60), 0.02)),
        }
        for k in range(120)
    ]
    put_rows(store, "gauges", depth + score)
    put_rows(store, "changes", [
        {"ts": FROM + 299 * S, "id": "c-1", "kind": "deploy", "who": "ann", "what": "model 7", "host": "",
         "service": "", "version": "7", "url": "", "labels": "{}", "recorded": FROM + 299 * S}
    ])  # fmt: skip
    put_rows(store, "intervals", [
        {"ts": FROM + int(queue.arrived_ns[i]) - 10, "duration_ns": 1_000, "kind": "microburst_1ms", "host": "a",
         "thread": 0, "culprit": "", "label_set": 0} for i in range(0, N, 20)
    ])  # fmt: skip
    paths = paths_from(read_toml(data / "tailsight.toml"), BUILT_IN)
    while windows.run_due(store, paths, now_ns=NOW):
        pass
    store.close()
    with running(data, "") as server:
        yield server


REACH = {"path": "work", "from": str(FROM), "to": str(TO)}
OPTIONS = ("--path", "work", "--from", str(FROM), "--to", str(TO))


def test_queues(live: Live, tailsight: Tailsight) -> None:
    with live.client() as client:
        answer = client.get("/v1/queues", params={**REACH, "gauge": "queue_depth"})
        assert answer.status_code == 200, answer.text
        queues.Queues.model_validate(answer.json())
        (one,) = answer.json()["queues"]
        assert (one["stage"], one["refused"], one["little"], one["depth_counts"]) == ("wait", "", "holds", "all")
        assert [c["name"] for c in one["classes"]] == ["all", "high", "low"]
        assert one["count"] == sum(c["count"] for c in one["classes"][1:]) > 0.9 * N
        csv = client.get("/v1/queues", params={**REACH, "format": "csv"})
        assert csv.text.startswith("path,stage,") and "Tailsight-Answer" in csv.headers
        wrong = client.get("/v1/queues", params={**REACH, "stage": "work"})
        assert wrong.status_code == 422 and "its stages of class queue are: wait" in wrong.text
        assert client.get("/v1/queues", params={**REACH, "threshold": "-5ms"}).status_code == 422
    done = tailsight("query", "queues", *OPTIONS, "--data", str(live.data), "--gauge", "queue_depth", "--json")
    assert done.code == 0, done.err
    assert done.json["queues"][0]["count"] == one["count"]
    shown = tailsight("query", "queues", *OPTIONS, "--data", str(live.data), "--bursts", "--lead", "queue_depth")
    assert shown.code == 0, shown.err
    for text in (
        "wait by depth on arrival",
        "Little's law, all, events: holds",
        "microbursts",
        "queue_depth and end_to_end",
    ):
        assert text in shown.out, text


def test_bursts_and_lags(live: Live) -> None:
    with live.client() as client:
        answer = client.get("/v1/queues/bursts", params=REACH)
        assert answer.status_code == 200, answer.text
        queues.Bursts.model_validate(answer.json())
        (one,) = answer.json()["bursts"]
        assert (one["stage"], one["kind"], one["refused"]) == ("wait", "microburst_1ms", "")
        assert one["low_ns"] <= 0 <= one["high_ns"]  # these bursts delay nobody
        answer = client.get("/v1/queues/lag", params={**REACH, "gauge": "queue_depth", "stage": "wait"})
        queues.Lags.model_validate(answer.json())
        assert answer.json()["lags"][0]["lag"]["peak"] > 0.3
        wrong = client.get("/v1/queues/lag", params={**REACH, "gauge": "queue_depth", "bin": "9s"})
        assert wrong.status_code == 422 and "the bin must be" in wrong.text


def test_headroom(live: Live, tailsight: Tailsight) -> None:
    with live.client() as client:
        answer = client.get("/v1/queues/headroom", params={**REACH, "objective": "2s:0.9,1ms:0.99"})
        assert answer.status_code == 200, answer.text
        queues.Headroom.model_validate(answer.json())
        rows = answer.json()["headroom"]
        assert [row["threshold_ns"] for row in rows] == [2_000 * MS, MS]
        assert all(row["sentence"] and (row["refused"] or row["rate_s"] is not None) for row in rows)
        assert rows[0]["late"] > 0 and rows[0]["count"] > 0.9 * N
        for bad in ("5ms", "5ms:2", "x:0.5", ","):
            assert client.get("/v1/queues/headroom", params={**REACH, "objective": bad}).status_code == 422
    done = tailsight("query", "headroom", *OPTIONS, "--data", str(live.data), "--objective", "2s:0.9")
    assert done.code in (0, 1) and "load that objectives stand" in done.out, done.err
    assert tailsight("query", "headroom", *OPTIONS, "--data", str(live.data), "--objective", "2s").code == 2


def test_changepoints(live: Live, tailsight: Tailsight) -> None:
    with live.client() as client:
        answer = client.get("/v1/changepoints", params={**REACH, "objective": "2s:0.5"})
        assert answer.status_code == 200, answer.text
        changepoints.ChangePointList.model_validate(answer.json())
        body = answer.json()
        score = next(one for one in body["found"] if one["subject"] == "score")
        assert score["name"] == "model_score" and score["changes"][0]["what"] == "model 7"
        assert abs(score["at_ns"] - (FROM + 300 * S)) <= 20 * S
        assert {w["stage"] for w in body["warnings"]} >= {"wait", "end_to_end"}
        assert client.get("/v1/changepoints", params={**REACH, "stage": "x"}).status_code == 422
        two = client.get("/v1/changepoints", params={**REACH, "objective": "2s:0.5,1s:0.5"})
        assert two.status_code == 422
    done = tailsight("query", "changepoints", *OPTIONS, "--data", str(live.data), "--scores", "model_*")
    assert done.code == 1, done.err
    assert "deploy model 7" in done.out and "┼" in done.out
