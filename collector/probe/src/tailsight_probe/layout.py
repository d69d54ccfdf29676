"""The ring on disk, version 1: offsets, struct formats and constants shared by the writers and the reader.

A ring file is one header page of `HEADER_BYTES` and then `capacity` slots (a power of two) of `SLOT_BYTES`. All
numbers are little-endian. Record `s` (counted from 0 over the ring's whole life) lives in slot `s mod capacity`, and
it is there, whole, if and only if the slot's first and last word are both `s + 1`.

A writer stores `begin = s + 1`, then the fields, then `end = s + 1`. A reader loads `end`, copies the slot, and loads
`begin` again: a record whose `begin` still says `s + 1` was not touched while it was copied.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

MAGIC = b"TSRING01"
VERSION = 1
HEADER_BYTES = 4096
SLOT_BYTES = 64

# One slot, field by field. The fields are naturally aligned, so the native form ("@") has the same bytes on a
# little-endian machine; the pure Python writer uses it because it stores each 8-byte word in one piece.
SLOT_FIELDS = "QqQqIiHHHBBBBHIQ"
SLOT = struct.Struct("<" + SLOT_FIELDS)

# Name, numpy dtype and offset of each field, for readers that map the slots as a structured array.
FIELDS: tuple[tuple[str, str, int], ...] = (
    ("begin", "<u8", 0),
    ("time_ns", "<i8", 8),
    ("id", "<u8", 16),
    ("value", "<i8", 24),
    ("error_ns", "<u4", 32),
    ("depth", "<i4", 36),
    ("point", "<u2", 40),
    ("space", "<u2", 42),
    ("clock", "<u2", 44),
    ("outcome", "u1", 46),
    ("mode", "u1", 47),
    ("cache", "u1", 48),
    ("flags", "u1", 49),
    ("reserved", "<u2", 50),
    ("labels", "<u4", 52),
    ("end", "<u8", 56),
)

NO_AGE = -1
NO_ERROR = 0xFFFFFFFF
LARGE_ERROR = 0xFFFFFFFE  # a bound was stated, but is too large for the field: as good as unknown
NO_DEPTH = -(1 << 31)
LINK_POINT = 0  # point code of a slot that holds a link, or a record of the ring's own (flags)
HASHED_SPACE = 0  # space code of an id that is a key already
MONOTONIC = 0  # clock code of CLOCK_MONOTONIC

# Flags of a slot. A slot with one of these carries no stamp and no link.
FLAG_VOID = 1  # the program's call was refused (an id that is no id, ...): counted, never shipped
FLAG_THREAD = 2  # the ring changes hands: id = thread id of the new owner, value = that of the old one
# A span of the thread: time_ns = its start, value = its duration in ns, point = code of its kind, depth = its level
# (for kind gc the generation), labels as for stamps. A reader that does not know it counts a void record.
FLAG_INTERVAL = 4

KINDS = ("service", "point", "space", "clock", "labels")  # of dictionary lines

_HEADER = struct.Struct("<8sIIIIQIIQqq16s")
_CRC = struct.Struct("<I")
_OWNER = struct.Struct("<I")
OWNER_OFFSET = _HEADER.size + _CRC.size


class Header(NamedTuple):
    """What a ring's first page says.

    `tid` is the thread that created the ring and `owner` the one that writes it now (they differ when the ring of an
    ended thread was given to a new one). `start_ticks` is field 22 of /proc/PID/stat: with `pid` it names one process.
    The two `created` times were read together; `boot_id` is the kernel's, 16 bytes.
    """

    version: int
    capacity: int
    pid: int
    tid: int
    start_ticks: int
    created_realtime_ns: int
    created_monotonic_ns: int
    boot_id: bytes
    owner: int


class LayoutError(ValueError):
    """A file is not a ring this version can read. The message says what is wrong and what to do."""


class UnknownVersionError(LayoutError):
    """The ring was written by a newer (or broken) probe; it is left alone."""


def pack_header(header: Header) -> bytes:
    """The header page's used bytes: fields, CRC32 of them, current owner."""
    fields = _HEADER.pack(
        MAGIC,
        header.version,
        HEADER_BYTES,
        SLOT_BYTES,
        0,
        header.capacity,
        header.pid,
        header.tid,
        header.start_ticks,
        header.created_realtime_ns,
        header.created_monotonic_ns,
        header.boot_id,
    )
    return fields + _CRC.pack(zlib.crc32(fields)) + _OWNER.pack(header.owner)


def unpack_header(page: bytes | bytearray | memoryview, file_bytes: int) -> Header:
    """The header in `page`, checked against the file's size.

    Raises UnknownVersionError for another version and LayoutError for anything that is not a whole version-1 ring.
    """
    if len(page) < OWNER_OFFSET + _OWNER.size:
        raise LayoutError(f"{len(page)} bytes are too short for a ring header; the file is damaged")
    magic, version, header_bytes, slot_bytes, _, capacity, pid, tid, ticks, realtime, monotonic, boot = (
        _HEADER.unpack_from(page)
    )
    if magic[:6] != MAGIC[:6]:
        raise LayoutError(f"magic is {bytes(magic)!r}, not {MAGIC!r}: this is not a ring file")
    if magic != MAGIC or version != VERSION:
        raise UnknownVersionError(
            f"ring layout {bytes(magic)!r} version {version} is not known (this agent reads version {VERSION}); "
            "upgrade the agent to read it"
        )
    if _CRC.unpack_from(page, _HEADER.size)[0] != zlib.crc32(bytes(page[: _HEADER.size])):
        raise LayoutError("the header's checksum does not match; the file is damaged")
    if (header_bytes, slot_bytes) != (HEADER_BYTES, SLOT_BYTES):
        raise LayoutError(f"header of {header_bytes} and slots of {slot_bytes} bytes do not belong to version 1")
    if capacity < 1 or capacity & (capacity - 1):
        raise LayoutError(f"capacity {capacity} is not a power of two")
    if file_bytes != HEADER_BYTES + capacity * SLOT_BYTES:
        raise LayoutError(f"the file has {file_bytes} bytes, {capacity} slots need {HEADER_BYTES + capacity * 64}")
    owner = _OWNER.unpack_from(page, OWNER_OFFSET)[0]
    return Header(version, capacity, pid, tid, ticks, realtime, monotonic, boot, owner)


def pack_owner(tid: int) -> bytes:
    """The bytes at `OWNER_OFFSET` that name the ring's current thread."""
    return _OWNER.pack(tid)
