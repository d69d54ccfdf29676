"""A real Alertmanager with a receiver behind it: one fingerprint per episode, one firing and one resolved shown."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from api.control import Control
from api.notify.deliveries import Deliveries
from api.notify.sender import Sender
from api.notify.settings import NotifyTarget
from api.slo_book import SloBook
from tests.api.notify.kit import ANNOTATIONS, Receiver, fire, receiver, resolve, until
from tests.needs import program

CONFIG = """
route: {{receiver: hook, group_by: [alertname], group_wait: 100ms, group_interval: 200ms, repeat_interval: 1h}}
receivers:
  - name: hook
    webhook_configs: [{{url: "{url}", send_resolved: true}}]
"""


class Manager:
    """An Alertmanager on a port of its own, that can be killed and started again."""

    def __init__(self, folder: Path, hook: str) -> None:
        self._program = program("prometheus-alertmanager", "prometheus-alertmanager")
        self._folder = folder
        (folder / "am.yml").write_text(CONFIG.format(url=hook))
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self._folder / "am.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._program, f"--config.file={self._folder}/am.yml", f"--storage.path={self._folder}/am",
                    f"--web.listen-address={self.url.removeprefix('http://')}", "--cluster.listen-address=",
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        until(self._ready)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def alerts(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = httpx.get(f"{self.url}/api/v2/alerts").json()
        return found

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/-/ready").is_success
        except httpx.HTTPError:
            return False


@contextmanager
def manager(folder: Path, hook: str, *, up: bool = True) -> Iterator[Manager]:
    here = Manager(folder, hook)
    try:
        if up:
            here.start()
        yield here
    finally:
        here.kill()


def sender_of(control: Control, url: str, **options: Any) -> Sender:
    fast = {"timeout": "1s", "retry_first": "20ms", "retry_max": "100ms", "resend": "300ms", "settle": "500ms"}
    target = NotifyTarget(url=url, resolved_for="1s", **{**fast, **options})
    target.validate()
    deliveries = Deliveries(control, {"am": target})
    deliveries.begin(time.time_ns())
    return Sender("am", target, deliveries)


def run_until(sender: Sender, what: Callable[[], object], seconds: float = 15) -> None:
    def step() -> object:
        sender.run()
        return what()

    until(step, seconds)


def shown(hook: Receiver) -> list[tuple[str, str]]:
    """What a person was shown: each change as Alertmanager sent it on, with the fingerprint."""
    return [(one["status"], one["alerts"][0]["fingerprint"]) for one in hook.bodies()]


def test_one_firing_and_one_resolved_with_one_fingerprint(control: Control, tmp_path: Path) -> None:
    book = SloBook(control)
    with receiver() as hook, manager(tmp_path, hook.url) as am:
        sender = sender_of(control, am.url)
        alert = fire(book)
        run_until(sender, lambda: hook.got)
        (one,) = am.alerts()
        assert one["labels"] == {
            "alertname": "orders page-1h", "objective": "orders", "rule": "page-1h", "service": "trading",
            "severity": "page", "episode": "e1", "team": "execution", "tailsight_dev_tier": "1",
        }  # fmt: skip
        assert one["annotations"]["runbook_url"] == ANNOTATIONS["tailsight.dev/runbook"]
        assert one["annotations"]["burn"] == "20.5 over 1 h"
        assert one["annotations"]["query"] == "SELECT 1"
        # Longer than it would fire without being told again (four intervals), and through a new process.
        end = time.monotonic() + 1.6
        sender = sender_of(control, am.url)
        run_until(sender, lambda: time.monotonic() > end)
        assert len(hook.got) == 1
        assert sender.count.posts > 2
        book.acknowledge(alert.episode, "ann")
        resolve(book, alert)
        run_until(sender, lambda: len(hook.got) == 2)
        posts = sender.count.posts
        run_until(sender, lambda: not open_deliveries(control))
        assert sender.count.posts > posts  # for a while, should Alertmanager be started anew before it has told anybody
        ((first, print_), (second, same)) = shown(hook)
        assert (first, second, print_) == ("firing", "resolved", same)
        assert book.outbox() == []


def open_deliveries(control: Control) -> int:
    return int(control.rows("SELECT count(*) AS n FROM notify_deliveries WHERE done = 0")[0]["n"])


def test_an_episode_that_began_and_ended_while_alertmanager_was_down_is_shown(control: Control, tmp_path: Path) -> None:
    book = SloBook(control)
    with receiver() as hook, manager(tmp_path, hook.url, up=False) as am:
        sender = sender_of(control, am.url)
        resolve(book, fire(book))
        run_until(sender, lambda: sender.count.failures >= 2)
        am.start()
        run_until(sender, lambda: len(hook.got) == 2)
        assert [status for status, _ in shown(hook)] == ["firing", "resolved"]


def test_an_alertmanager_that_was_killed_hears_of_what_fires(control: Control, tmp_path: Path) -> None:
    book = SloBook(control)
    with receiver() as hook, manager(tmp_path, hook.url) as am:
        sender = sender_of(control, am.url)
        alert = fire(book)
        run_until(sender, lambda: hook.got)
        am.kill()
        run_until(sender, lambda: sender.count.failures >= 1)
        am.start()
        run_until(sender, am.alerts)
        (one,) = am.alerts()
        resolve(book, alert)
        run_until(sender, lambda: [s for s, _ in shown(hook)][-1] == "resolved")
        assert {print_ for _, print_ in shown(hook)} == {one["fingerprint"]}


def test_one_alert_that_is_refused_or_cannot_be_said_does_not_hold_the_others(control: Control) -> None:
    """A receiver in front of Alertmanager that refuses requests with one alert in them; and a body that is broken."""
    book = SloBook(control)
    with receiver(mode="refuse e1") as gate:
        sender = sender_of(control, gate.url)
        for name in ("e1", "e2", "e3"):
            fire(book, name, f"of-{name}")
        with control.transaction() as db:
            db.execute("UPDATE slo_outbox SET body = '{\"sides\": 7}' WHERE episode = 'e3'")
        run_until(sender, lambda: [one for one in gate.bodies() if one[0]["labels"]["episode"] == "e2"])
        left = [one["episode"] for one in book.outbox()]
        assert left == ["e1", "e3"]
        assert sender.count.accepted >= 1


def test_many_episodes_go_in_few_requests(control: Control, tmp_path: Path) -> None:
    book = SloBook(control)
    with receiver() as hook, manager(tmp_path, hook.url) as am:
        sender = sender_of(control, am.url, resend="1m")
        for i in range(150):
            fire(book, f"e{i}", f"o{i}")
        assert sender.run() == 150
        assert sender.count.posts == 3
        assert len(am.alerts()) == 150
