"""Kernel timestamps of the program's own sockets: when a message waited in the queue, left, was acknowledged, came in.

    from tailsight_probe.sockets import SocketStamps

    stamps = SocketStamps(sock)              # TCP or UDP, Linux
    stamps.send(data, order_id)              # as sock.sendall(data)
    data, came_ns = stamps.recv(2048)        # as sock.recv(2048)
    stamps.received(order_id, came_ns)       # once the key is known
    stamps.drain()                           # now and then, off the hot path

| point | the kernel's moment (Documentation/networking/timestamping.rst) |
|---|---|
| `qdisc_tx` | the packet enters the queueing discipline (SCHED) |
| `driver_tx` | the driver is given the packet (SND) |
| `acked` | TCP: the peer acknowledged the message's last byte (ACK) |
| `kernel_rx` | the kernel takes the packet from the driver |
| `nic_tx`, `nic_rx` | the card's own clock, only with `hardware_utc_offset_ns` |

Stamps come through the socket's error queue and are matched by what the kernel counts: packets or bytes.
TCP that joins two messages in one packet stamps only the last of them; what is not stamped is missing, never guessed.
Needs no privilege. Cost: about 6 us per message sent with its stamps, 1.4 us per message received; use `every` to
take a share. Stamps that wait wake `select` and `poll` with POLLERR until they are drained.
Not thread-safe: one object per socket, and one thread sends and drains.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import tailsight_probe

_SO_TIMESTAMPING = 37
_TX_HARDWARE, _TX_SOFTWARE, _RX_HARDWARE, _RX_SOFTWARE, _SOFTWARE, _RAW_HARDWARE = 1, 2, 4, 8, 16, 64
_OPT_ID, _TX_SCHED, _TX_ACK, _OPT_TSONLY, _OPT_ID_TCP = 128, 256, 512, 2048, 1 << 16
_MSG_ERRQUEUE = 0x2000
_ERROR = struct.Struct("=IBBBBII")  # struct sock_extended_err: errno, origin, type, code, pad, info, data
_ORIGIN_TIMESTAMPING = 4
_POINTS = {0: "driver_tx", 1: "qdisc_tx", 2: "acked"}  # SCM_TSTAMP_SND, _SCHED, _ACK
_TIMES = struct.Struct("@6l")  # struct scm_timestamping: software, unused, hardware
_CONTROL = 256


class SocketStamps:
    """Sends and receives on `sock`, and turns the kernel's stamps of it into stamps of messages.

    Args:
        sock: a TCP or UDP socket, connected or not. Enable before the first byte is sent: TCP counts from there.
        space: the key space of the messages.
        every: take the sending stamps of every n-th message only.
        pending: how many messages may wait for their stamps; older ones are given up and counted.
        hardware_utc_offset_ns: the card's clock minus UTC (37 s for TAI). Asks for hardware stamps, which root must
            have switched on in the card (`hwstamp_ctl`); None: none are asked for.
        stamp_at: where stamps go; the process's probe.

    Raises OSError where the system has no SO_TIMESTAMPING.
    """

    def __init__(
        self, sock: socket.socket, *, space: str = "order", every: int = 1, pending: int = 1_024,
        hardware_utc_offset_ns: int | None = None, stamp_at: Callable[..., None] | None = None,
    ) -> None:  # fmt: skip
        if every < 1 or pending < 1:
            raise ValueError(f"every and pending must be at least 1, got {every} and {pending}")
        self.socket = sock
        self.lost = 0  # messages whose stamps were given up: the queue was not drained, or TCP joined them
        self._every = every
        self._pending = pending
        self._stream = sock.type == socket.SOCK_STREAM
        self._hardware_ns = hardware_utc_offset_ns
        self._stamp_at = tailsight_probe.stamp_at if stamp_at is None else stamp_at
        self._handles = {name: tailsight_probe.point(name, space) for name in (*_POINTS.values(), *_OTHERS)}
        self._wait: OrderedDict[int, list[Any]] = OrderedDict()  # what the kernel counts -> key, stamps seen
        self._sent = 0  # what the kernel counts: bytes (TCP), packets whose stamps were asked for (UDP)
        self._messages = 0
        flags = _RX_SOFTWARE | _SOFTWARE | _OPT_ID | _OPT_TSONLY
        if self._stream:
            flags |= _OPT_ID_TCP
        if hardware_utc_offset_ns is not None:
            flags |= _RX_HARDWARE | _RAW_HARDWARE
        self._ask = _TX_SCHED | _TX_SOFTWARE | (_TX_ACK if self._stream else 0)
        if hardware_utc_offset_ns is not None:
            self._ask |= _TX_HARDWARE
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPING, flags)
        except OSError:
            if not self._stream:
                raise
            # Before Linux 6.2 there is no OPT_ID_TCP; on a socket that has not sent it counts alike.
            sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPING, flags & ~_OPT_ID_TCP)
        self._queue = select.poll()
        self._queue.register(sock, 0)  # errors are always reported, and stamps that wait count as one

    def send(self, data: bytes, key: Any, address: Any = None) -> None:
        """Send all of `data`, which is message `key` (or ends it), and remember it for its stamps.

        Key None: it is no message (a heartbeat), and is counted as sent only.
        """
        size = len(data)
        self._messages += key is not None
        if key is None or self._messages % self._every:
            self._write(data, address, None)
        else:
            self._remember(self._sent + size - 1 if self._stream else self._sent, key)
            self._write(data, address, _control(self._ask))
            self._sent += not self._stream
        if self._stream:
            self._sent += size

    def recv(self, size: int) -> tuple[bytes, int | None]:
        """As `recv`; and when the kernel took the packet (MONOTONIC ns), None where it does not say."""
        data, control, _, _ = self.socket.recvmsg(size, _CONTROL)
        return data, self._came(control)

    def recvfrom(self, size: int) -> tuple[bytes, int | None, Any]:
        """As `recv`, with the sender's address."""
        data, control, _, address = self.socket.recvmsg(size, _CONTROL)
        return data, self._came(control), address

    def received(self, key: Any, came_ns: int | None) -> None:
        """Message `key` was in what `recv` returned with `came_ns`: its `kernel_rx`."""
        if came_ns is not None:
            self._stamp_at(came_ns, "monotonic", self._handles["kernel_rx"], key)

    def drain(self, most: int = 4_096) -> int:
        """Take the stamps that are there, without waiting; how many became stamps of messages."""
        offset = _offset()
        taken = 0
        for _ in range(most):
            # On a socket with a timeout Python waits for data before it looks at MSG_DONTWAIT: ask first.
            if not self._queue.poll(0):
                break
            try:
                _, control, _, _ = self.socket.recvmsg(0, _CONTROL, _MSG_ERRQUEUE | socket.MSG_DONTWAIT)
            except (BlockingIOError, InterruptedError):
                break
            found = parse_stamp(control)
            if found is None:
                continue
            kind, number, software_ns, hardware_ns = found
            waiting = self._wait.get(number)
            if waiting is None:
                continue
            taken += 1
            key, seen = waiting
            # A segment that TCP sends again is stamped again; the first time is the message's.
            new = (1 << kind if software_ns else 0) | (_HARDWARE if hardware_ns else 0)
            waiting[1] = seen | new
            if software_ns and not seen & 1 << kind:
                self._stamp_at(software_ns - offset, "monotonic", self._handles[_POINTS[kind]], key)
            if hardware_ns and self._hardware_ns is not None and not seen & _HARDWARE:
                self._stamp_at(hardware_ns - self._hardware_ns, "nic", self._handles["nic_tx"], key)
            if kind == (2 if self._stream else 0):
                self._wait.pop(number, None)
        return taken

    def _remember(self, number: int, key: Any) -> None:
        self._wait[number & 0xFFFFFFFF] = [key, 0]
        while len(self._wait) > self._pending:
            self._wait.popitem(last=False)
            self.lost += 1

    def _write(self, data: bytes, address: Any, control: Any) -> None:
        view = memoryview(data)
        # Asked for per send (Linux 4.6), so that what is not sampled costs nothing. Without it the kernel would stamp
        # every part of a message that does not fit the socket's buffer at once: only the last byte is looked for.
        while True:
            ancillary = [control] if control else []
            sent = self.socket.sendmsg([view], ancillary, 0, address) if address is not None else (
                self.socket.sendmsg([view], ancillary)
            )  # fmt: skip
            if sent >= len(view):
                return
            view = view[sent:]

    def _came(self, control: list[tuple[int, int, bytes]]) -> int | None:
        for level, kind, value in control:
            if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPING and len(value) >= _TIMES.size:
                times: tuple[int, ...] = _TIMES.unpack_from(value)
                seconds, nanos = times[:2]
                if seconds:
                    return seconds * 1_000_000_000 + nanos - _offset()
        return None


_OTHERS = ("kernel_rx", "nic_tx")
_HARDWARE = 1 << 3  # beside the bits of the kinds


def parse_stamp(control: list[tuple[int, int, bytes]]) -> tuple[int, int, int, int] | None:
    """(kind, number, software ns, hardware ns) of one message of the error queue; None when it is none of ours.

    Times are since the epoch in the clocks' own counting, 0 where there is none.
    """
    times: tuple[int, ...] | None = None
    about: tuple[int, ...] | None = None
    for level, kind, value in control:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPING and len(value) >= _TIMES.size:
            times = _TIMES.unpack_from(value)
        elif (level, kind) in ((0, 11), (41, 25)) and len(value) >= _ERROR.size:  # IP_RECVERR, IPV6_RECVERR
            about = _ERROR.unpack_from(value)
    if times is None or about is None or about[1] != _ORIGIN_TIMESTAMPING or about[5] not in _POINTS:
        return None
    return about[5], about[6], times[0] * 1_000_000_000 + times[1], times[4] * 1_000_000_000 + times[5]


def _control(flags: int) -> tuple[int, int, bytes]:
    return socket.SOL_SOCKET, _SO_TIMESTAMPING, struct.pack("=I", flags)


def _offset() -> int:
    """REALTIME - MONOTONIC now, from the first bracket below a microsecond, or the tightest of eight.

    The kernel stamps in REALTIME; on MONOTONIC they share the clock of the program's other stamps.
    """
    best = None
    for _ in range(8):
        before = time.monotonic_ns()
        real = time.time_ns()
        after = time.monotonic_ns()
        if best is None or after - before < best[0]:
            best = (after - before, real - before - (after - before) // 2)
            if best[0] < 1_000:
                break
    return best[1] if best else 0
