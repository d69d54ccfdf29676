from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from api.server_settings import ServerSettings
from tests.api.live import ROOT, Live

GUIDE = (ROOT / "docs" / "rest.md").read_text()
# The examples that show an error; every other one must succeed.
REFUSED = (
    "stge=", "--data-binary", "/v1/ingest/batches/", "/v1/messages/order:17", "/v1/compare", "/v1/rollouts/",
    "/v1/velocity", "/v1/costs/modes",
)  # fmt: skip


def test_every_example_runs(plain_server: Live, tmp_path: Path) -> None:
    blocks = re.findall(r"```bash\n(.*?)```", GUIDE, re.DOTALL)
    assert len(blocks) >= 8
    for block in blocks:
        # -f makes curl fail on an error status.
        script = "\n".join(
            line if any(mark in line for mark in REFUSED) or "--data" in block else line.replace("curl -s", "curl -sSf")
            for line in block.splitlines()
        )
        result = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=tmp_path,
            env={**os.environ, "URL": plain_server.url, "PATH_NAME": "order"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert result.returncode == 0, f"{block}\n{result.stdout}\n{result.stderr}"
        if any(mark in block for mark in REFUSED[:3]):  # the message may or may not be there
            assert "urn:tailsight:problem:" in result.stdout
    assert (tmp_path / "latency.parquet").read_bytes()[:4] == b"PAR1"


@pytest.mark.parametrize("name", [f for f in ServerSettings.__struct_fields__ if f not in ("host", "port")])
def test_every_setting_is_documented(name: str) -> None:
    assert f"`{name}" in GUIDE or f" {name}" in GUIDE, name


def test_every_route_is_documented() -> None:
    from api.routes import ROUTERS

    for router in ROUTERS:
        for route in router.routes:
            path = re.sub(r"/\{.*", "/", route.path)  # type: ignore[attr-defined]
            assert path.rstrip("/") in GUIDE, path


def test_every_kind_of_problem_is_documented() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "api").glob("*.py"))
    sources += "".join(path.read_text() for path in (ROOT / "api" / "routes").glob("*.py"))
    kinds = set(re.findall(r'ProblemError\(\s*\d{3}, "([a-z-]+)"', sources))
    kinds |= set(re.findall(r'\d{3},\s*"([a-z]+(?:-[a-z]+)+)"', sources))
    for kind in kinds:
        assert f"`{kind}`" in GUIDE, kind
