"""The dashboards: the files are what the code builds, and what Grafana takes."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

from dashboards.grafana.files import FOLDER, documents, stale, text, write
from tests.dashboards.grafana.expanding import panels, statements

ROOT = Path(__file__).resolve().parents[3]
DOCUMENTS = documents()
UNITS = {"ns", "s", "short", "none", "percentunit", "mps", "cps", "bytes"}  # of Grafana's list
# Known since 4.5 of the data source, in alert rules too.
MACROS = {"$__timeFilter", "$__fromTime", "$__toTime", "$__interval_s"}


def test_the_files_are_what_the_code_builds() -> None:
    found = {file.name: file.read_text() for file in (ROOT / FOLDER).glob("*.json")}
    assert found == {name: text(document) for name, document in DOCUMENTS.items()}, "run tailsight dashboards build"


def test_writing_again_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "tailsight-gone.json").write_text("{}")
    (tmp_path / "theirs.json").write_text("{}")
    assert write(tmp_path) == sorted([*DOCUMENTS, "tailsight-gone.json"])
    assert write(tmp_path) == stale(tmp_path) == []
    assert (tmp_path / "theirs.json").exists()


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_a_board_is_sound(name: str) -> None:
    document = DOCUMENTS[name]
    assert document["title"].startswith("Tailsight / ")
    assert (document["editable"], document["timezone"], document["tags"]) == (False, "utc", ["tailsight"])
    assert document["description"]
    everything = document["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    shown = list(panels(document))
    assert len({panel["title"] for panel in shown}) == len(shown)
    for panel in shown:
        assert len(panel["description"]) > 10, panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel.get("fieldConfig") is None or panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        refs = [target["refId"] for target in panel["targets"]]
        assert refs == sorted(set(refs))
    for one, other in itertools.combinations((p["gridPos"] for p in everything), 2):
        apart = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert apart or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
    assert all(p["gridPos"]["x"] + p["gridPos"]["w"] <= 24 for p in everything)


def test_links_lead_to_boards_and_name_their_variables() -> None:
    by_uid = {d["uid"]: {v["name"] for v in d["templating"]["list"]} for d in DOCUMENTS.values()}
    found = re.findall(r'"url": "(/d/[^"]*)"', "".join(text(document) for document in DOCUMENTS.values()))
    assert len(found) >= 10
    for url in found:
        uid, _, query = url.removeprefix("/d/").partition("?")
        assert uid in by_uid
        assert "${__url_time_range}" in query
        assert set(re.findall(r"&var-(\w+)=", query)) <= by_uid[uid]


def test_the_guilty_stage_is_three_clicks_away() -> None:
    """From a path's row on the overview to the path, to its stage or its slowest message."""

    def leads(name: str) -> set[str]:
        return set(re.findall(r"/d/(tailsight-[\w-]+)", json.dumps(DOCUMENTS[f"{name}.json"])))

    assert "tailsight-path" in leads("tailsight-overview")
    assert {"tailsight-stage", "tailsight-message"} <= leads("tailsight-path")


def test_only_portable_macros_and_known_variables_are_used() -> None:
    for document in DOCUMENTS.values():
        known = {f"${variable['name']}" for variable in document["templating"]["list"]}
        for where, sql, _ in statements(document):
            used = set(re.findall(r"\$\w+", sql))
            assert used <= MACROS | known, where


def _lost(before: Any, after: Any, at: str = "") -> list[str]:
    if isinstance(before, dict):
        gone = [f"{at}/{key}" for key in before if key not in (after or {}) and before[key] not in (None, {}, [])]
        return gone + [
            x for key in before if key in (after or {}) for x in _lost(before[key], after[key], f"{at}/{key}")
        ]
    if isinstance(before, list):
        return [x for n, (a, b) in enumerate(zip(before, after or [], strict=False)) for x in _lost(a, b, f"{at}/{n}")]
    return []


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_grafanas_own_types_lose_nothing_of_it(name: str) -> None:
    """Keys that Grafana's schema does not know would vanish when its SDK reads and writes the dashboard."""
    back = json.loads(JSONEncoder().encode(models.Dashboard.from_json(DOCUMENTS[name])))
    lost = [at for at in _lost(DOCUMENTS[name], back) if "/targets/" not in at and "/target" not in at]
    assert lost == []
