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
        end = time.monotonic() + 60
        while time.monotonic() < end:
            found = client.get(f"/v1/reports/{report_id}", headers=tokens["read"])
            if found.status_code == 200:
                return report_id
            assert "report-being-made" in found.text, found.text
            time.sleep(0.2)
    raise AssertionError(found.text)


def listed(live: Live, headers: dict[str, str]) -> dict[str, Any]:
    answer = httpx.get(f"{live.url}/v1/reports", headers=headers)
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
        by_name = httpx.get(f"{live.url}/v1/reports/{report}?format={kind}", headers=tokens["executive"])
        by_accept = httpx.get(f"{live.url}/v1/reports/{report}", headers={**tokens["executive"], "Accept": media})
        assert by_name.status_code == by_accept.status_code == 200
        assert by_name.content == by_accept.content
        assert by_name.headers["content-type"].startswith(media)
        assert by_name.content.startswith(first)
        assert len(by_name.content) == row["bytes"][kind]
    browser = {**tokens["executive"], "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
    page = httpx.get(f"{live.url}/v1/reports/{report}", headers=browser)
    assert page.headers["content-type"].startswith("text/html")
    [policy] = page.headers.get_list("content-security-policy")
    assert "default-src 'none'" in policy
    assert "style-src 'sha256-" in policy
    assert "sandbox" in policy
    assert "no-store" in page.headers["cache-control"]


def test_an_executive_opens_nothing_else(live: Live, tokens: dict[str, dict[str, str]]) -> None:
    description = httpx.get(f"{live.url}/openapi.json", headers=tokens["read"]).json()
    tried = 0
    for place, methods in description["paths"].items():
        for method, operation in methods.items():
            if operation["x-tailsight-scope"] in ("public", "executive"):
                continue
            filled = place.replace("{", "").replace("}", "")
            answer = httpx.request(method, f"{live.url}{filled}", headers=tokens["executive"])
            # Refusals have a rate of their own: past it every answer is 429, which opens nothing either.
            assert answer.status_code in (401, 403, 429), (method, place, answer.status_code)
            tried += 1
    assert tried > 30


def test_only_those_who_may_make_one_can(live: Live, tokens: dict[str, dict[str, str]]) -> None:
    for scope in ("executive", "read", "agent"):
        answer = httpx.post(f"{live.url}/v1/reports", json={"period": "7d"}, headers=tokens[scope])
        assert answer.status_code in (403, 429)
    for body in ({"period": "soon"}, {"paths": ["nope"]}, {"kpi": "nope"}, {"formats": ["docx"]}, {"perod": "7d"}):
        answer = httpx.post(f"{live.url}/v1/reports", json=body, headers=tokens["operate"])
        assert answer.status_code == 422, body


def test_what_is_not_there_is_a_problem(live: Live, tokens: dict[str, dict[str, str]], report: str) -> None:
    for report_id in ("nope", "weekly.20261116T0000Z.168h", "..%2F..%2Fcontrol.sqlite"):
        answer = httpx.get(f"{live.url}/v1/reports/{report_id}", headers=tokens["read"])
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"
    answer = httpx.get(f"{live.url}/v1/reports/{report}", headers={**tokens["read"], "Accept": "image/png"})
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
