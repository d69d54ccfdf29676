"""Both writers, the compiled one built from source, and readers of what they wrote."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tailsight_probe
from tailsight_probe import Probe

from collector.clock import ClockReading
from collector.sources.probe import ProbeSource
from collector.sources.ring import SLOT, RingReader

SOURCE = Path(__file__).parents[2] / "collector" / "probe"
NO_OFFSET = ClockReading(0, 0, 0, 0, None, "test")


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as an installation has it, compiled core included."""
    if not (shutil.which("cc") or shutil.which("gcc")):
        pytest.skip("no C compiler: the compiled core cannot be built (apt install gcc python3-dev)")
    work = tmp_path_factory.mktemp("probe-build")
    shutil.copytree(SOURCE, work / "source")
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build", "--build-lib", str(work / "lib")],
        cwd=work / "source",
        capture_output=True,
        text=True,
        check=False,
    )
    if not list((work / "lib" / "tailsight_probe").glob("_core*.so")):
        pytest.fail(f"the compiled core did not build:\n{done.stdout}\n{done.stderr}")
    return work / "lib"


@pytest.fixture(scope="session")
def core(built: Path) -> Any:
    """The compiled core as a module of the package under test."""
    (path,) = (built / "tailsight_probe").glob("_core*.so")
    spec = importlib.util.spec_from_file_location("tailsight_probe._core", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules["tailsight_probe._core"] = module
    tailsight_probe._core = module  # type: ignore[attr-defined]
    return module


@pytest.fixture(params=["python", "c"])
def implementation(request: pytest.FixtureRequest) -> str:
    if request.param == "c":
        request.getfixturevalue("core")
    return str(request.param)


@pytest.fixture
def rings(tmp_path: Path) -> Path:
    return tmp_path / "rings"


@pytest.fixture
def make_probe(implementation: str, rings: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Probe]]:
    monkeypatch.delenv("TAILSIGHT_PROBE", raising=False)
    made = []

    def make(**settings: Any) -> Probe:
        settings = {"service": "engine", "ring_dir": rings, "capacity": 1024, **settings}
        probe = Probe(compiled=implementation == "c", **settings)
        assert probe.implementation == implementation
        made.append(probe)
        return probe

    yield make
    for probe in made:
        probe.unwatch_gc()
        probe.switch(False)


@pytest.fixture
def run_program(implementation: str, rings: Path, request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Start a real program with the probe; `script` is its text. Returns the Popen."""

    def run(script: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        path = str(request.getfixturevalue("built")) if implementation == "c" else str(SOURCE / "src")
        env = {**os.environ, "PYTHONPATH": path, "TAILSIGHT_PROBE_DIR": str(rings), "TAILSIGHT_SERVICE": "engine"}
        env |= {"TAILSIGHT_PROBE_PURE": "1"} if implementation == "python" else {}
        process = subprocess.Popen(
            [sys.executable, "-c", script, *arguments],
            env={**env, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        request.addfinalizer(process.kill)
        return process

    return run


class Reading:
    """Everything a source delivered and lost."""

    def __init__(self) -> None:
        self.stamps: list[dict[str, Any]] = []
        self.links: list[dict[str, Any]] = []
        self.intervals: list[dict[str, Any]] = []
        self.label_sets: dict[int, str] = {}
        self.drops: dict[str, int] = {}
        self.positions: dict[str, int] = {}

    def add(self, source: ProbeSource, clock: ClockReading = NO_OFFSET) -> int:
        poll = source.poll(clock)
        n = 0
        for columns in poll.columns:
            columns.check()
            n += len(columns)
            names = [c.name for c in columns.table.columns]
            lists = []
            for name in names:
                values = columns.text(name) if name in columns.texts else columns.values[name].tolist()
                if name in columns.nulls:
                    values = [None if null else v for v, null in zip(values, columns.nulls[name], strict=True)]
                lists.append(values)
            rows = [dict(zip(names, row, strict=True)) for row in zip(*lists, strict=True)]
            if columns.table.name == "label_sets":
                self.label_sets |= {row["label_set"]: row["labels"] for row in rows}
            else:
                getattr(self, columns.table.name).extend(rows)
        for reason, count in poll.drops.items():
            self.drops[reason.value] = self.drops.get(reason.value, 0) + count
        self.positions |= poll.positions
        return n


@pytest.fixture
def read_all(rings: Path) -> Callable[[], Reading]:
    def read() -> Reading:
        source = ProbeSource(rings, "h1")
        source.start({})
        reading = Reading()
        while reading.add(source):
            pass
        source.close()
        return reading

    return read


@pytest.fixture
def slots(rings: Path) -> Callable[[], np.ndarray[Any, Any]]:
    """The raw slots of all rings, in ring order, as they are in the files."""

    def read() -> np.ndarray[Any, Any]:
        parts = []
        for path in sorted(rings.glob("*.ring"), key=lambda p: int(p.name.split(".")[2])):
            RingReader(path).close()
            parts.append(np.frombuffer(path.read_bytes()[4096:], dtype=SLOT))
        return np.concatenate(parts)

    return read
