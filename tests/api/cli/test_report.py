from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from collector.store.embedded import open_embedded
from collector.store.schema import migrate

if TYPE_CHECKING:
    from tests.api.cli.conftest import Tailsight

TOML = """
[paths.order]
max_age = "1s"
[[paths.order.stages]]
name = "decide"
from = {point = "app_ingress"}
to = {point = "app_decision"}
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("report")
    (data / "tailsight.toml").write_text(TOML)
    store = open_embedded(data)
    migrate(store)
    store.close()
    return data


def test_a_report_of_nothing_is_written_and_says_so(tailsight: Tailsight, data: Path, tmp_path: Path) -> None:
    done = tailsight("--data", str(data), "report", "executive", "--out", str(tmp_path / "week.json"), "--json")
    assert done.code == 1, done.err
    assert done.json["format"] == "json"
    report = json.loads((tmp_path / "week.json").read_text())
    assert report["paths"][0]["count"] == 0
    assert report["headline"] == done.json["headline"]


def test_a_pdf_by_the_names_ending(tailsight: Tailsight, data: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    assert tailsight("scenarios", "new", str(plan)).code == 0
    out = tmp_path / "week.PDF"
    done = tailsight("--data", str(data), "report", "executive", "--scenarios", str(plan), "--out", str(out))
    assert done.code == 1, done.err
    assert "Too few messages" in done.out
    assert out.read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "x.docx"], "must end in"), (["--out", "/nowhere/x.html"], "no folder"),
        (["--out", "x.json", "--period", "soon"], "write 7d"),
        (["--out", "x.json", "--path", "nope"], "no path is called"),
        (["--out", "x.json", "--scenarios", "nope.toml"], "nope.toml"),
        (["--out", "x.json", "--kpi", "nope"], "no measure is called"), (["--out", "x.json", "--title", ""], "--title"),
    ],
)  # fmt: skip
def test_errors_say_what_to_do(tailsight: Tailsight, data: Path, arguments: list[str], said: str) -> None:
    done = tailsight("--data", str(data), "report", "executive", *arguments)
    assert done.code == 2
    assert said in done.err


def test_a_directory_without_reports_has_none(tailsight: Tailsight, data: Path) -> None:
    done = tailsight("--data", str(data), "report", "list", "--json")
    assert (done.code, done.json) == (1, {"reports": []})
