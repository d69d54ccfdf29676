"""A real server tells its targets, says so in its metrics, and stays ready while one of them is down."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.control import Control
from api.slo_book import SloBook
from tests.api.live import running
from tests.api.notify.kit import SECRET, fire, receiver, resolve, until


def test_a_server_tells_its_targets_and_a_dead_one_does_not_make_it_unready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAILSIGHT_TEST_SECRET", SECRET)
    with receiver() as here:
        config = f"""
[notify.hook]
kind = "webhook"
url = "{here.url}"
secret_env = "TAILSIGHT_TEST_SECRET"
allow_loopback = true
[notify.dead]
url = "http://127.0.0.1:1"
retry_first = "10ms"
retry_max = "20ms"
"""
        data = tmp_path / "data"
        with running(data, config) as live, live.client() as client:
            control = Control(data / "control.sqlite")
            book = SloBook(control)
            alert = fire(book)
            until(lambda: here.got)
            # An end that nobody judges belongs to the evaluation; here it is written as it would write it.
            resolve(book, alert)
            until(lambda: len(here.got) == 2)
            until(lambda: 'tailsight_notify_accepted_total{target="hook"} 2.0' in client.get("/metrics").text)
            text = client.get("/metrics").text
            assert 'tailsight_notify_waiting{target="dead"} 2.0' in text
            assert 'tailsight_notify_waiting{target="hook"} 0.0' in text
            assert client.get("/readyz").is_success
            control.close()
        assert [one["status"] for one in here.bodies()] == ["firing", "resolved"]
