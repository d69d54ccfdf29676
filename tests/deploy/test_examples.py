"""The examples are what the product takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from api.demo.programs import configuration

ROOT = Path(__file__).resolve().parents[2]


def test_the_objectives_of_the_order_path_are_valid(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable, "-m", "api.cli", "--json", "--data", str(tmp_path), "--config", str(configuration()),
            "slo", "validate", "deploy/examples/order-path.slo.yaml",
        ],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    answer = json.loads(done.stdout)
    assert len(answer["objectives"]) == 3
    assert [problem for problem in answer["problems"] if problem["severity"] == "error"] == []
