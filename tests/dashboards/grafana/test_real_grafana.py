"""Against the real data source, and a real Grafana: outside the default run (`pytest -m grafana`), where there is one.

- `TAILSIGHT_PLUGIN` names a program around the data source's backend (`NewDatasource`, `CheckHealth`, `QueryData`). It
  is called with `jsonData` and the password as arguments, reads a query per line, `{"where", "model", "from", "to",
  "interval"}` (seconds), and writes `{"where", "error", "frames": [{"rows", "fields": [{"name", "type", "labels"}]}]}`
  per line, that of the health check first. It is not part of this repository.
- `TAILSIGHT_GRAFANA` is the address of a Grafana on this host with the data source installed, `GRAFANA_TOKEN` a service
  account's token (Admin). The test pushes into a folder of its own and leaves it there.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from dashboards.grafana.files import documents
from tests.analytics.world import HOUR
from tests.api.live import Live, running
from tests.dashboards.grafana.expanding import panels, statements
from tests.dashboards.grafana.test_statements import KEPT, RULES, VARIABLES, fill

pytestmark = pytest.mark.grafana
ROOT = Path(__file__).resolve().parents[3]
START = HOUR // 1_000_000_000
NEEDED = {
    "heatmap": {"time", "Value"},
    "traces": {"traceID", "spanID", "operationName", "serviceName", "startTime", "duration"},
}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    data = tmp_path_factory.mktemp("real")
    fill(data)
    with running(data, KEPT) as server:
        yield server


def _chosen(sql: str) -> str:
    """Variables as Grafana's page puts them in; macros are left to the data source."""
    text = re.sub(r"\$\{(\w+):singlequote\}", lambda m: f"'{VARIABLES[m[1]]}'", sql)
    return re.sub(r"\$(?!__)(\w+)", lambda m: VARIABLES[m[1]], text)


def _queries() -> list[dict[str, Any]]:
    """Every panel's, variable's, annotation's and alert rule's query."""
    asked = [one for document in documents().values() for one in statements(document)]
    asked += [(f"rule {rule.uid}", rule.sql, 1) for rule in RULES]
    return [
        {
            "where": where,
            "model": {"refId": "A", "editorType": "sql", "format": form, "rawSql": _chosen(sql)},
            "from": START - 60,
            "to": START + 120,
            "interval": 10,
        }
        for where, sql, form in asked
    ]


def _checked(answers: Mapping[str, Mapping[str, Any]]) -> None:
    assert {where: one["error"] for where, one in answers.items() if one["error"]} == {}
    for document in documents().values():
        for panel in panels(document):
            where = f"{document['uid']}/{panel['title']}/A"
            for frame in answers[where]["frames"]:
                if not frame["rows"]:
                    continue
                kinds = [(one["name"], one["type"].lstrip("*")) for one in frame["fields"]]
                names = {name for name, _ in kinds}
                assert NEEDED.get(panel["type"], set()) <= names, where
                if panel["targets"][0]["format"] == 0:
                    # Lines, each with its labels: no text is left beside the numbers.
                    assert kinds[0] == ("time", "time.Time"), where
                    assert all(re.match(r"u?int|float", kind) for _, kind in kinds[1:]), f"{where}: {kinds}"
                if panel["type"] == "heatmap":
                    assert all(float(one["labels"]["le"]) for one in frame["fields"][1:]), where
    for rule in RULES:
        (frame,) = answers[f"rule {rule.uid}"]["frames"]
        assert (frame["rows"], [one["type"].lstrip("*") for one in frame["fields"]]) == (1, ["float64"]), rule.title


def test_the_data_source_answers_every_query(live: Live) -> None:
    program = os.environ.get("TAILSIGHT_PLUGIN")
    if not program:
        pytest.skip("TAILSIGHT_PLUGIN names no program around the data source's backend")
    source = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/tailsight.yaml").read_text())
    host, _, port = live.url.removeprefix("http://").partition(":")
    settings = {**source["datasources"][0]["jsonData"], "host": host, "port": int(port)}
    done = subprocess.run(
        [program, json.dumps(settings), ""],
        input="".join(json.dumps(one) + "\n" for one in _queries()),
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    health, *found = [json.loads(line) for line in done.stdout.splitlines()]
    assert health["error"] == ""
    _checked({one["where"]: {**one, "frames": one["frames"] or []} for one in found})


def test_a_real_grafana_takes_everything_and_a_second_push_changes_nothing(live: Live) -> None:
    url, token = os.environ.get("TAILSIGHT_GRAFANA"), os.environ.get("GRAFANA_TOKEN")
    if not url or not token:
        pytest.skip("TAILSIGHT_GRAFANA and GRAFANA_TOKEN name no Grafana and no token for it")
    pytest.importorskip("grafana_client")
    from dashboards.grafana import bodies
    from dashboards.grafana.alert_rules import api_group, mirrored
    from dashboards.grafana.exporting import exported
    from dashboards.grafana.files import burn_panel
    from dashboards.grafana.pushing import Wanted, planned, pushed
    from dashboards.grafana.remote import Grafana
    from tests.dashboards.grafana.test_alert_rules import example

    grafana = Grafana(url, token)
    grafana.version()
    folder = f"tailsight-test-{int(time.time())}"
    groups = [api_group(group, folder, "tailsight") for group in mirrored(example(), burn_panel()).groups]
    wanted = Wanted(
        folder_uid=folder,
        folder_title=folder,
        source=bodies.source(live.url),
        dashboards={document["uid"]: document for document in documents().values()},
        groups=groups,
        prune=True,
    )
    pushed(planned(grafana, wanted))
    assert [one for one in planned(grafana, wanted) if one.action != "same"] == []
    assert len(exported(grafana, folder)) == len(documents()) + len(groups)
    answers: dict[str, dict[str, Any]] = {}
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60) as client:
        assert client.get("/api/datasources/uid/tailsight/health").json()["status"] == "OK"
        for one in _queries():
            query = {**one["model"], "datasource": {"uid": "tailsight"}, "intervalMs": 10_000, "maxDataPoints": 1_000}
            times = {"from": str(one["from"] * 1_000), "to": str(one["to"] * 1_000)}
            answer = client.post("/api/ds/query", json={"queries": [query], **times}).json()["results"]["A"]
            frames = []
            for frame in answer.get("frames", []):
                fields = [
                    {"name": f["name"], "type": f["typeInfo"]["frame"], "labels": f.get("labels")}
                    for f in frame["schema"]["fields"]
                ]
                frames.append({"rows": len((frame["data"]["values"] or [[]])[0]), "fields": fields})
            answers[one["where"]] = {"error": answer.get("error", ""), "frames": frames}
    _checked(answers)
