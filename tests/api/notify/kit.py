"""Receivers that misbehave on purpose, and a control state with episodes in its outbox."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from analytics.slo.episodes import Alert, Transition
from api.notify.settings import NotifyTarget
from api.slo_book import SloBook

S = 1_000_000_000
SECRET = "correct horse"  # noqa: S105 - of a test
LABELS = {"team": "execution", "tailsight.dev/tier": "1"}
ANNOTATIONS = {"tailsight.dev/runbook": "https://wiki.example/orders"}
SIDE = {"objective": "orders", "window_s": 3600, "factor": 14.4, "burn": 20.5, "good": 90, "total": 100}


@dataclass
class Receiver:
    """A web server that writes down what it gets and answers as `mode` says."""

    url: str
    port: int
    mode: str = "ok"
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    tried: int = 0
    redirect: str = ""

    def bodies(self) -> list[Any]:
        return [json.loads(body) for _, body in self.got]


@contextmanager
def receiver(port: int = 0, mode: str = "ok", tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    here = Receiver("", 0, mode)
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            here.tried += 1
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if here.mode == "hang":
                ended.wait(20)
                return
            if here.mode == "slow":  # a byte now and then: no single read takes long
                try:
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
                    while not ended.wait(0.05):
                        self.wfile.write(b"x")
                except OSError:
                    return
                return
            if here.mode == "redirect":
                self.send_response(307)
                self.send_header("Location", here.redirect)
                self.end_headers()
                return
            if here.mode == "endless":
                self.send_response(200)
                self.end_headers()
                try:
                    while not ended.is_set():
                        self.wfile.write(b"x" * 65536)
                except OSError:
                    pass
            code = int(here.mode) if here.mode.isdigit() else 200
            if here.mode.startswith("refuse ") and here.mode[7:].encode() in body:
                code = 422
            if code == 200:
                here.got.append((dict(self.headers), body))
            self.send_response(code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST  # noqa: N815 - the base class calls it so

        def log_message(self, *_: Any) -> None:
            pass

    class Web(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            pass

    server = Web(("127.0.0.1", port), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    here.port = server.server_port
    here.url = f"http://127.0.0.1:{here.port}/hook"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield here
    finally:
        ended.set()
        server.shutdown()
        server.server_close()


def webhook(url: str, **options: Any) -> NotifyTarget:
    fast = {"timeout": "300ms", "retry_first": "20ms", "retry_max": "100ms", "secret_env": "TAILSIGHT_TEST_SECRET"}
    made = NotifyTarget(kind="webhook", url=url, **{"allow_loopback": True, **fast, **options})
    made.validate()
    return made


def fire(book: SloBook, episode: str = "e1", objective: str = "orders", at_ns: int | None = None) -> Alert:
    """An alert that begins to fire, as the evaluation writes it."""
    now = time.time_ns() if at_ns is None else at_ns
    alert = Alert(objective, "page-1h", "firing", now, now - 60 * S, now, episode=episode)
    book.save([alert], [(Transition("firing", alert, now), body(alert))])
    return alert


def resolve(book: SloBook, alert: Alert, at_ns: int | None = None) -> None:
    now = time.time_ns() if at_ns is None else at_ns
    ended = Alert(
        alert.objective, alert.rule, "resolved", now, alert.breach_ns, alert.fired_ns, now, episode=alert.episode
    )
    book.save([ended], [(Transition("resolved", ended, now), body(ended))])


def body(alert: Alert) -> dict[str, Any]:
    return {
        "service": "trading", "severity": "page", "display_name": "Fast orders", "target": 0.99, "kind": alert.state,
        "indicator": "order.end_to_end <= 150 us", "breach_ns": alert.breach_ns, "fired_ns": alert.fired_ns,
        "sides": [SIDE], "budget": {"exhausted_s": 7200.0, "burned": 0.4}, "labels": LABELS,
        "annotations": ANNOTATIONS, "path": "order", "queries": [{"objective": "orders", "sql": "SELECT 1"}],
    }  # fmt: skip


def until(what: Callable[[], object], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)
