"""`tailsight up` where every request needs a token: its own agent ships and its own view shows, with real processes."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.auth import Tokens
from api.control import Control
from api.up.passes import token_file
from tests.whole_path import Session

pytestmark = pytest.mark.timeout(150)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    session = Session(tmp_path)
    try:
        yield session
    finally:
        session.close()


def test_up_makes_its_own_tokens_and_shows_figures_once(session: Session) -> None:
    with (session.data / "tailsight.toml").open("a") as config:
        config.write('\n[server]\nrequire_token = "always"\n')
    session.start("--rate", "100", "--once")
    session.until(lambda: session.get("/readyz").status_code == 401, 60, "a door that asks for a token")
    assert session.process is not None
    assert session.process.wait(110) == 0, session.tail()
    text = session.log.read_text()
    lines = text.splitlines()
    assert lines[0].startswith("server started (pid ")
    assert any(line.startswith("ready after ") for line in lines)
    assert any(line.strip().startswith("http://127.0.0.1:") and "/openapi.json" in line for line in lines)
    assert any(line.strip().startswith("collected: ") and "probe" in line for line in lines)
    assert any(re.match(r" +\w+/end_to_end +n +\d.* p50 +\d", line) for line in lines), text
    assert any(line.startswith("Stopped after ") for line in lines)

    files = {file.name: file for file in (session.data / "tokens").iterdir()}
    assert set(files) == {"agent", "view"}
    assert {file.stat().st_mode & 0o777 for file in files.values()} == {0o600}
    _, listed = session.tailsight("token", "list")
    assert {(row["name"], tuple(row["scopes"])) for row in listed["tokens"]} == {
        ("tailsight up: agent", ("agent",)),
        ("tailsight up: view", ("read",)),
    }
    assert all(row["last_used_ns"] for row in listed["tokens"])
    assert files["agent"].read_text().strip() not in text
    code, verdict = session.tailsight("verify", "audit")
    assert (code, verdict["first_bad"]) == (0, None)


def test_a_kept_token_is_used_again_and_a_dead_one_replaced(tmp_path: Path) -> None:
    control = Control(tmp_path / "control.sqlite")
    try:
        file = token_file(control, tmp_path, "agent", "agent", "ada")
        first = file.read_text()
        assert token_file(control, tmp_path, "agent", "agent", "ada").read_text() == first
        tokens = Tokens(control)
        assert tokens.revoke(tokens.list()[0].id)
        second = token_file(control, tmp_path, "agent", "agent", "ada").read_text()
        assert second != first
        assert tokens.check(second.strip()).scopes == {"agent"}
        file.write_text("nonsense\n")
        assert tokens.check(token_file(control, tmp_path, "agent", "agent", "ada").read_text().strip())
        assert [row.name for row in tokens.list()] == ["tailsight up: agent"] * 3
    finally:
        control.close()
