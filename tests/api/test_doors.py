from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from api.auth import Tokens
from api.control import Control
from tests.api.live import Live, running

SCOPES = ("agent", "read", "operate", "executive")
ROLES = ("nobody", "forged", "revoked", "expired", *SCOPES)
# Rates far out of the way: the matrix refuses on purpose.
TOML = '[server]\nrequire_token = "always"\nrefused_rate = "100000/minute"\nquery_rate = "100000/minute"\n'


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    data = tmp_path_factory.mktemp("doors")
    with running(data, TOML) as live:
        yield live


@pytest.fixture(scope="module")
def tokens(live: Live) -> dict[str, str]:
    """A token per role, made as the command line would: in the control state, beside the running server."""
    control = Control(live.data / "control.sqlite")
    made = Tokens(control)
    found = {scope: made.create(scope, [scope])[1] for scope in SCOPES}
    row, found["revoked"] = made.create("revoked", list(SCOPES))
    made.revoke(row.id)
    _, found["expired"] = made.create("expired", list(SCOPES), time.time_ns() + 1_000_000_000)
    found["forged"] = found["read"][:-3] + "aaa"
    time.sleep(1.01)
    control.close()
    return found


@pytest.fixture(scope="module")
def description(live: Live, tokens: dict[str, str]) -> dict[str, Any]:
    return httpx.get(f"{live.url}/openapi.json", headers={"Authorization": f"Bearer {tokens['read']}"}).json()


def operations(description: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(m.upper(), p, o) for p, ms in description["paths"].items() for m, o in ms.items()]


def test_the_description_covers_the_product(description: dict[str, Any]) -> None:
    assert {
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.json",
        "/v1/ingest",
        "/v1/ingest/heartbeat",
        "/v1/changes",
        "/v1/stream",
        "/v1/tokens",
    } <= set(description["paths"])


def test_every_role_meets_every_route(live: Live, tokens: dict[str, str], description: dict[str, Any]) -> None:
    seen = 0
    with live.client() as client:
        for method, path, operation in operations(description):
            needs = operation["x-tailsight-scope"]
            filled = re.sub(r"\{[^}]*\}", "0", path)
            for role in ROLES:
                headers = {"Authorization": f"Bearer {tokens[role]}"} if role in tokens else {}
                # An unknown parameter: who is let in gets a 422 from the door and nothing is done.
                with client.stream(method, filled, params={"no_such": "1"}, headers=headers) as answer:
                    answer.read()
                status = answer.status_code
                where = f"{role} {method} {path}: {status}"
                if needs == "public" or role == needs or (role, needs) == ("read", "executive"):
                    assert status == 422, where
                elif role in SCOPES:
                    assert status == 403, where
                    assert f"scope {needs}" in answer.json()["detail"], where
                else:
                    assert status == 401, where
                seen += 1
    assert seen >= 10 * len(ROLES)


def test_a_token_is_needed_before_the_body_is_looked_at(live: Live) -> None:
    with live.client() as client:
        assert client.post("/v1/changes", content=b"{broken").status_code == 401
        assert client.post("/v1/tokens", json={}).status_code == 401


def test_revoking_closes_at_once(live: Live, tokens: dict[str, str]) -> None:
    operate = {"Authorization": f"Bearer {tokens['operate']}"}
    with live.client() as client:
        made = client.post("/v1/tokens", headers=operate, json={"name": "ci", "scopes": ["operate"]}).json()
        mine = {"Authorization": f"Bearer {made['token']}"}
        assert client.get("/v1/tokens", headers=mine).status_code == 200
        assert client.delete(f"/v1/tokens/{made['id']}", headers=operate).status_code == 204
        assert client.get("/v1/tokens", headers=mine).status_code == 401
        assert client.delete("/v1/tokens/nothere", headers=operate).status_code == 404
        listed = client.get("/v1/tokens", headers=operate).json()["tokens"]
        row = next(t for t in listed if t["id"] == made["id"])
        assert row["revoked_ns"] is not None
        assert "token" not in row


def test_a_token_cannot_hand_out_more_than_it_has(live: Live, tokens: dict[str, str]) -> None:
    operate = {"Authorization": f"Bearer {tokens['operate']}"}
    with live.client() as client:
        answer = client.post("/v1/tokens", headers=operate, json={"name": "x", "scopes": ["read"]})
        assert answer.status_code == 403
        for bad in ({"name": "x", "scopes": ["root"]}, {"name": "", "scopes": ["operate"]}, {"scopes": ["operate"]}):
            assert client.post("/v1/tokens", headers=operate, json=bad).status_code == 422
        past = {"name": "x", "scopes": ["operate"], "expires": "2020-01-01T00:00:00Z"}
        assert "expires" in client.post("/v1/tokens", headers=operate, json=past).json()["detail"]


def test_no_secret_is_in_the_log_the_audit_or_the_metrics(live: Live, tokens: dict[str, str]) -> None:
    with live.client() as client:
        planted = f"/v1/{tokens['agent']}"
        client.get(planted, headers={"Authorization": f"Bearer {tokens['read']}"})
        client.get("/v1/changes", headers={"Authorization": tokens["operate"]})
        metrics = client.get("/metrics", headers={"Authorization": f"Bearer {tokens['read']}"}).text
    control = Control(live.data / "control.sqlite")
    staged = str([tuple(row) for row in control.rows("SELECT * FROM audit_staging")])
    control.close()
    text = (live.data / "server.log").read_text() + metrics + staged
    for token in tokens.values():
        assert token.split("_", 2)[2] not in text


def test_refusals_are_audited_up_to_a_rate(tmp_path_factory: pytest.TempPathFactory) -> None:
    data = tmp_path_factory.mktemp("refusals")
    toml = '[server]\nrequire_token = "always"\nrefused_rate = "5/minute"\n'
    with running(data, toml) as live, live.client() as client:
        statuses = [client.get("/v1/tokens").status_code for _ in range(20)]
        assert statuses.count(401) == 5
        assert statuses.count(429) == 15
    control = Control(data / "control.sqlite")
    head = control.rows("SELECT leaves FROM audit_head")[0]["leaves"]
    control.close()
    assert head == 5 + 3  # start, configuration, stop


@pytest.mark.parametrize(
    ("method", "path", "body", "named"),
    [
        ("GET", "/v1/changes?form=csv", None, "form"),
        ("GET", "/v1/changes?from=yesterday", None, "from"),
        ("GET", "/v1/changes?from=2026-11-20T10:00:00Z&to=2026-11-20T09:00:00Z", None, "from"),
        ("GET", "/v1/changes?limit=0", None, "limit"),
        ("GET", "/v1/changes?limit=ten", None, "limit"),
        ("GET", "/v1/changes?limit=1&limit=2", None, "limit"),
        ("GET", "/v1/changes?cursor=zzz", None, "cursor"),
        ("GET", "/v1/changes?kind=party", None, "kind"),
        ("GET", "/v1/changes?format=xml", None, "format"),
        ("GET", "/v1/stream?kinds=window,noise", None, "kinds"),
        ("GET", "/v1/stream?path=nothere", None, "path"),
        ("GET", "/v1/stream?after=-1", None, "after"),
        ("POST", "/v1/changes", {"kind": "deploy"}, "what"),
        ("POST", "/v1/changes", {"kind": "deploy", "what": "x", "whoo": "y"}, "whoo"),
        ("POST", "/v1/changes", {"kind": "deploy", "what": "x", "when": "soon"}, "when"),
        ("POST", "/v1/changes", {"kind": "deploy", "what": "x", "url": "javascript:alert(1)"}, "url"),
        ("POST", "/v1/ingest/heartbeat", [{"collector": "x"}], "0].collector"),
    ],
)
def test_every_wrong_parameter_is_named(
    live: Live, tokens: dict[str, str], method: str, path: str, body: Any, named: str
) -> None:
    role = "agent" if "ingest" in path else "operate" if method == "POST" else "read"
    with live.client() as client:
        answer = client.request(method, path, json=body, headers={"Authorization": f"Bearer {tokens[role]}"})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == 422
    assert [e["name"] for e in problem["errors"]] == [named]
    assert len(problem["id"]) == 16


def test_errors_tell_nothing_of_the_inside(live: Live, tokens: dict[str, str]) -> None:
    headers = {"Authorization": f"Bearer {tokens['read']}"}
    hostile = ["'", "\\", "\x00", "';DROP TABLE changes;--", "{x:String}", "%s", "\U0001f600", "a" * 200]
    with live.client() as client:
        for text in hostile:
            answer = client.get("/v1/changes", params={"service": text}, headers=headers)
            assert answer.status_code == 200, text
            assert answer.json()["changes"] == []
        for path in ("/v1/nothing", "/v1/changes/x", f"/v1/{uuid.uuid4()}", "/../etc/passwd"):
            answer = client.get(path, headers=headers)
            assert answer.status_code == 404
            assert not re.search(r"SELECT|/home|/root|Traceback|\.py", answer.text)
        assert client.put("/v1/changes", headers=headers).status_code == 405


def test_answers_carry_safe_headers_and_no_cors(live: Live) -> None:
    with live.client() as client:
        answer = client.get("/healthz", headers={"Origin": "https://evil.example"})
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in answer.headers
    assert re.fullmatch("[0-9a-f]{16}", answer.headers["tailsight-request"])
