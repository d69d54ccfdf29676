"""Programs for a test of several hosts: an agent with a clock of its own, a client, a venue, a forwarder that drops.

    python -m tests.several_hosts agent DATA OFFSET_NS        DATA/tailsight.toml's agent, its clock OFFSET_NS ahead
    python -m tests.several_hosts venue PORT python -m tests.several_hosts client ORDERS HOST:PORT... python -m
    tests.several_hosts forward PORT HOST:PORT DROP_EVERY

Network namespaces share one machine's clock, so that a host whose clock is wrong is made at the agent's clock door:
every reading of REALTIME is OFFSET_NS ahead there, and nothing else knows of it.
"""

from __future__ import annotations

import signal
import socket
import struct
import sys
import threading
import time
from pathlib import Path

import tailsight_probe as probe

from collector.agent.__main__ import settings_of
from collector.agent.run import run_agent
from collector.clock import BoundSource, HostClock, Pair, read_pair

_ORDER = struct.Struct(">Q")
_PAD = b"o" * 400


def agent(data: str, offset_ns: str) -> int:
    """The real agent. Only its clock is ours."""
    ahead = int(offset_ns)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=stop.set, daemon=True).start())

    def pair(samples: int) -> Pair:
        true = read_pair(samples)
        return Pair(true.realtime_ns + ahead, true.monotonic_ns, true.bracket_ns)

    def clock(bounds: BoundSource, *, sample_s: float) -> HostClock:
        return HostClock(bounds, pair=pair, sample_s=sample_s)

    return run_agent(settings_of(Path(data) / "tailsight.toml", None, None), Path(data), stop, clock=clock)


def venue(port: str) -> int:
    """Takes orders and answers each."""
    probe.init(service="venue")
    arrived, answered = probe.point("app_ingress"), probe.point("answered")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as into:
        into.bind(("0.0.0.0", int(port)))  # noqa: S104 - in a namespace of the test
        print("ready", flush=True)  # noqa: T201
        while True:
            data, address = into.recvfrom(2_048)
            (order,) = _ORDER.unpack_from(data)
            probe.stamp(arrived, order)
            probe.stamp(answered, order)
            into.sendto(data[: _ORDER.size], address)


def client(orders: str, *targets: str) -> int:
    """Sends orders to the targets in turn, 25 at once; prints how many were answered."""
    probe.init(service="client")
    sent, home = probe.point("app_egress"), probe.point("home")
    places = [(host, int(port)) for host, _, port in (target.partition(":") for target in targets)]
    answered = set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:

        def take(seconds: float) -> None:
            end = time.monotonic() + seconds
            while (left := end - time.monotonic()) > 0:
                out.settimeout(left)
                try:
                    (order,) = _ORDER.unpack(out.recv(2_048))
                except TimeoutError:
                    return
                probe.stamp(home, order)
                answered.add(order)

        for order in range(int(orders)):
            probe.stamp(sent, order)
            out.sendto(_ORDER.pack(order) + _PAD, places[order % len(places)])
            if order % 25 == 24:
                take(0.05)
        take(1.0)
    print(len(answered), flush=True)  # noqa: T201
    return 0


def forward(port: str, target: str, drop_every: str) -> int:
    """Hands datagrams on to the target and answers back; drops every n-th on the way there."""
    host, _, number = target.partition(":")
    every, seen = int(drop_every), 0
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as front,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as back,
    ):
        front.bind(("0.0.0.0", int(port)))  # noqa: S104 - for the test's namespaces
        back.connect((host, int(number)))
        client_at: list[tuple[str, int]] = []

        def home() -> None:
            while True:
                front.sendto(back.recv(2_048), client_at[0])

        print("ready", flush=True)  # noqa: T201
        while True:
            data, address = front.recvfrom(2_048)
            if not client_at:
                client_at.append(address)
                threading.Thread(target=home, daemon=True).start()
            seen += 1
            if every == 0 or seen % every:
                back.send(data)


if __name__ == "__main__":
    sys.exit({"agent": agent, "venue": venue, "client": client, "forward": forward}[sys.argv[1]](*sys.argv[2:]))
