"""kill -9 of the process at every step of a notification: nothing is lost, and a receiver sees one incident."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from api.control import Control
from api.notify.deliveries import Deliveries
from api.slo_book import SloBook
from tests.api.notify.kit import SECRET, receiver, until, webhook

ROOT = Path(__file__).resolve().parents[3]

# Evaluates, writes and sends as the server does, and dies where it is told to: in the n-th notification.
CHILD = """
import os, signal, sys, time
from pathlib import Path
from api.control import Control
from api.notify import sender as module
from api.notify.deliveries import Deliveries
from api.slo_book import SloBook
from tests.api.notify.kit import fire, resolve, webhook

path, url, step, kind = sys.argv[1:]
def die(): os.kill(os.getpid(), signal.SIGKILL)
control = Control(Path(path))
book, target = SloBook(control), webhook(url)
deliveries = Deliveries(control, {"hook": target})
deliveries.begin(time.time_ns())
one = module.Sender("hook", target, deliveries)
post, told = module.post, deliveries.told

def due_kind():
    return [d.notice.kind for d in deliveries.due("hook", time.time_ns(), 1)] == [kind]

def posting(*args):
    if step == "taken in" and due_kind(): die()
    reply = post(*args)
    if step == "sent" and due_kind(): die()
    return reply

def telling(name, some, now):
    told(name, some, now)
    if step == "acknowledged" and some[0].notice.kind == kind: die()

module.post, deliveries.told = posting, telling
alerts = {a.episode: a for a in book.alerts()}
for wanted, state in (("firing", None), ("resolved", "firing")):
    alert = alerts.get("e1")
    if (alert.state if alert else None) == state:
        if step == "evaluated" and wanted == kind: die()
        alerts["e1"] = fire(book) if wanted == "firing" else resolve(book, alert)
        alerts = {a.episode: a for a in book.alerts()}
        if step == "outbox written" and wanted == kind: die()
    end = time.monotonic() + 10
    while deliveries.take_in("hook", time.time_ns()) + deliveries.waiting("hook")[0] and time.monotonic() < end:
        one.run()
print("done")
"""


def child(path: Path, url: str, step: str, kind: str) -> int:
    environment = {
        **os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/collector/probe/src", "TAILSIGHT_TEST_SECRET": SECRET,
    }  # fmt: skip
    arguments = [sys.executable, "-c", CHILD, str(path), url, step, kind]
    return subprocess.run(arguments, env=environment, cwd=ROOT, timeout=60).returncode


@pytest.mark.parametrize("kind", ["firing", "resolved"])
@pytest.mark.parametrize("step", ["evaluated", "outbox written", "taken in", "sent", "acknowledged"])
def test_a_kill_at_any_step_loses_nothing_and_makes_no_second_incident(tmp_path: Path, step: str, kind: str) -> None:
    path = tmp_path / "control.sqlite"
    with receiver() as here:
        assert child(path, here.url, step, kind) == -signal.SIGKILL
        assert child(path, here.url, "", "") == 0
        told = [one["id"] for one in here.bodies()]
        assert list(dict.fromkeys(told)) == ["e1-firing", "e1-resolved"]
        assert len(told) <= 3  # at most one try more than needed
        assert len(told) == 3 if step == "sent" else len(told) == 2
        assert {one["dedup_key"] for one in here.bodies()} == {"e1"}
        # The same bytes for every try, so that a receiver can tell by them, too.
        assert len({body for _, body in here.got}) == 2
    control = Control(path)
    assert SloBook(control).outbox() == []
    control.close()


def test_what_was_resolved_while_no_process_ran_is_told(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    """The outbox of a server that is gone is sent by the next one."""
    from api.notify.sender import Sender
    from tests.api.notify.kit import fire, resolve

    monkeypatch.setenv("TAILSIGHT_TEST_SECRET", SECRET)
    book = SloBook(control)
    with receiver() as here:
        alert = fire(book)
        target = webhook(here.url)
        first = Sender("hook", target, Deliveries(control, {"hook": target}))
        assert first.run() == 1
        resolve(book, alert)
        again = Deliveries(control, {"hook": target})
        again.begin(time.time_ns())
        second = Sender("hook", target, again)
        until(lambda: second.run() + len(here.got) >= 2)
        assert [one["status"] for one in here.bodies()] == ["firing", "resolved"]
