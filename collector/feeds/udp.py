"""Datagrams of one line from a UDP socket, many per system call, with the kernel's receive time of each.

Between the two events: the kernel takes the datagram from the driver (SO_TIMESTAMPNS, CLOCK_REALTIME). No privilege.
What the kernel dropped because nobody read in time is counted (SO_RXQ_OVFL, SO_MEMINFO).

Cost: about 1 us a datagram at 256 per call (recvmmsg).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import ipaddress
import os
import socket
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

SO_TIMESTAMPNS, SO_RXQ_OVFL, SO_RCVBUFFORCE, SO_MEMINFO = 35, 40, 33, 55
_IP_MULTICAST_ALL, _IP_ADD_SOURCE_MEMBERSHIP = 49, 39
_DROPS = 8  # index in SO_MEMINFO (linux/sock_diag.h, SK_MEMINFO_DROPS)
_BATCH = 256
_CONTROL = 96
_HEADER = np.dtype(
    {
        "names": ["name", "namelen", "iov", "iovlen", "control", "controllen", "flags", "length"],
        "formats": ["u8", "u4", "u8", "u8", "u8", "u8", "i4", "u4"],
        "offsets": [0, 8, 16, 24, 32, 40, 48, 56],
        "itemsize": 64,
    }
)  # struct mmsghdr on a 64-bit Linux
_NONE = np.empty(0, dtype=np.int64)


@dataclass(slots=True)
class Received:
    """Datagrams in the order of the socket.

    Attributes:
        data: the bytes.
        starts, lengths: where each lies.
        time_ns: when the kernel took it, epoch ns.
        cut: how many were longer than the slot; they are not among these.
    """

    data: NDArray[np.uint8]
    starts: Ints
    lengths: Ints
    time_ns: Ints
    cut: int = 0


class LineSocket:
    """One line's socket.

    Args:
        address, port: what to bind; a multicast group is joined.
        interface: address of the interface that joins.
        source: the sender, for source-specific multicast.
        receive_bytes: buffer asked of the kernel; `granted` says what it gave.
        datagram_bytes: longest datagram.

    Raises:
        OSError: the address cannot be bound or the group not be joined.
    """

    def __init__(
        self,
        address: str,
        port: int,
        *,
        interface: str = "",
        source: str = "",
        receive_bytes: int = 8 << 20,
        datagram_bytes: int = 2048,
    ) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._open(address, port, interface, source, receive_bytes)
        except BaseException:
            self.socket.close()
            raise
        self.port = int(self.socket.getsockname()[1])
        self.granted = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2  # the kernel doubles it
        self._slot = datagram_bytes
        self._data = np.zeros((_BATCH, datagram_bytes), dtype=np.uint8)
        self._control = np.zeros((_BATCH, _CONTROL), dtype=np.uint8)
        rows = np.arange(_BATCH, dtype=np.uint64)
        self._vectors = np.zeros((_BATCH, 2), dtype=np.uint64)
        self._vectors[:, 0] = np.uint64(self._data.ctypes.data) + rows * np.uint64(datagram_bytes)
        self._vectors[:, 1] = datagram_bytes
        self._headers = np.zeros(_BATCH, dtype=_HEADER)
        self._headers["iov"] = np.uint64(self._vectors.ctypes.data) + rows * np.uint64(16)
        self._headers["iovlen"] = 1
        self._headers["control"] = np.uint64(self._control.ctypes.data) + rows * np.uint64(_CONTROL)
        self._recvmmsg = ctypes.CDLL(None, use_errno=True).recvmmsg
        self._place = ctypes.c_void_p(self._headers.ctypes.data)
        self._dropped = 0

    def _open(self, address: str, port: int, interface: str, source: str, receive_bytes: int) -> None:
        one = self.socket
        one.setblocking(False)
        group = ipaddress.IPv4Address(address).is_multicast
        if group:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
        try:
            one.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, receive_bytes)
        except PermissionError:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        one.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        with contextlib.suppress(OSError):  # then SO_MEMINFO alone tells
            one.setsockopt(socket.SOL_SOCKET, SO_RXQ_OVFL, 1)
        one.bind((address, port))
        if group:
            where = socket.inet_aton(interface or "0.0.0.0")  # noqa: S104 - any interface
            join = socket.inet_aton(address) + where
            if source:
                one.setsockopt(socket.IPPROTO_IP, _IP_ADD_SOURCE_MEMBERSHIP, join + socket.inet_aton(source))
            else:
                one.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, join)

    def receive(self) -> Received | None:
        """Up to 256 datagrams that wait; None when none does. Raises OSError when the socket fails."""
        self._headers["controllen"] = _CONTROL
        count = self._recvmmsg(self.socket.fileno(), self._place, _BATCH, socket.MSG_DONTWAIT, None)
        if count < 0:
            number = ctypes.get_errno()
            if number in (errno.EAGAIN, errno.EINTR, errno.ECONNREFUSED):
                return None
            raise OSError(number, os.strerror(number))
        if not count:
            return None
        headers = self._headers[:count]
        whole = (headers["flags"] & socket.MSG_TRUNC) == 0
        lengths = headers["length"].astype(np.int64)
        times, drops = _control(self._control[:count], headers["controllen"].astype(np.int64))
        self._dropped = max(self._dropped, int(drops.max(initial=0)))
        widest = int(lengths[whole].max(initial=1))
        data = self._data[:count, :widest].copy()
        starts = np.arange(count, dtype=np.int64) * widest
        return Received(data.reshape(-1), starts[whole], lengths[whole], times[whole], int((~whole).sum()))

    def dropped(self) -> int:
        """Datagrams that the kernel dropped at this socket since it was opened."""
        with contextlib.suppress(OSError):
            memory = self.socket.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 64)
            if len(memory) >= 4 * (_DROPS + 1):
                self._dropped = max(self._dropped, struct.unpack_from("=I", memory, 4 * _DROPS)[0])
        return self._dropped

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


def _control(rows: NDArray[np.uint8], used: Ints) -> tuple[Ints, Ints]:
    """(receive time, drops so far) of each datagram's control messages; -1 and 0 where they are absent."""
    times = np.full(len(rows), -1, dtype=np.int64)
    drops = np.zeros(len(rows), dtype=np.int64)
    at = np.zeros(len(rows), dtype=np.int64)
    for _ in range(3):
        on = np.flatnonzero((at + 16 <= used) & (at + 32 <= rows.shape[1]))
        if not len(on):
            break
        head = rows[on[:, None], at[on][:, None] + np.arange(32)]
        size = head[:, :8].view("<u8")[:, 0].astype(np.int64)
        level, kind = head[:, 8:12].view("<i4")[:, 0], head[:, 12:16].view("<i4")[:, 0]
        stamp = (level == socket.SOL_SOCKET) & (kind == SO_TIMESTAMPNS)
        seconds, nanos = head[:, 16:24].view("<i8")[:, 0], head[:, 24:32].view("<i8")[:, 0]
        times[on[stamp]] = (seconds * 1_000_000_000 + nanos)[stamp]
        lost = (level == socket.SOL_SOCKET) & (kind == SO_RXQ_OVFL)
        drops[on[lost]] = head[:, 16:20].view("<u4")[:, 0][lost]
        at[on] += np.maximum((size + 7) & ~7, 16)
    return times, drops
