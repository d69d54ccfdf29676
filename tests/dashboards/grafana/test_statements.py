"""Every statement of every dashboard, through the SQL door, read by the driver of Grafana's own data source."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from analytics.declared import Declared
from analytics.slo.stored import Row, insert
from analytics.windows import run_due
from collector.store.blocks import from_rows
from collector.store.embedded import open_embedded
from collector.store.schema import Retention, migrate, table_types
from dashboards.grafana.alert_rules import mirrored
from dashboards.grafana.files import burn_panel, documents
from tests.analytics.world import AGENT, HOUR, ORDER, link, path, put, stamp
from tests.api.live import running
from tests.api.sql.judging import judged
from tests.dashboards.grafana.expanding import expanded, panels, statements
from tests.dashboards.grafana.test_alert_rules import example

S = 1_000_000_000
VARIABLES = {"path": "order", "stage": "decide", "host": "a", "key": "1700"}
KEPT = "[retention]\n" + "".join(f"{name} = 175200\n" for name in Retention.__struct_fields__)
RULES = [rule for group in mirrored(example(), burn_panel()).groups for rule in group.rules]


def fill(data: Path) -> None:
    """Enough messages for a p99, with depths, one with a parent, and one that never ended."""
    with open_embedded(data) as store:
        migrate(store, Retention(**dict.fromkeys(Retention.__struct_fields__, 175_200)))
        stamps: list[dict[str, Any]] = []
        for i in range(1_000):
            at, key = HOUR + i * S // 50, 1_000 + i
            stamps += [
                stamp(key, "app_ingress", at, depth=i % 4),
                stamp(key, "app_decision", at + 40_000 + i * 10),
                stamp(key, "app_egress", at + 90_000 + i * 20, outcome=2 if i % 50 == 0 else 1, cache=1 + i % 3),
            ]
        links = [link(1_699, 1_700, HOUR + 700 * S // 50)]
        stamps.append(stamp(5_000, "app_ingress", HOUR + S))
        put(store, stamps, links)
        run_due(store, {"order": path(ORDER)}, now_ns=HOUR + 60 * S)
        declared = Declared()
        assert declared.paths(store, {"order": path(ORDER)}, HOUR)
        assert not declared.paths(store, {"order": path(ORDER)}, HOUR + S)
        assert declared.objectives(store, [], HOUR)
        # Counts of an objective, and two collectors, one of them started again.
        one = example()[0]
        insert(store, [Row(one.name, one.version, 10, HOUR // S + 10, 990, 1_000)], 1)
        beats = [
            ("probe", 1, "stopped", 1),
            ("probe", 2, "running", 1),
            ("probe", 2, "degraded", 21),
            ("nic", 1, "running", 21),
        ]
        rows = [
            {
                "ts": HOUR + second * S, "collector": uuid.uuid5(AGENT, name), "boot": boot, "name": name, "host": "a",
                "status": status, "reason": "", "watermark": HOUR, "produced": 1, "acked": 1, "in_flight": 0,
                "spool_bytes": 0,
            }
            for name, boot, status, second in beats
        ]  # fmt: skip
        priced = [
            {
                "ts": HOUR + second * S, "objective": name, "path": "order", "window_s": 300, "value": value,
                "low": low, "high": high, "currency": "USD", "design": "experiment", "reason": reason,
            }
            for name, second, value, low, high, reason in (
                ("fast", 10, 40.0, 20.0, 60.0, ""),
                ("fast", 40, 60.0, 30.0, 90.0, ""),
                ("calm", 10, None, -1.0, 5.0, ""),
                ("blank", 10, None, None, None, "no effect was measured"),
            )
        ]  # fmt: skip
        store.insert("costs", from_rows(table_types()["costs"], priced), token="costs")  # noqa: S106
        store.insert("heartbeats", from_rows(table_types()["heartbeats"], rows), token="beats")  # noqa: S106


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    data = tmp_path_factory.mktemp("boards")
    fill(data)
    asked = [one for document in documents().values() for one in statements(document)]
    asked += [(f"rule {rule.uid}", rule.sql, 1) for rule in RULES]
    start = HOUR // S
    texts = [expanded(sql, start - 60, start + 120, VARIABLES) for _, sql, _ in asked]
    with running(data, KEPT) as live:
        ping, *found = judged(live.url.removeprefix("http://"), texts)
    assert ping["error"] == ""
    return {where: one for (where, _, _), one in zip(asked, found, strict=True)}


def test_every_statement_is_answered(answers: dict[str, dict[str, Any]]) -> None:
    assert {where: one["error"] for where, one in answers.items() if one["error"]} == {}
    assert len(answers) > 80


def test_every_alert_rule_gets_one_number(answers: dict[str, dict[str, Any]]) -> None:
    """Grafana's threshold takes a table with one number and nothing else; it is there without any counts, too."""
    for rule in RULES:
        one = answers[f"rule {rule.uid}"]
        assert (len(one["rows"]), one["types"]) == (1, ["Float64"]), rule.title
    # 1 % bad of 1 % allowed is a burn of 1: a 14.4th of the factor, and without counts it is none.
    assert float(answers[f"rule {RULES[0].uid}"]["rows"][0][0]) == pytest.approx(1 / 14.4)
    assert answers[f"rule {RULES[3].uid}"]["rows"] == [["0"]]


def test_panels_get_the_columns_that_they_need(answers: dict[str, dict[str, Any]]) -> None:
    for document in documents().values():
        for panel in panels(document):
            one = answers[f"{document['uid']}/{panel['title']}/A"]
            if not one["columns"]:  # the driver cannot say the columns of an answer without rows
                continue
            types = dict(zip(one["columns"], one["types"], strict=True))
            where = f"{document['uid']}/{panel['title']}: {types}"
            if panel["targets"][0]["format"] == 0:
                assert types["time"].startswith("DateTime"), where
                numbers = [kind for name, kind in types.items() if name != "time" and "String" not in kind]
                # Of words alone the data source makes no lines: all names would share one.
                assert numbers, where
            if panel["type"] == "heatmap":
                assert list(types) == ["time", "le", "Value"], where
                assert types["le"] == "String", where
            if panel["type"] == "traces":
                assert {"traceID", "spanID", "operationName", "serviceName", "startTime", "duration"} <= set(types), (
                    where
                )
            if panel["type"] == "stat":
                assert len(types) == 1, where


def test_a_collectors_state_is_the_worst_of_each_step(answers: dict[str, dict[str, Any]]) -> None:
    states = {(row[1], row[0][14:19]): row[2] for row in answers["tailsight-self/State of each collector/A"]["rows"]}
    minute = next(iter(states))[1][:2]
    assert states == {
        ("probe@a", f"{minute}:00"): "1",
        ("probe@a", f"{minute}:20"): "2",
        ("nic@a", f"{minute}:20"): "1",
    }


def test_an_objective_is_there_before_its_first_whole_hour(tmp_path: Path) -> None:
    one, end = example()[0], HOUR // S + 3_600
    sql = {where: text for where, text, _ in statements(documents()["tailsight-slo.json"])}
    with open_embedded(tmp_path) as store:
        migrate(store, Retention(**dict.fromkeys(Retention.__struct_fields__, 175_200)))
        Declared().objectives(store, [one], HOUR)
        cells = [(10, end + 10, 990), (10, end - 10, 0), (60, end - 60, 0)]  # the hour before comes from its own level
        insert(store, [Row(one.name, one.version, level, at, good, 1_000) for level, at, good in cells], 1)
        asked = expanded(sql["tailsight-slo/Objectives, worst first/A"], end - 60, end + 60, VARIABLES)
        (young,) = store.query(asked, {}).to_dicts()
        insert(store, [Row(one.name, one.version, 3_600, end - 3_600, 9_000, 9_000)], 1)
        (grown,) = store.query(asked, {}).to_dicts()
    assert (young["objective"], young["events"], grown["events"]) == ("order-latency", 1_000, 10_000)
    assert young["budget left"] == pytest.approx(0)  # 10 bad of 1,000, and 1 % may be
    assert grown["budget left"] == pytest.approx(0.9)


def test_a_path_can_be_chosen_before_its_first_whole_hour(tmp_path: Path) -> None:
    (sql,) = {
        variable["query"]["rawSql"]
        for document in documents().values()
        for variable in document["templating"]["list"]
        if variable["name"] == "path"
    }
    now_s = int(time.time())
    with open_embedded(tmp_path) as store:
        migrate(store, Retention())
        for name, level, age_s in (("new", 10, 60), ("old", 3_600, 86_400), ("gone", 10, 86_400)):
            row = {
                "path": name, "level": level, "window": now_s - age_s, "generation": 1, "state": "final", "messages": 1,
                "finished": 1, "unfinished": 0, "headless": 0, "stamps": 1, "completeness": 1.0, "basis": 0,
                "computed": now_s * S,
            }  # fmt: skip
            store.insert("windows", from_rows(table_types()["windows"], [row]), token=name)
        assert store.query(sql, {})["path"].to_list() == ["new", "old"]


def test_the_figures_are_the_data(answers: dict[str, dict[str, Any]]) -> None:
    def rows(where: str) -> list[list[str]]:
        return answers[where]["rows"]  # type: ignore[no-any-return]

    assert rows("tailsight-path/Messages/A") == [["1000"]]
    assert rows("tailsight-path/Unfinished/A") == [["1"]]
    assert rows("tailsight-path/Slowest/A") == [[str(90_000 + 999 * 20)]]
    stages = {row[0]: row for row in rows("tailsight-path/Stages/A")}
    assert set(stages) == {"decide", "send", "end_to_end", "unattributed"}
    p99 = float(rows("tailsight-stage/p99/A")[0][0])
    assert abs(p99 / (40_000 + 989 * 10) - 1) < 0.0039
    assert rows("tailsight-path/p99.9/A") == [["<nil>"]]  # 1,000 messages are too few for it
    assert [row[1] for row in rows("tailsight-message/Stamps/A")].count("app_ingress") == 2  # its parent's, too
    slowest = rows("tailsight-path/Slowest messages/A")
    assert slowest[0][:1] == ["1999"]
    assert rows("tailsight-overview/Paths, slowest tail first/A")[0][:2] == ["order", "1000"]
    by_depth = {row[0]: int(row[1]) for row in rows("tailsight-queues/The tail by depth on arrival/A")}
    assert by_depth == {"0": 250, "1-2": 500, "3-5": 250}
    assert slowest[0][3] == "send"
    budgets = rows("tailsight-path/Stages against their budgets/A")
    assert [row[:3] for row in budgets] == [["decide", "compute", "150000"]]
    shares = [float(row[1]) for row in rows("tailsight-path/Share of all time by stage/A")]
    assert abs(sum(shares) - 1) < 1e-9


def test_a_cost_has_a_value_only_where_it_can_be_told_from_nothing(answers: dict[str, dict[str, Any]]) -> None:
    found = answers["tailsight-business/Cost per hour, by objective/A"]
    rows = {row[0]: dict(zip(found["columns"], row, strict=True)) for row in found["rows"]}
    assert [float(rows["fast"][name]) for name in ("per_hour", "low", "high")] == [50, 25, 75]
    assert (rows["calm"]["per_hour"], float(rows["calm"]["high"])) == ("<nil>", 5)
    assert (rows["blank"]["low"], rows["blank"]["reason"]) == ("<nil>", "no effect was measured")
    drawn = answers["tailsight-business/Cost of running burns, per hour/A"]
    assert {row[1] for row in drawn["rows"]} == {"fast"}
