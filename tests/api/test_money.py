"""Costs and scenarios by REST and from the terminal, over a real server with an hour of messages."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from analytics.money.scenario_files import example
from analytics.paths import paths_from
from analytics.slo.episodes import Alert, Transition
from analytics.slo.openslo_read import sources
from api.cli.config import examine
from api.cli.root import run
from api.control import Control
from api.plan_book import PlanBook, PlanError
from api.slo_book import SloBook
from collector.points import points_from
from collector.settings import ConfigError
from collector.store.embedded import open_embedded
from collector.store.schema import Retention, migrate
from tests.analytics.money.priced import SLO, VALUE, S, fill
from tests.analytics.money.test_costs import ACTIONS, AGREEMENT, DEBTS, SHOWBACK
from tests.analytics.world import HOUR, ORDER
from tests.api.live import ROOT, Live, running

EXAMPLES = ROOT / "deploy" / "examples" / "money"
KPIS = '[kpis.success]\nnode = "trading"\n'
# The world of the tests lies in the past, and so does its effect.
MONEY = '[money]\nmax_age = "36500d"\n'
CONFIG = f"{MONEY}[paths.order]\n{ORDER}\n" + "\n".join((KPIS, VALUE, ACTIONS, SHOWBACK, DEBTS, AGREEMENT))
SPAN = {"from": str(HOUR), "to": str(HOUR + 10 * S)}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    data = tmp_path_factory.mktemp("money")
    store = open_embedded(data)
    migrate(store, Retention(**dict.fromkeys(Retention.__struct_fields__, 175200)))
    fill(store)
    store.close()
    control = Control(data / "control.sqlite")
    book = SloBook(control)
    book.apply(sources(SLO), "ann")
    fired = Alert("fast", "page-1h", "firing", HOUR, HOUR, HOUR + S, episode="e1")
    ended = Alert("fast", "page-1h", "resolved", HOUR + 10 * S, HOUR, HOUR + S, HOUR + 10 * S, episode="e1")
    for one, kind in ((fired, "firing"), (ended, "resolved")):
        book.save([one], [(Transition(kind, one, HOUR), {"severity": "page"})])  # type: ignore[arg-type]
    control.close()
    with running(data, "[retention]\ncounts_10s = 17520\ncounts_1m = 17520\nmessages = 17520\n" + CONFIG) as live:
        yield live


def get(live: Live, path: str, status: int = 200, /, **params: str) -> dict[str, Any]:
    with live.client() as client:
        answer = client.get(path, params=params)
    assert answer.status_code == status, answer.text
    return dict(answer.json())


def cli(live: Live, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = run([*words, "--data", str(live.data), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_costs_by_rest_and_from_the_terminal_are_the_same(live: Live, capsys: pytest.CaptureFixture[str]) -> None:
    found = get(live, "/v1/costs", **SPAN)
    (episode,) = found["episodes"]
    assert episode["burned"]["total"] == 100, episode
    assert episode["burned"]["cost"]["value"] == pytest.approx(0.8, rel=0.01)
    assert (episode["over"], episode["length_ns"], episode["severity"]) == (True, 10 * S, "page")
    (code, shown) = cli(live, capsys, "costs", "objectives", "--from", str(HOUR), "--to", str(HOUR + 10 * S))
    assert shown["episodes"] == found["episodes"]
    assert code == 1  # nothing is kept of the budget's period, which ends now
    assert shown["objectives"][0]["period"]["cost"]["reason"] == "there are no events in that time"
    assert run(["costs", "objectives", "--data", str(live.data)]) == 1
    assert "cost of burned budgets, USD" in capsys.readouterr().out


def test_velocity(live: Live, capsys: pytest.CaptureFixture[str]) -> None:
    asked = {"path": "order", "change": "send=-1ms,decide=-0.5ms", "cost": "send=1000,decide=100", **SPAN}
    found = get(live, "/v1/velocity", **asked)
    assert [one["stage"] for one in found["ranked"]] == ["decide", "send"]  # more per dollar
    words = ("--change", "send=-1ms", "--change", "decide=-0.5ms", "--cost", "send=1000", "--cost", "decide=100")
    times = ("--from", SPAN["from"], "--to", SPAN["to"])
    code, shown = cli(live, capsys, "query", "velocity", "--path", "order", *words, *times)
    assert (code, shown) == (0, found)
    assert run(["query", "velocity", "--path", "order", *times, "--data", str(live.data)]) == 0
    assert "All changes together" in capsys.readouterr().out
    for wrong, detail in (
        ({"change": "nope=-1ms"}, "no such stage"),
        ({"change": "send"}, "is not a duration"),
        ({"change": "send=-1ms", "cost": "decide=5"}, "no change of that stage"),
    ):
        assert detail in get(live, "/v1/velocity", 422, path="order", **SPAN, **wrong)["detail"]
    early = {"from": str(HOUR - 100 * S), "to": str(HOUR - 50 * S)}
    assert get(live, "/v1/velocity", 422, path="order", **early)["type"].endswith(":no-value")
    code, shown = cli(live, capsys, "query", "velocity", "--path", "order", "--cost", "send=-1")
    assert (code, shown["error"]["exit_code"]) == (2, 2)


def test_each_kind_of_cost_has_its_doors(live: Live, capsys: pytest.CaptureFixture[str]) -> None:
    times = ("--from", SPAN["from"], "--to", SPAN["to"])
    for kind, key in (("budgets", "actions"), ("showback", "showback"), ("debts", "debts")):
        found = get(live, f"/v1/costs/{kind}", **SPAN)
        code, shown = cli(live, capsys, "costs", kind, *times)
        assert code == 0, shown
        assert len(shown[key]) == len(found[key]) > 0
        assert shown[key][0].keys() == found[key][0].keys()
        assert run(["costs", kind, *times, "--data", str(live.data)]) == 0
        assert capsys.readouterr().out
    assert get(live, "/v1/costs/debts", **SPAN)["debts"][0]["episodes"][0]["episode"] == "e1"
    at = str(HOUR)
    (judged,) = get(live, "/v1/costs/agreements", at=at)["agreements"]
    code, shown = cli(live, capsys, "costs", "agreements", "--at", at)
    assert (code, shown["agreements"]) == (0, [judged])
    assert (judged["verdict"], judged["credit"]) == ("not decided", 0.0)  # the clocks' error is not known
    assert run(["costs", "agreements", "--at", at, "--data", str(live.data)]) == 0
    assert "Venue East" in capsys.readouterr().out
    found = get(live, "/v1/costs/modes", path="order", kpi="success", **SPAN)
    code, shown = cli(live, capsys, "costs", "modes", "--path", "order", "--kpi", "success", *times)
    assert (code, shown["modes"]) == (1, found["modes"])
    assert {one["verdict"] for one in found["modes"]} == {"refused"}
    assert "is not declared" in get(live, "/v1/costs/modes", 422, path="order", kpi="nope")["detail"]


def test_scenarios_are_valued_and_saved(live: Live, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = tomllib.loads(example())
    with live.client() as client:
        answer = client.post("/v1/scenarios", json={**document, "draws": 2000, "save": "edge"})
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert [one["name"] for one in client.get("/v1/scenarios").json()["scenarios"]] == ["edge"]
        again = client.get("/v1/scenarios/edge").json()
        assert [one["npv"] for one in again["scenarios"]] == [one["npv"] for one in found["scenarios"]]
        unknown = client.get("/v1/scenarios/nope")
        assert (unknown.status_code, "there are edge" in unknown.json()["detail"]) == (404, True)
        for wrong, where in (
            ({**document, "draws": 10}, "draws"),
            ({**document, "save": "../x"}, "save"),
            ({**document, "business": {**document["business"], "margin": 3}}, "business.margin"),
            ({**document, "scenarios": {}}, "scenarios"),
        ):
            refused = client.post("/v1/scenarios", json=wrong)
            assert refused.status_code == 422, refused.text
            assert where in refused.json()["detail"], refused.text
    assert not found["measured"]
    assert "measure it before you decide" in found["sentence"]
    by_dollar = sorted(found["scenarios"], key=lambda one: -one["per_dollar"])
    assert [one["rank_per_dollar"] for one in by_dollar] == [1, 2, 3]
    for one in found["scenarios"]:
        assert one["per_ms"] * one["saved_ms"] == pytest.approx(one["gain_per_month"])
    file = tmp_path / "plan.toml"
    assert run(["scenarios", "new", str(file)]) == 0
    code, refused_new = cli(live, capsys, "scenarios", "new", str(file))
    assert (code, refused_new["error"]["kind"]) == (2, "file")
    code, shown = cli(live, capsys, "scenarios", "run", str(file), "--draws", "2000", "--save", "mine")
    assert [one["npv"] for one in shown["scenarios"]] == [one["npv"] for one in found["scenarios"]]
    assert code == (0 if any(one["passes_gate"] for one in shown["scenarios"]) else 1)
    assert cli(live, capsys, "scenarios", "run", "mine", "--draws", "2000")[1] == shown
    assert [one["name"] for one in cli(live, capsys, "scenarios", "list")[1]["scenarios"]] == ["edge", "mine"]
    assert cli(live, capsys, "scenarios", "remove", "mine")[0] == 0
    assert cli(live, capsys, "scenarios", "remove", "mine")[0] == 4
    assert run(["scenarios", "run", str(file), "--data", str(live.data)]) == code
    assert "what decides" in capsys.readouterr().out
    file.write_text(example().replace("capex = {low = 350_000", "capex = {low = 950_000"))
    code, wrong_file = cli(live, capsys, "scenarios", "run", str(file))
    assert (code, "scenarios.in_house_edge.capex" in wrong_file["error"]["message"]) == (2, True)


def test_saved_scenarios_are_bounded_and_checked(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.plan_book.MOST", 2)
    book, document = PlanBook(control), tomllib.loads(example())
    for name in ("a", "b", "a"):
        book.save(name, document, "ann")
    with pytest.raises(PlanError, match="remove one first"):
        book.save("c", document, "ann")
    with pytest.raises(PlanError, match="is no name"):
        book.save("A b", document, "ann")
    with pytest.raises(ConfigError):
        book.save("a", {"business": {}}, "ann")
    assert [one["name"] for one in book.names()] == ["a", "b"]


def test_without_declarations_the_commands_say_so(
    live: Live, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare.toml"
    bare.write_text(f"[paths.order]\n{ORDER}")
    for kind in ("budgets", "showback", "debts", "agreements"):
        code, shown = cli(live, capsys, "costs", kind, "--config", str(bare))
        assert (code, shown["error"]["kind"]) == (2, "not_declared")
    code, shown = cli(live, capsys, "query", "velocity", "--path", "order", "--config", str(bare))
    assert (code, shown["error"]["kind"]) == (4, "no_value")
    assert "give [value.order] revenue" in shown["error"]["message"]


def test_the_examples_fit_the_order_path() -> None:
    demo = tomllib.loads((ROOT / "api" / "demo" / "tailsight.toml").read_text())
    names = sorted(one.name for one in EXAMPLES.glob("*.toml"))
    assert names == [
        "actions.toml", "agreements.toml", "debts.toml", "scenarios.toml", "showback.toml", "value.toml",
    ]  # fmt: skip
    assert (EXAMPLES / "scenarios.toml").read_text() == example()
    whole = dict(demo)
    for name in names:
        if name != "scenarios.toml":
            whole |= tomllib.loads((EXAMPLES / name).read_text())
    examine(whole, "")
    assert set(paths_from(whole, points_from(whole, ""))) >= {"order", "tick"}
