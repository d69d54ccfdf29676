"""Grafana's alert rules: they say of stored counts what the product's own rules say of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from analytics.slo.burn import Counts, judge
from analytics.slo.compiled import compiled
from analytics.slo.objectives import Objective
from analytics.slo.openslo_read import read_all
from analytics.slo.rules import Over, Rule
from analytics.slo.stored import Row, insert
from collector.store import Store
from collector.store.embedded import open_embedded
from collector.store.schema import Retention, migrate
from dashboards.grafana import alert_rules
from dashboards.grafana.burn_sql import rule_sql, silence_sql
from dashboards.grafana.files import ALERTING, alerting_text, burn_panel, documents
from tests.analytics.world import HOUR
from tests.dashboards.grafana.expanding import expanded

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "deploy/examples/order-path.slo.yaml"
NOW = HOUR // 1_000_000_000 + 86_400 * 4 + 15  # not on a window's edge


def example() -> tuple[Objective, ...]:
    made = compiled(read_all([(str(EXAMPLE), EXAMPLE.read_text())]).objects)
    assert not made.errors
    return made.objectives


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with open_embedded(tmp_path_factory.mktemp("rules")) as store:
        migrate(store, Retention(**dict.fromkeys(Retention.__struct_fields__, 175_200)))
        yield store


def _asked(store: Store, sql: str) -> float:
    frame = store.query(expanded(sql, NOW - 3_600, NOW, {}), {})
    assert frame.shape == (1, 1)
    return float(frame.item())


# Counts of the long window before the short one, then of the short window: (good, total, uncertain).
CASES = {
    "nothing at all": ((0, 0, 0), (0, 0, 0)),
    "all good": ((1_000, 1_000, 0), (100, 100, 0)),
    "burning": ((800, 1_000, 0), (50, 100, 0)),
    "over": ((100, 1_000, 0), (10, 100, 0)),
    "long ago": ((0, 1_000, 0), (100, 100, 0)),
    "just now": ((100_000, 100_000, 0), (0, 100, 0)),
    "exactly the factor": ((728, 900, 0), (84, 100, 16)),
    "one of ten": ((4, 5, 0), (5, 5, 0)),
    "nine of ten": ((0, 5, 0), (1, 5, 0)),
    "one of one": ((0, 0, 0), (0, 1, 0)),
    "uncertain": ((700, 1_000, 300), (50, 100, 50)),
    "surely, some uncertain": ((100, 1_000, 100), (10, 100, 10)),
}


@pytest.mark.parametrize("or_equal", [False, True])
@pytest.mark.parametrize("case", sorted(CASES))
def test_a_rule_says_what_the_product_says(store: Store, case: str, or_equal: bool) -> None:
    before, last = CASES[case]
    target, factor = 0.99, 16.0
    overs = (Over(3_600, factor, or_equal), Over(300, factor, or_equal))
    one = replace(
        example()[0],
        name=f"{case}-{or_equal}".replace(" ", "-").replace(",", ""),
        target=target,
        rules=(Rule("r", "page", overs),),
    )
    end = NOW // 10 * 10
    rows = [
        Row(one.name, one.version, 10, end - 3_000, *_row(before)),
        Row(one.name, one.version, 10, end - 10, *_row(last)),
        Row(one.name, one.version, 10, end - 3_610, 0, 10**6),  # before the window
        Row(one.name, one.version, 10, end, 0, 10**6),  # after it
        Row(one.name, one.version + 1, 10, end - 20, 0, 10**6),  # what was counted otherwise
    ]
    insert(store, [replace(rows[1], good=0)], 1)  # an older answer for the same window
    insert(store, rows, 2)
    total = tuple(a + b for a, b in zip(before, last, strict=True))
    verdict = judge(one.rules[0], [Counts(*_row(total)), Counts(*_row(last))], [target, target])
    found = _asked(store, rule_sql(one, one.rules[0], {}))
    assert (found > 1) == (verdict.answer == "over"), (found, verdict)


def _row(counts: tuple[int, ...]) -> tuple[int, int, int]:
    return counts[0], counts[1], counts[2]


def test_what_only_chance_explains_is_left_alone_and_the_rest_is_not(store: Store) -> None:
    """The binomial test in SQL against the product's, on both sides of its threshold."""
    rule = Rule("r", "page", (Over(3_600, 2.0), Over(300, 2.0)))
    said = set()
    for bad in range(1, 6):
        for total in (1, 5, 20, 49, 50, 51):
            if bad > total:
                continue
            one = replace(example()[0], name=f"chance-{bad}-{total}", target=0.99, rules=(rule,))
            insert(store, [Row(one.name, one.version, 10, NOW // 10 * 10 - 10, total - bad, total)], 1)
            counts = Counts(total - bad, total)
            answer = judge(rule, [counts, counts], [0.99, 0.99]).answer
            assert (_asked(store, rule_sql(one, rule, {})) > 1) == (answer == "over"), (bad, total, answer)
            said.add(answer)
    assert {"over", "insufficient"} <= said


def test_long_windows_take_the_coarse_levels(store: Store) -> None:
    rule = Rule("r", "ticket", (Over(259_200, 1.0), Over(21_600, 1.0)))
    one = replace(example()[0], name="long", target=0.99, rules=(rule,))
    end = NOW // 10 * 10
    minute = end // 60 * 60
    rows = [
        Row(one.name, one.version, 60, (end - 259_200) // 60 * 60, 900, 1_000),  # the first, rounded down
        Row(one.name, one.version, 60, (end - 259_200) // 60 * 60 - 60, 0, 10**6),
        Row(one.name, one.version, 60, minute - 60, 800, 1_000),
        Row(one.name, one.version, 60, minute, 0, 10**6),  # the running minute comes from its tens of seconds
        Row(one.name, one.version, 10, minute, 990, 1_000),
        Row(one.name, one.version, 10, end - 21_600, 0, 1_000),
    ]
    insert(store, rows, 1)
    long, short = (100 + 200 + 10) / 3_000 / 0.01, (10 + 1_000) / 2_000 / 0.01
    assert _asked(store, rule_sql(one, rule, {})) == pytest.approx(min(long, short))


def test_a_side_may_look_at_another_objective(store: Store) -> None:
    first, second = example()[:2]
    rule = Rule("both", "page", (Over(3_600, 2.0), Over(300, 2.0, objective=second.name)))
    one = replace(first, name="both", target=0.99, rules=(rule,))
    other = replace(second, target=0.9)
    end = NOW // 10 * 10
    insert(store, [Row(one.name, one.version, 10, end - 10, 0, 1_000)], 1)
    insert(store, [Row(other.name, other.version, 10, end - 10, 750, 1_000)], 1)
    assert _asked(store, rule_sql(one, rule, {other.name: other})) == pytest.approx(0.25 / 0.1 / 2)
    made = alert_rules.mirrored([one, other], 1)
    assert [group.name for group in made.groups] == ["both", other.name, "tailsight"]
    alone = alert_rules.mirrored([one], 1)
    assert [group.name for group in alone.groups] == ["tailsight"]
    assert "which has no rule" in alone.left_out[0]


def test_silence_is_told_in_seconds(store: Store) -> None:
    assert _asked(store, silence_sql()) == 86_400


def test_time_slices_and_dollars_are_left_out_and_named() -> None:
    one = example()[0]
    made = alert_rules.mirrored([replace(one, slice_s=60, slice_target=0.9), replace(one, name="us$")], 1)
    assert [group.name for group in made.groups] == ["tailsight"]
    assert len(made.left_out) == 1 + len(one.rules)


def test_the_provisioned_file_is_what_the_example_gives() -> None:
    made = alert_rules.mirrored(example(), burn_panel())
    assert made.left_out == ()
    text = (ROOT / ALERTING).read_text()
    assert text == alerting_text(alert_rules.file_document(made.groups)), (
        "run tailsight dashboards alerts deploy/examples/order-path.slo.yaml --out " + str(ALERTING)
    )


def test_the_rules_are_what_grafana_takes() -> None:
    """The fields, lengths and enumerations of Grafana's published API description."""
    made = alert_rules.mirrored(example(), burn_panel())
    document = yaml.safe_load((ROOT / ALERTING).read_text())
    uids = set()
    for group, filed in zip(made.groups, document["groups"], strict=True):
        body = alert_rules.api_group(group, "tailsight", "tailsight", "pager")
        assert set(body) == {"title", "folderUid", "interval", "rules"}
        assert body["interval"] % 10 == 0
        for rule, file_rule in zip(body["rules"], filed["rules"], strict=True):
            uids.add(rule["uid"])
            assert re.fullmatch(r"[a-zA-Z0-9_-]{1,40}", rule["uid"])
            assert 1 <= len(rule["title"]) <= 190
            assert rule["noDataState"] in {"Alerting", "NoData", "OK"}
            assert rule["execErrState"] in {"OK", "Alerting", "Error"}
            assert rule["notification_settings"] == {"receiver": "pager"}
            assert {entry["refId"] for entry in rule["data"]} == {"A", "C"}
            assert rule["data"][1]["model"]["conditions"][0]["evaluator"]["type"] == "gt"
            assert rule["labels"]["severity"] in {"page", "ticket"}
            # Only strings may be in annotations, and no $: files expand them.
            assert all(isinstance(text, str) and "$" not in text for text in file_rule["annotations"].values())
            assert rule["annotations"]["__panelId__"] == str(file_rule["panelId"])
            assert {**rule, "annotations": 0} | {} == {
                **{key: value for key, value in file_rule.items() if key not in ("dashboardUid", "panelId")},
                "annotations": 0, "ruleGroup": group.name, "folderUID": "tailsight", "orgID": 1,
                "notification_settings": {"receiver": "pager"},
            }  # fmt: skip
    assert len(uids) == sum(len(group.rules) for group in made.groups)
    board = documents()[f"{alert_rules.BOARD}.json"]
    assert [p["title"] for p in board["panels"] if p["id"] == burn_panel()] == [alert_rules.PANEL]


def test_what_an_slo_says_of_itself_goes_along() -> None:
    one = replace(
        example()[0],
        annotations={"tailsight.dev/runbook": "https://runbooks.example/slow"},
        labels={"team": "execution", "1st-line": "yes"},
    )
    rule = alert_rules.mirrored([one], 7).groups[0].rules[0]
    assert rule.annotations["runbook_url"] == "https://runbooks.example/slow"
    assert rule.labels["team"] == "execution"
    assert rule.labels["_1st_line"] == "yes"


def test_a_runbook_of_ours_is_an_address_where_the_servers_is_known() -> None:
    one = next(o for o in example() if o.annotations.get("tailsight.dev/runbook") == "docs/runbooks/README.md")
    rule = alert_rules.mirrored([one], 7, "https://tailsight.example").groups[0].rules[0]
    assert rule.annotations["runbook_url"] == "https://tailsight.example/runbooks/"
    rule = alert_rules.mirrored([one], 7).groups[0].rules[0]
    assert rule.annotations["runbook_url"] == "docs/runbooks/README.md"


def test_files_do_not_expand_a_dollar_in_a_label() -> None:
    one = replace(example()[0], labels={"currency": "US$"})
    made = alert_rules.mirrored([one], 1)
    assert alert_rules.file_document(made.groups)["groups"][0]["rules"][0]["labels"]["currency"] == "US$$"
    assert alert_rules.api_group(made.groups[0], "f", "s")["rules"][0]["labels"]["currency"] == "US$"


def test_long_names_stay_apart() -> None:
    long: list[Any] = [replace(example()[0], name="x" * 200 + end) for end in "ab"]
    groups = alert_rules.mirrored(long, 1).groups
    assert len({group.name for group in groups}) == len(groups)
    titles = [rule.title for group in groups for rule in group.rules]
    assert len(set(titles)) == len(titles)
    assert max(map(len, titles)) <= 190
