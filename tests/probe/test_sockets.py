"""Kernel stamps of real sockets, over loopback and over veth with a queue. Hardware stamps are not run."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tailsight_probe.sockets import SocketStamps, parse_stamp

from tests.namespaces import Namespace, namespaces

ROOT = Path(__file__).resolve().parents[2]


class Seen:
    """Collects what would be stamped: key -> point -> time."""

    def __init__(self) -> None:
        self.times: dict[Any, dict[str, int]] = defaultdict(dict)

    def __call__(self, time_ns: int, clock: str, point: Any, key: Any) -> None:
        assert clock == "monotonic"
        name = point.name if hasattr(point, "name") else str(point)
        assert name not in self.times[key], f"{key} {name} twice"
        self.times[key][name] = time_ns


@pytest.fixture
def seen() -> Seen:
    return Seen()


def drained(stamps: SocketStamps, want: int) -> int:
    """Drain until `want` stamps are there, or nothing more comes."""
    got, end = 0, time.monotonic() + 2
    while got < want and time.monotonic() < end:
        got += stamps.drain()
        time.sleep(0.001)
    return got


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client, server


def awake(exchange: Callable[[], int | None]) -> None:
    """The kernel begins to stamp what comes in a moment after the first socket of the machine asked for it."""
    end = time.monotonic() + 5
    while exchange() is None:
        assert time.monotonic() < end, "the kernel does not stamp what comes in"
        time.sleep(0.005)


def test_tcp_stamps_are_matched_by_byte_offset(seen: Seen) -> None:
    client, server = tcp_pair()
    out, into = SocketStamps(client, stamp_at=seen), SocketStamps(server, stamp_at=seen)

    def exchange() -> int | None:
        out.send(b"warm", "warm")
        came = into.recv(64)[1]
        drained(out, 3)
        seen.times.pop("warm", None)
        return came

    awake(exchange)
    sent = {}
    for n in range(40):
        message = struct.pack(">I", n) + b"m" * (n * 7 % 50)
        before = time.monotonic_ns()
        out.send(message, n)
        data, came = into.recv(4_096)
        after = time.monotonic_ns()
        assert data == message
        into.received(n, came)
        sent[n] = (before, after)
        drained(out, 3)
    for n, (before, after) in sent.items():
        times = seen.times[n]
        assert set(times) == {"qdisc_tx", "driver_tx", "acked", "kernel_rx"}, n
        # The conversion to MONOTONIC is good to a bracket; a step of the clock would show here.
        slack = 1_000_000
        assert before - slack <= times["qdisc_tx"] <= times["driver_tx"] <= times["kernel_rx"] + slack
        assert times["kernel_rx"] <= after + slack
        assert times["driver_tx"] <= times["acked"]
    client.close()
    server.close()


def test_udp_stamps_are_matched_by_packet(seen: Seen) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as to, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as by:
        to.bind(("127.0.0.1", 0))
        out, into = SocketStamps(by, stamp_at=seen), SocketStamps(to, stamp_at=seen)

        def exchange() -> int | None:
            out.send(b"warm", "warm", to.getsockname())
            came = into.recv(64)[1]
            drained(out, 2)
            seen.times.pop("warm", None)
            return came

        awake(exchange)
        for n in range(100):
            out.send(struct.pack(">I", n), n, to.getsockname())
            data, came, address = into.recvfrom(2_048)
            assert address[1] == by.getsockname()[1]
            into.received(struct.unpack(">I", data)[0], came)
            if n % 20 == 19:
                drained(out, 40)
    assert set(seen.times) == set(range(100))
    assert all(set(times) == {"qdisc_tx", "driver_tx", "kernel_rx"} for times in seen.times.values())


def test_only_a_share_is_asked_for(seen: Seen) -> None:
    client, server = tcp_pair()
    out = SocketStamps(client, every=10, stamp_at=seen)
    for n in range(1, 101):
        out.send(b"x" * 20, n)
        server.recv(4_096)
        out.drain()
    drained(out, 3)
    assert set(seen.times) == set(range(10, 101, 10))
    client.close()
    server.close()


def test_a_share_of_packets_keeps_its_count(seen: Seen) -> None:
    """UDP counts the packets that were asked for, not all."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as to, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as by:
        to.bind(("127.0.0.1", 0))
        out = SocketStamps(by, every=7, stamp_at=seen)
        for n in range(1, 71):
            out.send(b"x", n, to.getsockname())
        drained(out, 20)
    assert set(seen.times) == set(range(7, 71, 7))


def test_what_waits_is_bounded_and_counted(seen: Seen) -> None:
    client, server = tcp_pair()
    out = SocketStamps(client, pending=8, stamp_at=seen)
    for n in range(50):
        out.send(b"y", n)
    assert out.lost == 42
    assert len(out._wait) == 8
    client.close()
    server.close()


def test_a_message_longer_than_the_buffer_is_sent_whole(seen: Seen) -> None:
    client, server = tcp_pair()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)
    out = SocketStamps(client, stamp_at=seen)
    import threading

    got = bytearray()

    def read() -> None:
        while len(got) < 3_000_000:
            got.extend(server.recv(65_536))

    reader = threading.Thread(target=read)
    reader.start()
    out.send(bytes(range(256)) * 11_719, "long")  # 3,000,064 bytes
    reader.join(10)
    drained(out, 3)
    assert len(got) >= 3_000_000
    assert "acked" in seen.times["long"]
    client.close()
    server.close()


def test_draining_never_waits_on_a_socket_with_a_timeout(seen: Seen) -> None:
    """A thread that drains under a lock would hold up the one that sends."""
    server = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(server.getsockname(), timeout=3_600)
    try:
        stamps = SocketStamps(client, stamp_at=seen)
        stamps.send(b"x" * 100, 1)
        thread = threading.Thread(target=lambda: [stamps.drain() for _ in range(100)], daemon=True)
        thread.start()
        thread.join(30)
        assert not thread.is_alive()
    finally:
        client.close()
        server.close()


def test_wrong_arguments_are_refused() -> None:
    with socket.socket() as plain:
        for wrong in ({"every": 0}, {"pending": 0}):
            with pytest.raises(ValueError, match="at least 1"):
                SocketStamps(plain, **wrong)


def test_hardware_times_are_read_where_they_are() -> None:
    """On plain values: no card here has a clock."""
    times = struct.pack("@6l", 0, 0, 0, 0, 12, 345)
    about = struct.pack("=IBBBBII", 42, 4, 0, 0, 0, 0, 99)
    assert parse_stamp([(1, 37, times), (0, 11, about)]) == (0, 99, 0, 12_000_000_345)


@given(
    st.lists(st.tuples(st.sampled_from([0, 1, 41]), st.sampled_from([11, 25, 37]), st.binary(max_size=80)), max_size=4)
)
def test_no_control_message_breaks_the_reader(control: list[tuple[int, int, bytes]]) -> None:
    parse_stamp(control)


# Inside a namespace: bursts of 20 packets of 1,042 bytes into a 20 Mbit/s queue; how much longer each waits.
BURSTS = """
import socket, statistics, sys, time
from collections import defaultdict
from tailsight_probe.sockets import SocketStamps
times = defaultdict(dict)
def stamp(ns, clock, point, key): times[key][getattr(point, "name", str(point))] = ns
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
stamps = SocketStamps(out, stamp_at=stamp)
slopes = []
for burst in range(8):
    for n in range(20):
        stamps.send(b"z" * 1000, (burst, n), (sys.argv[1], 9))
    end = time.monotonic() + 0.1
    while time.monotonic() < end:
        stamps.drain()
        time.sleep(0.001)
    waits = [times[burst, n]["driver_tx"] - times[burst, n]["qdisc_tx"] for n in range(20)]
    entered = [times[burst, n]["qdisc_tx"] for n in range(20)]
    slopes.append((waits[19] - waits[5] + entered[19] - entered[5]) / 14)
print(statistics.median(slopes))
"""


@pytest.fixture(scope="module")
def host() -> Iterator[Namespace]:
    with namespaces(1, 60) as (one,):
        yield one


def test_each_packet_in_a_queue_waits_for_those_before_it(host: Namespace) -> None:
    """1,042 bytes at 20 Mbit/s take 416.8 us: each packet of a burst waits that much longer than the one before."""
    host.run("tc", "qdisc", "replace", "dev", host.device, "root", "tbf", "rate", "20mbit", "burst", "2000",
             "limit", "1000000")  # fmt: skip
    path = os.pathsep.join([str(ROOT), str(ROOT / "collector/probe/src")])
    done = subprocess.run(
        host.command(sys.executable, "-c", BURSTS, host.gateway),
        capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(416_800, rel=0.03)
