"""The dead man's heartbeat: it comes while alerts would come, and stops with each of the things it stands for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from api.control import Control
from api.jobs import JobState
from api.notify.deliveries import Deliveries
from api.notify.heartbeat import Heartbeat, Watcher, unwell, watchers_from
from api.notify.sender import Sender
from api.slo_book import SloBook
from collector.settings import ConfigError
from tests.api.live import running
from tests.api.notify.kit import fire, receiver, until, webhook

S = 1_000_000_000
FAST: dict[str, Any] = {"timeout": "300ms", "allow_loopback": True}


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    made = Control(tmp_path / "control.sqlite")
    yield made
    made.close()


def state_of(control: Control) -> Any:
    """A state as far as a heartbeat looks at it: two jobs that have just succeeded, and a real sender."""
    target = webhook("http://127.0.0.1:1/")
    sender = Sender("hook", target, Deliveries(control, {"hook": target}))
    states = {name: JobState(name, 10.0, last_success_ns=time.time_ns()) for name in ("objectives", "notify-hook")}
    return SimpleNamespace(jobs=SimpleNamespace(states=states), senders=(sender,), stopping=False, standby=None)


def test_it_stands_for_judging_and_for_delivery(control: Control) -> None:
    state, watcher, now = state_of(control), Watcher(url="https://w.example/"), time.time_ns()
    assert unwell(state, watcher, now) == ""
    assert "were judged 60 s ago" in unwell(state, watcher, now + 60 * S)
    for name in ("objectives", "notify-hook"):
        state.jobs.states[name].paused = True
        assert unwell(state, watcher, now) == f"the job {name} is paused"
        state.jobs.states[name].paused = False
    fire(SloBook(control), at_ns=now - 100 * S)
    assert unwell(state, watcher, now) == ""  # it may still leave in time
    fire(SloBook(control), "e2", "quotes", at_ns=now - 121 * S)
    assert "2 notifications wait for hook, the oldest for 121 s" in unwell(state, watcher, now)
    state.jobs.states["objectives"].last_success_ns = None
    assert "not been judged yet" in unwell(state, watcher, now)
    state.stopping = True
    assert unwell(state, watcher, now)


def test_a_withheld_or_refused_heartbeat_is_counted_and_never_raises(control: Control) -> None:
    state = state_of(control)
    with receiver() as here:
        beat = Heartbeat("w", Watcher(url=here.url, **FAST))
        assert beat.run(state) == 1
        assert (beat.run(state), len(here.got)) == (0, 1)  # not due
        assert here.got[0][1] == b""
        assert Heartbeat("w", Watcher(url=here.url, method="GET", **FAST)).run(state) == 1
        for mode in ("500", "hang", "slow"):
            here.mode = mode
            other = Heartbeat("w", Watcher(url=here.url, **FAST))
            assert (other.run(state), other.failures, other.last_ns) == (0, 1, 0)
            assert "did not take it" in other.why
        here.mode = "ok"
        state.jobs.states["objectives"].paused = True
        quiet = Heartbeat("w", Watcher(url=here.url, **FAST))
        assert (quiet.run(state), quiet.withheld, len(here.got)) == (0, 1, 2)
    inside = Heartbeat("w", Watcher(url="https://169.254.169.254/"))
    state.jobs.states["objectives"].paused = False
    inside.run(state)
    assert "no public address" in inside.why


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"url": ""}, "heartbeat.w.url"),
        ({"every": "1s"}, "heartbeat.w.every: must be at least 5s"),
        ({"timeout": "31s"}, "heartbeat.w.timeout"),
        ({"late": "5s"}, "two ticks"),
        ({"stuck": "1s"}, "heartbeat.w.stuck"),
        ({"ports": []}, "heartbeat.w.ports"),
        ({"url": "https://user:pass@w.example/"}, "must not hold a user"),
    ],
)
def test_a_wrong_watcher_is_named(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        watchers_from({"heartbeat": {"w": {"url": "https://w.example/", **fields}}})


def test_a_real_server_beats_and_names_the_watcher_that_it_cannot_reach(tmp_path: Path) -> None:
    with receiver() as here:
        config = f"""
[heartbeat.outside]
url = "{here.url}"
every = "5s"
allow_loopback = true
[heartbeat.gone]
url = "http://127.0.0.1:1/"
allow_loopback = true
"""
        with running(tmp_path / "data", config) as live, live.client() as client:
            until(lambda: here.got, 40)
            text = client.get("/metrics").text
            assert 'tailsight_heartbeat_failures_total{watcher="outside"} 0.0' in text
            assert 'tailsight_heartbeat_last_success_timestamp_seconds{watcher="gone"} 0.0' in text
            until(lambda: "heartbeat gone: the watcher did not take it" in client.get("/readyz").text)
            assert client.get("/readyz").is_success
