"""The page in a real browser on a real server: from the overview to a message and its cause, and what goes wrong."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest

from analytics.slo.openslo_read import sources
from api.auth import Tokens
from api.control import Control
from api.slo_book import SloBook
from dashboards import terminal
from tests.api.frames_kit import Agent, stamp
from tests.api.live import Live, running
from tests.browser import Browser, chromium

TOML = """
[paths.order]
description = "tick to order"
max_age = "1s"

[[paths.order.stages]]
name = "decide"
class = "compute"
budget = "150us"
from = {point = "app_ingress", service = "engine"}
to = {point = "app_decision", service = "engine"}

[[paths.order.stages]]
name = "send"
class = "network"
budget = "50us"
from = {point = "app_decision", service = "engine"}
to = {point = "nic_rx", service = "venue"}

[paths.quiet]
max_age = "1s"
[[paths.quiet.stages]]
name = "never"
class = "compute"
from = {point = "app_transform", service = "nobody"}
to = {point = "app_decision", service = "nobody"}
"""
SLO = """
apiVersion: openslo/v1
kind: SLO
metadata: {name: order-latency, annotations: {tailsight.dev/runbook: docs/runbooks/cpu_hog.md}}
spec:
  description: Orders leave in time.
  service: trading
  indicator:
    metadata: {name: latency}
    spec:
      thresholdMetric:
        metricSource:
          type: tailsight
          spec: {latency: {path: order}}
  timeWindow: [{duration: 30d, isRolling: true}]
  budgetingMethod: Occurrences
  objectives: [{target: 0.99, op: lte, value: 1000000}]
"""
HOSTILE = '<img src=x onerror="window.hacked=1">\u202e\'"><script>window.hacked=1</script>'
MESSAGES, HALF, NS = 1_200, 20, 10**9
RNG = np.random.default_rng(7)
DECIDE = RNG.integers(60_000, 120_000, MESSAGES)
SEND = RNG.integers(10_000, 40_000, MESSAGES)
STEP = 2 * HALF * NS // MESSAGES
LATER = np.arange(MESSAGES) * STEP >= HALF * NS
SLOW = LATER & (RNG.random(MESSAGES) < 0.08)
DECIDE[SLOW] += 3_000_000
HEATMAP, LINES = "[data-key=heatmap]", "[data-key=percentiles]"


def when(ns: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ns // NS))


@cache
def start() -> int:
    """A minute and a half before the first test here, not before the whole suite: the page shows 15 minutes."""
    return (time.time_ns() // 10**10 - 9) * 10**10


def slow_half() -> str:
    return f"from={when(start() + HALF * NS)}&to={when(start() + 2 * HALF * NS)}"


def rows() -> list[dict[str, Any]]:
    found = []
    for n in range(MESSAGES):
        at = start() + n * STEP
        decided = at + int(DECIDE[n])
        found += [
            stamp(n, "app_ingress", at),
            stamp(n, "app_decision", decided),
            stamp(n, "nic_rx", decided + int(SEND[n]), service="venue", host=HOSTILE, thread=9),
            stamp(n, "acked", decided + 60_000_000),  # long after the path's end
        ]
    return found


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    data = tmp_path_factory.mktemp("page")
    control = Control(data / "control.sqlite")
    SloBook(control).apply(sources(SLO), "ann")
    control.close()
    with running(data, TOML) as live:
        agent = Agent()
        headers, body = agent.batch(rows())
        with live.client() as client:
            assert client.post("/v1/ingest", headers=headers, content=body).json()["stored"] == 4 * MESSAGES
            change = {"kind": "deploy", "what": HOSTILE, "who": HOSTILE, "when": when(start() + HALF * NS)}
            assert client.post("/v1/changes", json=change).status_code == 201
            end = time.monotonic() + 60
            while time.monotonic() < end:
                client.post("/v1/ingest/heartbeat", json=[agent.heartbeat()])
                found = client.get("/v1/latency", params={"path": "order", "stage": "end_to_end"}).json()["stages"]
                if found and found[0]["count"] == MESSAGES:
                    break
                time.sleep(0.2)
            else:
                raise AssertionError("the windows were not computed in time")
        yield live


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def browser(tab: Browser) -> Iterator[Browser]:
    tab.complaints()
    yield tab
    assert tab.complaints() == []


def at(browser: Browser) -> str:
    return str(browser.run("return location.hash"))


def test_from_the_overview_to_a_message_and_its_cause(browser: Browser, live: Live) -> None:
    browser.open(f"{live.url}/#/?{slow_half()}")
    browser.settled()
    overview = browser.text("main")
    assert "tick to order" not in overview  # its name is there, what it is stands on its own view
    for words in ("Objectives, worst first", "order-latency", "Where the mean goes", "There is no report yet"):
        assert words in overview
    assert "decide" in browser.role("[aria-labelledby] svg[role=img]")[1]

    browser.click("[data-key='path order']")  # picks a path
    browser.until(lambda: browser.text("h1") == "Path order", "the path")
    browser.settled()
    assert browser.run("return document.activeElement === document.querySelector('h1')")
    assert "tick to order" in browser.text("main")

    # Zooms in by keyboard on one picture, out by the button, in by pointer on the other.
    browser.run("document.querySelector(arguments[0]).focus()", HEATMAP)
    before = at(browser)
    browser.press("Left", "Left")
    value = browser.run("return document.querySelector(arguments[0]).getAttribute('aria-valuetext')", HEATMAP)
    assert "messages" in value
    browser.press("Right", held="Shift")
    assert "selected" in browser.run("return document.querySelector(arguments[0]).ariaValueText", HEATMAP)
    browser.press("Enter")
    browser.until(lambda: at(browser) != before, "the zoom")
    browser.settled()
    assert at(browser).count("Z") == 2
    assert browser.run("return document.activeElement.dataset.key") == "heatmap"
    browser.open(f"{live.url}/#/path/order?{slow_half()}")
    browser.settled()
    before = at(browser)
    browser.drag(LINES, 0.55, 0.95)
    browser.until(lambda: at(browser) != before, "the zoom by pointer")

    browser.open(f"{live.url}/#/path/order?{slow_half()}")
    browser.settled()
    key = browser.text("a[data-key^='message 0x']")
    browser.click("a[data-key^='message 0x']")  # opens the slowest message
    browser.until(lambda: browser.text("h1") == f"Message {key}", "the message")
    browser.settled()
    said = browser.text("main")
    assert "decide took" in said
    assert "times the median" in said
    assert "app_decision in engine" in said
    assert said.count("not on path order") == 1
    assert browser.text("[aria-label='Stamps in order of time'] tr.chosen").split()[2] == "app_decision"

    browser.click("[data-key=follow]")  # and follows to its cause
    browser.until(lambda: browser.text("h1") == "Path order", "the path again")
    browser.settled()
    assert "stage=decide" in at(browser)
    cause = browser.text("ol.causes")
    assert cause.startswith("decide")
    assert "of the added time" in cause


def test_text_of_others_is_inert(browser: Browser, live: Live) -> None:
    with live.client() as client:
        key = client.get("/v1/messages", params={"path": "order", "limit": "1"}).json()["messages"][0]["key"]
    for place, times in (
        ("path/order", 1),
        (f"message/{key}", 1),
        ("path/%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E", 0),
    ):
        browser.open(f"{live.url}/#/{place}")
        browser.settled()
        assert browser.text().count("<img src=x onerror=") >= times
        assert browser.run("return window.hacked") is None
        assert browser.all("main img, main script, main iframe") == []
    assert "there is no path" in browser.text("main")
    browser.complaints()  # the server's 422 for the path that is not there
    blocked = browser.run(
        "try { document.body.innerHTML = '<b>'; return 'taken'; } catch (error) { return error.name; }"
    )
    assert blocked == "TypeError"  # trusted types: the policy is in force
    browser.run(
        "const s = document.createElement('div'); s.setAttribute('style', 'color:red'); document.body.append(s)"
    )
    assert any("style-src" in one for one in browser.complaints())


def test_percentiles_are_refused_in_words_and_numbers_stand_behind_pictures(browser: Browser, live: Live) -> None:
    browser.open(f"{live.url}/#/path/order?{slow_half()}&stage=decide")
    browser.settled()
    said = browser.text("main")
    assert "needs 3,688" in said
    assert "p99.9 needs at least 3,688 samples" in said
    for key in ("heatmap table", "percentiles table"):
        browser.click(f"[data-key='{key} summary']")
        browser.until(lambda key=key: browser.all(f"[data-key='{key}'] tbody tr"), key)
    total = browser.run(
        "return [...document.querySelectorAll(\"[data-key='heatmap table'] tbody tr\")]"
        ".map(r => Number(r.cells[1].innerText.replaceAll(',', ''))).reduce((a, b) => a + b, 0)"
    )
    assert total == int(LATER.sum())
    browser.click("[data-key=refresh]")  # what was opened stays open
    browser.until(lambda: not browser.all("[aria-busy=true]"), "the refresh", 60)
    assert len(browser.all("details[open][data-key='heatmap table']")) == 1


def test_numbers_are_written_as_in_the_terminal(browser: Browser, live: Live) -> None:
    browser.open(f"{live.url}/#/reports")
    values = [0, 7, 999, 1_000, 12_345, 999_499, 1_050_000, 12_300_000, 100_000_000, 4_200_000_000, -3_500_000]
    shares = [None, 0, 0.5, 0.99995, 0.9999999, 1]
    made = "return import('/page/units.js').then(u => [arguments[0].map(u.duration), arguments[1].map(u.share)])"
    page = browser.run(f"const given = arguments; {made.replace('arguments', 'given')}", values, shares)
    assert page == [[terminal.duration(v).replace("us", "µs") for v in values], [terminal.share(v) for v in shares]]
    never_whole = "return import('/page/units.js').then(u => [0.9996, 0.99999, 1, 0.0001, 0].map(u.percent))"
    assert browser.run(never_whole) == ["> 99.9 %", "> 99.9 %", "100 %", "< 0.1 %", "0 %"]


def test_an_objective_has_its_rules_and_its_burn(browser: Browser, live: Live) -> None:
    browser.open(f"{live.url}/#/?from=-15m")
    browser.settled()
    browser.click("[data-key='objective order-latency']")
    browser.until(lambda: browser.text("h1") == "Objective order-latency", "the objective")
    browser.settled()
    said = browser.text("main")
    assert "Orders leave in time." in said
    assert "Burn against its limit" in said
    assert browser.all("[data-key=burn]") or "No events in this time" in said
    browser.click("[data-key=runbook]")
    browser.until(lambda: browser.all("main.text h1"), "the runbook")
    assert browser.run("return location.pathname") == "/runbooks/cpu_hog"
    assert "What to do" in browser.text("main")
    assert browser.run("return getComputedStyle(document.querySelector('pre')).overflowX") == "auto"  # styled
    browser.click("main a[href='link']")
    browser.until(lambda: browser.run("return location.pathname") == "/runbooks/link", "the next runbook")
    assert browser.complaints() == []


def test_a_time_without_data_says_so(browser: Browser, live: Live) -> None:
    empty = "from=2026-01-01T00:00:00Z&to=2026-01-01T00:10:00Z"
    browser.open(f"{live.url}/#/?{empty}")
    browser.settled()
    said = browser.text("main")
    for words in ("No message of any path in this time", "No messages in this time", "No change is recorded"):
        assert words in said
    browser.open(f"{live.url}/#/path/quiet")
    browser.settled()
    assert "No message of this path in this time" in browser.text("main")
    assert not browser.all("main .loading")


def test_it_can_be_used_by_keyboard_and_heard(browser: Browser, live: Live) -> None:
    browser.open(f"{live.url}/#/path/order?{slow_half()}")
    browser.settled()
    browser.press("Tab")
    assert browser.run("return document.activeElement.id") == "skip"
    browser.press("Enter")
    assert browser.run("return document.activeElement.id") == "main"
    assert at(browser).startswith("#/path/order")
    roles = [browser.role(css)[0] for css in ("header", "nav", "main", ".panel", HEATMAP, "#announce")]
    assert roles == ["banner", "navigation", "main", "region", "slider", "status"]
    assert browser.role(HEATMAP) == ("slider", "Heatmap of end_to_end")
    nameless = browser.run(
        "return [...document.querySelectorAll('button, input, select')].filter(e => !e.labels?.length && "
        "!e.ariaLabel && !e.textContent.trim()).map(e => e.outerHTML)"
    )
    assert nameless == []
    pictures = (
        "return [...document.querySelectorAll('svg')].filter(e => e.ariaHidden !== 'true' && !e.ariaLabel).length"
    )
    assert browser.run(pictures) == 0
    levels = browser.run("return [...document.querySelectorAll('h1, h2, h3')].map(e => Number(e.tagName[1]))")
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    ids = browser.run("return [...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    seen = []
    for _ in range(60):
        browser.press("Tab")
        seen.append(browser.run("const a = document.activeElement; return a.dataset.key ?? a.id ?? a.tagName"))
    assert "stage decide" in seen
    assert seen.index("stage") < seen.index("heatmap") < seen.index("percentiles")


def test_colours_and_narrow_screens(browser: Browser, live: Live) -> None:
    ground = "return getComputedStyle(document.body).backgroundColor"
    try:
        for scheme, colour in (("light", "rgb(245, 246, 248)"), ("dark", "rgb(18, 21, 26)")):
            browser.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            browser.open(f"{live.url}/#/?{slow_half()}")
            browser.settled()
            assert browser.run(ground) == colour
        browser.click("[data-key=theme]")  # from the system's to light
        assert browser.run(ground) == "rgb(245, 246, 248)"
        browser.open(f"{live.url}/#/reports")
        browser.settled()
        assert browser.run(ground) == "rgb(245, 246, 248)"
        browser.run("localStorage.clear()")
        browser.cdp("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=True)
        for place in ("", "path/order"):
            browser.open(f"{live.url}/#/{place}?{slow_half()}")
            browser.settled()
            assert browser.run("return document.documentElement.scrollWidth") <= 390
    finally:
        browser.cdp("Emulation.clearDeviceMetricsOverride")
        browser.cdp("Emulation.setEmulatedMedia", features=[])


def test_it_refreshes_by_itself_but_not_unseen(browser: Browser, live: Live) -> None:
    browser.open(f"{live.url}/#/reports")
    browser.settled()
    # The clock of the page is moved, not waited for.
    browser.run(
        "window.delays = []; const real = setTimeout;"
        "window.setTimeout = (f, ms) => { window.delays.push(ms); return real(f, ms > 5000 ? 50 : ms); };"
    )
    ticks = "return Number(document.getElementById('main').dataset.ticks)"
    browser.click("[data-key=refresh]")
    browser.until(lambda: browser.run(ticks) >= 4, "refreshes")
    assert 10_000 in browser.run("return window.delays")
    hide = "Object.defineProperty(document, 'hidden', {value: arguments[0], configurable: true});"
    browser.run(f"{hide} document.dispatchEvent(new Event('visibilitychange'))", True)
    time.sleep(0.3)
    still = browser.run(ticks)
    time.sleep(0.5)
    assert browser.run(ticks) == still
    browser.run(f"{hide} document.dispatchEvent(new Event('visibilitychange'))", False)
    browser.until(lambda: browser.run(ticks) > still, "it goes on when seen")


def test_signing_in_and_a_server_that_goes_away(tab: Browser, tmp_path_factory: pytest.TempPathFactory) -> None:
    data = tmp_path_factory.mktemp("signed")
    with running(data, '[server]\nrequire_token = "always"\n' + TOML) as live:
        control = Control(data / "control.sqlite")
        token = Tokens(control).create("ann", ["read"])[1]
        executive = Tokens(control).create("eve", ["executive"])[1]
        control.close()
        tab.open(f"{live.url}/#/path/order")
        tab.until(lambda: tab.text("h1") == "Sign in", "the form")
        assert tab.run("return document.activeElement.id") == "token"
        tab.type("#token", "ts_not_known")
        tab.press("Enter")
        tab.until(lambda: "not known here" in tab.text("form"), "the refusal")
        tab.run("document.getElementById('token').value = ''")
        tab.type("#token", token)
        tab.press("Enter")
        tab.until(lambda: tab.text("h1") == "Path order", "the path that was asked for")
        tab.settled()
        assert "No message of this path" in tab.text("main")
        assert tab.run("return [document.cookie, sessionStorage.length, localStorage.length]") == ["", 0, 0]
        tab.open(f"{live.url}/#/")
        tab.settled()
        assert "Objectives" in tab.text("main")
        tab.click("[data-key='sign out']")
        tab.until(lambda: tab.text("h1") == "Sign in", "the form again")
        tab.type("#token", executive)
        tab.press("Enter")
        tab.until(lambda: tab.text("h1") == "Reports", "the one view that is open to her")
        tab.settled()
        assert "Overview" not in tab.text("nav")
        tab.click("[data-key='sign out']")
        tab.until(lambda: tab.text("h1") == "Sign in", "the form once more")
        tab.type("#token", token)
        tab.press("Enter")
        tab.until(lambda: tab.text("h1") == "Overview", "what the address names all the while")
        tab.settled()
        live.stop()
        tab.click("[data-key=refresh]")
        tab.until(lambda: "has not answered since" in tab.text("#banner"), "the banner")
        assert "Out of date: as of" in tab.text("main")
        assert "quiet" in tab.text("main")  # what was known is still there
    tab.complaints()
