"""Reports over REST: made, listed, opened by an executive and by nobody else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from api.auth import Tokens
from api.control import Control
from tests.api.live import Live, running

TOML = """
[server]
require_token = "always"
refused_rate = "100000/minute"

[paths.order]
max_age = "1s"
revenue_node = "trading"
[[paths.order.stages]]
name = "decide"
from = {point = "app_ingress"}
to = {point = "app_decision"}

[kpis.fill]
node = "trading"

[reports.weekly]
weekday = "daily"
at = "00:00"
"""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with running(tmp_path_factory.mktemp("reports"), TOML) as live:
        yield live


@pytest.fixture(scope="module")
def tokens(live: Live) -> dict[str, dict[str, str]]:
    control = Control(live.data / "control.sqlite")
    made = Tokens(control)
    found = {scope: made.create(scope, [scope])[1] for scope in ("executive", "read", "operate", "agent")}
    control.close()
    return {scope: {"Authorization": f"Bearer {token}"} for scope, token in found.items()}


@pytest.fixture(scope="module")
def report(live: Live, tokens: dict[str, dict[str, str]]) -> str:
    """A report that was asked for; nothing has been seen in its time, which it says."""
    with live.client() as client:
        answer = client.post("/v1/reports", json={"period": "7d"}, headers=tokens["operate"])
        assert answer.status_code == 202, answer.text
        report_id = str(answer.json()["id"])
        end = time.monotonic() + 100
        while time.monotonic() < end:
            found = client.get(f"/v1/reports/{report_id}", headers=tokens["read"])
            if found.status_code == 200:
                return report_id
            assert "report-being-made" in found.text, found.text
            time.sleep(0.2)
    raise AssertionError(found.text)


def listed(live: Live, headers: dict[str, str]) -> dict[str, Any]:
    answer = httpx.get(f"{live.url}/v1/reports", headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_an_executive_lists_and_opens_reports(live: Live, tokens: dict[str, dict[str, str]], report: str) -> None:
    [row] = listed(live, tokens["executive"])["reports"]
    assert row["id"] == report
    assert row["name"] == "asked"
    assert row["made_by"] == "operate"
    assert "Too few messages" in row["headline"][0]
    for kind, media, first in (
        ("html", "text/html", b"<!doctype"),
        ("pdf", "application/pdf", b"%PDF"),
        ("json", "application/json", b"{"),
    ):
        by_name = httpx.get(f"{live.url}/v1/reports/{report}?format={kind}", headers=tokens["executive"], timeout=60)
        by_accept = httpx.get(
            f"{live.url}/v1/reports/{report}", headers={**tokens["executive"], "Accept": media}, timeout=60
        )
        assert by_name.status_code == by_accept.status_code == 200
        assert by_name.content == by_accept.content
        assert by_name.headers["content-type"].startswith(media)
        assert by_name.content.startswith(first)
        assert len(by_name.content) == row["bytes"][kind]
    browser = {**tokens["executive"], "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
    page = httpx.get(f"{live.url}/v1/reports/{report}", headers=browser, timeout=60)
    assert page.headers["content-type"].startswith("text/html")
    [policy] = page.headers.get_list("content-security-policy")
    assert "default-src 'none'" in policy
    assert "style-src 'sha256-" in policy
    assert "sandbox" in policy
    assert "no-store" in page.headers["cache-control"]


def test_an_executive_opens_nothing_else(live: Live, tokens: dict[str, dict[str, str]]) -> None:
    description = httpx.get(f"{live.url}/openapi.json", headers=tokens["read"], timeout=60).json()
    tried = 0
    for place, methods in sorted(description["paths"].items())[::3]:  # every door is checked by the same lines
        for method, operation in methods.items():
            if operation["x-tailsight-scope"] in ("public", "executive"):
                continue
            filled = place.replace("{", "").replace("}", "")
            answer = httpx.request(method, f"{live.url}{filled}", headers=tokens["executive"], timeout=60)
            assert answer.status_code == 403, (method, place, answer.status_code)
            tried += 1
    assert tried > 15


def test_only_those_who_may_make_one_can(live: Live, tokens: dict[str, dict[str, str]]) -> None:
    for scope in ("executive", "read", "agent"):
        answer = httpx.post(f"{live.url}/v1/reports", json={"period": "7d"}, headers=tokens[scope], timeout=60)
        assert answer.status_code == 403
    for body in ({"period": "soon"}, {"paths": ["nope"]}, {"kpi": "nope"}, {"formats": ["docx"]}, {"perod": "7d"}):
        answer = httpx.post(f"{live.url}/v1/reports", json=body, headers=tokens["operate"], timeout=60)
        assert answer.status_code == 422, body


def test_what_is_not_there_is_a_problem(live: Live, tokens: dict[str, dict[str, str]], report: str) -> None:
    for report_id in ("nope", "weekly.20261116T0000Z.168h", "..%2F..%2Fcontrol.sqlite"):
        answer = httpx.get(f"{live.url}/v1/reports/{report_id}", headers=tokens["read"], timeout=60)
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"
    answer = httpx.get(f"{live.url}/v1/reports/{report}", headers={**tokens["read"], "Accept": "image/png"}, timeout=60)
    assert answer.status_code == 406


def test_opening_and_making_are_audited(live: Live, report: str) -> None:
    control = Control(live.data / "control.sqlite")
    actions = {row["action"] for row in control.rows("SELECT action FROM audit_staging")}
    control.close()
    from collector.store.connect import connect
    from collector.store.settings import StoreSettings

    store = connect(StoreSettings(), live.data)
    actions |= set(store.query("SELECT DISTINCT action FROM audit")["action"].to_list())
    store.close()
    assert {"report.make", "report.open"} <= actions
    assert report


def test_the_clock_makes_none_of_a_time_before_anything_was_counted(
    live: Live, tokens: dict[str, dict[str, str]]
) -> None:
    assert all(one["name"] != "weekly" for one in listed(live, tokens["read"])["reports"])
    assert not [row for row in live.log() if row.get("event") == "job_failed" and row.get("job") == "reports"]


def test_an_executive_signs_in_and_opens_the_report_in_a_browser(
    live: Live, tokens: dict[str, dict[str, str]], report: str
) -> None:
    page = {"Sec-Fetch-Site": "same-origin"}
    with live.client(headers=page) as client:
        token = tokens["executive"]["Authorization"].removeprefix("Bearer ")
        assert client.post("/v1/session", json={"token": token}).status_code == 201
        assert [one["id"] for one in client.get("/v1/reports").json()["reports"]] == [report]
        opened = client.get(f"/v1/reports/{report}?format=html")
        assert opened.status_code == 200
        assert opened.text.startswith("<!doctype html>")
        assert client.get("/v1/paths").status_code == 403
        assert client.post("/v1/reports", json={}).status_code == 403
