"""The command line as a user has it: a process, its two streams and its exit code."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Tailsight = Callable[..., Done]


@pytest.fixture(scope="session")
def tailsight(tmp_path_factory: pytest.TempPathFactory) -> Tailsight:
    root = Path(__file__).resolve().parents[3]
    away = tmp_path_factory.mktemp("cwd")
    path = os.pathsep.join([str(root), str(root / "collector/probe/src")])

    def run(*arguments: str, **environment: str) -> Done:
        result = subprocess.run(
            [sys.executable, "-m", "api.cli", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=away,
            env={**os.environ, "PYTHONPATH": path, "TAILSIGHT_DATA": "", **environment},
        )
        return Done(result.returncode, result.stdout, result.stderr)

    return run
