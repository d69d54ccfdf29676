"""What `ethtool` asks a driver, by ioctl: statistics, rings, coalescing, features, driver. 2 to 20 us per question.

Reading needs no privilege. A driver that does not know a question answers EOPNOTSUPP: then there is nothing.
"""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct

_SIOCETHTOOL = 0x8946
_GDRVINFO, _GCOALESCE, _GRINGPARAM, _GSTRINGS, _GSTATS, _GFEATURES, _GSSET_INFO = (
    0x03, 0x0E, 0x10, 0x1B, 0x1D, 0x3A, 0x37,
)  # fmt: skip
_STATS, _FEATURES = 1, 4  # string sets
_NAME = 32
_MOST_STRINGS = 4_096


class Ethtool:
    """Questions to drivers over one socket. Not thread-safe. Raises OSError where a driver does not answer."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._names: dict[tuple[str, int], list[str]] = {}

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def driver(self, interface: str) -> dict[str, str]:
        """Driver, its version, the firmware's version and the bus address; empty ones are left out."""
        answer = self._ask(interface, struct.pack("=I", _GDRVINFO) + bytes(192))
        texts = {"driver": (4, 32), "version": (36, 32), "firmware": (68, 32), "bus": (100, 32)}
        found = {name: _text(answer[at : at + size]) for name, (at, size) in texts.items()}
        return {name: text for name, text in found.items() if text and text != "N/A"}

    def rings(self, interface: str) -> dict[str, int]:
        """Descriptors per ring: rx and tx in use, rx_max and tx_max possible."""
        values = struct.unpack("=9I", self._ask(interface, struct.pack("=I", _GRINGPARAM) + bytes(32)))
        return {"rx_max": values[1], "tx_max": values[4], "rx": values[5], "tx": values[8]}

    def coalescing(self, interface: str) -> dict[str, int]:
        """Interrupt coalescing: microseconds and frames that an interrupt waits for, and whether it adapts."""
        values = struct.unpack("=23I", self._ask(interface, struct.pack("=I", _GCOALESCE) + bytes(88)))
        names = {"rx_usecs": 1, "rx_frames": 2, "tx_usecs": 5, "tx_frames": 6, "adaptive_rx": 10, "adaptive_tx": 11}
        return {name: values[at] for name, at in names.items()}

    def features(self, interface: str) -> dict[str, bool]:
        """Offloads by the kernel's name and whether they are on."""
        names = self._strings(interface, _FEATURES)
        blocks = (len(names) + 31) // 32
        answer = self._ask(interface, struct.pack("=II", _GFEATURES, blocks) + bytes(16 * blocks))
        active = [struct.unpack_from("=I", answer, 8 + 16 * b + 8)[0] for b in range(blocks)]
        return {name: bool(active[i // 32] >> (i % 32) & 1) for i, name in enumerate(names) if name}

    def statistics(self, interface: str) -> dict[str, int]:
        """The driver's own counters by name, as `ethtool -S` prints them."""
        names = self._strings(interface, _STATS)
        if not names:
            return {}
        answer = self._ask(interface, struct.pack("=II", _GSTATS, len(names)) + bytes(8 * len(names)))
        (n,) = struct.unpack_from("=I", answer, 4)
        if n != len(names):
            self._names.pop((interface, _STATS), None)  # queues came or went: the names are read again
            return {}
        return dict(zip(names, struct.unpack_from(f"={n}Q", answer, 8), strict=True))

    def _strings(self, interface: str, which: int) -> list[str]:
        if (interface, which) not in self._names:
            answer = self._ask(interface, struct.pack("=IIQ", _GSSET_INFO, 0, 1 << which) + bytes(4))
            count = struct.unpack_from("=I", answer, 16)[0] if struct.unpack_from("=Q", answer, 8)[0] else 0
            if count > _MOST_STRINGS:
                raise OSError(f"{interface}: the driver says it has {count} names")
            request = struct.pack("=III", _GSTRINGS, which, count) + bytes(_NAME * count)
            answer = self._ask(interface, request) if count else request
            self._names[interface, which] = [
                _text(answer[12 + _NAME * i : 12 + _NAME * (i + 1)]) for i in range(count)
            ]  # fmt: skip
        return self._names[interface, which]

    def _ask(self, interface: str, request: bytes) -> bytes:
        buffer = ctypes.create_string_buffer(request, len(request))
        name = interface.encode()[:15].ljust(16, b"\0")
        # struct ifreq: the name, then a pointer to the request, which the kernel fills.
        fcntl.ioctl(self._socket, _SIOCETHTOOL, struct.pack("16sP16x", name, ctypes.addressof(buffer)))
        return buffer.raw


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("ascii", "replace")
