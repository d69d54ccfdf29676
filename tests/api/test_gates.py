"""Gates over a real store, control state and receiver: verdicts, rollbacks through the outbox, what is recorded."""

from __future__ import annotations

import json
import runpy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from analytics.kpis import KpiDefinition, KpiValue, record
from analytics.slo.calendars import SloCalendar, Stretch
from analytics.slo.gates import GateSettings, KpiRule, SeenObjective, SeenRule, gates_from
from api.audit import Audit
from api.control import Control
from api.gates import GateBook, GateKeeper, answered, hooks_of, tell
from api.notify.deliveries import Deliveries
from api.notify.sender import Sender
from api.slo_book import SloBook
from collector.settings import ConfigError
from collector.store import Store
from collector.store.embedded import open_embedded
from collector.store.schema import Retention, migrate
from tests.api.live import Live, running
from tests.api.notify.kit import SECRET, fire, receiver, webhook

S = 1_000_000_000
T0 = 1_750_000_200 * S
KPIS = {
    "order_errors": KpiDefinition(good="down"), "slippage": KpiDefinition(kind="level"),
    "fill_rate": KpiDefinition(), "volume": KpiDefinition(kind="sum"),
}  # fmt: skip
EXAMPLE = Path(__file__).resolve().parents[2] / "deploy" / "examples" / "verify_webhook.py"
RULE = KpiRule(kpi="order_errors", limit=0.02, min_count=100)
ROLLOUT = GateSettings(kpis=(RULE,), hook="deployer")


@pytest.fixture(scope="module")
def whole_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = open_embedded(tmp_path_factory.mktemp("gates"))
    migrate(store, Retention(**dict.fromkeys(Retention.__struct_fields__, 175200)))
    yield store
    store.close()


@pytest.fixture
def store(whole_store: Store) -> Store:
    for table in ("kpis", "message_kpis", "changes"):
        whole_store.execute(f"TRUNCATE TABLE {table}")
    return whole_store


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    made = Control(tmp_path / "control.sqlite")
    yield made
    made.close()


def keeper(control: Control, gates: dict[str, GateSettings] | None = None, **calendars: SloCalendar) -> GateKeeper:
    return GateKeeper(GateBook(control), Audit(control), gates or {"rollout": ROLLOUT}, KPIS, calendars)


def errors(store: Store, minute: int, bad: int, total: int = 200, version: int = 1, region: str = "") -> None:
    at = T0 + minute * 60 * S
    value = KpiValue(
        name="order_errors", ts_ns=at - 60 * S, numerator=bad, denominator=total, version=version, region=region
    )
    record(store, [value], KPIS, at)


def look(kept: GateKeeper, store: Store, seconds: int, **seen: SeenObjective) -> tuple[str, list[str]]:
    decided = kept.look(store, seen, T0 + seconds * S)
    return kept.book.rows()["rollout"].verdict, [one.kind for one in decided]


def test_a_closing_rolls_back_once_over_restarts_and_everything_is_recorded(
    store: Store, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAILSIGHT_TEST_SECRET", SECRET)
    errors(store, 0, 1)
    assert look(keeper(control), store, 0) == ("open", ["open"])
    errors(store, 1, 40)
    assert look(keeper(control), store, 60) == ("closed", ["closed", "rollback"])
    assert look(keeper(control), store, 70) == ("closed", [])  # a new process: the same closing
    for minute in range(2, 8):
        errors(store, minute, 0)
    assert look(keeper(control), store, 420) == ("open", ["open"])
    errors(store, 8, 100)
    assert look(keeper(control), store, 480) == ("closed", ["closed", "held_back"])
    assert look(keeper(control), store, 490) == ("closed", [])
    with receiver() as here, receiver() as other:
        targets = {"deployer": webhook(here.url), "pager": webhook(other.url)}
        deliveries = Deliveries(control, targets, hooks_of({"rollout": ROLLOUT}))
        deliveries.begin(time.time_ns())
        fire(SloBook(control))
        for name, target in targets.items():
            Sender(name, target, deliveries).run()
        (told,) = here.bodies()
        assert [one["status"] for one in other.bodies()] == ["firing"]
        verify = runpy.run_path(str(EXAMPLE))["verify"]
        assert verify(SECRET.encode(), *here.got[0]) == told["id"]
        Sender("deployer", targets["deployer"], deliveries).run()
        assert len(here.got) == 1
    trigger = GateBook(control).rows()["rollout"].state.trigger_id
    assert (told["status"], told["gate"], told["dedup_key"]) == ("rollback", "rollout", trigger)
    (side,) = told["sides"]
    assert (side["name"], side["value"], side["limit"], side["count"]) == ("order_errors", 41 / 400, 0.02, 400)
    rows = store.query("SELECT kind, what FROM changes ORDER BY ts, what").rows()
    assert [what.split(".")[0] for _, what in rows] == [
        "gate rollout: opened", "gate rollout: closed", "gate rollout: rollback triggered", "gate rollout: opened",
        "gate rollout: closed", "gate rollout: rollback held back by the cool-down",
    ]  # fmt: skip
    audited = [row["action"] for row in control.rows("SELECT action FROM audit_staging ORDER BY leaf")]
    assert audited == [f"gate.{k}" for k in ("open", "closed", "rollback", "open", "closed", "held_back")]


def test_a_receiver_that_is_down_is_told_later_under_the_same_id(
    store: Store, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAILSIGHT_TEST_SECRET", SECRET)
    errors(store, 0, 50)
    look(keeper(control), store, 0)
    with receiver(mode="500") as here:
        target = webhook(here.url)
        deliveries = Deliveries(control, {"deployer": target}, hooks_of({"rollout": ROLLOUT}))
        assert Sender("deployer", target, deliveries).run() == 0
        here.mode = "ok"
        time.sleep(0.1)
        again = Deliveries(control, {"deployer": target}, hooks_of({"rollout": ROLLOUT}))  # a new process
        assert Sender("deployer", target, again).run() == 1
        assert here.bodies()[0]["id"].endswith("-rollback")


@pytest.mark.parametrize(
    ("rule", "verdict", "why"),
    [
        (KpiRule(kpi="order_errors", limit=0.02, min_count=1000), "unknown", "200 events in the last 5m, fewer than"),
        (KpiRule(kpi="order_errors", limit=0.02, region="us"), "unknown", "no value in the last 5m"),
        (KpiRule(kpi="order_errors", limit=0.02, region="eu"), "closed", "0.1 over the last 5m is not <= 0.02"),
        (KpiRule(kpi="order_errors", op="lt", limit=0.1), "closed", "is not < 0.1"),
        (KpiRule(kpi="order_errors", limit=0.1), "open", ""),
        (KpiRule(kpi="slippage", limit=1.5, min_count=4), "open", ""),
        (KpiRule(kpi="slippage", limit=1.4, window="10s"), "closed", "is not <= 1.4"),
        (KpiRule(kpi="slippage", limit=1.5, min_count=5), "unknown", "4 events"),
        (KpiRule(kpi="volume", op="gte", limit=12), "open", ""),
        (KpiRule(kpi="fill_rate", op="gte", limit=0.9), "unknown", "the newest value is 180 s old, more than 2m"),
    ],
)
def test_what_a_business_measure_says(store: Store, control: Control, rule: KpiRule, verdict: str, why: str) -> None:
    errors(store, 0, 20, region="eu")
    values = [KpiValue(name="slippage", ts_ns=T0 - i * S, value=float(i), key=f"o:{i}") for i in range(4)]
    values += [KpiValue(name="volume", ts_ns=T0 - 120 * S, value=6.0, region=r) for r in ("eu", "us")]
    values += [KpiValue(name="fill_rate", ts_ns=T0 - 240 * S, numerator=1, denominator=1)]
    record(store, values, KPIS, T0)
    kept = keeper(control, {"rollout": GateSettings(kpis=(rule,))})
    assert look(kept, store, 0)[0] == verdict
    (side,) = kept.book.rows()["rollout"].sides
    assert why in side["why"]
    assert (side["why"] == "") == (not why)


def seen(answer: Any, state: Any = "inactive", remaining: float = 0.5, events: float = 100) -> SeenObjective:
    return SeenObjective([SeenRule("page-1h", "page", answer, state, "because", 3.0, 14.4, events)], remaining, events)


@pytest.mark.parametrize(
    ("objective", "verdict"),
    [
        (seen("under"), "open"),
        (seen("over"), "closed"),
        (seen("under", "firing"), "closed"),
        (seen("under", "acknowledged"), "closed"),
        (seen("held"), "unknown"),
        (seen("insufficient"), "unknown"),
        (seen("under", remaining=0.1), "closed"),
        (seen("under", events=0), "unknown"),
        (None, "unknown"),
    ],
)
def test_what_an_objective_says(store: Store, control: Control, objective: SeenObjective | None, verdict: str) -> None:
    gate = GateSettings(objectives=("orders",), min_budget=0.1)
    given = {} if objective is None else {"orders": objective}
    assert look(keeper(control, {"rollout": gate}), store, 0, **given)[0] == verdict
    rule = GateSettings(rules=("orders page-1h",))
    expected = "open" if objective is not None and objective.rules[0].answer == "under" else verdict
    if objective is not None and objective.rules[0].state != "inactive":
        expected = "closed"
    assert look(keeper(control, {"rollout": rule}), store, 10, **given)[0] == expected


def test_unknown_passes_only_where_it_is_configured_and_never_rolls_back(store: Store, control: Control) -> None:
    for on_unknown in ("closed", "open"):
        gate = GateSettings(kpis=(RULE,), hook="deployer", on_unknown=on_unknown)  # type: ignore[arg-type]
        kept = keeper(control, {"rollout": gate})
        assert look(kept, store, 0)[0] == "unknown"
        row = kept.book.rows()["rollout"]
        assert answered("rollout", gate, row, T0)["passes"] == (on_unknown == "open")
        errors(store, 0, 0)
        assert look(kept, store, 0)[0] == "open"
        row = kept.book.rows()["rollout"]
        assert answered("rollout", gate, row, T0 + 119 * S)["verdict"] == "open"
        late = answered("rollout", gate, row, T0 + 121 * S)  # the server is gone
        assert (late["verdict"], late["passes"]) == ("unknown", on_unknown == "open")
        assert "it was judged 121 s ago" in late["why"]
        never = answered("rollout", gate, None, T0)
        assert (never["verdict"], never["passes"]) == ("unknown", on_unknown == "open")
        store.execute("TRUNCATE TABLE kpis")
    assert SloBook(control).outbox() == []


def test_closed_hours_answer_as_configured_and_leave_their_values_out(store: Store, control: Control) -> None:
    halted = SloCalendar(halts=(Stretch(start="2025-06-15T15:00:00Z", end="2025-06-15T15:10:00Z"),))  # T0 is 15:10
    errors(store, 0, 100)
    gate = GateSettings(kpis=(RULE,), calendar="market", hook="deployer")
    assert look(keeper(control, {"rollout": gate}, market=halted), store, -10) == ("closed", ["closed"])
    assert look(keeper(control, {"rollout": gate}, market=halted), store, 0)[0] == "unknown"  # only the halt's values
    errors(store, 1, 0)
    assert look(keeper(control, {"rollout": gate}, market=halted), store, 60)[0] == "open"
    lenient = GateSettings(kpis=(RULE,), calendar="market", closed_hours="open")
    assert look(keeper(control, {"rollout": lenient}, market=halted), store, -10)[0] == "open"
    assert SloBook(control).outbox() == []


def test_what_somebody_is_told_is_audited_when_it_changes(control: Control) -> None:
    book, audit = GateBook(control), Audit(control)
    answer = {"name": "rollout", "verdict": "open", "passes": True, "why": ""}
    for who, verdict in (("ci", "open"), ("ci", "open"), ("bob", "open"), ("ci", "unknown"), ("ci", "open")):
        tell(book, audit, who, {**answer, "verdict": verdict})
    rows = control.rows("SELECT actor, outcome FROM audit_staging ORDER BY leaf")
    assert [tuple(row) for row in rows] == [
        ("ci", "open (passes)"), ("bob", "open (passes)"), ("ci", "unknown (passes)"), ("ci", "open (passes)"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("gate", "says"),
    [
        ({}, "gates.x.objectives: objectives, rules and kpis are 1 to 32 together, got 0"),
        ({"kpis": [{"kpi": "nope"}]}, "gates.x.kpis[0].kpi: 'nope' is not declared under [kpis]"),
        ({"kpis": [{"kpi": "volume", "op": "is"}]}, "kpis[0].op: must be one of"),
        ({"kpis": [{"kpi": "volume", "window": "2d"}]}, "kpis[0].window: must be 10s to 24h"),
        ({"rules": ["orders"]}, "is not OBJECTIVE RULE"),
        ({"objectives": ["o"], "hook": "pager"}, "'pager' is not declared under [notify] as a webhook; there are hook"),
        ({"objectives": ["o"], "calendar": "moon"}, "'moon' is not declared under [slo.calendars]"),
        ({"objectives": ["o"], "on_unknown": "maybe"}, "on_unknown"),
        ({"objectives": ["o"], "stale_after": "5s"}, "at least 20s"),
        ({"objectives": ["o"], "min_budget": 2}, "below 1"),
    ],
)
def test_wrong_gates_are_refused_with_their_field(gate: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as error:
        gates_from({"gates": {"x": gate}}, kpis=KPIS, calendars=["nyse"], webhooks=["hook"])
    assert says in str(error.value)


CONFIG = """
[kpis.order_errors]
good = "down"

[gates.rollout]
kpis = [{kpi = "order_errors", limit = 0.02, min_count = 100}]

[gates.lenient]
kpis = [{kpi = "order_errors", limit = 0.02, min_count = 100}]
on_unknown = "open"
"""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with running(tmp_path_factory.mktemp("gated"), CONFIG) as live:
        yield live


def test_a_running_server_answers_with_a_status_that_scripts_can_use(live: Live) -> None:
    with live.client() as client:
        refused = client.get("/v1/gates/rollout")
        assert (refused.status_code, refused.headers["content-type"]) == (409, "application/problem+json")
        body = refused.json()
        assert body["type"] == "urn:tailsight:problem:gate-closed"
        assert (body["gate"]["verdict"], body["gate"]["passes"]) == ("unknown", False)
        assert client.get("/v1/gates/lenient").status_code == 200
        missing = client.get("/v1/gates/nowhere")
        assert (missing.status_code, missing.json()["detail"]) == (
            404, "no gate is called 'nowhere'; there are lenient, rollout"
        )  # fmt: skip
        value = {"name": "order_errors", "when": str(time.time_ns() - 60 * S), "numerator": 1, "denominator": 500}
        assert client.post("/v1/kpis", json={"values": [value]}).status_code == 200
        end = time.monotonic() + 60
        while (answer := client.get("/v1/gates/rollout")).status_code != 200:
            assert time.monotonic() < end, answer.text
            time.sleep(0.2)
        assert answer.json()["sides"][0]["value"] == 0.002
        listed = client.get("/v1/gates").json()["gates"]
        assert [(one["name"], one["passes"]) for one in listed] == [("lenient", True), ("rollout", True)]
        control = Control(live.data / "control.sqlite")
        state = GateBook(control).rows()["rollout"]
        control.close()
        assert state.verdict == "open"
        json.dumps(listed)
