from __future__ import annotations

import asyncio
import contextlib
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.ingest_queue import IngestFullError, IngestQueue
from api.limits import QuerySlots
from api.problems import ProblemError
from api.server_settings import ServerSettings
from collector.store.blocks import from_rows
from collector.store.embedded import open_embedded
from collector.store.schema import table_types
from tests.api.frames_kit import Agent, stamp
from tests.api.live import Live, running

TOML = """
[server]
header_seconds = 1.0
body_seconds = 1.0
write_seconds = 1.0
max_ingest_bytes = 200000
ingest_queue_bytes = 400000
max_body_bytes = 20000
"""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with running(tmp_path_factory.mktemp("limits"), TOML) as live:
        yield live


def connect(live: Live) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", int(live.url.rpartition(":")[2])))
    sock.settimeout(20)
    return sock


def read_all(sock: socket.socket) -> bytes:
    got = b""
    with contextlib.suppress(ConnectionError):
        while chunk := sock.recv(65536):
            got += chunk
    return got


def head(path: str, *headers: str, method: str = "POST") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *headers, "", ""]).encode()


def test_a_body_that_says_it_is_too_large_is_refused_unread(live: Live) -> None:
    with connect(live) as sock:
        sock.sendall(head("/v1/changes", "Content-Type: application/json", "Content-Length: 300000000"))
        answer = read_all(sock)  # nothing of the body is ever sent
    assert b" 413 " in answer.split(b"\r\n")[0]
    assert b"body-too-large" in answer


def test_a_chunked_body_is_cut_when_it_is_too_large(live: Live) -> None:
    sent = 0
    with connect(live) as sock:
        headers = ["Content-Type: application/vnd.tailsight.frames", "Transfer-Encoding: chunked"]
        headers += ["Tailsight-Batch: 7b0c2a44-33c2-4f0e-9a56-0a4d4a8f9d11/1/0", "Tailsight-Collector: a@b"]
        sock.sendall(head("/v1/ingest", *headers))
        chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        sock.settimeout(0.05)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while b"\r\n\r\n" not in answer and sent < 50_000_000:
                with contextlib.suppress(TimeoutError):
                    sock.sendall(chunk)
                    sent += 65536
                with contextlib.suppress(TimeoutError):
                    answer += sock.recv(65536)
    assert b" 413 " in answer.split(b"\r\n")[0]
    assert sent < 10_000_000


def test_a_dripping_body_ends_at_its_deadline(live: Live) -> None:
    with connect(live) as sock:
        sock.sendall(head("/v1/changes", "Content-Type: application/json", "Content-Length: 1000"))
        began = time.monotonic()
        sock.settimeout(0.2)
        answer = b""
        while time.monotonic() < began + 15 and b"\r\n\r\n" not in answer:
            with contextlib.suppress(TimeoutError):
                sock.sendall(b" ")
                answer += sock.recv(65536)
    assert b" 408 " in answer.split(b"\r\n")[0]


def test_dripping_headers_are_cut(live: Live) -> None:
    with connect(live) as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        assert b" 200 " not in read_all(sock)  # the server closes; without a deadline this would time out


def test_many_or_large_headers_and_long_targets_are_refused(live: Live) -> None:
    with live.client() as client:
        assert client.get("/healthz", headers={f"x-{i}": "1" for i in range(80)}).status_code == 431
        assert client.get("/healthz", headers={"x": "y" * 17_000}).status_code == 431
        assert client.get("/healthz?" + "a" * 9_000).status_code == 414
        assert client.post("/v1/changes", content=b"{}", headers={"content-encoding": "gzip"}).status_code == 415


def test_a_reader_that_does_not_read_is_cut_and_a_slow_one_that_reads_is_not(live: Live) -> None:
    now = time.time_ns()
    row = {"kind": "deploy", "who": "w", "host": "", "service": "big", "version": "", "url": "", "labels": "{}"}
    rows = [
        {**row, "ts": now, "recorded": now, "id": str(uuid.UUID(int=n)), "what": f"{n} " + "x" * 30_000}
        for n in range(900)
    ]
    with open_embedded(live.data) as store:
        store.insert("changes", from_rows(table_types()["changes"], rows), token="big")  # noqa: S106 - a deduplication token
    with connect(live) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sock.sendall(head("/v1/changes?service=big&limit=1000", method="GET"))
        end = time.monotonic() + 20
        cut = "tailsight_answers_cut_total 1.0"
        with live.client() as client:
            while cut not in client.get("/metrics").text and time.monotonic() < end:
                time.sleep(0.1)
            assert cut in client.get("/metrics").text
        assert len(read_all(sock)) < 900 * 30_000  # what lay in the buffers, then the end
    with live.client() as client:
        whole = client.get("/v1/changes", params={"service": "big", "limit": 1000})
        assert len(whole.json()["changes"]) == 900


def test_dozens_of_idle_connections_do_not_keep_the_others_out(live: Live) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            sock = stack.enter_context(connect(live))
            sock.sendall(b"GET /healthz HTTP/1.1\r\n")
        with live.client() as client:
            assert [client.get("/healthz").status_code for _ in range(5)] == [200] * 5


def test_a_rate_is_kept_and_healthz_is_outside_it(tmp_path: Path) -> None:
    with running(tmp_path, '[server]\nquery_rate = "5/minute"\n') as live, live.client() as client:
        statuses = [client.get("/v1/tokens").status_code for _ in range(8)]
        assert statuses.count(200) == 5
        refused = client.get("/v1/tokens")
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 200
        agent = Agent()
        headers, body = agent.batch([stamp(1, "app_ingress", time.time_ns())])
        assert client.post("/v1/ingest", headers=headers, content=body).status_code == 200


async def _slots() -> None:
    slots = QuerySlots(ServerSettings(queries_at_once=2, queries_per_client=2, queries_waiting=1))
    async with slots.take("a"), slots.take("a"):
        with pytest.raises(ProblemError, match="this client"):
            async with slots.take("a"):
                pass
        waits = asyncio.ensure_future(slots.take("b").__aenter__())
        await asyncio.sleep(0)
        assert slots.waiting == 1
        with pytest.raises(ProblemError, match="busy"):
            async with slots.take("c"):
                pass
    await waits  # a slot came free
    assert slots.running == 1


def test_queries_are_shared_out() -> None:
    asyncio.run(_slots())


def test_the_ingest_queue_refuses_before_it_overflows() -> None:
    queue = IngestQueue(100)
    with queue.admit("a", 60):
        with pytest.raises(IngestFullError), queue.admit("b", 41):
            pass
        with pytest.raises(IngestFullError, match="already"), queue.admit("a", 1):
            pass
        with queue.admit("b", 40):
            assert queue.held_bytes == 100
    assert queue.held_bytes == 0
    with queue.admit("a", 100):
        pass
