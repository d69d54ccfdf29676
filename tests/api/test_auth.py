from __future__ import annotations

import hashlib
import sqlite3
import time
from pathlib import Path

import pytest
from starlette.datastructures import Headers

from api.auth import RefusedError, Tokens, from_this_machine
from api.control import Control, ControlError


def test_a_token_opens_its_scopes_and_only_its_hash_is_on_disk(control: Control) -> None:
    row, token = Tokens(control).create("agent-1", ["agent", "read"])
    principal = Tokens(control).check(token)
    assert (principal.name, principal.scopes, principal.token_id) == ("agent-1", {"agent", "read"}, row.id)
    files = b"".join(path.read_bytes() for path in control.path.parent.iterdir())
    assert token.split("_", 2)[2].encode() not in files
    assert hashlib.sha256(token.encode()).digest() in files


def test_tokens_are_256_random_bits_and_never_equal(control: Control) -> None:
    tokens = [Tokens(control).create("t", ["read"])[1] for _ in range(20)]
    assert len({t.split("_", 2)[2] for t in tokens}) == 20
    assert all(len(t.split("_", 2)[2]) == 43 for t in tokens)  # 32 bytes in base64 without padding


@pytest.mark.parametrize("forged", ["", "ts", "ts_", "ts__", "ts_x_y", "TS_a_b", "ts_" + "a" * 99 + "_b", "\udcff"])
def test_what_is_not_a_token_is_refused(control: Control, forged: str) -> None:
    Tokens(control).create("t", ["read"])
    with pytest.raises(RefusedError, match="not known"):
        Tokens(control).check(forged)


def test_the_right_id_with_a_wrong_secret_is_refused(control: Control) -> None:
    _, token = Tokens(control).create("t", ["read"])
    with pytest.raises(RefusedError, match="not known"):
        Tokens(control).check(token[:-1] + ("A" if token[-1] != "A" else "B"))


def test_revoked_and_expired_tokens_say_so(control: Control) -> None:
    tokens = Tokens(control)
    row, token = tokens.create("t", ["read"])
    held = tokens.check(token)
    assert tokens.still_valid(held)
    assert tokens.revoke(row.id)
    assert not tokens.still_valid(held)
    with pytest.raises(RefusedError, match="revoked"):
        tokens.check(token)
    first = tokens.list()[0].revoked_ns
    tokens.revoke(row.id)
    assert tokens.list()[0].revoked_ns == first
    assert not tokens.revoke("nothere")
    soon = time.time_ns() + 30_000_000
    _, short = tokens.create("t", ["read"], soon)
    while time.time_ns() <= soon:
        time.sleep(0.005)
    with pytest.raises(RefusedError, match="expired"):
        tokens.check(short)


def test_unknown_scopes_and_past_expiries_are_refused(control: Control) -> None:
    with pytest.raises(ValueError, match="root"):
        Tokens(control).create("t", ["read", "root"])
    with pytest.raises(ValueError, match="none"):
        Tokens(control).create("t", [])
    with pytest.raises(ValueError, match="past"):
        Tokens(control).create("t", ["read"], 1)


def test_last_use_survives_a_restart(control: Control) -> None:
    tokens = Tokens(control)
    _, token = tokens.create("t", ["read"])
    assert tokens.list()[0].last_used_ns is None
    tokens.check(token)
    tokens.write_last_used()
    again = Control(control.path)
    used = Tokens(again).list()[0].last_used_ns
    again.close()
    assert used is not None
    assert abs(used - time.time_ns()) < 60e9


@pytest.mark.parametrize(
    ("peer", "headers", "local"),
    [
        ("127.0.0.1", {"host": "127.0.0.1:8472"}, True),
        ("::1", {"host": "[::1]:8472"}, True),
        ("127.0.0.1", {"host": "localhost:8472", "origin": "http://localhost:8472"}, True),
        ("::ffff:127.0.0.1", {"host": "localhost"}, True),
        ("10.0.0.1", {"host": "localhost"}, False),
        ("127.0.0.1", {"host": "localhost", "x-forwarded-for": "127.0.0.1"}, False),
        ("127.0.0.1", {"host": "localhost", "forwarded": "for=127.0.0.1"}, False),
        ("127.0.0.1", {"host": "evil.example:8472"}, False),
        ("127.0.0.1", {"host": "127.0.0.1.evil.example"}, False),
        ("127.0.0.1", {"host": "localhost", "origin": "https://evil.example"}, False),
        ("127.0.0.1", {"host": "localhost", "origin": "null"}, False),
        ("127.0.0.1", {}, False),
        ("", {"host": "localhost"}, False),
    ],
)
def test_only_programs_on_this_machine_are_local(peer: str, headers: dict[str, str], local: bool) -> None:
    assert from_this_machine(peer, Headers(headers)) is local


def test_control_state_is_private_and_refuses_newer_and_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "control.sqlite"
    control = Control(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert control.rows("PRAGMA journal_mode")[0][0] == "wal"
    assert control.rows("PRAGMA synchronous")[0][0] == 2
    with pytest.raises(ZeroDivisionError), control.transaction() as db:
        db.execute("INSERT INTO jobs VALUES ('x', 1)")
        _ = 1 / 0
    assert control.rows("SELECT * FROM jobs") == []
    control.close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(ControlError, match="version 99"):
        Control(path)
    (tmp_path / "bad").write_bytes(b"not a database, " * 400)
    with pytest.raises(ControlError, match="cannot be read"):
        Control(tmp_path / "bad")
