"""`python -m api.demo.links`: the network between the programs, in user space: every packet of theirs passes here, and
the receive queues of their hosts' NICs (`api.demo.rss`, `api.demo.nic`).

Without a fault a packet is handed on at once. Waiting packets are kept in the order in which they leave; what waits for
less than a system call takes is not waited for.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import heapq
import itertools
import logging
import select
import socket
import time
from collections.abc import Callable
from pathlib import Path

from api.demo.control import Control
from api.demo.faults import LINES, LINKS, Fault
from api.demo.instances import Instance, Instances
from api.demo.link_model import LinkModel
from api.demo.nic import Queue, Stream, striking
from api.demo.rss import FLOWS
from api.demo.stopping import Stop
from api.demo.tap import Tap

_POLL_S = 0.05
_READ = 65_536
_LOCAL = "127.0.0.1"

log = logging.getLogger(__name__)


class Links:
    """All links in one thread: sockets to read, and packets that wait for their time."""

    def __init__(self, control: Path, seed: int) -> None:
        self._control = Control(control)
        self._tap = Tap(control)
        self._faults: dict[str, list[Fault]] = {name: [] for name in LINKS}
        self._queue_faults: dict[str, list[Fault]] = {name: [] for name in FLOWS}
        self._readers: dict[socket.socket, Callable[[], None]] = {}
        self._waiting: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._down: list[tuple[socket.socket, Callable[[], None]]] = []  # where nobody has been heard yet
        self._seed = seed
        self._instances = Instances(control)
        self._beside: list[Instance] = []
        self._copies: dict[str, list[socket.socket]] = {name: [] for name in LINES}  # where else a line leads
        self._closers: dict[str, list[Callable[[], None]]] = {}  # what ends with an instance

    def add_udp(self, name: str, listen: int, target: int, copy: int | None = None) -> None:
        """Hand datagrams on from one port to another, as soon as somebody listens there.

        What leaves the link goes to port `copy` as well, as a switch's mirror port would send it to a collector; what
        becomes of it in the receiver's NIC is not seen there.
        """
        outer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        outer.connect((_LOCAL, target))
        mirror = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        model = self._model(name, stream=False)
        queue = Queue(name, self._seed)

        def send(payload: bytes) -> None:
            taken = queue.takes(self._queue_faults[name], time.time_ns())
            for end in (outer, *self._copies[name]) if taken else ():
                with contextlib.suppress(ConnectionRefusedError):  # nobody listens now
                    end.send(payload)
            if copy is not None:  # not connected, so that nobody's refusal comes back
                mirror.sendto(payload, (_LOCAL, copy))

        def up() -> None:
            inner = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            inner.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            inner.bind((_LOCAL, listen))

            def read() -> None:
                payload = inner.recv(_READ)
                if name == LINES[0]:  # both lines carry the same
                    self._tap.copy(payload)
                self._hand_on(name, model, payload, lambda: send(payload))

            self._readers[inner] = read

        self._down.append((outer, up))

    def add_tcp(self, name: str, listen: int, target: int) -> Callable[[], None]:
        """Hand on what comes over connections, both ways; where one side ends, the other is ended.

        What it returns takes no more connections.
        """
        server = socket.create_server((_LOCAL, listen), backlog=16)

        def accept() -> None:
            near, _ = server.accept()
            try:
                far = socket.create_connection((_LOCAL, target), timeout=1.0)
            except OSError:  # the other side is down: so is the link
                near.close()
                return
            for one, other, flow in ((near, far, name), (far, near, f"{name}.back")):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                one.settimeout(1.0)  # a side that takes nothing any more must not stop the other links
                self._readers[one] = self._pump(name, flow, one, other)

        def close() -> None:
            self._readers.pop(server, None)
            server.close()

        self._readers[server] = accept
        return close

    def _lead_to(self, instance: Instance) -> None:
        """Let the links lead to an instance beside the main one, so that it is as far away."""
        ports = instance.ports
        closers = self._closers.setdefault(instance.id, [])
        if "orders" in ports:
            closers.append(self.add_tcp(instance.at.replace("gateway", "orders"), ports["orders"], ports["gateway"]))
        for name in LINES:
            if name in ports:
                copy = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                copy.connect((_LOCAL, ports[name]))
                self._copies[name].append(copy)
                closers += [functools.partial(self._copies[name].remove, copy), copy.close]

    def _beside_changed(self, now_ns: int) -> None:
        found = self._instances.changed()
        if found is not None:
            self._beside = [routed.instance for routed in found]
        wanted = {one.id: one for one in self._beside if not one.ended(now_ns)}
        for name, instance in wanted.items():
            if name not in self._closers:
                self._lead_to(instance)
        for name in [name for name in self._closers if name not in wanted]:
            for close in self._closers.pop(name):
                close()

    def run(self, stop: Stop) -> None:
        """Hand packets on until `stop`."""
        looked_ns = 0
        while not stop:
            now_ns = time.monotonic_ns()
            if now_ns - looked_ns > _POLL_S * 1e9:
                looked_ns = now_ns
                self._look()
            while self._waiting and self._waiting[0][0] <= time.monotonic_ns():
                heapq.heappop(self._waiting)[2]()
            wait_s = (self._waiting[0][0] - time.monotonic_ns()) * 1e-9 if self._waiting else _POLL_S
            # select(2) waits for microseconds, epoll for milliseconds.
            ready, _, _ = select.select(list(self._readers), [], [], max(0.0, min(wait_s, _POLL_S)))
            for one in ready:
                if reader := self._readers.get(one):
                    reader()

    def _pump(self, name: str, flow: str, source: socket.socket, target: socket.socket) -> Callable[[], None]:
        model = self._model(name, stream=True)
        stream: Stream[bytes] = Stream(Queue(flow, self._seed))

        def end() -> None:
            stream.drop()
            for one in (source, target):
                self._readers.pop(one, None)
                one.close()

        def send(data: bytes) -> None:
            if not data:
                end()
                return
            try:
                target.sendall(data)
            except OSError:
                end()

        def arrive(data: bytes) -> None:
            """What the link has handed on comes to the receive queue; b"" is the stream's end."""
            waits = stream.due_ns is not None
            if stream.take(data, self._queue_faults[flow], time.monotonic_ns(), time.time_ns()):
                send(data)
            elif not waits:
                self._wait(stream.due_ns, again)

        def again() -> None:
            through = stream.again(self._queue_faults[flow], time.monotonic_ns(), time.time_ns())
            if through is None:
                log.warning("%s: the receiver's NIC has let nothing through for too long, the connection ends", flow)
                end()
                return
            for data in through:
                send(data)
            self._wait(stream.due_ns, again)

        def read() -> None:
            try:
                data = source.recv(_READ)
            except OSError:
                data = b""
            if not data:
                self._readers.pop(source, None)
            self._hand_on(name, model, data, lambda: arrive(data))

        return read

    def _hand_on(self, name: str, model: LinkModel, data: bytes, action: Callable[[], None]) -> None:
        now_ns = time.monotonic_ns()
        leaves_ns = model.leaves_ns(len(data), now_ns, self._faults[name], time.time_ns())
        if leaves_ns is None:
            return
        if leaves_ns <= now_ns:
            action()
        else:
            self._wait(leaves_ns, action)

    def _wait(self, until_ns: int | None, action: Callable[[], None]) -> None:
        if until_ns is not None:
            heapq.heappush(self._waiting, (until_ns, next(self._order), action))

    def _knock(self) -> None:
        """Raise the links whose other end listens by now: it did not refuse the datagram before this one."""
        for link in list(self._down):
            try:
                link[0].send(b"")
                link[0].send(b"")  # loopback answers at once: this one would be refused
            except ConnectionRefusedError:
                continue
            self._down.remove(link)
            link[1]()

    def _look(self) -> None:
        self._knock()
        self._tap.look()
        ordered = self._control.changed()
        now_ns = time.time_ns()
        self._beside_changed(now_ns)
        if ordered is not None:
            running = [fault for fault in ordered if fault.end_ns is None or fault.end_ns > now_ns]
            self._faults = {name: [fault for fault in running if fault.at == name] for name in LINKS}
            self._queue_faults = {name: striking(running, name) for name in FLOWS}

    def _model(self, name: str, *, stream: bool) -> LinkModel:
        return LinkModel(stream, self._seed + LINKS.index(name))


def main() -> None:
    """Read the arguments and run until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--control", type=Path, required=True, help="the demo's control directory")
    parser.add_argument("--seed", type=int, default=1, help="the same seed loses the same packets")
    parser.add_argument("--link", action="append", default=[], help="NAME:PORT:TARGET[:COPY] on 127.0.0.1")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    links = Links(options.control, options.seed)
    for text in options.link:
        name, listen, target, *copy = text.split(":")
        if name in LINES:
            links.add_udp(name, int(listen), int(target), int(copy[0]) if copy else None)
        else:
            links.add_tcp(name, int(listen), int(target))
    links.run(Stop())


if __name__ == "__main__":
    main()
