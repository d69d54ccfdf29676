from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tailsight_probe.hashing import xxh64_pure

VECTORS = Path(__file__).parents[1] / "collector" / "hash64.csv"


def test_the_compiled_core_keeps_the_vectors(core: Any) -> None:
    with VECTORS.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            text, kind = row["id"], row["kind"]
            data = int(text).to_bytes(8, "little") if kind == "int" else text.encode()
            data = bytes.fromhex(text) if kind == "hex" else data
            assert core.xxh64(row["space"].encode() + b"\0" + data) == int(row["hash"]), row


def test_the_compiled_core_hashes_as_python_does(core: Any) -> None:
    @given(data=st.binary(max_size=200))
    @settings(max_examples=50)
    def check(data: bytes) -> None:
        assert core.xxh64(data) == core.xxh64(memoryview(data)) == xxh64_pure(data)

    check()
