from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.clock import HostClock
from collector.nic import gauges
from collector.nic.backlog import Softnet, byte_queue_limits, limited_queues, parse_softnet
from collector.nic.ethtool import Ethtool
from collector.nic.links import Qdisc, interfaces, parse_qdisc, read_links
from collector.nic.netlink import ROUTE, SOCK_DIAG, Netlink, NetlinkError, attributes, messages
from collector.nic.settings import NicSettings
from collector.nic.sockets import Socket, parse_socket, read_sockets
from collector.nic.source import NicSource
from collector.sched.gauges import Gauge
from collector.settings import ConfigError
from tests.namespaces import Namespace, namespaces, run
from tests.needs import program

ROOT = Path(__file__).resolve().parents[3]


def values(rows: Any) -> dict[str, float]:
    return {row.name: row.value for row in rows}


# --- plain values


def test_counters_are_what_was_added_and_a_reset_is_not_a_loss() -> None:
    now, before = {"rx_packets": 10, "rx_dropped": 4, "rx_bytes": 7}, {"rx_packets": 7, "rx_dropped": 4, "rx_bytes": 9}
    assert values(gauges.of_link("eth0", now, before)) == {"nic_rx_packets": 3, "nic_rx_dropped": 0}
    assert list(gauges.of_link("eth0", now, None)) == []


def qdisc(**other: Any) -> Qdisc:
    base = {
        "ifindex": 2, "kind": "tbf", "handle": 0x10000, "parent": 0xFFFFFFFF, "sent_bytes": 0, "sent_packets": 0,
        "backlog_packets": 0, "backlog_bytes": 0, "drops": 0, "requeues": 0, "overlimits": 0,
    }  # fmt: skip
    return Qdisc(**{**base, **other})


def test_a_backlog_over_its_drain_rate_is_the_wait() -> None:
    """20 Mbit/s drain 2.5 MB/s: 208,400 bytes wait 83.36 ms."""
    before, now = (
        qdisc(drops=2**32 - 3),
        qdisc(sent_bytes=2_500_000, backlog_bytes=208_400, backlog_packets=200, drops=4),
    )
    got = values(gauges.of_qdisc("eth0", now, before, 1.0))
    assert got["qdisc_delay_ns"] == pytest.approx(83_360_000)
    assert (got["qdisc_drops"], got["qdisc_backlog_packets"]) == (7, 200)  # the counter wrapped
    stuck = values(gauges.of_qdisc("eth0", qdisc(backlog_bytes=9), qdisc(), 1.0))
    assert "qdisc_delay_ns" not in stuck  # nothing leaves it: the wait is not known


def test_softnet_by_cpu() -> None:
    text = "00000010 00000002 00000001 0 0 0 0 0 0 0 0 0 00000003 0 0\n000000ff 00000000 00000000\n"
    now = parse_softnet(text)
    assert now == {3: Softnet(16, 2, 1), 1: Softnet(255, 0, 0)}
    rows = list(gauges.of_softnet(now, {3: Softnet(10, 1, 1), 1: Softnet(255, 0, 0)}))
    assert {(r.name, r.value, r.labels[0][1]) for r in rows} == {
        ("softnet_processed", 6, "3"), ("softnet_dropped", 1, "3"), ("softnet_dropped", 0, "1"),
    }  # fmt: skip


def test_driver_statistics_are_chosen_by_pattern_and_bounded() -> None:
    now = {f"rx{i}_drops": 5 for i in range(10)} | {"rx_packets": 50}
    rows, left = gauges.of_statistics("eth0", now, dict.fromkeys(now, 4), ("*drop*",), 3)
    assert (len(rows), left) == (3, 7)
    assert rows[0] == Gauge("nic_statistic", 1, labels=(("interface", "eth0"), ("statistic", "rx0_drops")))


def test_sockets_are_gathered_by_port_and_side() -> None:
    live = Socket("tcp", 1, 1, 9000, 40_000, 10, 500, 0, 90_000, 30_000, 7, 400)
    calm = Socket("tcp", 2, 1, 9000, 40_001, 0, 0, 1, 50_000, None, 1, 0)
    listening = Socket("tcp", 3, 10, 9000, 0, 3, 128, 0)
    before = {("tcp", 1): Socket("tcp", 1, 1, 9000, 40_000, 0, 0, 0, 1, 1, 5, 0)}
    got = values(gauges.of_sockets([live, calm, listening], before, [9000]))
    assert got == {
        "tcp_accept_queue": 3, "tcp_sockets": 2, "tcp_receive_queue_bytes": 10, "tcp_send_queue_bytes": 500,
        "tcp_drops": 1, "tcp_retransmits": 3, "tcp_unsent_bytes": 400, "tcp_rtt_ns": 90_000, "tcp_min_rtt_ns": 30_000,
    }  # fmt: skip


def test_byte_queue_limits(tmp_path: Path) -> None:
    folder = tmp_path / "eth0" / "queues" / "tx-1" / "byte_queue_limits"
    folder.mkdir(parents=True)
    (folder / "inflight").write_text("120\n")
    (folder / "limit").write_text("3000\n")
    assert list(byte_queue_limits(limited_queues("eth0", tmp_path))) == [("tx-1", 120, 3000)]
    assert limited_queues("veth0", tmp_path) == []


@given(noise=st.binary(max_size=300))
def test_no_answer_breaks_the_readers(noise: bytes) -> None:
    view = memoryview(noise)
    list(messages(view))
    list(attributes(view))
    parse_qdisc(view)
    parse_socket("tcp", view, {0, 1, 22})
    lying = memoryview(struct.pack("=HH", 60_000, 7) + noise)
    assert list(attributes(lying)) == []


@pytest.mark.parametrize(
    ("wrong", "field"),
    [({"period": "1ms"}, "period"), ({"ports": (0,)}, "ports"), ({"max_interfaces": 0}, "max_interfaces"),
     ({"max_statistics": -1}, "max_statistics")],
)  # fmt: skip
def test_settings_say_what_is_wrong(wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        NicSettings(**wrong).validate()
    assert caught.value.field == field


# --- the real kernel, against the tools


def test_link_counters_are_those_of_ip(netlink: Netlink) -> None:
    program("ip", "iproute2")
    before = read_links(netlink)
    tool = {row["ifindex"]: row["stats64"] for row in json.loads(run("ip", "-s", "-j", "link"))}
    after = read_links(netlink)
    names = interfaces()
    assert set(before) == set(tool) == set(names) == set(after)
    for index, stats in tool.items():
        for way in ("rx", "tx"):
            for field, ours in (
                ("packets", "packets"),
                ("bytes", "bytes"),
                ("errors", "errors"),
                ("dropped", "dropped"),
            ):
                low, high = before[index][f"{way}_{ours}"], after[index][f"{way}_{ours}"]
                assert low <= stats[way][field] <= high


@pytest.fixture
def netlink() -> Iterator[Netlink]:
    one = Netlink(ROUTE)
    yield one
    one.close()


def test_a_refused_dump_says_why(netlink: Netlink) -> None:
    with pytest.raises(NetlinkError) as caught:
        netlink.dump(9_999, b"\0" * 16)
    assert caught.value.errno == 95  # EOPNOTSUPP
    assert read_links(netlink)  # and the socket goes on


def test_drivers_answer_as_to_ethtool() -> None:
    tool = program("ethtool", "ethtool")
    asked = Ethtool()
    for name in interfaces().values():
        done = subprocess.run([tool, "-k", name], capture_output=True, text=True)
        theirs = dict(line.split(": ", 1) for line in done.stdout.splitlines()[1:] if ": " in line and line[0] != "\t")
        ours = asked.features(name)
        assert ours["highdma"] == theirs["highdma"].startswith("on")
        rings = subprocess.run([tool, "-g", name], capture_output=True, text=True)
        if rings.returncode == 0:
            current = rings.stdout.split("Current hardware settings:")[1]
            assert f"RX:\t\t{asked.rings(name)['rx']}\n" in current
        else:
            with pytest.raises(OSError, match="not supported"):
                asked.rings(name)
        listed = subprocess.run([tool, "-S", name], capture_output=True, text=True)
        if listed.returncode == 0:
            names = [line.strip().rsplit(":", 1)[0] for line in listed.stdout.splitlines()[1:]]
            assert list(asked.statistics(name)) == names
    asked.close()


def test_tcp_sockets_are_those_of_the_kernel() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    client = socket.create_connection(("127.0.0.1", port))
    server, _ = listener.accept()
    client.sendall(b"x" * 3_000)
    time.sleep(0.05)
    diag = Netlink(SOCK_DIAG)
    found = read_sockets(diag, [port])
    diag.close()
    by_local = {s.local_port: s for s in found if s.state == 1}
    assert len(found) == 3
    assert by_local[port].receive_bytes == 3_000
    info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 280)
    sender = by_local[client.getsockname()[1]]
    assert sender.rtt_ns == struct.unpack_from("=I", info, 68)[0] * 1_000
    assert sender.min_rtt_ns == struct.unpack_from("=I", info, 148)[0] * 1_000
    assert sender.retransmits == struct.unpack_from("=I", info, 100)[0]
    for one in (listener, client, server):
        one.close()


def test_a_full_udp_socket_shows_its_queue_and_its_drops() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as full,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out,
    ):
        full.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        full.bind(("127.0.0.1", 0))
        port = full.getsockname()[1]
        for _ in range(200):
            out.sendto(b"y" * 500, ("127.0.0.1", port))
        diag = Netlink(SOCK_DIAG)
        (one,) = read_sockets(diag, [port])
        diag.close()
        taken = 0
        full.setblocking(False)
        with pytest.raises(BlockingIOError):
            while full.recv(600):
                taken += 1
    assert one.receive_bytes > 0
    assert one.drops == 200 - taken > 0


@pytest.fixture(scope="module")
def host() -> Iterator[Namespace]:
    with namespaces(1, 50) as (one,):
        yield one


# Inside the namespace: a sweep, then 300 packets of 1,042 bytes into a slow queue at once, then another sweep.
SWEEPS = """
import json, socket, sys, time
from collector.clock import HostClock
from collector.nic.settings import NicSettings
from collector.nic.source import NicSource
gateway = sys.argv[1]
clock, source = HostClock(), NicSource("h", NicSettings(period="10ms"))
assert source.start({}).status == "running"
source.poll(clock.read())
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
out.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
end = time.monotonic() + 0.3
sent = 0
while time.monotonic() < end:
    try:
        out.sendto(b"z" * 1000, socket.MSG_DONTWAIT, (gateway, 9))
        sent += 1
    except OSError:  # a full queue may say ENOBUFS
        sent += 1
    if sent % 20 == 0:
        time.sleep(0.002)
poll = source.poll(clock.read())
rows = poll.columns[-1]
labels = {}
for columns in poll.columns[:-1]:
    labels = dict(zip(columns.values["label_set"].tolist(), columns.text("labels")))
print(json.dumps([list(row) for row in zip(rows.text("name"), rows.values["value"].tolist())]))
"""


def test_a_full_queue_shows_its_backlog_its_wait_and_its_drops(host: Namespace) -> None:
    """tbf at 1 Mbit/s with room for 100 KB: the wait is 100 KB / 125 KB/s = 0.8 s, and the rest is dropped."""
    host.run("tc", "qdisc", "replace", "dev", host.device, "root", "tbf", "rate", "1mbit", "burst", "2000",
             "limit", "100000")  # fmt: skip
    path = os.pathsep.join([str(ROOT), str(ROOT / "collector/probe/src")])
    done = subprocess.run(
        host.command(sys.executable, "-c", SWEEPS, host.gateway),
        capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    got = dict(json.loads(done.stdout))
    shown = json.loads(host.run("tc", "-s", "-j", "qdisc", "show", "dev", host.device))[0]
    assert 40_000 < got["qdisc_backlog_bytes"] <= 100_000
    assert got["qdisc_delay_ns"] == pytest.approx(0.8e9, rel=0.5)  # the burst and the shared machine take their part
    assert 0 < got["qdisc_drops"] <= shown["drops"]


def test_the_agents_own_namespace_is_what_is_read() -> None:
    source = NicSource("h1", NicSettings(interfaces=("lo",), ports=(1,), period="10ms"))
    assert source.start({}).status == "running"
    clock = HostClock()
    source.poll(clock.read())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        for _ in range(5):
            out.sendto(b"q" * 100, ("127.0.0.1", 9))
    time.sleep(0.012)
    poll = source.poll(clock.read())
    for columns in poll.columns:
        columns.check()
    got = dict(zip(poll.columns[-1].text("name"), poll.columns[-1].values["value"].tolist(), strict=True))
    assert got["nic_tx_packets"] >= 5
    assert source.state().status == "running"
    source.close()
