"""pcap files into blocks: both byte orders, microseconds and nanoseconds, and the "modified" 24-byte record header.

Format: https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-04.html.
Measured: 60-150 ns per packet, most of it waiting for memory.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from collector.packet.block import LARGEST_RECORD, Block, field, rows_at
from collector.packet.bytes_in import ByteWindow
from collector.packet.damage import DamageError
from collector.packet.walk import Chain, Guess, find_starts, record_offsets

# magic as the file's first four bytes -> (byte order, nanoseconds per tick, record header bytes)
MAGICS: dict[bytes, tuple[str, int, int]] = {
    b"\xd4\xc3\xb2\xa1": ("<", 1_000, 16),
    b"\xa1\xb2\xc3\xd4": (">", 1_000, 16),
    b"\x4d\x3c\xb2\xa1": ("<", 1, 16),
    b"\xa1\xb2\x3c\x4d": (">", 1, 16),
    b"\x34\xcd\xb2\xa1": ("<", 1_000, 24),  # Alexey Kuznetzov's: interface, protocol and type follow the lengths
    b"\xa1\xb2\xcd\x34": (">", 1_000, 24),
}
_HEADER = 24


def read_pcap(window: ByteWindow) -> Iterator[Block]:
    """The packets of a pcap file, a block per chunk.

    Raises DamageError, after the good packets, naming the byte offset at which the file stops making sense.
    """
    if window.end - window.start < _HEADER:
        raise DamageError(window.offset, "the file ends inside the pcap file header (24 bytes)")
    head = window.data[window.start : window.start + _HEADER].tobytes()
    order, tick_ns, record = MAGICS[head[:4]]
    # The upper bits of the link type word hold the frame check sequence's length (draft-ietf-opsawg-pcap, 4).
    link = struct.unpack_from(order + "I", head, 20)[0] & 0xFFFF
    window.start += _HEADER
    chain = Chain(order + "I", 8, record, 0, LARGEST_RECORD)
    while True:
        offsets, stop = record_offsets(window.data, window.start, window.end, chain, _guesser(window, order, chain))
        if len(offsets):
            yield _block(window, offsets, order, tick_ns, record, link)
        window.start = stop
        _check(window, order, record)
        if not window.refill():
            break
    left = window.end - window.start
    if left:
        part = "the record header" if left < record else "a packet"
        raise DamageError(window.offset, window.problem or f"the file ends inside {part}: {left} bytes are left")
    if window.problem:
        raise DamageError(window.offset, window.problem)


def _check(window: ByteWindow, order: str, record: int) -> None:
    """Raise where the next record states a length that no packet has."""
    if window.end - window.start >= record:
        (caplen,) = struct.unpack_from(order + "I", window.data.data, window.start + 8)
        if caplen > LARGEST_RECORD:
            raise DamageError(
                window.offset, f"a packet claims {caplen} captured bytes, more than {LARGEST_RECORD}: not a record"
            )


def _block(window: ByteWindow, offsets: NDArray[np.int64], order: str, tick_ns: int, record: int, link: int) -> Block:
    heads = rows_at(window.data, offsets, 16)
    word = order + "u4"
    seconds, ticks = field(heads, 0, word), field(heads, 4, word)
    count = len(offsets)
    return Block(
        data=window.data,
        offset=offsets + record,
        caplen=field(heads, 8, word),
        origlen=field(heads, 12, word),
        ts_ns=seconds * 1_000_000_000 + ticks * tick_ns,
        link=np.full(count, link, dtype=np.uint16),
        interface=np.zeros(count, dtype=np.uint16),
    )


def _guesser(window: ByteWindow, order: str, chain: Chain) -> Guess | None:
    """Guess record starts by the upper half of the seconds, which hardly changes within a file."""
    data, end = window.data, window.end
    if end - window.start < 16:
        return None
    first = data[window.start : window.start + 4].tobytes()
    before, pattern = (2, first[2:]) if order == "<" else (0, first[:2])
    word = order + "u4"

    def plausible(at: NDArray[np.int64]) -> NDArray[np.bool_]:
        good = at + 16 <= end
        for _ in range(2):  # this record and the next
            heads = rows_at(data, np.where(good, at, 0), 16)
            same = (heads[:, before : before + 2] == np.frombuffer(pattern, dtype=np.uint8)).all(axis=1)
            caplen, origlen = field(heads, 8, word), field(heads, 12, word)
            good &= same & (caplen <= LARGEST_RECORD) & (origlen < 1 << 24)
            at = at + chain.overhead + caplen
            if not (at + 16 <= end).all():
                break  # the last ones are taken on the first record's word
        return good

    return lambda low, high: find_starts(data, pattern, before, plausible, (low, np.minimum(high, end)))
