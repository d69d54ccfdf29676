"""A real HTTP server on loopback that behaves as scripted, and books what arrives as the door would.

Behaviours, one per request to /v1/ingest: "ok", an integer status (429 and 503 with Retry-After: 0), "hang" (no
answer), "lost" (takes the batch, then resets), "reset" (resets without taking it), "garbage" (200 with nonsense).
When the script is used up, every request is "ok".
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.collector.spool_kit import Books


class ScriptedServer:
    """`books` holds what was taken, `requests` every (batch, attempt, body), `beats` the newest heartbeat per boot."""

    def __init__(self, script: Iterable[str | int] = (), poison: bytes = b"") -> None:
        self.script = list(script)
        self.poison = poison  # a body that holds these bytes is refused for good
        self.books = Books()
        self.requests: list[tuple[str, int, bytes]] = []
        self.beats: dict[tuple[str, int], dict[str, Any]] = {}
        self.connections = 0
        self.times: list[float] = []
        self._lock = threading.Lock()
        self._release = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                outer.connections += 1
                super().setup()

            def do_POST(self) -> None:
                size = int(self.headers["Content-Length"])
                body = self.rfile.read(size)
                if len(body) < size:  # its sender was killed: half a body is no request, as at the real door
                    self.close_connection = True
                    return
                if self.path == "/v1/ingest/heartbeat":
                    with outer._lock:
                        for beat in json.loads(body):
                            outer.beats[beat["name"], beat["boot"]] = beat
                    self._answer(200, b"{}")
                    return
                outer._ingest(self, body)

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                if status in (429, 503):
                    self.send_header("Retry-After", "0")
                self.end_headers()
                self.wfile.write(body)

            def reset(self) -> None:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True

            def log_message(self, *_args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_args: object) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def _ingest(self, handler: Any, body: bytes) -> None:
        name, attempt = handler.headers["Tailsight-Batch"], int(handler.headers["Tailsight-Attempt"])
        with self._lock:
            self.requests.append((name, attempt, body))
            self.times.append(time.monotonic())
            act = self.script.pop(0) if self.script else "ok"
            if self.poison and self.poison in body:
                act = 422
            known = name in self.books.batches
            if act in ("ok", "lost"):
                self.books.receive(name, body)
        if act == "ok":
            events = _events(body)
            said = {
                "batch": name, "status": "duplicate" if known else "stored", "events": events, "stored": events,
                "quarantined": 0, "dropped": 0, "boot_id": "b",
            }  # fmt: skip
            handler._answer(200, json.dumps(said).encode())
        elif act == "garbage":
            handler._answer(200, b"<html>a proxy says hello</html>")
        elif act == "hang":
            self._release.wait(20)
            handler.reset()
        elif act in ("lost", "reset"):
            handler.reset()
        else:
            handler._answer(int(act), b'{"title": "scripted"}')

    def close(self) -> None:
        self._release.set()
        self._server.shutdown()
        self._server.server_close()


def _events(body: bytes) -> int:
    from collector.frames import decode

    return sum(f.header.events for f in decode(body))
