"""A deploy is said over REST to a server that takes it, and else with the command."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from api.demo.announce import Announcer
from api.demo.rollout import deployment

AT_NS = 1_790_000_000_123_456_789


class Server:
    """Takes changes, or refuses them."""

    def __init__(self, code: int) -> None:
        self.bodies: list[dict[str, Any]] = []
        bodies = self.bodies

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))) | {"path": self.path})
                self.send_response(code)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    server = Server(request.param)
    (tmp_path / "server.json").write_text(json.dumps({"url": f"http://127.0.0.1:{server.http.server_port}"}))
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.mark.parametrize("server", [201], indirect=True)
def test_a_server_is_told_in_order(server: Server, tmp_path: Path) -> None:
    announcer = Announcer(tmp_path)
    for before, after in ((1, 2), (2, 1)):
        announcer.record(deployment("gateway-east", before, after, AT_NS))
    announcer.close()
    assert [body["what"] for body in server.bodies] == ["gateway-east 1 -> 2", "gateway-east 2 -> 1 (rolled back)"]
    assert server.bodies[0] == {
        "path": "/v1/changes", "kind": "deploy", "what": "gateway-east 1 -> 2", "when": str(AT_NS),
        "service": "gateway", "version": "2",
        "labels": {"place": "gateway-east", "from_version": "1", "to_version": "2"},
    }  # fmt: skip


@pytest.mark.parametrize("server", [401], indirect=True)
def test_where_the_server_wants_a_token_the_command_records_it(server: Server, tmp_path: Path) -> None:
    announcer = Announcer(tmp_path)
    announcer.record(deployment("gateway-east", 1, 2, AT_NS))
    announcer.close(patience_s=60)
    assert len(server.bodies) == 1
    argv = [sys.executable, "-m", "api.cli", "changes", "list", "--from", "2026-01-01T00:00:00Z", "--json"]
    done = subprocess.run([*argv, "--data", str(tmp_path)], capture_output=True, text=True, timeout=60, check=True)
    (change,) = json.loads(done.stdout)["changes"]
    assert (change["ts_ns"], change["kind"], change["what"]) == (AT_NS, "deploy", "gateway-east 1 -> 2")
    assert change["labels"] == {"place": "gateway-east", "from_version": "1", "to_version": "2"}
