"""Sensitivity by REST and from the command line, and assignments on their way in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.cli.root import run
from collector.store.connect import connect
from collector.store.settings import StoreSettings
from tests.analytics.money.bought import BEGIN, DAY, Shop, shop
from tests.analytics.world import ORDER
from tests.api.live import Live, running

KEPT = ("messages", "counts_10s", "counts_1m", "counts_1h", "kpis", "label_sets")
LONG = "\n".join(f"{name} = 175200" for name in KEPT)
CONFIG = f"""
[retention]
{LONG}
[kpis.bought]
kind = "level"
unit = "percentage points"
[paths.order]
{ORDER}
"""
SPAN = {"from": str(BEGIN), "to": str(BEGIN + 10 * DAY)}


@pytest.fixture(scope="module")
def sold(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Live, Shop]]:
    with running(tmp_path_factory.mktemp("money"), CONFIG) as live:
        store = connect(StoreSettings(), live.data)
        what = shop(store, 4, dose_ms=4.0, bunches=100)
        store.close()
        yield live, what


def asked(live: Live, status: int = 200, **more: str) -> dict[str, Any]:
    with live.client() as client:
        answer = client.get("/v1/sensitivity", params={"path": "order", "kpi": "bought", **SPAN, **more})
    assert answer.status_code == status, answer.text
    return dict(answer.json())


def test_an_answer_says_its_design_and_stands_beside_the_naive_slope(sold: tuple[Live, Shop]) -> None:
    live, _ = sold
    value = asked(live, by="cohort", most="12ms")
    assert value["answer"]["design"] == "strata"
    assert value["answer"]["low"] < -2.0 < value["answer"]["high"] < 0
    assert value["naive"]["sentence"].startswith("Warning")
    assert value["most"] <= 12
    assert [group["value"] for group in value["groups"]] != []
    assert value["curve"]["points"]
    assert value["sentence"] == value["answer"]["sentence"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"kpi": "nothing"}, "is not declared"),
        ({"exposure": "exceedance"}, "threshold"),
        ({"threshold": "soon", "exposure": "exceedance"}, "threshold"),
        ({"stage": "nowhere"}, "nowhere"),
        ({"design": "natural"}, "treated"),
        ({"change": "7", "treated": "site=east"}, "design natural"),
        ({"design": "natural", "change": "no-such", "treated": "site=east"}, "no change has"),
        ({"experiment": "nobody-knows"}, "no assignment of"),
        ({"horizon": "4000d"}, "ripe"),
    ],
)
def test_what_cannot_be_asked_is_a_problem_with_its_reason(
    sold: tuple[Live, Shop], more: dict[str, str], words: str
) -> None:
    live, _ = sold
    assert words in json.dumps(asked(live, 422, **more))


def test_assignments_come_in_and_answer_first(sold: tuple[Live, Shop], tmp_path: Path, capsys: Any) -> None:
    live, what = sold
    rows = [
        {"arm": "slow" if dose else "control", "key": hex(int(key)), "dose": float(dose)}
        for key, dose in zip(what.key, what.dose, strict=True)
    ]
    with live.client() as client:
        for first in range(0, len(rows), 10_000):
            body = {"experiment": "slow", "assignments": rows[first : first + 10_000]}
            answer = client.post("/v1/experiments/assignments", json=body)
            assert (answer.status_code, answer.json()) == (200, {"assignments": len(body["assignments"])})
        wrong = client.post("/v1/experiments/assignments", json={"experiment": "slow", "assignments": [{"arm": "x"}]})
        assert wrong.status_code == 422
        assert "either key, or label and unit" in wrong.text
    value = asked(live, experiment="slow")
    assert value["answer"]["design"] == "experiment"
    assert value["answer"]["low"] < -2.0 < value["answer"]["high"]
    file = tmp_path / "flags.csv"
    file.write_text("arm,label,unit\n" + "".join(f"{'on' if n % 2 else 'off'},account,{n}\n" for n in range(50)))
    assert told(capsys, live, "import", "assignments", str(file), "--experiment", "flag") == (
        0, {"file": str(file), "assignments": 50}
    )  # fmt: skip
    file.write_text("arm,label\non,account\n")
    code, failed = told(capsys, live, "import", "assignments", str(file), "--experiment", "flag")
    assert (code, "rows from 1" in failed["error"]["message"]) == (4, True)


def test_the_command_answers_the_same(sold: tuple[Live, Shop], capsys: Any) -> None:
    live, _ = sold
    span = ("--from", SPAN["from"], "--to", SPAN["to"])
    code, value = told(capsys, live, "query", "sensitivity", "--path", "order", "--kpi", "bought", *span)
    assert code == 0
    rest = asked(live)
    assert value["answer"] == rest["answer"]
    assert value["left_out"] == rest["left_out"]
    age = ("--exposure", "data_age", "--by", "region")
    code = run(["--data", str(live.data), "query", "sensitivity", "--path", "order", "--kpi", "bought", *span, *age])
    shown = capsys.readouterr().out
    assert code in (0, 1)
    assert "data age" in shown
    assert "By region" in shown
    assert "warning" in shown
    code, value = told(capsys, live, "query", "sensitivity", "--path", "order", "--kpi", "fill", *span)
    assert (code, value["error"]["kind"]) == (4, "sensitivity")
    code, value = told(
        capsys, live, "query", "sensitivity", "--path", "order", "--kpi", "bought", "--design", "natural"
    )
    assert code == 2


def told(capsys: Any, live: Live, *words: str) -> tuple[int, dict[str, Any]]:
    code = run(["--data", str(live.data), *words, "--json"])
    return code, json.loads(capsys.readouterr().out)
