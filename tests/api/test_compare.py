"""The doors of comparisons, what-ifs and rollouts, asked as Argo Rollouts and Flagger ask them."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
import yaml

from api.cli.root import run
from collector.keys import hash64
from collector.record import LABEL_SETS, Columns
from tests.api.frames_kit import Agent, stamp
from tests.api.live import ROOT, Live, running

TOML = """
[paths.order]
max_age = "1s"
rollup = ["host"]
[[paths.order.stages]]
name = "decide"
from = {point = "app_ingress"}
to = {point = "app_decision"}
"""
S = 1_000_000_000
START = (time.time_ns() // (10 * S) - 30) * 10 * S
EXAMPLES = ROOT / "deploy" / "examples"
LABELS = {gateway: f'{{"gateway":"{gateway}"}}' for gateway in "123"}
SETS = {gateway: hash64("labels", text) for gateway, text in LABELS.items()}
# gateway 1 runs all the time; 2 and 3 beside it from the hundredth second on. 2 is slower for 4 % of its messages.
BEGAN = START + 100 * S


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    random = np.random.default_rng(1)
    rows = []
    for i in range(9_000):
        at = START + i * 2 * S // 100
        gateway = "1" if at < BEGAN or i % 3 == 0 else "23"[i % 3 - 1]
        took = int(100_000 * random.lognormal(0, 0.3)) + (5_000_000 if gateway == "2" and random.random() < 0.04 else 0)
        for point, when in (("app_ingress", at), ("app_decision", at + took)):
            rows.append(stamp(i, point, when, label_set=SETS[gateway]))
    with running(tmp_path_factory.mktemp("compare"), TOML) as live, live.client() as client:
        agent = Agent()
        sets = [{"label_set": SETS[gateway], "labels": text} for gateway, text in LABELS.items()]
        headers, body = agent.columns(Columns.from_rows(LABEL_SETS, sets))
        assert client.post("/v1/ingest", headers=headers, content=body).status_code == 200
        headers, body = agent.batch(rows)
        assert client.post("/v1/ingest", headers=headers, content=body).json()["stored"] == len(rows)
        asked = {"path": "order", "stage": "end_to_end", "from": str(START)}
        for _ in range(150):
            client.post("/v1/ingest/heartbeat", json=[agent.heartbeat()])
            found = client.get("/v1/latency", params=asked).json()["stages"]
            if found and found[0]["count"] == 9_000:
                break
            time.sleep(0.2)
        assert found[0]["count"] == 9_000
        yield live


@pytest.fixture
def client(live: Live) -> Iterator[httpx.Client]:
    with live.client() as client:
        yield client


def test_two_sides_are_compared(client: httpx.Client) -> None:
    asked = {"path": "order", "a": "gateway=1", "b": "gateway=2", "from": str(BEGAN), "budget": "p99=1ms,p50=1s"}
    found = client.get("/v1/compare", params=asked).json()
    assert found["verdict"] == "regression"
    assert {t["name"] for t in found["tests"] if t["finding"] == "worse"} >= {"p99"}
    assert [one["status"] for one in found["budgets"]] == ["over", "within"]
    assert found["b"]["source"] == "messages"
    assert 1_000 < found["b"]["count"] < 2_000
    same = client.get("/v1/compare", params={**asked, "b": "gateway=3", "budget": ""}).json()
    assert same["verdict"] == "no_regression"
    early = {"a_from": str(START), "a_to": str(BEGAN), "b_from": str(BEGAN)}
    over_time = client.get("/v1/compare", params={"path": "order", "a": "gateway=1", "b": "gateway=1", **early})
    assert over_time.json()["verdict"] == "no_regression"


@pytest.mark.parametrize(
    ("route", "asked", "said"),
    [
        ("compare", {"a": "x"}, "is not label=value"),
        ("compare", {}, "the same as a"),
        ("compare", {"a": "host=a", "b": "host=b", "budget": "99=1ms"}, "no percentile"),
        ("compare", {"a": "host=a", "b": "host=b", "budget": "p99=1"}, "budget"),
        ("compare", {"a": "host=a", "b": "host=b", "stage": "nowhere"}, "has no stage"),
        ("whatif", {}, "give one of"),
        ("whatif", {"faster": "2"}, "goes together"),
        ("whatif", {"hedge_after": "1h"}, "max_age"),
        ("whatif", {"hedge_after": "soon"}, "hedge_after"),
        ("rollouts/analysis", {"baseline": "gateway=1", "canary": "gateway=2", "from": "-5m"}, "same at every look"),
        ("rollouts/analysis", {"baseline": "gateway=1", "canary": "gateway=1"}, "the same messages"),
        ("rollouts/analysis", {"baseline": "gateway=1", "canary": "gateway=2", "objective": "x"}, "99.9%"),
    ],
)
def test_questions_that_cannot_be_answered_say_why(
    client: httpx.Client, route: str, asked: dict[str, str], said: str
) -> None:
    answer = client.get(f"/v1/{route}", params={"path": "order", **asked})
    assert answer.status_code == 422
    assert said in answer.json()["detail"]


def test_what_if(client: httpx.Client) -> None:
    asked = {"path": "order", "from": str(START)}
    found = client.get("/v1/whatif", params={**asked, "stage": "decide", "faster": "2"}).json()
    p50 = next(one for one in found["effects"] if one["name"] == "p50")
    assert p50["change"] == pytest.approx(-0.5, abs=0.02)
    hedged = client.get("/v1/whatif", params={**asked, "hedge_after": "1ms"}).json()
    assert 0 < hedged["extra_load"] < 0.05
    assert hedged["assumptions"]
    unmeasured = client.get("/v1/whatif", params={**asked, "without": "scheduler"})
    assert (unmeasured.status_code, unmeasured.json()["type"]) == (422, "urn:tailsight:problem:not-kept")


@dataclass(frozen=True)
class Done:
    """How a command ended: its exit code and standard output."""

    code: int
    out: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def example(name: str) -> Any:
    return yaml.safe_load((EXAMPLES / name).read_text())


def argo(client: httpx.Client, arguments: dict[str, str]) -> tuple[str, str]:
    """Measure as Argo Rollouts' web provider does: its URL with the arguments put in, its JSON path, its conditions."""
    template = example("argo-analysis.yaml")
    assert (template["apiVersion"], template["kind"]) == ("argoproj.io/v1alpha1", "AnalysisTemplate")
    (metric,) = template["spec"]["metrics"]
    web = metric["provider"]["web"]
    given = {one["name"]: one.get("value", "a-token") for one in template["spec"]["args"]} | arguments
    put = lambda text: re.sub(r"\{\{\s*args\.([\w-]+)\s*\}\}", lambda m: given[m[1]], text)  # noqa: E731
    url = urlsplit(put(web["url"]))
    answer = client.get(f"{url.path}?{url.query}")
    assert answer.status_code == 200, answer.text
    (field,) = re.fullmatch(r"\{\$\.(\w+)\}", web["jsonPath"]).groups()  # type: ignore[union-attr]
    result = answer.json()[field]
    met = {name: re.fullmatch(r'result == "(\w+)"', metric[f"{name}Condition"])[1] for name in ("success", "failure")}  # type: ignore[index]
    return result, "Successful" if result == met["success"] else "Failed" if result == met[
        "failure"
    ] else "Inconclusive"


def test_answers_are_what_the_description_says(client: httpx.Client) -> None:
    """The routes answer JSON of their own making: it must fit the models that describe it."""
    from api.routes.compare import Compared
    from api.routes.rollouts import Analysis
    from api.routes.whatif import WhatIf

    sides = {"baseline": "gateway=1", "canary": "gateway=2"}
    for model, route, asked in (
        (Compared, "compare", {"a": "gateway=1", "b": "gateway=2", "from": str(BEGAN), "budget": "p99=1ms"}),
        (WhatIf, "whatif", {"hedge_after": "1ms", "from": str(START)}),
        (Analysis, "rollouts/analysis", {**sides, "objective": "5ms=99.9%"}),
    ):
        answer = client.get(f"/v1/{route}", params={"path": "order", **asked})
        model.model_validate_json(answer.content)  # type: ignore[attr-defined]


def test_argo_rollouts_reads_the_decision_as_the_example_says(client: httpx.Client) -> None:
    assert argo(client, {}) == ("rollback", "Failed")
    result, phase = argo(client, {"canary": "gateway%3D3"})
    assert (result, phase) in (("hold", "Inconclusive"), ("advance", "Successful"))
    assert argo(client, {"canary": "gateway%3D9"}) == ("hold", "Inconclusive")


def flagger(client: httpx.Client, kind: str, **metadata: str) -> httpx.Response:
    """Call the example's webhook of a kind as Flagger does: a POST of its payload, no headers but the type."""
    canary = example("flagger-canary.yaml")
    assert (canary["apiVersion"], canary["kind"]) == ("flagger.app/v1beta1", "Canary")
    hook = next(one for one in canary["spec"]["analysis"]["webhooks"] if one["type"] == kind)
    payload = {
        "name": canary["metadata"]["name"],
        "namespace": canary["metadata"]["namespace"],
        "phase": "Progressing",
        "checksum": "85d557f47b",
        "buildId": "build-1",
        "type": kind,
        "failedChecks": 0,
        "canaryWeight": 10,
        "metadata": {**hook["metadata"], **metadata},
    }
    return client.post(
        urlsplit(hook["url"]).path, content=json.dumps(payload), headers={"Content-Type": "application/json"}
    )


def test_flagger_s_hooks_open_and_close_as_the_example_says(client: httpx.Client) -> None:
    bad = {kind: flagger(client, kind).status_code for kind in ("rollout", "confirm-promotion", "rollback")}
    assert bad == {"rollout": 409, "confirm-promotion": 409, "rollback": 200}
    good = {"canary": "gateway=3"}
    assert flagger(client, "rollout", **good).status_code == 200
    closed = flagger(client, "rollback", **good)
    assert closed.status_code == 409
    assert closed.json()["type"] == "urn:tailsight:problem:gate-closed"
    # With a margin that its messages can show, it is promoted; the burn of the example's objective is a metric.
    promoted = flagger(client, "confirm-promotion", margin="50", **good)
    assert promoted.status_code == 200, promoted.text
    assert promoted.json()["decision"] == "advance"
    assert any(m["kind"] == "burn" and m["state"] == "no difference" for m in promoted.json()["metrics"])
    for wrong, said in (
        ({"slo": "nothing"}, "no objective in force is called"),
        ({"gate": "x"}, "must be one of"),
        ({"colour": "red"}, "unknown"),
        ({"path": ""}, "is missing"),
        ({"margin": "x"}, "no number"),
        ({"margin": "nan"}, "margin"),
    ):
        refused = flagger(client, "rollout", **wrong)
        assert (refused.status_code, said in refused.text) == (422, True), refused.text


OBJECTIVES = """
apiVersion: openslo/v1
kind: SLO
metadata: {name: in-time, annotations: {tailsight.dev/rules: workbook}}
spec:
  service: orders
  indicator:
    metadata: {name: i}
    spec:
      ratioMetric:
        rawType: success
        raw: {metricSource: {type: tailsight, spec: {latency: {path: order, threshold: 1ms}}}}
  timeWindow: [{duration: 30d, isRolling: true}]
  budgetingMethod: Occurrences
  objectives: [{target: 0.999}]
"""


def test_the_budgets_of_objectives_in_force_are_joined(
    live: Live, client: httpx.Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "in-time.yaml"
    file.write_text(OBJECTIVES)
    data = ("--data", str(live.data))
    assert run(("slo", "apply", str(file), *data)) == 0
    asked = {"path": "order", "baseline": "gateway=1", "canary": "gateway=2", "slo": "in-time"}
    for _ in range(150):  # the server takes objectives over at its next tick
        answer = client.get("/v1/rollouts/analysis", params=asked)
        if answer.status_code == 200:
            break
        time.sleep(0.2)
    by_name = {m["name"]: m for m in answer.json()["metrics"]}
    burnt = by_name["in-time"]
    assert (burnt["kind"], burnt["state"], burnt["limit"]) == ("burn", "worse", 14.4)
    # 4 % of the canary's messages take 5 ms more: bad by the objective's own count, 40 times the 0.1 % that may be.
    assert burnt["ratio"] == pytest.approx(1000 * burnt["canary_hits"] / burnt["canary_total"])
    assert 20 < burnt["ratio"] < 60
    assert burnt["baseline_hits"] == 0
    refused = client.get("/v1/rollouts/analysis", params={**asked, "slo": "x"})
    assert (refused.status_code, "in-time" in refused.json()["detail"]) == (422, True)
    capsys.readouterr()
    watch = ("rollout", "watch", "--path", "order", "--baseline", "gateway=1", "--canary", "gateway=2", "--once", *data)
    assert run((*watch, "--slo", "all", "--json")) == 1
    told = json.loads(capsys.readouterr().out)
    assert next(m for m in told["metrics"] if m["name"] == "in-time")["state"] == "worse"
    assert any("burns the budget of in-time" in line for line in told["reasons"])
    assert run((*watch, "--slo", "x", "--json")) == 2
    assert flagger(client, "rollout", slo="in-time").status_code == 409


def test_the_commands_end_as_a_gate_needs(live: Live, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def tailsight(*arguments: str) -> Done:
        code = run(arguments)
        return Done(code, capsys.readouterr().out)

    data = ("--data", str(live.data))
    asked = ("compare", "--path", "order", "--a", "gateway=1", "--from", str(BEGAN), *data)
    base = str(tmp_path / "base.json")
    worse = tailsight(*asked, "--b", "gateway=2", "--json")
    assert (worse.code, worse.json["verdict"]) == (1, "regression")
    same = tailsight(*asked, "--b", "gateway=3", "--save", base)
    assert same.code == 0, same.out
    assert "no regression" in same.out
    few = tailsight(*asked, "--b", "gateway=9", "--json")
    assert (few.code, few.json["verdict"]) == (4, "insufficient")
    later = tailsight("compare", "--path", "order", "--b", "gateway=2", "--from", str(BEGAN), "--baseline", base, *data)
    assert later.code == 1
    assert "is kept in" not in later.out
    budget = tailsight(*asked, "--b", "gateway=3", "--budget", "p99=1us", "--json")
    assert (budget.code, budget.json["budgets"][0]["status"]) == (1, "over")
    usage = tailsight("compare", "--path", "order", "--json", *data)
    assert (usage.code, usage.json["error"]["kind"]) == (2, "usage")
    hlogs = []
    for name, gateway in (("a", "1"), ("b", "2")):
        file = tmp_path / f"{name}.hlog"
        done = tailsight("export", "hlog", "--path", "order", "--stage", "end_to_end", "--out", str(file),
                         *(("--to", str(BEGAN)) if gateway == "1" else ("--from", str(BEGAN))), *data)  # fmt: skip
        assert done.code == 0, done.out
        hlogs.append(str(file))
    files = tailsight("compare", *hlogs, "--json")
    assert (files.code, files.json["a"]["source"]) == (1, "hlog")
    watch = ("rollout", "watch", "--path", "order", "--baseline", "gateway=1", "--once", *data)
    rolled = tailsight(*watch, "--canary", "gateway=2", "--json")
    assert (rolled.code, rolled.json["decision"]) == (1, "rollback")
    held = tailsight(*watch, "--canary", "gateway=9")
    assert (held.code, "hold" in held.out) == (4, True)
    hedge = tailsight("query", "whatif", "--path", "order", "--hedge-after", "1ms", "--from", str(START), *data)
    assert hedge.code == 0, hedge.out
    assert "more requests" in hedge.out
    pairs = tailsight("compare", "--path", "order", "--pairs", "--json", *data)
    assert (pairs.code, pairs.json["pairs"]) == (4, 0)
