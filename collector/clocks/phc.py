"""PTP hardware clocks: how far REALTIME is from the clock in the network card, by PTP_SYS_OFFSET_EXTENDED.

The kernel reads REALTIME, the card, REALTIME again: half of the narrowest bracket bounds the comparison. Needs read
access to /dev/ptpN. Cost: some 10 us per question (PCIe reads), in the clock's own thread.
"""

from __future__ import annotations

import fcntl
import os
import struct
from dataclasses import dataclass
from pathlib import Path

_SAMPLES = 10
_MOST = 25  # PTP_MAX_SAMPLES
_TIME = struct.Struct("<qII")  # struct ptp_clock_time: sec s64, nsec u32, reserved u32
_REQUEST = 4 + 3 * 4 + _MOST * 3 * _TIME.size  # struct ptp_sys_offset_extended: n_samples, rsv[3], ts[25][3]
PTP_SYS_OFFSET_EXTENDED = (3 << 30) | (_REQUEST << 16) | (ord("=") << 8) | 9  # _IOWR('=', 9, ...)


@dataclass(frozen=True, slots=True)
class PhcReading:
    """The card's clock minus REALTIME (the card usually counts TAI), wrong by at most `bracket_ns`."""

    device: str
    offset_ns: int
    bracket_ns: int


def read_phc(device: str) -> PhcReading:
    """Compare one device with REALTIME. Raises OSError."""
    request = bytearray(_REQUEST)
    struct.pack_into("<I", request, 0, _SAMPLES)
    fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, PTP_SYS_OFFSET_EXTENDED, request, True)
    finally:
        os.close(fd)
    return parse_offsets(device, bytes(request))


def parse_offsets(device: str, answer: bytes) -> PhcReading:
    """The tightest of the answer's (REALTIME, card, REALTIME) triples. Raises OSError when it has none."""
    (n,) = struct.unpack_from("<I", answer, 0)
    best: tuple[int, int] | None = None
    for sample in range(min(n, _MOST)):
        before, card, after = (
            sec * 1_000_000_000 + nsec
            for sec, nsec, _ in (_TIME.unpack_from(answer, 16 + (sample * 3 + k) * _TIME.size) for k in range(3))
        )
        width = after - before
        if width >= 0 and (best is None or width < best[0]):
            best = (width, card - (before + width // 2))
    if best is None:
        raise OSError(f"{device}: the driver gave no samples")
    return PhcReading(device, best[1], best[0] // 2 + 1)


def devices() -> list[str]:
    """The PTP hardware clocks of this host."""
    return sorted(str(path) for path in Path("/dev").glob("ptp[0-9]*"))
