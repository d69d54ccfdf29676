"""`make grafana`'s script: what it says where nothing is there, and what it hands to the program that it starts."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

SCRIPT = Path(__file__).resolve().parents[2] / "deploy/grafana/run.sh"
STUB = """#!/bin/sh
env > "$RECORD"
echo "arguments: $*" >> "$RECORD"
"""


def _run(data: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    base = {"PATH": "/usr/bin:/bin", "HOME": os.environ.get("HOME", "/"), "DATA": str(data)}
    return subprocess.run([str(SCRIPT)], env=base | environment, capture_output=True, text=True, timeout=60)


def _stub(folder: Path, name: str) -> Path:
    program = folder / "bin" / name
    program.parent.mkdir()
    (folder / "conf").mkdir()
    program.write_text(STUB)
    program.chmod(0o755)
    return program


def test_without_any_grafana_it_says_what_to_do(tmp_path: Path) -> None:
    empty = tmp_path / "bin"
    empty.mkdir()
    for name in ("bash", "env", "dirname", "pwd", "cat"):
        (empty / name).symlink_to(f"/usr/bin/{name}")
    done = _run(tmp_path / "data", PATH=str(empty))
    assert done.returncode == 1
    assert "neither a Grafana nor a Docker" in done.stderr
    assert "tailsight dashboards push" in done.stderr
    wrong = _run(tmp_path / "data", GRAFANA="/nowhere/grafana")
    assert (wrong.returncode, "is no program" in wrong.stderr) == (1, True)


def test_nothing_is_fetched_unasked(tmp_path: Path) -> None:
    program = _stub(tmp_path, "grafana-server")
    record = tmp_path / "record"
    done = _run(tmp_path / "data", GRAFANA=str(program), RECORD=str(record))
    assert done.returncode == 1
    assert "GRAFANA_DOWNLOAD=1" in done.stderr
    assert not record.exists()
    assert _run(tmp_path / "data", GRAFANA=str(program), RECORD=str(record), GRAFANA_DOWNLOAD="1").returncode == 0
    assert "GF_PLUGINS_PREINSTALL_SYNC=grafana-clickhouse-datasource" in record.read_text()


@pytest.mark.parametrize("name", ["grafana-server", "grafana"])
def test_it_starts_the_program_with_the_server_that_runs(tmp_path: Path, name: str) -> None:
    program, data, record = _stub(tmp_path, name), tmp_path / "data", tmp_path / "record"
    (tmp_path / "plugins/grafana-clickhouse-datasource").mkdir(parents=True)
    data.mkdir()
    (data / "server.json").write_text(json.dumps({"pid": 1, "url": "http://127.0.0.1:18472", "started": "now"}))
    done = _run(
        data, GRAFANA=str(program), RECORD=str(record), GRAFANA_PLUGINS=str(tmp_path / "plugins"), GRAFANA_PORT="3456"
    )
    assert done.returncode == 0, done.stderr
    assert "http://127.0.0.1:3456/d/tailsight-overview" in done.stdout
    said = record.read_text()
    for line in ("GF_SERVER_HTTP_ADDR=127.0.0.1", "GF_PLUGINS_PREINSTALL_DISABLED=true", "GF_SERVER_HTTP_PORT=3456"):
        assert line in said
    assert f"arguments: {'' if name == 'grafana-server' else 'server '}--homepath {tmp_path}" in said
    work = data / "grafana/provisioning"
    source = yaml.safe_load((work / "datasources/tailsight.yaml").read_text())["datasources"][0]["jsonData"]
    assert (source["host"], source["port"]) == ("127.0.0.1", 18472)
    folder = yaml.safe_load((work / "dashboards/tailsight.yaml").read_text())["providers"][0]["options"]["path"]
    assert len(list(Path(folder).glob("tailsight-*.json"))) == 12
    assert (work / "alerting/tailsight.yaml").exists()
