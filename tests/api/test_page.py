"""The page's files over HTTP, and the sessions of browsers: who may sign in, what a session opens and what not."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from api.auth import RefusedError, Tokens
from api.control import Control
from api.sessions import COOKIE, CSRF, MOST_PER_TOKEN, SECURE_COOKIE, Sessions
from tests.api.live import Live, running

TOML = """
[server]
require_token = "always"
refused_rate = "100000/minute"
query_rate = "100000/minute"
"""
HOUR_NS = 3600 * 10**9


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with running(tmp_path_factory.mktemp("sessions"), TOML) as live:
        yield live


@pytest.fixture(scope="module")
def tokens(live: Live) -> dict[str, str]:
    control = Control(live.data / "control.sqlite")
    made = {scope: Tokens(control).create(scope, [scope])[1] for scope in ("read", "operate", "agent", "sql")}
    control.close()
    return made


@contextlib.contextmanager
def sign_in(live: Live, token: str) -> Iterator[httpx.Client]:
    with live.client() as client:
        answer = client.post("/v1/session", json={"token": token})
        assert answer.status_code == 201, answer.text
        client.headers[CSRF] = answer.json()["csrf"]
        yield client


def test_the_page_is_open_says_its_policy_and_is_not_sent_twice(live: Live) -> None:
    with live.client() as client:
        page = client.get("/")
        assert page.status_code == 200
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.headers.get_list("content-security-policy") == [page.headers["content-security-policy"]]
        assert "script-src 'self'" in page.headers["content-security-policy"]
        assert page.headers["x-frame-options"] == "DENY"
        assert page.headers["cross-origin-opener-policy"] == "same-origin"
        for name, media in (("main.js", "text/javascript"), ("page.css", "text/css"), ("icon.svg", "image/svg+xml")):
            file = client.get(f"/page/{name}")
            assert file.headers["content-type"].startswith(media)
            assert file.headers["x-content-type-options"] == "nosniff"
            assert "default-src 'none'" in file.headers["content-security-policy"]
            again = client.get(f"/page/{name}", headers={"If-None-Match": f'"other", W/{file.headers["etag"]}'})
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["etag"] == file.headers["etag"]
        for name in ("nothing.js", "__init__.py", "index.html", "..%2f..%2fapi%2fauth.py", "%2e%2e/auth.py"):
            assert client.get(f"/page/{name}").status_code == 404, name


def test_runbooks_are_open_under_the_pages_policy(live: Live) -> None:
    with live.client() as client:
        index, one = client.get("/runbooks/"), client.get("/runbooks/cpu_hog")
        assert client.get("/v1/paths").status_code == 401
        for page, heading in ((index, "<h1"), (one, 'id="what-to-do"')):
            assert page.status_code == 200
            assert heading in page.text
            assert page.headers["content-type"] == "text/html; charset=utf-8"
            assert page.headers["content-security-policy"] == client.get("/").headers["content-security-policy"]
            assert page.headers["x-content-type-options"] == "nosniff"
        again = client.get("/runbooks/cpu_hog", headers={"If-None-Match": one.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        for name in ("nothing", "cpu_hog.md", "__init__.py", "..%2falerts", "%2e%2e/alerts", "<script>", "x" * 101):
            refused = client.get(f"/runbooks/{name}")
            assert refused.status_code in (404, 422), name
            assert refused.headers["content-type"].startswith("application/problem+json")


def test_who_has_no_session_is_told_that_one_is_needed_and_sees_nothing(live: Live) -> None:
    with live.client() as client:
        assert client.get("/v1/session").json() == {
            "needed": True, "open": False, "name": "", "scopes": [], "csrf": "",
        }  # fmt: skip
        assert client.get("/v1/paths").status_code == 401
        refused = client.post("/v1/session", json={"token": "ts_none_such"})
        assert refused.status_code == 401
        assert "set-cookie" not in refused.headers


def test_on_loopback_without_tokens_nothing_is_asked(plain_server: Live) -> None:
    with plain_server.client() as client:
        found = client.get("/v1/session").json()
        assert (found["needed"], found["open"]) == (False, True)
        assert client.get("/").status_code == 200
        proxied = client.get("/v1/session", headers={"X-Forwarded-For": "10.1.2.3"}).json()
        assert (proxied["needed"], proxied["open"]) == (True, False)


def test_a_session_opens_what_its_token_opens(live: Live, tokens: dict[str, str]) -> None:
    with sign_in(live, tokens["read"]) as client:
        assert client.get("/v1/paths").status_code == 200
        assert client.get("/v1/session").json()["scopes"] == ["read"]
        assert client.get("/v1/tokens").status_code == 403
        assert client.post("/v1/changes", json={"kind": "deploy", "what": "x"}).status_code == 403
    with sign_in(live, tokens["operate"]) as client:
        assert client.get("/v1/paths").status_code == 403
        assert client.post("/v1/changes", json={"kind": "deploy", "what": "x"}).status_code == 201


def test_programs_doors_take_no_session(live: Live, tokens: dict[str, str]) -> None:
    with sign_in(live, tokens["agent"]) as client:
        assert client.post("/v1/ingest/heartbeat", json=[]).status_code == 401
    with sign_in(live, tokens["sql"]) as client:
        assert client.post("/clickhouse", content=b"SELECT 1").status_code in (401, 403, 516)


def test_the_cookie_is_for_no_script_and_no_other_site(live: Live, tokens: dict[str, str]) -> None:
    with live.client() as client:
        plain = client.post("/v1/session", json={"token": tokens["read"]}).headers["set-cookie"]
        host = httpx.URL(live.url).netloc.decode()
        tls = client.post("/v1/session", json={"token": tokens["read"]}, headers={"Origin": f"https://{host}"})
    words = {word.strip().lower() for word in plain.split(";")}
    assert plain.startswith(f"{COOKIE}=")
    assert {"httponly", "samesite=strict", "path=/", "max-age=43200"} <= words
    assert "domain" not in plain.lower()
    assert tls.headers["set-cookie"].startswith(f"{SECURE_COOKIE}=")
    assert "secure" in {word.strip().lower() for word in tls.headers["set-cookie"].split(";")}
    assert tokens["read"].split("_", 2)[2] not in plain


@pytest.mark.parametrize(
    "foreign",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},  # another port of this host
    ],
)
def test_pages_of_others_get_nothing_by_a_session(live: Live, tokens: dict[str, str], foreign: dict[str, str]) -> None:
    with sign_in(live, tokens["operate"]) as client:
        assert client.get("/v1/tokens").status_code == 200
        refused = client.get("/v1/tokens", headers=foreign)
        assert refused.status_code == 403
        assert client.post("/v1/changes", json={"kind": "deploy", "what": "x"}, headers=foreign).status_code == 403
        assert client.post("/v1/session", json={"token": tokens["read"]}, headers=foreign).status_code == 403
        assert client.delete("/v1/session", headers=foreign).status_code == 403
        assert client.get("/v1/session", headers=foreign).json()["csrf"] == ""
        assert client.get("/v1/tokens", headers={"Sec-Fetch-Site": "none"}).status_code == 200


def test_what_changes_something_has_to_show_the_csrf_token(live: Live, tokens: dict[str, str]) -> None:
    change = {"kind": "deploy", "what": "x"}
    with sign_in(live, tokens["operate"]) as client:
        mine = client.headers.pop(CSRF)
        assert client.get("/v1/session").json()["csrf"] == mine
        for wrong in ({}, {CSRF: ""}, {CSRF: mine[:-1]}, {CSRF: "0" * 64}, {CSRF: "é"}):
            given = {name: value.encode() for name, value in wrong.items()}
            assert client.post("/v1/changes", json=change, headers=given).status_code == 403
        assert client.delete("/v1/session").status_code == 403
        assert client.post("/v1/changes", json=change, headers={CSRF: mine}).status_code == 201


def test_a_form_of_another_page_cannot_sign_in(live: Live, tokens: dict[str, str]) -> None:
    """A form can send text/plain without being asked first; a body is read as JSON only."""
    with live.client() as client:
        body = f'{{"token": "{tokens["read"]}"}}'
        answer = client.post("/v1/session", content=body, headers={"Content-Type": "text/plain"})
        assert answer.status_code in (415, 422)
        assert "set-cookie" not in answer.headers


def test_signing_out_and_revoking_end_a_session(live: Live, tokens: dict[str, str]) -> None:
    with sign_in(live, tokens["read"]) as client:
        kept = dict(client.cookies)
        assert client.delete("/v1/session").status_code == 204
        assert not dict(client.cookies)
        client.cookies.update(kept)
        assert client.get("/v1/paths").status_code == 401
    control = Control(live.data / "control.sqlite")
    row, token = Tokens(control).create("short", ["read"])
    with sign_in(live, token) as client:
        assert client.get("/v1/paths").status_code == 200
        Tokens(control).revoke(row.id)
        refused = client.get("/v1/paths")
        assert refused.status_code == 401
        assert "sign in again" in refused.json()["detail"]
    control.close()


def test_no_session_is_in_the_log_or_the_control_state(live: Live, tokens: dict[str, str]) -> None:
    with sign_in(live, tokens["read"]) as client:
        secret = client.cookies[COOKIE]
        client.get("/v1/paths")
        client.get("/v1/tokens")
    files = b"".join(path.read_bytes() for path in live.data.glob("control.sqlite*"))
    log = (live.data / "server.log").read_text()
    for hidden in (secret, tokens["read"].split("_", 2)[2]):
        assert hidden.encode() not in files
        assert hidden not in log


def test_sessions_end_with_their_time_with_the_token_and_by_number(control: Control) -> None:
    tokens = Tokens(control)
    row, token = tokens.create("t", ["read"])
    over = Sessions(control, tokens, 1).open(token)
    with pytest.raises(RefusedError, match="over"):
        Sessions(control, tokens, HOUR_NS).find(over.secret)
    _, soon = tokens.create("soon", ["read"], time.time_ns() + HOUR_NS // 2)
    assert Sessions(control, tokens, HOUR_NS).open(soon).expires_ns < time.time_ns() + HOUR_NS // 2
    sessions = Sessions(control, tokens, HOUR_NS)
    made = [sessions.open(token) for _ in range(MOST_PER_TOKEN + 2)]
    assert control.rows("SELECT count(*) AS n FROM sessions WHERE token_id = ?", (row.id,))[0]["n"] == MOST_PER_TOKEN
    assert sessions.find(made[-1].secret).token_id == row.id
    with pytest.raises(RefusedError):
        sessions.find(made[0].secret)
    with pytest.raises(RefusedError):
        sessions.find("\udcff")


def test_the_database_of_a_version_without_sessions_gets_the_table(tmp_path: Path) -> None:
    control = Control(tmp_path / "control.sqlite")
    with control.transaction() as db:
        db.execute("DROP TABLE sessions")
    control.close()
    again = Control(tmp_path / "control.sqlite")
    assert again.rows("SELECT * FROM sessions") == []
    again.close()
