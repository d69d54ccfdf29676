"""What works with which capabilities, as user 65534, each level in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.needs import program

ROOT = Path(__file__).parents[4]
TRY = """
import json, socket, time
from collector.clock import HostClock
from collector.packet.live.settings import PacketSettings
from collector.packet.live.source import PacketSource
source = PacketSource("h", PacketSettings(interfaces=("lo",), filter="udp port 5599", retire_ms=1, report="100ms",
                                          **{"promiscuous": %r}))
found = source.start({})
packets = 0
if found.status != "unavailable":
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); receiver.bind(("127.0.0.1", 5599))
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); sender.connect(("127.0.0.1", 5599))
    clock = HostClock()
    source.poll(clock.read())
    for _ in range(20): sender.send(b"x")
    time.sleep(0.15)
    for c in source.poll(clock.read()).columns:
        if c.table.name == "flows": packets += int(c.values["packets"].sum())
    source.close()
print(json.dumps([found.status, found.reason, packets]))
"""


def level(*capabilities: str, promiscuous: bool = False) -> tuple[str, str, int]:
    setpriv = program("setpriv", "util-linux")
    if os.geteuid() != 0:
        pytest.skip("only root can choose the capabilities of a test process")
    command = [setpriv, "--reuid=65534", "--regid=65534", "--clear-groups"]
    if capabilities:
        names = ",".join(f"+{name}" for name in capabilities)
        command += [f"--inh-caps={names}", f"--ambient-caps={names}"]
    imports = subprocess.run([*command, sys.executable, "-c", "import numpy, msgspec, xxhash"], capture_output=True)
    if imports.returncode != 0:
        pytest.skip(f"nobody cannot run this interpreter: {imports.stderr.decode().strip()[-200:]}")
    code = TRY % promiscuous
    done = subprocess.run([*command, sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    status, reason, packets = json.loads(done.stdout)
    return status, reason, packets


def test_without_privilege_the_one_command_is_said() -> None:
    status, reason, packets = level()
    assert (status, packets) == ("unavailable", 0)
    assert "CAP_NET_RAW" in reason
    assert "setcap cap_net_raw+ep" in reason


@pytest.mark.parametrize("promiscuous", [False, True])
def test_net_raw_is_enough(promiscuous: bool) -> None:
    status, reason, packets = level("net_raw", promiscuous=promiscuous)
    # Loopback states no rate, so bursts are not judged there; nothing else is missing.
    assert status == "degraded"
    assert reason.startswith("lo does not state its rate")
    assert packets == 20
