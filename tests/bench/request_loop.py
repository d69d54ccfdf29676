"""The programs of `test_observed_effect`: `python request_loop.py serve|ask|feed|sink ...`.

`serve` answers requests after 1 ms of service and stamps them while told to; `ask` sends requests at a rate, open loop,
and times the answers; `feed` sends a market data line; `sink` takes the agent's batches and forgets them.
"""

from __future__ import annotations

import contextlib
import json
import resource
import signal
import socket
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

SERVICE_S = 0.001
GROUP = "239.255.77.1"
_SO_TIMESTAMPNS = 35
_FRAME = struct.Struct("<4sBBHII")  # magic, version, flags, header length, payload length, events


class Loop:
    """Threads that share a socket. `stamps` are the two points while they are recorded, else None."""

    def __init__(self, port: int, threads: int, log: str) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.socket.bind(("0.0.0.0", port))  # noqa: S104 - of a namespace that ends with the test
        self.stamps: Any = None
        self.log = Path(log).open("a", buffering=1)  # noqa: SIM115 - as long as the program
        self.served = 0
        for _ in range(threads):
            threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        import tailsight_probe as probe

        while True:
            request, sender = self.socket.recvfrom(256)
            (number,) = struct.unpack_from(">Q", request)
            stamps = self.stamps
            if stamps is not None:
                probe.stamp(stamps[0], number)
            time.sleep(SERVICE_S)
            if number % 100 == 0:
                self.log.write(f'{{"key": "order:{number}", "kind": "decision", "reason": "bench", "model": "m-1"}}\n')
            if stamps is not None:
                probe.stamp(stamps[1], number)
            self.socket.sendto(request, sender)
            self.served += 1


def serve(port: str, threads: str, log: str, metrics: str) -> None:
    """Serve; every line on the standard input (on, off, or anything else) is answered with what was used so far."""
    import tailsight_probe as probe
    from prometheus_client import Gauge, start_http_server

    probe.init(service="loop")
    points = tuple(probe.point(name, space="order") for name in ("app_ingress", "app_egress"))
    start_http_server(int(metrics), addr="127.0.0.1")
    loop = Loop(int(port), int(threads), log)
    Gauge("loop_threads", "Threads").set(int(threads))
    for line in sys.stdin:
        told = line.strip()
        if told == "on":
            probe.watch_gc()
            loop.stamps = points
        elif told == "off":
            probe.unwatch_gc()
            loop.stamps = None
        used = resource.getrusage(resource.RUSAGE_SELF)
        say({"cpu_s": used.ru_utime + used.ru_stime, "served": loop.served})


def ask(address: str, port: str, rate: str, seconds: str) -> None:
    """Send requests at intended times; each one's time from sending to the kernel's receipt of the answer."""
    count = int(float(rate) * float(seconds))
    door = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    door.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    door.connect((address, int(port)))
    sent, took = [0] * count, [0] * count

    def receive() -> None:
        door.settimeout(2.0)
        with contextlib.suppress(TimeoutError):
            while True:
                answer, cmsgs, _, _ = door.recvmsg(256, 128)
                (number,) = struct.unpack_from(">Q", answer)
                stamp = next((struct.unpack("qq", data) for _, kind, data in cmsgs if kind == _SO_TIMESTAMPNS), None)
                if stamp is not None and number < count:
                    took[number] = stamp[0] * 10**9 + stamp[1] - sent[number]

    receiver = threading.Thread(target=receive)
    receiver.start()
    start = time.monotonic()
    for number in range(count):
        wait = start + number / float(rate) - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        request = struct.pack(">Q", number) + b"\0" * 56
        sent[number] = time.time_ns()
        door.send(request)
    spent = time.monotonic() - start
    receiver.join()
    answered = sorted(each for each in took if each > 0)
    at = lambda p: answered[max(0, -int(-p * len(answered) // 1) - 1)] if answered else None  # noqa: E731
    say(
        {"sent": count, "answered": len(answered), "seconds": spent, "p50": at(0.5), "p99": at(0.99), "p999": at(0.999)}
    )


def feed(port: str, rate: str) -> None:
    """Datagrams of the demo's feed with one quote each to a multicast group on loopback, until ended."""
    out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    out.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
    start, number = time.monotonic(), 0
    while True:
        quote = struct.pack(">cHqIIII", b"Q", number % 50, time.time_ns(), 100, 1, 101, 1)
        head = struct.pack(">10sQHH", b"bench00001", number + 1, 1, len(quote))
        out.sendto(head + quote, (GROUP, int(port)))
        number += 1
        time.sleep(max(0.0, start + number / float(rate) - time.monotonic()))


def sink(port: str) -> None:
    """What the agent needs to hear to believe that its batches are stored."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body, events, at = self.rfile.read(int(self.headers["Content-Length"])), 0, 0
            while self.path == "/v1/ingest" and at < len(body):
                _, _, _, head, payload, n = _FRAME.unpack_from(body, at)
                at, events = at + head + payload, events + n
            batch = self.headers["Tailsight-Batch"]
            said = {"batch": batch, "status": "stored", "events": events, "stored": events, "quarantined": 0,
                    "dropped": 0, "boot_id": "b"}  # fmt: skip
            answer = json.dumps(said if batch else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    ThreadingHTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()


def say(what: dict[str, Any]) -> None:
    """One line of JSON."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    {"serve": serve, "ask": ask, "feed": feed, "sink": sink}[sys.argv[1]](*sys.argv[2:])
