"""A real agent, server, Alertmanager and webhook receiver around one objective that the test makes good or bad.

The agent scrapes a page of this process, so that what is judged has gone the whole way. The server may be told to kill
itself at one step; the steps are met by wrapping its own functions, which run as they are.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from analytics.slo.openslo_read import sources
from api.control import Control
from api.slo_book import SloBook
from tests.api.live import ROOT, Live, start
from tests.api.notify.kit import SECRET, Receiver, receiver, until
from tests.api.notify.test_alertmanager import Manager, manager

OBJECTIVE = """
apiVersion: openslo/v1
kind: SLO
metadata: {name: ring-fill}
spec:
  service: trading
  indicator:
    metadata: {name: ring}
    spec:
      thresholdMetric:
        metricSource: {type: tailsight, spec: {gauge: {name: ring_fill}}}
  timeWindow: [{duration: 30d, isRolling: true}]
  budgetingMethod: Occurrences
  objectives: [{target: 0.9, op: lte, value: 0.5}]
  alertPolicies:
    - kind: AlertPolicy
      metadata: {name: page-1m}
      spec:
        conditions:
          - kind: AlertCondition
            metadata: {name: burns}
            spec:
              severity: page
              condition: {kind: burnrate, op: gt, threshold: 2, lookbackWindow: 1m}
        notificationTargets:
          - kind: AlertNotificationTarget
            metadata: {name: ops}
            spec: {target: ops}
"""
SERVER = """
[slo]
delay = "10s"
[notify.hook]
kind = "webhook"
url = "{hook}"
secret_env = "TAILSIGHT_TEST_SECRET"
allow_loopback = true
timeout = "1s"
retry_first = "100ms"
retry_max = "1s"
[notify.am]
url = "{manager}"
timeout = "1s"
retry_first = "100ms"
retry_max = "1s"
resend = "1m"
settle = "1s"
resolved_for = "5s"
"""
AGENT = """
[agent]
server = "{url}"
collectors = ["prometheus", "clock"]
heartbeat_s = 0.5
linger_s = 0.1
clock_s = 1.0
metrics_port = 0
host_name = "gw"
[agent.prometheus]
interval = "1s"
timeout_s = 1.0
targets = [{{url = "http://127.0.0.1:{port}/metrics", service = "gw"}}]
"""
SERIES = 12  # so many events per 10 s that an objective of 90 % has enough of them
# Runs the server as it is and kills it at the step that is named, once.
KILLED = """
import os, signal, sys
from pathlib import Path
step, kind, mark = sys.argv[1], sys.argv[2], Path(sys.argv[3])
def die(at):
    if at == step and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
import api.slo_book as book, api.notify.sender as sender, api.notify.post as posting
from api.notify.deliveries import Deliveries
save, told, post, answered = book.SloBook.save, Deliveries.told, sender.post, posting._Link.getresponse
now = {"kind": ""}
def saving(self, alerts, heard, held=()):
    mine = any(one.kind == kind for one, _ in heard)
    if mine: die("evaluated")
    save(self, alerts, heard, held)
    if mine: die("outbox written")
def sending(self, some):
    now["kind"] = some[0].notice.kind
    return send(self, some)
def getting(self):
    if now["kind"] == kind: die("sent")
    return answered(self)
def post_(*args, **more):
    reply = post(*args, **more)
    if now["kind"] == kind: die("answered")
    return reply
def telling(self, name, some, at):
    told(self, name, some, at)
    if some[0].notice.kind == kind: die("recorded")
send = sender.Sender._send
book.SloBook.save, sender.Sender._send, posting._Link.getresponse = saving, sending, getting
sender.post, Deliveries.told = post_, telling
from api.server import main
sys.exit(main(sys.argv[4:]))
"""


@dataclass
class World:
    """One objective and everybody around it."""

    folder: Path
    hook: Receiver
    pager: Receiver  # behind the Alertmanager
    manager: Manager
    port: int
    server: Live | None = None
    value: float = 0.1
    page: int = 0  # what the agent scrapes
    more: str = ""  # configuration of the server beyond what all have
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def begin(self, step: str = "", kind: str = "") -> None:
        """Start the server, one that kills itself at `step` of a notification of `kind` if given."""
        program = ["-m", "api.server"]
        if step:
            program = ["-c", KILLED, step, kind, str(self.folder / f"killed-{step}-{kind}")]
        config = SERVER.format(hook=self.hook.url, manager=self.manager.url) + self.more
        more = ("--port", str(self.port))
        self.server = start(self.data, config, *more, program=program, environment=self.environment, seconds=240)

    def kill(self) -> None:
        assert self.server is not None
        self.server.process.kill()
        self.server.process.wait(30)

    def died(self) -> int:
        """Wait until the server has killed itself."""
        assert self.server is not None
        return self.server.process.wait(180)

    def told(self) -> list[tuple[str, str]]:
        """What the webhook was told: kind and episode, each try."""
        return [(one["status"], one["dedup_key"]) for one in self.hook.bodies()]

    def shown(self) -> list[tuple[str, str]]:
        """What a person was shown by the Alertmanager: status and episode, each time."""
        return [(one["status"], a["labels"]["episode"]) for one in self.pager.bodies() for a in one["alerts"]]

    def wait(self, kind: str, count: int = 1, *, pager: bool = True) -> None:
        """Until both (without `pager` only the webhook) have heard `count` different episodes of this kind."""

        def heard() -> bool:
            return all(
                len({episode for status, episode in found if status == kind}) >= count
                for found in ((self.told(), self.shown()) if pager else (self.told(),))
            )

        until(heard, 180)


@contextmanager
def world(folder: Path, environment: dict[str, str] | None = None) -> Iterator[World]:
    """Everything but the server, which the test begins."""
    os.environ["TAILSIGHT_TEST_SECRET"] = SECRET
    with ExitStack() as stack:
        hook, pager = stack.enter_context(receiver()), stack.enter_context(receiver())
        am = stack.enter_context(manager(folder, pager.url))
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
        here = World(folder, hook, pager, am, port, environment=dict(environment or {}))
        here.page = stack.enter_context(_page(here))
        stack.enter_context(_inhabited(here))
        yield here


@contextmanager
def beside(first: World, name: str) -> Iterator[World]:
    """A second server with an agent and a store of its own, which read and tell the same as the first one's."""
    folder = first.folder / name
    folder.mkdir()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    here = World(folder, first.hook, first.pager, first.manager, port, page=first.page)
    with _inhabited(here):
        yield here


@contextmanager
def _inhabited(here: World) -> Iterator[None]:
    here.data.mkdir()
    control = Control(here.data / "control.sqlite")
    SloBook(control).apply(sources(OBJECTIVE), "ann")
    control.close()
    with _agent(here, here.page):
        try:
            yield
        finally:
            if here.server is not None and here.server.process.poll() is None:
                here.kill()


@contextmanager
def _page(here: World) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            lines = "".join(f'ring_fill{{ring="{i}"}} {here.value}\n' for i in range(SERIES))
            body = f"# TYPE ring_fill gauge\n{lines}".encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def _agent(here: World, page: int) -> Iterator[None]:
    config = here.folder / "agent.toml"
    config.write_text(AGENT.format(url=f"http://127.0.0.1:{here.port}", port=page))
    with (here.folder / "agent.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "collector.agent", "--data", str(here.folder / "agent"), "--config", str(config)],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/collector/probe/src", **here.environment},
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield
    finally:
        process.kill()
        process.wait()
