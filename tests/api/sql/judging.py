"""The real driver of Grafana's ClickHouse data source (clickhouse-go), built once and asked with statements."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parent / "judge"


@cache
def built() -> Path:
    """The judge's program. Skips without Go 1.26 or the module proxy; in CI that is a failure."""
    go = shutil.which("go") or ("/usr/local/go/bin/go" if Path("/usr/local/go/bin/go").exists() else None)
    if go is None:
        pytest.skip("needs Go 1.26 or later (go.dev): it builds the driver of Grafana's data source")
    program = Path(tempfile.mkdtemp(prefix="judge")) / "judge"
    environment = {**os.environ, "GOFLAGS": "-mod=readonly", "CGO_ENABLED": "0"}
    done = subprocess.run(
        [go, "build", "-o", str(program), "."], cwd=FOLDER, capture_output=True, text=True, env=environment
    )
    if done.returncode:
        pytest.fail(f"the judge cannot be built: {done.stderr[-2000:]}")
    return program


def judged(address: str, statements: Sequence[str], password: str = "") -> list[dict[str, Any]]:
    """The driver's answers: first that to its ping, then one per statement, with columns, types, rows, error."""
    done = subprocess.run(
        [str(built()), address, password],
        input="".join(json.dumps({"sql": sql}) + "\n" for sql in statements),
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]
