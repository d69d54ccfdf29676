"""Drop copies: what the engine tells the back office of each order, one datagram per event.

As in FIX's drop copy sessions, the copies are told and not asked for; one that is lost is missing in the blotter.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from dataclasses import dataclass

from api.demo.streams import Address
from api.demo.wire import Fill, Order, Report, WireError

_SENT = struct.Struct(">cqqqq")  # 'S', REALTIME, MONOTONIC, the quote's intended MONOTONIC, data age or -1; an order
_REPORTED = struct.Struct(">cqq")  # 'R', REALTIME, MONOTONIC; a report
_FILLED = struct.Struct(">c")  # 'F'; a fill
_KINDS = {b"S": _SENT, b"R": _REPORTED, b"F": _FILLED}


@dataclass(frozen=True, slots=True)
class Sent:
    """The engine sends an order. `intended_ns` is when the quote that led to it was meant to be sent (MONOTONIC)."""

    order: Order
    at_ns: int  # CLOCK_REALTIME, as the other `at_ns`
    monotonic_ns: int
    intended_ns: int
    data_age_ns: int | None = None

    def encode(self) -> bytes:
        """The datagram."""
        age_ns = -1 if self.data_age_ns is None else self.data_age_ns
        head = _SENT.pack(b"S", self.at_ns, self.monotonic_ns, self.intended_ns, age_ns)
        return head + self.order.body()


@dataclass(frozen=True, slots=True)
class Reported:
    """The engine has the report on an order."""

    report: Report
    at_ns: int
    monotonic_ns: int

    def encode(self) -> bytes:
        """The datagram."""
        return _REPORTED.pack(b"R", self.at_ns, self.monotonic_ns) + self.report.body()


@dataclass(frozen=True, slots=True)
class Filled:
    """The engine is told of a trade."""

    fill: Fill

    def encode(self) -> bytes:
        """The datagram."""
        return _FILLED.pack(b"F") + self.fill.body()


Copy = Sent | Reported | Filled


def decode(payload: bytes) -> Copy:
    """The event of a datagram. Raises WireError when it is none."""
    head = _KINDS.get(payload[:1])
    if head is None or len(payload) < head.size:
        raise WireError(f"not a drop copy: {len(payload)} bytes of type {payload[:1]!r}")
    kind, *times = head.unpack_from(payload)
    body = payload[head.size :]
    if kind == b"S":
        at_ns, monotonic_ns, intended_ns, age_ns = times
        return Sent(Order.decode(body), at_ns, monotonic_ns, intended_ns, None if age_ns < 0 else age_ns)
    if kind == b"R":
        return Reported(Report.decode(body), *times)
    return Filled(Fill.decode(body))


class DropCopies:
    """The engine's side; says nothing when there is no back office."""

    def __init__(self, address: Address | None) -> None:
        self._socket: socket.socket | None = None
        if address is not None:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
            self._socket.connect(address)
        self.lost = 0

    def sent(self, order: Order, intended_ns: int, data_age_ns: int | None) -> None:
        """The order is handed to the kernel now."""
        self._tell(Sent(order, time.time_ns(), time.monotonic_ns(), intended_ns, data_age_ns))

    def reported(self, report: Report) -> None:
        """The report is in hand now."""
        self._tell(Reported(report, time.time_ns(), time.monotonic_ns()))

    def filled(self, fill: Fill) -> None:
        """The fill is in hand now."""
        self._tell(Filled(fill))

    def _tell(self, copy: Copy) -> None:
        if self._socket is None:
            return
        try:
            self._socket.send(copy.encode())
        except OSError:  # nobody listens, or the buffer is full: an order path does not wait for its back office
            self.lost += 1
            with contextlib.suppress(OSError):
                self._socket.send(copy.encode())  # the refusal was the answer to the copy before
