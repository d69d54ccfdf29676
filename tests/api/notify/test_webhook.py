"""Webhooks: what is sent, to whom it is never sent, and that a bad receiver costs nothing but time."""

from __future__ import annotations

import ipaddress
import json
import runpy
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from api.control import Control
from api.notify.address import RefusedError, allowed, place
from api.notify.deliveries import Deliveries
from api.notify.payload import Notice, content, summary
from api.notify.sender import Sender
from api.notify.settings import NotifyTarget, targets_from
from api.slo_book import SloBook
from collector.settings import ConfigError
from tests.api.notify.kit import ANNOTATIONS, SECRET, S, fire, receiver, resolve, until, webhook

EXAMPLE = Path(__file__).resolve().parents[3] / "deploy" / "examples" / "verify_webhook.py"
verify = runpy.run_path(str(EXAMPLE))["verify"]


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILSIGHT_TEST_SECRET", SECRET)


def sender_of(control: Control, target: NotifyTarget, name: str = "hook") -> Sender:
    deliveries = Deliveries(control, {name: target})
    deliveries.begin(time.time_ns())
    return Sender(name, target, deliveries)


def test_a_runbook_of_ours_is_an_address_that_opens(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ANNOTATIONS, "tailsight.dev/runbook", "docs/runbooks/cpu_hog.md")
    here, there = "https://tailsight.example/runbooks/cpu_hog", "docs/runbooks/cpu_hog.md"
    with receiver() as hook:
        sender = sender_of(control, webhook(hook.url))
        sender.public_url = "https://tailsight.example/"
        fire(SloBook(control))
        assert sender.run() == 1
        assert hook.bodies()[0]["links"]["runbook"] == here
    notice = Notice(1, "e1", "firing", "orders", "page-1h", S, {"annotations": dict(ANNOTATIONS), "fired_ns": S})
    for public_url, expected in (("https://tailsight.example", here), ("", there)):
        assert content(notice, "", public_url)["links"]["runbook"] == expected


def test_an_alertmanager_is_given_the_servers_address(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ANNOTATIONS, "tailsight.dev/runbook", "docs/runbooks/cpu_hog.md")
    with receiver() as manager:
        target = NotifyTarget(kind="alertmanager", url=manager.url, allow_loopback=True)
        deliveries = Deliveries(control, {"am": target})
        deliveries.begin(time.time_ns())
        fire(SloBook(control))
        assert Sender("am", target, deliveries, "https://tailsight.example").run() == 1
        (one,) = manager.bodies()[0]
        assert one["annotations"]["runbook_url"] == "https://tailsight.example/runbooks/cpu_hog"


def test_each_change_is_told_once_in_order_and_verifies(control: Control) -> None:
    book = SloBook(control)
    with receiver() as here:
        sender = sender_of(control, webhook(here.url, dashboards="https://grafana.example/"))
        alert = fire(book)
        book.acknowledge(alert.episode, "ann")
        resolve(book, alert)
        assert sender.run() == 3
        assert sender.run() == 0
        keys = [verify(SECRET.encode(), headers, body) for headers, body in here.got]
        assert keys == ["e1-firing", "e1-acknowledged", "e1-resolved"]
        told = here.bodies()
        assert {one["dedup_key"] for one in told} == {"e1"}
        assert told[0]["exhausted_s"] == 7200
        assert told[0]["sides"][0]["burn"] == 20.5
        assert told[0]["links"]["runbook"] == ANNOTATIONS["tailsight.dev/runbook"]
        assert told[0]["links"]["dashboard"].startswith("https://grafana.example/d/tailsight-path?from=")
        assert told[0]["queries"][0]["sql"] == "SELECT 1"
        assert "cost_per_hour" not in told[0]
        assert "top_cause" not in told[0]
        assert "burns 20.5 x its budget over 1 h, budget gone in 2 h" in told[0]["summary"]
        assert book.outbox() == []


def test_the_verifier_refuses_what_is_forged_changed_or_old(control: Control) -> None:
    with receiver() as here:
        fire(SloBook(control))
        sender_of(control, webhook(here.url)).run()
        ((headers, body),) = here.got
    key = SECRET.encode()
    at = int(headers["Tailsight-Timestamp"])
    assert verify(key, headers, body, at + 299) == "e1-firing"
    for wrong, change, text in (
        (b"other", {}, "signature is wrong"),
        (key, {"Tailsight-Id": "e2-firing"}, "signature is wrong"),
        (key, {"Tailsight-Timestamp": str(at + 1)}, "signature is wrong"),
        (key, {"Tailsight-Signature": ""}, "signature is wrong"),
        (key, {"Tailsight-Signature": "v1=\xe9"}, "signature is wrong"),
        (key, {"Tailsight-Timestamp": "-1"}, "no number"),
    ):
        with pytest.raises(ValueError, match=text):
            verify(wrong, {**headers, **change}, body, at)
    with pytest.raises(ValueError, match="signature is wrong"):
        verify(key, headers, body + b" ", at)
    for late in (at + 301, at - 301):
        with pytest.raises(ValueError, match="old"):
            verify(key, headers, body, late)
    with pytest.raises(ValueError, match="missing"):
        verify(key, {}, body, at)


@pytest.mark.parametrize("mode", ["500", "hang", "slow", "429", "400", "404"])
def test_a_receiver_that_fails_gets_everything_when_it_recovers(control: Control, mode: str) -> None:
    book = SloBook(control)
    with receiver(mode=mode) as here:
        sender = sender_of(control, webhook(here.url))
        alert = fire(book)
        resolve(book, alert)
        until(lambda: sender.run() + here.tried >= 3)
        assert not here.got
        assert [one["kind"] for one in book.outbox()] == ["firing", "resolved"]
        here.mode = "ok"
        until(lambda: sender.run() + len(here.got) >= 2)
        assert [one["id"] for one in here.bodies()] == ["e1-firing", "e1-resolved"]


def test_a_receiver_that_was_down_gets_everything_from_a_new_process(control: Control) -> None:
    book = SloBook(control)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    target = webhook(f"http://127.0.0.1:{port}/hook")
    sender = sender_of(control, target)
    resolve(book, fire(book))
    until(lambda: sender.run() + sender.count.failures >= 3)
    with receiver(port) as here:
        sender = sender_of(control, target)
        until(lambda: sender.run() + len(here.got) >= 2)
        assert [one["id"] for one in here.bodies()] == ["e1-firing", "e1-resolved"]


def test_one_target_does_not_wait_for_another_and_one_refused_notification_not_for_the_rest(control: Control) -> None:
    book = SloBook(control)
    with receiver(mode="hang") as bad, receiver() as good:
        targets = {"bad": webhook(bad.url), "good": webhook(good.url)}
        deliveries = Deliveries(control, targets)
        senders = {name: Sender(name, target, deliveries) for name, target in targets.items()}
        fire(book)
        senders["bad"].run()
        assert senders["good"].run() == 1
        assert deliveries.waiting("good") == (0, 0)
        assert deliveries.waiting("bad")[0] == 1
        bad.mode = "422"
        until(lambda: senders["bad"].run() + ("refuse" in seen(control, "bad") or bad.tried >= 2))
        fire(book, "e2", "others")
        bad.mode = "ok"
        until(lambda: senders["bad"].run() or len(bad.got) == 2)


def seen(control: Control, target: str) -> str:
    return " ".join(r["error"] for r in control.rows("SELECT error FROM notify_deliveries WHERE target = ?", (target,)))


def test_redirects_are_not_followed_and_long_answers_not_read(control: Control) -> None:
    book = SloBook(control)
    with receiver() as inner, receiver(mode="redirect") as here:
        here.redirect = inner.url
        sender = sender_of(control, webhook(here.url))
        fire(book)
        sender.run()
        assert "307" in seen(control, "hook")
        assert inner.tried == 0
        here.mode = "endless"
        until(lambda: sender.run())  # the status was 2xx: it has it


@pytest.mark.parametrize(
    "url",
    [
        "https://127.1/", "https://0x7f000001/", "https://2130706433/", "https://[::ffff:127.0.0.1]/",
        "https://169.254.169.254/latest/meta-data/", "https://localhost/", "https://0.0.0.0/", "https://[::1]/",
        "https://[::]/", "https://10.0.0.1/", "https://192.168.1.1/", "https://172.16.0.1/", "https://100.64.0.1/",
        "https://[fe80::1]/", "https://[fc00::1]/", "https://224.0.0.1/", "https://255.255.255.255/",
        "https://[64:ff9b::7f00:1]/", "https://[2002:7f00:1::]/", "https://[::ffff:10.0.0.1]/", "https://198.18.0.1/",
        "https://0177.0.0.1/", "https://127.0.0.1:443/", "https://1.1.1.1:22/", "http://1.1.1.1/", "http://127.0.0.1/",
        "https://192.0.2.1/", "https://240.0.0.1/", "https://[ff02::1]/", "https://[::ffff:169.254.169.254]/",
    ],
)  # fmt: skip
def test_a_webhook_never_leads_inside(url: str) -> None:
    with pytest.raises(RefusedError):
        place(webhook(url, allow_loopback=False))


@pytest.mark.parametrize("url", ["https://169.254.169.254/", "https://0.0.0.0/", "https://[fe80::1]/"])
def test_what_is_allowed_privately_is_not_metadata_of_a_cloud(url: str) -> None:
    with pytest.raises(RefusedError):
        place(webhook(url, allow_loopback=True, allow_private=True))
    assert place(webhook("https://10.0.0.1/a?b=c", allow_private=True)).path == "/a?b=c"


def test_a_name_that_changes_its_address_is_connected_to_where_it_was_checked(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The resolver says a public address first and loopback after: nothing may reach loopback."""
    answers = iter(["93.184.216.34"])
    connected: list[Any] = []

    def resolver(_host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers, "127.0.0.1"), port))]

    def connect(address: Any, *_: Any, **__: Any) -> socket.socket:
        connected.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    monkeypatch.setattr(socket, "create_connection", connect)
    sender = sender_of(control, webhook("https://rebinding.example/", allow_loopback=False))
    fire(SloBook(control))
    sender.run()
    until(lambda: sender.run() + sender.count.failures >= 2)
    assert connected == [("93.184.216.34", 443)]
    assert "no public address" in seen(control, "hook")


def test_of_several_addresses_all_have_to_be_allowed() -> None:
    target = webhook("https://x.example/", allow_loopback=False)
    allowed(target, ipaddress.ip_address("1.1.1.1"), 443, tls=True)
    with pytest.raises(RefusedError, match="port 8443"):
        allowed(target, ipaddress.ip_address("1.1.1.1"), 8443, tls=True)


def test_without_the_secret_nothing_is_sent(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TAILSIGHT_TEST_SECRET")
    with receiver() as here:
        sender = sender_of(control, webhook(here.url))
        fire(SloBook(control))
        assert sender.run() == 0
        assert here.tried == 0
        assert "TAILSIGHT_TEST_SECRET is not set" in seen(control, "hook")


def test_a_new_target_hears_of_what_fires_and_of_nothing_older(control: Control) -> None:
    book = SloBook(control)
    Deliveries(control, {}).tidy(time.time_ns())
    over, open_ = fire(book, "old"), fire(book, "open", "others")
    resolve(book, over)
    Deliveries(control, {}).tidy(time.time_ns())  # nobody is told, and nothing piles up
    assert book.outbox() == []
    with receiver() as here:
        sender = sender_of(control, webhook(here.url))
        sender.run()
        assert [one["dedup_key"] for one in here.bodies()] == [open_.episode]


def test_the_outbox_is_bounded_and_open_episodes_stay(control: Control) -> None:
    book = SloBook(control)
    now = time.time_ns()
    target = webhook("http://127.0.0.1:1/")
    deliveries = Deliveries(control, {"hook": target})
    for i in range(30):
        alert = fire(book, f"e{i}", f"o{i}", now - 1000 * S + i)
        if i:
            resolve(book, alert, now - 900 * S)
    assert deliveries.tidy(now, most=10) == 49
    left = book.outbox()
    assert len(left) == 10
    assert left[0]["episode"] == "e0"
    deliveries.take_in("hook", now)
    # What nobody took for a day is given up, but for what still fires.
    assert deliveries.tidy(now + 2 * 86_400 * S) == 9
    assert [one["episode"] for one in book.outbox()] == ["e0"]


def test_a_clock_that_was_set_back_does_not_stop_tries(control: Control) -> None:
    book = SloBook(control)
    with receiver() as here:
        sender = sender_of(control, webhook(here.url))
        fire(book)
        now = time.time_ns()
        sender.deliveries.take_in("hook", now + 3600 * S)
        assert sender.run() == 1


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"kind": "webhook", "url": "https://x.example"}, "notify.a.secret_env"),
        ({"url": "ftp://x"}, "http or https"),
        ({"url": ""}, "http or https"),
        ({"url": "http://u:p@x/"}, "user or password"),
        ({"url": "http://x/\r\nHost: y"}, "notify.a.url"),
        ({"url": "http://x:99999/"}, "no URL"),
        ({"url": "http://x", "retry_max": "10ms"}, "retry_max"),
        ({"url": "http://x", "timeout": "10m"}, "timeout"),
        ({"url": "http://x", "ports": []}, "ports"),
        ({"url": "http://x", "kind": "pigeon"}, "notify.a.kind"),
        ({"url": "http://x", "resend": "often"}, "resend"),
    ],
)
def test_a_wrong_target_is_named(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        targets_from({"notify": {"a": fields}})


def test_sections_have_names() -> None:
    with pytest.raises(ConfigError, match=r"notify\.NAME"):
        targets_from({"notify": {"url": "http://x"}})
    assert targets_from({}) == {}


def test_a_message_holds_what_is_known(control: Control) -> None:
    book = SloBook(control)
    fire(book)
    deliveries = Deliveries(control, {"hook": webhook("http://127.0.0.1:1/")})
    deliveries.take_in("hook", time.time_ns())
    notice = deliveries.due("hook", time.time_ns())[0].notice
    more = type(notice)(
        **{
            **{name: getattr(notice, name) for name in notice.__slots__},
            "body": {**notice.body, "cost_per_hour": 120.5, "top_cause": "decide: queue"},
        }
    )
    assert content(more)["cost_per_hour"] == 120.5
    assert content(more)["top_cause"] == "decide: queue"
    assert "dashboard" not in content(more)["links"]
    assert summary(more) == summary(notice)
    json.dumps(content(more))


def test_a_long_outbox_is_looked_through_by_keys(control: Control) -> None:
    """The plan, not the time: a scan of all deliveries for each notification takes minutes with 50,000 of them."""
    from api.notify.deliveries import _DUE

    values = {"target": "hook", "now": 1, "horizon": 2, "settle": 0, "limit": 64}
    plan = [row["detail"] for row in control.rows("EXPLAIN QUERY PLAN " + _DUE, values)]
    assert [line for line in plan if line.startswith("SEARCH p ") and "episode=?" in line], plan
    assert [line for line in plan if line.startswith("SEARCH e ") and "notification=?" in line], plan
    assert not [line for line in plan if line.startswith("SCAN")], plan
