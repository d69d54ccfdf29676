"""hash64.csv, made with the reference C library, holds in every language that names messages."""

from __future__ import annotations

import csv
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tailsight_probe.hashing import hash64 as probe_hash64
from tailsight_probe.hashing import xxh64_pure

from collector.keys import hash64, hash64_ints, xxh64_rows

with (Path(__file__).parent / "hash64.csv").open(encoding="utf-8", newline="") as file:
    VECTORS = [(row["space"], row["kind"], row["id"], int(row["hash"])) for row in csv.DictReader(file)]


def identifier(kind: str, text: str) -> int | bytes | str:
    return int(text) if kind == "int" else bytes.fromhex(text) if kind == "hex" else text


def id_bytes(kind: str, text: str) -> bytes:
    found = identifier(kind, text)
    if isinstance(found, int):
        return found.to_bytes(8, "little")
    return found.encode() if isinstance(found, str) else found


def test_there_are_vectors_of_every_kind() -> None:
    assert {kind for _, kind, _, _ in VECTORS} == {"int", "text", "hex"}
    assert len(VECTORS) > 50


@pytest.mark.parametrize(("space", "kind", "text", "expected"), VECTORS)
def test_python(space: str, kind: str, text: str, expected: int) -> None:
    assert hash64(space, identifier(kind, text)) == expected
    assert probe_hash64(space, identifier(kind, text)) == expected
    assert xxh64_pure(space.encode() + b"\0" + id_bytes(kind, text)) == expected


def test_numpy() -> None:
    for space in {space for space, kind, _, _ in VECTORS if kind == "int"}:
        rows = [(int(text), value) for s, kind, text, value in VECTORS if s == space and kind == "int"]
        ids, expected = np.array(rows, dtype=np.uint64).T
        assert np.array_equal(hash64_ints(space, ids), expected)
        many = np.tile(ids, 4_000)  # more than one chunk
        assert np.array_equal(hash64_ints(space, many), np.tile(expected, 4_000))


def test_sql() -> None:
    """In a process of its own: the engine keeps threads, and other tests fork."""
    if importlib.util.find_spec("chdb") is None:
        pytest.skip("chdb is not installed (pip install tailsight[server])")
    texts = [
        f"xxHash64(concat('{space}', '\\0', "
        + (f"reinterpretAsFixedString(toUInt64({text}))" if kind == "int" else f"unhex('{id_bytes(kind, text).hex()}')")
        + "))"
        for space, kind, text, _ in VECTORS
    ]
    script = "import sys, chdb; sys.stdout.write(str(chdb.query(sys.stdin.read(), 'CSV')))"
    done = subprocess.run(
        [sys.executable, "-c", script], input="SELECT " + ", ".join(texts), capture_output=True, text=True, check=True
    )
    assert [int(value) for value in done.stdout.strip().split(",")] == [value for *_, value in VECTORS]


@given(data=st.binary(max_size=120))
@settings(max_examples=50)
def test_the_three_implementations_agree_on_any_bytes(data: bytes) -> None:
    row = np.frombuffer(data, dtype=np.uint8).reshape(1, -1)
    assert xxh64_pure(data) == int(xxh64_rows(row)[0])
    assert hash64("s", data) == xxh64_pure(b"s\0" + data)


@pytest.mark.parametrize("bad", [-1, 2**64])
def test_integers_beyond_64_bits_are_refused(bad: int) -> None:
    with pytest.raises(ValueError, match="pass its bytes"):
        hash64("order", bad)


def test_a_key_space_with_a_nul_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        hash64("or\0der", 1)
