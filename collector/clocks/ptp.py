"""What ptp4l says of its clock, by management messages on its Unix socket (IEEE 1588-2008, 15; as `pmc` does).

Bound to UTC: |offset from master| + mean path delay + the grandmaster's stated accuracy; half of a round trip bounds
what asymmetry can hide, and the mean path delay is just that half. With a hardware clock the distance between it and
REALTIME (`collector.clocks.phc`) is added. Cost: three datagrams, some 100 us, in the clock's own thread.
"""

from __future__ import annotations

import os
import socket
import struct
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from collector.clock import Bound
from collector.clocks.phc import PhcReading, devices, read_phc

_USUAL = ("/var/run/ptp4lro", "/var/run/ptp4l")
_MANAGEMENT, _GET, _RESPONSE, _TLV_MANAGEMENT = 0x0D, 0, 2, 1
CURRENT_DATA_SET, PARENT_DATA_SET, TIME_PROPERTIES = 0x2001, 0x2002, 0x2003
_HEADER = 48  # message header 34, target port identity 10, hops 2, action, reserved
_UTC_VALID = 0x04  # a flag of the time properties
# Clock accuracy (IEEE 1588-2008, table 6) in ns; what is not in it is not known.
_ACCURACY_NS = {
    0x20 + i: ns
    for i, ns in enumerate(
        (25, 100, 250, 1_000, 2_500, 10_000, 25_000, 100_000, 250_000, 1_000_000, 2_500_000, 10_000_000, 25_000_000,
         100_000_000, 250_000_000, 1_000_000_000, 10_000_000_000)
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class PtpState:
    """What ptp4l knows: the data sets that bound its clock."""

    steps: int
    offset_ns: float
    path_delay_ns: float
    accuracy: int
    utc_offset_s: int
    flags: int


def bound_of_ptp(state: PtpState, phc: PhcReading | None = None, *, on_phc: bool = False) -> Bound:
    """The bound of REALTIME that these data sets state.

    `phc` is the hardware clock that ptp4l keeps, compared with REALTIME; `on_phc` says that there is one, so that
    without the comparison nothing is known of REALTIME.
    """
    accuracy = _ACCURACY_NS.get(state.accuracy)
    if state.steps == 0:
        return Bound(None, "ptp", reason="this host is its own grandmaster: it follows nobody")
    if state.path_delay_ns <= 0:  # 0 until the first exchange, together with an offset of 0
        return Bound(None, "ptp", reason="no path delay has been measured yet")
    if accuracy is None:
        return Bound(None, "ptp", reason=f"the grandmaster does not state its accuracy (0x{state.accuracy:02x})")
    error = abs(state.offset_ns) + state.path_delay_ns + accuracy
    if not on_phc:
        return Bound(round(error), "ptp", correction_ns=-round(state.offset_ns))
    if phc is None:
        return Bound(None, "ptp", reason="the hardware clock cannot be read; the agent needs read access to /dev/ptp*")
    if not state.flags & _UTC_VALID:
        return Bound(None, "ptp", reason="the grandmaster does not state a valid UTC offset")
    # The card counts TAI; REALTIME should be that less the leap seconds.
    slow = phc.offset_ns - state.utc_offset_s * 1_000_000_000
    return Bound(round(error + abs(slow) + phc.bracket_ns), "ptp", correction_ns=slow - round(state.offset_ns))


class Ptp:
    """Asks ptp4l at `path` ("" tries the usual sockets); `phc` is auto, off or a device."""

    name = "ptp"

    def __init__(
        self, path: str = "", phc: str = "auto", *, cards: Callable[[], list[str]] = devices,
        read: Callable[[str], PhcReading] = read_phc,
    ) -> None:  # fmt: skip
        self._paths = (path,) if path else _USUAL
        self._phc = phc
        self._cards = cards
        self._read = read

    def ask(self) -> Bound:
        """What ptp4l says now; the reason where it does not. The source is `phc` where it keeps a hardware clock."""
        cards = [] if self._phc == "off" else self._cards() if self._phc == "auto" else [self._phc]
        return replace(self._bound(cards), source="phc" if cards else "ptp")

    def _bound(self, cards: list[str]) -> Bound:
        path = next((p for p in self._paths if Path(p).exists()), None)
        if path is None:
            found = f"{', '.join(cards)} is there, but " if cards else ""
            return Bound(None, "ptp", reason=f"{found}no ptp4l answers at {' or '.join(self._paths)}")
        try:
            state = query(path)
        except (OSError, ValueError) as error:
            return Bound(None, "ptp", reason=f"{path}: {error}; the agent must be allowed to use ptp4l's socket")
        reading = None
        for card in cards:
            try:
                reading = self._read(card)
                break
            except OSError:
                continue
        return bound_of_ptp(state, reading, on_phc=bool(cards))


def query(path: str, timeout_s: float = 1.0) -> PtpState:
    """The data sets of a ptp4l. Raises OSError when it does not answer, ValueError for what is no answer."""
    with tempfile.TemporaryDirectory(prefix="tailsight-ptp-") as folder:
        # ptp4l answers to the socket that asked, so it needs a name that ptp4l may write to.
        Path(folder).chmod(0o711)
        own = f"{folder}/s"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asking:
            asking.settimeout(timeout_s)
            asking.bind(own)
            os.chmod(own, 0o666)  # noqa: PTH101, S103 - ptp4l may run as another user
            asking.connect(path)
            bodies = [_get(asking, number, n) for n, number in enumerate(_WANTED)]
    return parse_state(bodies)


_WANTED = (CURRENT_DATA_SET, PARENT_DATA_SET, TIME_PROPERTIES)


def _get(asking: socket.socket, number: int, sequence: int) -> bytes:
    asking.send(request(number, sequence))
    for _ in range(8):  # other clients' notifications may come between
        body = parse_response(asking.recv(1_500), number, sequence)
        if body is not None:
            return body
    raise ValueError(f"no answer to management id 0x{number:04x}")


def request(number: int, sequence: int) -> bytes:
    """A GET of one data set, to every port."""
    tlv = struct.pack(">HHH", _TLV_MANAGEMENT, 2, number)
    size = _HEADER + len(tlv)
    source = b"\0" * 8 + struct.pack(">H", os.getpid() & 0xFFFF)
    header = struct.pack(">BBHBBH8sI", _MANAGEMENT, 2, size, 0, 0, 0, b"", 0) + source
    header += struct.pack(">HBb", sequence, 4, 0x7F)
    return header + b"\xff" * 10 + struct.pack(">BBBB", 0, 0, _GET, 0) + tlv


def parse_response(message: bytes, number: int, sequence: int) -> bytes | None:
    """The data of the answer to a GET; None for another message. Raises ValueError when it is cut or refused."""
    if len(message) < _HEADER + 6 or message[0] & 0x0F != _MANAGEMENT:
        return None
    if struct.unpack_from(">H", message, 30)[0] != sequence or message[46] & 0x0F != _RESPONSE:
        return None
    kind, size, got = struct.unpack_from(">HHH", message, _HEADER)
    if kind != _TLV_MANAGEMENT or got != number:
        raise ValueError(f"ptp4l refuses management id 0x{number:04x}")
    if size < 2 or len(message) < _HEADER + 4 + size:
        raise ValueError(f"the answer to 0x{number:04x} is cut")
    return message[_HEADER + 6 : _HEADER + 4 + size]


def parse_state(bodies: Sequence[bytes]) -> PtpState:
    """The data sets current, parent and time properties. Raises ValueError when one is too short."""
    current, parent, properties = bodies
    if len(current) < 18 or len(parent) < 32 or len(properties) < 4:
        raise ValueError("a data set is shorter than IEEE 1588 says")
    steps, offset, delay = struct.unpack_from(">Hqq", current)
    # parentPortIdentity 10, parentStats, reserved, variance 2, phase change 4, priority 1, class, accuracy
    accuracy = parent[10 + 1 + 1 + 2 + 4 + 1 + 1]
    utc, flags = struct.unpack_from(">hB", properties)
    return PtpState(steps, offset / 65_536, delay / 65_536, accuracy, utc, flags)
