"""`tailsight dashboards push`, `diff`, `export` and `alerts` as a pipeline uses them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.dashboards.grafana.recording import TOKEN, Recording, serving

if TYPE_CHECKING:
    from tests.api.cli.conftest import Tailsight

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = str(ROOT / "deploy/examples/order-path.slo.yaml")
NEEDS = "needs the package grafana-client (extra grafana): pip install 'tailsight[grafana]'"


def test_alerts_are_written_as_a_file(tailsight: Tailsight, tmp_path: Path) -> None:
    file = tmp_path / "alerting" / "tailsight.yaml"
    arguments = ("dashboards", "alerts", EXAMPLE, "--out", str(file))
    assert tailsight(*arguments, "--check").code == 1
    assert tailsight(*arguments).code == 0
    assert file.read_text() == (ROOT / "deploy/grafana/provisioning/alerting/tailsight.yaml").read_text()
    again = tailsight(*arguments, "--json")
    assert (again.code, again.json["changed"]) == (0, False)
    assert tailsight(*arguments, "--check").code == 0
    config = tmp_path / "named.toml"
    demo = (ROOT / "api/demo/tailsight.toml").read_text()  # the paths that the example is about
    config.write_text(demo + '\n[server]\npublic_url = "https://tailsight.example"\n')
    named = tailsight("dashboards", "alerts", EXAMPLE, "--config", str(config))
    assert "runbook_url: https://tailsight.example/runbooks/\n" in named.out
    config.write_text(demo + '\n[server]\npublic_url = "tailsight.example"\n')
    wrong = tailsight("dashboards", "alerts", EXAMPLE, "--config", str(config))
    assert wrong.code != 0
    assert "server.public_url: must be an http or https URL" in wrong.err
    missing = tailsight("dashboards", "alerts", "--data", str(tmp_path / "nothing"))
    assert missing.code == 2
    assert "no objectives are in force" in missing.err
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("package", ["grafana_client", "grafana_foundation_sdk"])
def test_a_missing_extra_is_named(tailsight: Tailsight, tmp_path: Path, package: str) -> None:
    (tmp_path / f"{package}.py").write_text(f"raise ModuleNotFoundError('gone', name={package!r})\n")
    path = os.pathsep.join([str(tmp_path), str(ROOT), str(ROOT / "collector/probe/src")])
    where = {"PYTHONPATH": path, "GRAFANA_URL": "http://127.0.0.1:1", "GRAFANA_TOKEN": TOKEN}
    done = tailsight("dashboards", "push", "--data", str(tmp_path / "none"), **where)
    assert done.code == 2
    assert f"needs {package}, which is not installed" in done.err
    assert "tailsight[grafana]" in done.err


def test_a_push_a_second_push_and_a_diff(tailsight: Tailsight, tmp_path: Path) -> None:
    pytest.importorskip("grafana_client", reason=NEEDS)
    with serving(Recording()) as held:
        grafana = {"GRAFANA_URL": held.url, "GRAFANA_TOKEN": TOKEN, "TAILSIGHT_SQL_TOKEN": "secret"}
        options = ("--objectives", EXAMPLE, "--server", "http://127.0.0.1:8472", "--data", str(tmp_path))
        before = tailsight("dashboards", "diff", *options, "--json", **grafana)
        assert before.code == 1
        assert before.json["grafana"] == "13.0.1"
        assert tailsight("dashboards", "push", *options, "--dry-run", **grafana).code == 0
        assert held.writes() == []
        done = tailsight("dashboards", "push", *options, "--json", **grafana)
        assert (done.code, done.json["pushed"]) == (0, len(before.json["changes"]))
        assert done.json["pushed"] == 1 + 1 + 12 + 3
        held.asked.clear()
        again = tailsight("dashboards", "push", *options, **grafana)
        assert again.code == 0
        assert "nothing to change, 17 are as they should be" in again.out
        assert held.writes() == []
        assert tailsight("dashboards", "diff", *options, **grafana).code == 0
        held.dashboards["tailsight-path"]["meta"]["provisioned"] = True
        held.dashboards["tailsight-path"]["dashboard"]["title"] = "Theirs"
        blocked = tailsight("dashboards", "push", *options, **grafana)
        assert blocked.code == 1
        assert "1 are provisioned from files and were left alone" in blocked.out
        out = tailsight("dashboards", "export", "--out", str(tmp_path / "out"), "--json", **grafana)
        assert (out.code, len(out.json["written"])) == (0, 15)


def test_what_cannot_be_is_said_with_its_exit_code(tailsight: Tailsight, tmp_path: Path) -> None:
    pytest.importorskip("grafana_client", reason=NEEDS)
    data = ("--data", str(tmp_path))

    def failed(code: int, *words: str, **environment: str) -> str:
        done = tailsight("dashboards", "diff", *words, *data, **environment)
        assert done.code == code, done.err
        assert TOKEN not in done.err + done.out
        return done.err

    with serving(Recording("11.2.0")) as held:
        there = {"GRAFANA_URL": held.url, "GRAFANA_TOKEN": TOKEN}
        assert "no Grafana is named" in failed(2, GRAFANA_TOKEN=TOKEN)
        assert "there is no token" in failed(2, GRAFANA_URL=held.url)
        assert "cannot be read" in failed(2, "--token-file", str(tmp_path / "none"), GRAFANA_URL=held.url)
        assert "11.6 or later" in failed(2, **there)
        held.version = "12.4.0"
        held.denied["GET /api/folders/.*"] = "folders:read"
        assert "folders:read" in failed(2, **there)
        held.denied.clear()
        assert "does not know the token" in failed(2, GRAFANA_URL=held.url, GRAFANA_TOKEN="glsa_wrong")  # noqa: S106
        assert "is none of" in failed(2, "--only", "boards", **there)
        assert "--folder must be" in failed(2, "--folder", "a b", **there)
        assert "needs --server" in failed(2, "--only", "source", **there)
    assert "cannot be reached" in failed(3, GRAFANA_URL="http://127.0.0.1:1", GRAFANA_TOKEN=TOKEN)
