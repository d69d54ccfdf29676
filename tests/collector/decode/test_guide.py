"""docs/decoders.md: its example is installed as a distribution, and decodes."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from collector.decode.protocol import Protocol
from collector.decode.registry import names
from tests.collector.feeds.captures import datagram, write
from tests.collector.packet.writing import START

ROOT = Path(__file__).resolve().parents[3]
GUIDE = (ROOT / "docs" / "decoders.md").read_text()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, target = tmp_path_factory.mktemp("our-ticks"), tmp_path_factory.mktemp("site")
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    (project,) = re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)
    (folder / "our_ticks.py").write_text(code)
    (folder / "pyproject.toml").write_text(project)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps", "--no-index"]
    done = subprocess.run(
        [*pip, "--no-build-isolation", "--target", str(target), str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return target


def run(installed: Path, *words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(map(str, (installed, ROOT, ROOT / "collector" / "probe" / "src")))
    return subprocess.run(
        [sys.executable, *words], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )


def ticks(number: int, count: int) -> bytes:
    body = struct.pack(">c8sQI", b"T", b"ALFA", 100, 5)
    blocks = (struct.pack(">H", len(body)) + body) * count
    return struct.pack(">IQQH", 7, number, START - 5000, count) + blocks


def test_the_example_is_a_decoder_once_it_is_installed(installed: Path, tmp_path: Path) -> None:
    packets = [(START + n, datagram(5000, ticks(n, 2))) for n in (1, 3, 7)]
    file = write(tmp_path / "a.pcap", packets)
    for name in ("ticks", "auto"):
        done = run(installed, "-m", "api.cli", "import", "pcap", str(file), "--decode", name, "--json")
        assert done.returncode == 1, done.stderr  # two numbers are missing
        (one,) = msgspec.json.decode(done.stdout)["decoded"]
        assert (one["protocol"], one["kinds"], one["lines"][0]["missing"]) == ("ticks", {"T Tick": 6}, 2)
        assert one["sessions"] == [{"session": "7", "first": 1, "next": 9, "messages": 6}]
        assert one["lines"][0]["delay_min_ns"] == 5001


def test_a_decoder_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tailsight.decoders]\nbroken = no_such_module:X\nodd = os:sep\n")
    for name, words in (("broken", "no_such_module"), ("odd", "must be a Protocol")):
        done = run(tmp_path, "-c", f"import collector.decode.registry as r; r.make({name!r})")
        assert "UnknownDecoderError" in done.stderr
        assert words in done.stderr
    guess = (
        "import numpy as n, collector.decode.registry as r; z = n.zeros(1, int); r.guess(n.zeros(9, 'u1'), z, z + 9)"
    )
    done = run(tmp_path, "-c", guess)
    assert done.returncode == 0, done.stderr  # a broken one does not stop the others
    assert "decoder left out" in done.stdout + done.stderr


def test_every_shipped_decoder_and_every_field_of_a_protocol_is_in_the_guide() -> None:
    for name in names():
        assert f"| `{name}` |" in GUIDE
    for name in Protocol.__slots__:
        assert f"`{name}`" in GUIDE or name == "name", name
