"""A real agent with a tap on loopback, a real server: flows by REST and command line, a capture on demand, no loss."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from api.cli.outcome import Code
from collector.packet.importer import analyse
from tests.api.cli.conftest import tailsight as tailsight
from tests.api.live import ROOT, Live, running
from tests.collector.packet.live.netns import as_root

PORT = 5_777
CONFIG = f"""
[agent]
collectors = ["packet"]
linger_s = 0.05
heartbeat_s = 0.5
nice = 0

[agent.packet]
interfaces = ["lo"]
taps = {{lo = "loop"}}
filter = "udp port {PORT}"
report = "300ms"
keys = [{{space = "order", ports = [{PORT}], offset = 0, width = 4, endian = "little"}}]

[agent.packet.buffer]
bytes = 33554432
"""


@contextmanager
def agent(live: Live) -> Iterator[subprocess.Popen[bytes]]:
    config = live.data / "tailsight.toml"
    words = ["--data", str(live.data), "--config", str(config), "--server", live.url]
    with (live.data / "agent.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "collector.agent", *words],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/collector/probe/src"},
            stderr=log,
            stdout=log,
        )
    try:
        deadline = time.monotonic() + 20
        while not (live.data / "agent" / "triggers").is_dir():
            assert process.poll() is None, (live.data / "agent.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def until(client: httpx.Client, packets: int) -> list[dict[str, Any]]:
    deadline = time.monotonic() + 20
    while True:
        rows = client.get("/v1/flows", params={"tap": "loop", "port": PORT, "address": "127.0.0.1"}).json()["flows"]
        if sum(row["packets"] for row in rows) >= packets:
            return rows
        assert time.monotonic() < deadline, rows
        time.sleep(0.1)


def test_what_passes_the_tap_is_answered_and_kept(tmp_path: Path, tailsight: Any) -> None:
    as_root()
    with running(tmp_path, CONFIG) as live, agent(live) as process, live.client() as client:
        sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sink.bind(("127.0.0.1", PORT))
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 46 << 2)
        sender.connect(("127.0.0.1", PORT))
        for number in range(500):
            sender.send(number.to_bytes(4, "little") + bytes(60))
        rows = until(client, 500)
        assert sum(row["packets"] for row in rows) == 500
        assert {(row["interface"], row["protocol"], row["dscp_min"]) for row in rows} == {("lo", "udp", 46)}
        again = threading.Timer(0.3, lambda: [sender.send(b"\xff\xff\xff\xff" + bytes(60)) for _ in range(50)])
        again.start()
        kept = tailsight(
            "agent", "trigger", "--before", "60s", "--after", "600ms", "--reason", "Slow: order 7", "--data",
            str(tmp_path), "--json",
        )  # fmt: skip
        again.join()
        assert kept.code == 0, kept
        file = Path(kept.json["file"])
        assert file.name.endswith("Z-slow-order-7.pcapng")
        assert kept.json["bytes"] == file.stat().st_size
        assert analyse([file]).packets == 550
        until(client, 550)
        shown = tailsight("query", "flows", "--tap", "loop", "--data", str(tmp_path), "--json")
        assert shown.code == 0, shown
        assert sum(flow["packets"] for flow in shown.json["flows"]) == 550
        assert "127.0.0.1" in tailsight("query", "flows", "--data", str(tmp_path)).out
        assert tailsight("query", "flows", "--tap", "none", "--data", str(tmp_path)).code == Code.FINDING
        assert client.get("/v1/flows", params={"address": "nonsense"}).status_code == 422
        assert client.get("/v1/flows", params={"order": "nonsense"}).status_code == 422
        assert "10.0" not in client.get("/v1/flows", params={"format": "csv", "address": "10.0.0.1"}).text
        (stamped,) = client.get("/v1/messages/order:17").json()["stamps"]
        assert (stamped["point"], stamped["service"], stamped["clock"]) == ("tap", "loop", "realtime")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, (tmp_path / "agent.log").read_text()
        (account,) = [row for row in client.get("/v1/ledger").json()["ledger"] if row["name"] == "packet"]
        assert account["difference"] == 0
        assert account["quarantined"] == 0
        assert account["stored_unique"] + sum(account["dropped"].values()) == account["produced"]
        sink.close()
    refused = tailsight("agent", "trigger", "--data", str(tmp_path), "--json")
    assert refused.code == Code.UNREACHABLE
    assert "no packet buffer is recording" in refused.json["error"]["message"]
    assert tailsight("agent", "trigger", "--before", "0s", "--after", "0s", "--data", str(tmp_path)).code == Code.USAGE
