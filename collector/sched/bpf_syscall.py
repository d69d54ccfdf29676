"""The bpf() system call by ctypes: array maps and ring buffers mapped into memory, programs, and their statistics.

Everything the collector reads back is mapped memory (BPF_F_MMAPABLE), so a poll makes no system call here. Cost: map
and program creation about 1 ms together, once.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Numbers of bpf and perf_event_open per machine (include/uapi/asm-generic/unistd.h; x86: syscall_64.tbl).
SYSCALLS = {"x86_64": (321, 298), "aarch64": (280, 241)}

_MAP_CREATE, _PROG_LOAD, _OBJ_GET_INFO, _RAW_TRACEPOINT_OPEN = 0, 5, 15, 17
_MAP_ARRAY, _MAP_RINGBUF = 2, 27
_F_MMAPABLE = 1 << 10
PROG_TRACEPOINT, PROG_RAW_TRACEPOINT, PROG_TRACING = 5, 17, 26
_TRACE_RAW_TP = 23  # expected_attach_type of a typed raw tracepoint
_LOG_BYTES = 1 << 18
# What the kernel is told about the assembled programs: those that read its structures must be compatible with the GPL.
_LICENSE = b"Dual BSD/GPL"
_RECORD_HEADER = 8
_BUSY = 1 << 31

_libc = ctypes.CDLL(None, use_errno=True)


class BpfError(OSError):
    """A bpf() or perf_event_open() call failed: what was being done, and errno's meaning."""


class VerifierError(BpfError):
    """The kernel's verifier refused a program: the message ends with the verifier's last lines, `log` is all of it."""

    def __init__(self, number: int, message: str, log: str) -> None:
        super().__init__(number, message)
        self.log = log


def system_call(which: int, doing: str, *arguments: object) -> int:
    """Call bpf (`which` 0) or perf_event_open (1). Raises BpfError with `doing` when the kernel refuses."""
    numbers = SYSCALLS.get(platform.machine())
    if numbers is None:
        raise BpfError(errno.ENOSYS, f"{doing}: unknown machine {platform.machine()}, known are {sorted(SYSCALLS)}")
    result = int(_libc.syscall(numbers[which], *arguments))
    if result < 0:
        number = ctypes.get_errno()
        raise BpfError(number, f"{doing}: {os.strerror(number)}")
    return result


def _bpf(command: int, attribute: bytes, doing: str) -> int:
    buffer = ctypes.create_string_buffer(attribute, max(len(attribute), 128))
    return system_call(0, doing, command, buffer, len(buffer))


@dataclass(slots=True)
class ArrayMap:
    """One value of `size` bytes shared with programs; `bytes` is a writable view of the same memory."""

    fd: int
    size: int
    _memory: mmap.mmap

    @classmethod
    def create(cls, name: str, size: int) -> ArrayMap:
        """A zeroed map. Raises BpfError."""
        fd = _bpf(
            _MAP_CREATE,
            struct.pack("<7I16s", _MAP_ARRAY, 4, size, 1, _F_MMAPABLE, 0, 0, name.encode()[:15]),
            f"creating the map {name} of {size} bytes",
        )
        rounded = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        return cls(fd, size, mmap.mmap(fd, rounded, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE))

    @property
    def bytes(self) -> NDArray[np.uint8]:
        """The value: uint8[size], live."""
        return np.frombuffer(self._memory, dtype=np.uint8, count=self.size)

    def close(self) -> None:
        """Close the map; views that are still held keep the memory alive."""
        os.close(self.fd)


class RingBuffer:
    """A BPF ring buffer whose records all have one size, read as an array with no walk.

    A record lies in the ring as an 8-byte header and its payload; with one payload size the ring is an array of
    structures. The data pages are mapped twice in a row, so a range never wraps.
    Cost: about 60 ns per record in batches of thousands, 20 us per empty poll.
    """

    def __init__(self, name: str, size: int, payload: np.dtype[np.void]) -> None:
        if size & (size - 1) or size % mmap.PAGESIZE:
            raise ValueError(f"ring size {size} must be a power of two and whole pages of {mmap.PAGESIZE}")
        if payload.itemsize % 8:
            raise ValueError(f"payload of {payload.itemsize} bytes must be a multiple of 8")
        self.fd = _bpf(
            _MAP_CREATE,
            struct.pack("<7I16s", _MAP_RINGBUF, 0, 0, size, 0, 0, 0, name.encode()[:15]),
            f"creating the ring buffer {name} of {size} bytes",
        )
        self._size = size
        self._slot = np.dtype([("header", "<u4"), ("page", "<u4"), ("payload", payload)])
        page = mmap.PAGESIZE
        self._consumer_page = mmap.mmap(self.fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=0)
        self._producer_pages = mmap.mmap(self.fd, page + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        self._consumer = np.frombuffer(self._consumer_page, dtype=np.uint64, count=1)
        self._producer = np.frombuffer(self._producer_pages, dtype=np.uint64, count=1)

    def drain(self) -> NDArray[np.void]:
        """Copy out and release every finished record, oldest first."""
        start, end = int(self._consumer[0]), int(self._producer[0])
        slots: NDArray[np.void] = np.frombuffer(
            self._producer_pages,
            dtype=self._slot,
            count=(end - start) // self._slot.itemsize,
            offset=mmap.PAGESIZE + (start & (self._size - 1)),
        )
        busy = np.flatnonzero(slots["header"] & np.uint32(_BUSY))
        if len(busy):
            slots = slots[: busy[0]]  # a program is still writing this one; the next drain takes it
        records: NDArray[np.void] = slots["payload"].copy()
        self._consumer[0] = start + len(slots) * self._slot.itemsize
        return records

    def close(self) -> None:
        """Close the ring; what was not drained is gone."""
        os.close(self.fd)


def load_program(name: str, code: bytes, kind: int = PROG_TRACEPOINT, attach_to: int = 0) -> int:
    """Load a program and return its fd; `attach_to` is the BTF id that a PROG_TRACING program is for.

    Raises:
        VerifierError: the verifier refused it; the message quotes the end of its log.
        BpfError: anything else, such as a missing capability.
    """
    license_text = ctypes.create_string_buffer(_LICENSE)
    instructions = ctypes.create_string_buffer(code, len(code))

    def attempt(log: ctypes.Array[ctypes.c_char] | None) -> int:
        return _bpf(
            _PROG_LOAD,
            struct.pack(
                "<IIQQIIQII16sII36xI",
                kind,
                len(code) // 8,
                ctypes.addressof(instructions),
                ctypes.addressof(license_text),
                1 if log else 0,
                len(log) if log else 0,
                ctypes.addressof(log) if log else 0,
                0,
                0,
                name.encode()[:15],
                0,
                _TRACE_RAW_TP if kind == PROG_TRACING else 0,
                attach_to,
            ),
            f"loading the program {name}",
        )

    try:
        return attempt(None)
    except BpfError as first:
        if first.errno not in (errno.EACCES, errno.EINVAL, errno.E2BIG):
            raise
    # The log costs time to write, so it is asked for only when there is something to read in it.
    log = ctypes.create_string_buffer(_LOG_BYTES)
    try:
        return attempt(log)
    except BpfError as error:
        text = log.value.decode(errors="replace")
        lines = [line for line in text.splitlines() if not line.startswith(("processed ", "verification time"))]
        raise VerifierError(
            error.errno or 0,
            f"the verifier refused the program {name} ({os.strerror(error.errno or 0)}): " + " | ".join(lines[-4:]),
            text,
        ) from None


def attach_raw(program: int, tracepoint: str = "") -> int:
    """Run `program` at every hit of a raw tracepoint, on all CPUs, until the returned fd is closed. Raises BpfError.

    A PROG_TRACING program knows its tracepoint already; a PROG_RAW_TRACEPOINT one is given its name.
    """
    name = ctypes.create_string_buffer(tracepoint.encode()) if tracepoint else None
    address = ctypes.addressof(name) if name is not None else 0
    return _bpf(
        _RAW_TRACEPOINT_OPEN, struct.pack("<QI", address, program), f"attaching to {tracepoint or 'its tracepoint'}"
    )


def missed_runs(program: int) -> int:
    """How often the kernel skipped the program because another one ran on that CPU (0 before Linux 6.7)."""
    info = ctypes.create_string_buffer(256)
    _bpf(_OBJ_GET_INFO, struct.pack("<IIQ", program, len(info), ctypes.addressof(info)), "reading program statistics")
    return int(struct.unpack_from("<Q", info, 208)[0])
