"""A recording: what came into the order path in a span of time, as one file that can be played again.

    magic "TSREPLAY" | version u16 | reserved u16 | body length u32 | content length u32 | crc32c(so far) u32
    | body: one zstd frame | crc32c(body) u32

The content is `length u32`, as much JSON (`Inputs` without its datagrams), and then datagrams as `time i64 | length u16
| bytes`. Little-endian. Everything is bounded, and checked before it is believed.
"""

from __future__ import annotations

import struct
from pathlib import Path

import google_crc32c
import msgspec
import zstandard

from api.demo.delays import MAX_NS, NAMES
from api.demo.faults import Fault, FaultError, checked
from api.demo.quantiles import Quantiles
from api.demo.tap import RECORD
from collector.payload import FrameError, decompress

MAGIC = b"TSREPLAY"
VERSION = 1
MAX_BODY = 64 << 20
MAX_CONTENT = 256 << 20
MAX_SPAN_NS = MAX_NS
_HEAD = struct.Struct("<8sHHII")
_U32 = struct.Struct("<I")

Datagrams = tuple[tuple[int, bytes], ...]  # (when it passed, CLOCK_REALTIME ns; its bytes), in order


class RecordingError(ValueError):
    """A file that is no recording, or a damaged one; the message says where and what was expected."""


class Inputs(msgspec.Struct, frozen=True, kw_only=True):
    """What came in from `from_ns` to `to_ns`. `monotonic_ns`: REALTIME - MONOTONIC, for the quotes' intended times.

    `load` is how the feed was started; `delays` are the quantiles of every link and step.
    """

    from_ns: int
    to_ns: int
    monotonic_ns: int
    seed: int
    load: dict[str, str]
    faults: tuple[Fault, ...]
    delays: dict[str, Quantiles]
    datagrams: Datagrams = ()


def encode(inputs: Inputs) -> bytes:
    """The file's bytes. Raises RecordingError when it would be too large."""
    meta = msgspec.json.encode(msgspec.structs.replace(inputs, datagrams=()))
    parts = [_U32.pack(len(meta)), meta]
    for time_ns, data in inputs.datagrams:
        parts += [RECORD.pack(time_ns, len(data)), data]
    content = b"".join(parts)
    body = zstandard.ZstdCompressor(level=3, write_content_size=True).compress(content)
    if len(content) > MAX_CONTENT or len(body) > MAX_BODY:
        raise RecordingError(f"{len(content):,} bytes are too much for one recording; record a shorter time")
    head = _HEAD.pack(MAGIC, VERSION, 0, len(body), len(content))
    return b"".join((head, _U32.pack(google_crc32c.value(head)), body, _U32.pack(google_crc32c.value(body))))


def read(file: Path) -> tuple[Inputs, int]:
    """A recording and its checksum. Raises RecordingError."""
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_BODY + 64)
    except OSError as error:
        raise RecordingError(f"{file} cannot be read: {error.strerror}") from error
    try:
        return decode(data), google_crc32c.value(data)
    except RecordingError as error:
        raise RecordingError(f"{file}: {error}") from error


def decode(data: bytes) -> Inputs:
    """The inputs in a file's bytes. Raises RecordingError."""
    start = _HEAD.size + _U32.size
    if data[: len(MAGIC)] != MAGIC[: len(data)] or not data:
        raise RecordingError("this is no recording of `tailsight demo record`")
    if len(data) < start:
        raise RecordingError(f"truncated: {len(data)} bytes, the header alone has {start}")
    _, version, _, body_bytes, content_bytes = _HEAD.unpack_from(data)
    if google_crc32c.value(data[: _HEAD.size]) != _U32.unpack_from(data, _HEAD.size)[0]:
        raise RecordingError(f"damaged: the header's checksum (bytes 0 to {_HEAD.size}) is wrong")
    if version != VERSION:
        raise RecordingError(f"this is version {version}, this program reads version {VERSION}; record it again")
    if body_bytes > MAX_BODY or content_bytes > MAX_CONTENT:
        raise RecordingError(f"it says it has {content_bytes:,} bytes, at most {MAX_CONTENT:,} are read")
    end = start + body_bytes
    if len(data) < end + _U32.size:
        raise RecordingError(f"truncated: {len(data):,} of {end + _U32.size:,} bytes are there; copy it again")
    if len(data) > end + _U32.size:
        raise RecordingError(f"{len(data) - end - _U32.size} bytes follow its end")
    body = data[start:end]
    if google_crc32c.value(body) != _U32.unpack_from(data, end)[0]:
        raise RecordingError(f"damaged: the checksum of bytes {start} to {end} is wrong; copy it again")
    try:
        content = decompress(body, start, limit=MAX_CONTENT)
    except FrameError as error:
        raise RecordingError(f"damaged {error}") from error
    return _inputs(content, content_bytes)


def _inputs(content: bytes, expected: int) -> Inputs:
    if len(content) != expected or len(content) < _U32.size:
        raise RecordingError(f"damaged: {len(content)} bytes of content, its header says {expected}")
    at = _U32.size + _U32.unpack_from(content)[0]
    try:
        found = msgspec.json.decode(content[_U32.size : at], type=Inputs)
    except msgspec.DecodeError as error:
        raise RecordingError(f"damaged: its description cannot be read: {error}") from error
    datagrams: list[tuple[int, bytes]] = []
    before = found.from_ns
    while at < len(content):
        if at + RECORD.size > len(content):
            raise RecordingError(f"damaged: datagram {len(datagrams)} has no room at byte {at} of the content")
        time_ns, length = RECORD.unpack_from(content, at)
        at += RECORD.size + length
        if at > len(content) or time_ns < before:
            raise RecordingError(f"damaged: datagram {len(datagrams)} is cut off or out of order")
        before = time_ns
        datagrams.append((time_ns, content[at - length : at]))
    found = msgspec.structs.replace(found, datagrams=tuple(datagrams))
    _check(found)
    return found


def _check(inputs: Inputs) -> None:
    last_ns = inputs.datagrams[-1][0] if inputs.datagrams else inputs.from_ns
    if not 0 <= inputs.from_ns <= last_ns <= inputs.to_ns <= inputs.from_ns + MAX_SPAN_NS:
        raise RecordingError(f"its times make no sense: {inputs.from_ns} to {inputs.to_ns}")
    for fault in inputs.faults:
        try:
            checked(fault)
        except FaultError as error:
            raise RecordingError(f"fault {fault.id!r}: {error}") from error
    for name in NAMES:
        rows = inputs.delays.get(name, ())
        quantiles, values = [q for q, _ in rows], [ns for _, ns in rows]
        if len(rows) < 2 or sorted(quantiles) != quantiles or sorted(values) != values:
            raise RecordingError(f"its delays of {name!r} are not ascending quantiles")
        if (quantiles[0], quantiles[-1]) != (0.0, 1.0) or not 0 <= values[0] <= values[-1] <= MAX_NS:
            raise RecordingError(f"its delays of {name!r} must go from quantile 0 to 1 and from 0 ns to one hour")
