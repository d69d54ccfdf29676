"""TCP as the order path uses it: a dialler that comes back when the other side has gone, a listener with many peers.

Both cut the stream into frames and hand them to a callback. A heartbeat a second crosses each connection; one that is
silent for `SILENCE_S` is closed, so that a half-open connection is found too.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from api.demo.stopping import Stop
from api.demo.wire import HEARTBEAT, Frames, WireError, frame

if TYPE_CHECKING:
    from tailsight_probe.sockets import SocketStamps

HEARTBEAT_S = 1.0
SILENCE_S = 3.0
_POLL_S = 0.2
_FIRST_RETRY_S = 0.05
_MAX_RETRY_S = 1.0
_READ = 65_536

log = logging.getLogger(__name__)
Address = tuple[str, int]


class Raised(Protocol):
    """A stop flag: true once it is time to end."""

    def __bool__(self) -> bool: ...


class Peer:
    """One open connection. `send` is safe from any thread.

    With `stamps`, the kernel's stamps of what is sent are drained by whoever waits in `ready`.
    """

    def __init__(self, connection: socket.socket, name: str, stamps: SocketStamps | None = None) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(1.0)
        self.name = name
        self.socket = connection
        self.heard_s = time.monotonic()
        self._frames = Frames()
        self._lock = threading.Lock()
        self._stamps = stamps
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)

    def send(self, data: bytes, key: int | None = None) -> bool:
        """Hand `data` to the kernel, which stamps it as message `key`; False when the connection does not take it."""
        with self._lock:
            try:
                if self._stamps is None:
                    self.socket.sendall(data)
                else:
                    self._stamps.send(data, key)
            except OSError:
                # What was sent in part cannot be taken back: the stream is of no use any more.
                with contextlib.suppress(OSError):
                    self.socket.shutdown(socket.SHUT_RDWR)
                return False
        return True

    def ready(self, wait_s: float) -> bool:
        """Whether there is something to `receive` within the time. Raises OSError for a broken connection."""
        found = self._poll.poll(wait_s * 1e3)
        if not found or found[0][1] & ~select.POLLERR:
            return bool(found)
        # Stamps that wait make a socket readable to `select` and to a `recv` with a timeout; here they are told apart.
        if error := self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error, os.strerror(error))
        if self._stamps is not None:
            with self._lock:
                self._stamps.drain()
        return False

    def receive(self) -> list[tuple[bytes, bytes]] | None:
        """The frames of what has arrived, None when the other side has closed. Raises OSError and WireError."""
        data = self.socket.recv(_READ)
        if not data:
            return None
        self.heard_s = time.monotonic()
        return [(kind, body) for kind, body in self._frames.feed(data) if kind != HEARTBEAT]

    def silent(self) -> bool:
        """Whether nothing has come for too long."""
        return time.monotonic() - self.heard_s > SILENCE_S


class Dialler:
    """A client connection that is made again whenever it breaks. `run` it in a thread."""

    def __init__(
        self,
        address: Address,
        on_frame: Callable[[bytes, bytes], None],
        on_lost: Callable[[], None] = lambda: None,
        stamps: Callable[[socket.socket], SocketStamps | None] = lambda _: None,
    ) -> None:
        self._address = address
        self._stamps = stamps
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._peer: Peer | None = None
        self.connects = 0

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._peer is not None

    def send(self, data: bytes, key: int | None = None) -> bool:
        """Send message `key` on the present connection; False when there is none or it just broke."""
        peer = self._peer
        return peer is not None and peer.send(data, key)

    def run(self, stop: Raised) -> None:
        """Connect, read, and connect again, until `stop`."""
        retry_s = _FIRST_RETRY_S
        while not stop:
            try:
                connection = socket.create_connection(self._address, timeout=1.0)
            except OSError as error:
                log.info("no connection to %s:%d: %s", *self._address, error)
                time.sleep(retry_s)
                retry_s = min(2 * retry_s, _MAX_RETRY_S)
                continue
            began_s = time.monotonic()
            self.connects += 1
            log.info("connected to %s:%d", *self._address)
            with connection:
                self._peer = Peer(connection, f"{self._address[0]}:{self._address[1]}", self._stamps(connection))
                why = self._read(self._peer, stop)
                self._peer = None
            if not stop:
                log.warning("connection to %s:%d lost: %s", *self._address, why)
            self._on_lost()
            if time.monotonic() - began_s > _MAX_RETRY_S:
                retry_s = _FIRST_RETRY_S
            elif not stop:  # it was accepted only to be closed: what lies behind is not there yet
                time.sleep(retry_s)
                retry_s = min(2 * retry_s, _MAX_RETRY_S)

    def _read(self, peer: Peer, stop: Raised) -> str:
        peer.socket.settimeout(_POLL_S)
        beat_s = time.monotonic()
        while not stop:
            if time.monotonic() - beat_s >= HEARTBEAT_S:
                peer.send(frame(HEARTBEAT))
                beat_s = time.monotonic()
            if peer.silent():
                return f"silent for {SILENCE_S:g} s"
            try:
                if not peer.ready(_POLL_S):
                    continue
                frames = peer.receive()
            except TimeoutError:
                continue
            except (OSError, WireError) as error:
                return str(error)
            if frames is None:
                return "closed by the other side"
            for kind, body in frames:
                self._on_frame(kind, body)
        return "stopping"


class Listener:
    """A server socket and its peers, served by one thread (`run`)."""

    def __init__(self, address: Address, on_frame: Callable[[Peer, bytes, bytes], None]) -> None:
        self._server = socket.create_server(address, backlog=16)
        self._on_frame = on_frame
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._server, selectors.EVENT_READ, None)

    @property
    def address(self) -> Address:
        """Where it listens; the port is the kernel's choice when 0 was asked for."""
        host, port = self._server.getsockname()
        return host, port

    def run(self, stop: Stop) -> None:
        """Serve until `stop`, then close everything."""
        beat_s = time.monotonic()
        while not stop:
            for key, _ in self._selector.select(_POLL_S):
                if key.data is None:
                    self._accept()
                else:
                    self._serve(key.data)
            if time.monotonic() - beat_s >= HEARTBEAT_S:
                beat_s = time.monotonic()
                for peer in self._peers():
                    if peer.silent() or not peer.send(frame(HEARTBEAT)):
                        self._drop(peer, "silent")
        for peer in self._peers():
            self._drop(peer, "stopping")
        self._selector.close()
        self._server.close()

    def _accept(self) -> None:
        connection, (host, port) = self._server.accept()
        log.info("connection from %s:%d", host, port)
        self._selector.register(connection, selectors.EVENT_READ, Peer(connection, f"{host}:{port}"))

    def _serve(self, peer: Peer) -> None:
        try:
            frames = peer.receive()
            for kind, body in frames or ():
                self._on_frame(peer, kind, body)
        except (OSError, WireError) as error:
            self._drop(peer, str(error))
            return
        if frames is None:
            self._drop(peer, "closed by the other side")

    def _drop(self, peer: Peer, why: str) -> None:
        log.info("connection from %s ended: %s", peer.name, why)
        self._selector.unregister(peer.socket)
        peer.socket.close()

    def _peers(self) -> list[Peer]:
        return [key.data for key in self._selector.get_map().values() if key.data is not None]
