"""perf_event_open by ctypes: opening tracepoint and dummy events and the ioctls on them."""

from __future__ import annotations

import fcntl
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from collector.sched.bpf_syscall import system_call

TYPE_SOFTWARE, TYPE_TRACEPOINT = 1, 2
SOFTWARE_DUMMY = 9
SAMPLE_TIME, SAMPLE_RAW = 1 << 2, 1 << 10
SAMPLE_TID, SAMPLE_CPU = 1 << 1, 1 << 7
FORMAT_LOST = 1 << 4
# Bits of the attribute's flag word.
DISABLED, EXCLUDE_KERNEL, WATERMARK, SAMPLE_ID_ALL, USE_CLOCKID, CONTEXT_SWITCH = (
    1 << 0,
    1 << 5,
    1 << 14,
    1 << 18,
    1 << 25,
    1 << 26,
)
_CLOCK_MONOTONIC = 1  # REALTIME is refused for tracepoints
_ENABLE, _DISABLE, _SET_OUTPUT, _SET_FILTER, _SET_BPF = 0x2400, 0x2401, 0x2405, 0x40082406, 0x40042408
_FLAG_CLOEXEC = 8
_ATTRIBUTE_BYTES = 128


@dataclass(frozen=True, slots=True)
class Event:
    """What to open; the defaults make a tracepoint event that is sampled each time, in MONOTONIC, not yet enabled."""

    config: int
    type: int = TYPE_TRACEPOINT
    sample_period: int = 1
    sample_type: int = SAMPLE_TIME | SAMPLE_RAW
    read_format: int = FORMAT_LOST
    flags: int = DISABLED | WATERMARK | SAMPLE_ID_ALL | USE_CLOCKID
    wakeup_bytes: int = 1 << 30

    def pack(self) -> bytes:
        """`struct perf_event_attr` (include/uapi/linux/perf_event.h), 128 bytes."""
        attribute = bytearray(_ATTRIBUTE_BYTES)
        struct.pack_into(
            "<IIQQQQQI",
            attribute,
            0,
            self.type,
            _ATTRIBUTE_BYTES,
            self.config,
            self.sample_period,
            self.sample_type,
            self.read_format,
            self.flags,
            self.wakeup_bytes,
        )
        if self.flags & USE_CLOCKID:
            struct.pack_into("<i", attribute, 92, _CLOCK_MONOTONIC)
        return bytes(attribute)


def open_event(event: Event, *, pid: int, cpu: int, doing: str) -> int:
    """The event's fd; pid -1 with a CPU means every thread there, a pid with cpu -1 that thread. Raises BpfError."""
    return system_call(1, doing, event.pack(), pid, cpu, -1, _FLAG_CLOEXEC)


def enable(fd: int) -> None:
    """Start the event."""
    fcntl.ioctl(fd, _ENABLE, 0)


def disable(fd: int) -> None:
    """Stop the event."""
    fcntl.ioctl(fd, _DISABLE, 0)


def set_output(fd: int, to: int) -> None:
    """Write this event's records into the ring of `to`."""
    fcntl.ioctl(fd, _SET_OUTPUT, to)


def set_filter(fd: int, expression: str) -> None:
    """Keep only records that match, as in tracefs' `filter`; once per event. Raises OSError (EINVAL over 4 kB)."""
    fcntl.ioctl(fd, _SET_FILTER, expression.encode() + b"\0")


def read_count(fd: int) -> tuple[int, int]:
    """How often the event happened, and how many of its records the kernel says it lost."""
    count, lost = struct.unpack("<QQ", os.read(fd, 16))
    return count, lost


def attach_program(tracepoint_id: int, program: int, cpu: int) -> int:
    """Run `program` at every hit of the tracepoint, on all CPUs, until the returned fd is closed. Raises BpfError.

    The event is never enabled: the program hangs on the tracepoint itself, and an enabled event would only make the
    kernel prepare samples for nobody on that CPU.
    """
    fd = open_event(Event(tracepoint_id), pid=-1, cpu=cpu, doing=f"opening tracepoint {tracepoint_id} on CPU {cpu}")
    try:
        fcntl.ioctl(fd, _SET_BPF, program)
    except OSError:
        os.close(fd)
        raise
    return fd


def cpus(which: str = "online", root: Path = Path("/sys/devices/system/cpu")) -> list[int]:
    """The numbers in `online` or `possible`, such as "0-3,6"."""
    numbers: list[int] = []
    for part in (root / which).read_text().strip().split(","):
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return numbers
