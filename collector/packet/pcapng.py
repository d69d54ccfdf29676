"""pcapng files into blocks: several sections and interfaces, both byte orders, any time resolution.

Format: https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng-02.html. Enhanced, simple and (obsolete) packet blocks
carry packets; interface descriptions and statistics are read; other blocks are skipped.
Measured: 1.5 times pcap, for both lengths of every block are checked.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from collector.packet.block import LARGEST_RECORD, NO_TIME, Block, field, rows_at
from collector.packet.bytes_in import ByteWindow
from collector.packet.damage import DamageError
from collector.packet.walk import Chain, Guess, find_starts, record_offsets

MAGIC = b"\x0a\x0d\x0d\x0a"
_ORDERS = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}
_SECTION, _INTERFACE, _OBSOLETE, _SIMPLE, _STATISTICS, _ENHANCED = 0x0A0D0D0A, 1, 2, 3, 5, 6
_HEAD = 28  # of an enhanced packet block
_LARGEST = LARGEST_RECORD + 65_536  # a packet and its options
_DATA_AT = {_ENHANCED: 28, _OBSOLETE: 28, _SIMPLE: 12}


@dataclass(slots=True)
class Interface:
    """One interface description: link type, snap length, time resolution and offset, and what the capture lost."""

    link: int
    snaplen: int
    resolution: int = 6
    offset_s: int = 0
    name: str = ""
    dropped: int = 0

    def ns(self, ticks: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Timestamps to ns since the epoch: if_tsresol is 10^-n, or 2^-n with the top bit set. Finer is cut off."""
        power = self.resolution & 0x7F
        if self.resolution & 0x80:
            if power > 63:
                return np.full(len(ticks), self.offset_s * 1_000_000_000, dtype=np.int64)
            whole = ticks >> np.uint64(power)
            part = ticks & np.uint64((1 << power) - 1)
            shift = max(0, power - 33)  # so that part * 10^9 fits 64 bits
            part = (part >> np.uint64(shift)) * np.uint64(1_000_000_000) >> np.uint64(power - shift)
            ns = (whole * np.uint64(1_000_000_000) + part).astype(np.int64)
        elif power <= 9:
            ns = (ticks * np.uint64(10 ** (9 - power))).astype(np.int64)
        else:
            ns = (ticks // np.uint64(10 ** min(power - 9, 19))).astype(np.int64)
        return ns + np.int64(self.offset_s) * np.int64(1_000_000_000) if self.offset_s else ns


class PcapngReader:
    """Reads one pcapng file.

    Attributes:
        interfaces: the interfaces of the current section.
        dropped: packets that the capturing program says it lost (interface statistics blocks), in all sections.
    """

    def __init__(self, window: ByteWindow) -> None:
        self.interfaces: list[Interface] = []
        self.dropped = 0
        self._window = window
        self._order = "<"

    def blocks(self) -> Iterator[Block]:
        """The packets, a block per chunk. Raises DamageError after the good ones."""
        window = self._window
        while self._have(12):
            if window.data[window.start : window.start + 4].tobytes() == MAGIC:
                if not self._have(28):
                    break
                self._section()
                continue
            kind, total = self._words(window.start, 2)
            if total < 12 or total % 4:
                raise DamageError(window.offset, f"a block states {total} bytes: less than 12 or no multiple of 4")
            if total > _LARGEST:
                if kind in _DATA_AT:
                    raise DamageError(window.offset, f"a packet block of {total} bytes: more than {_LARGEST}")
                if not window.skip(total):
                    break
                continue
            if not self._have(total):
                break
            yield from self._chunk()
        left = window.end - window.start
        if left or window.problem:
            raise DamageError(window.offset, window.problem or f"the file ends inside a block: {left} bytes are left")

    def _chunk(self) -> Iterator[Block]:
        """The whole blocks in the window, up to the next section."""
        window = self._window
        chain = Chain(self._order + "I", 4, 0, 12, _LARGEST, 4)
        at, stop = record_offsets(window.data, window.start, window.end, chain, self._guess())
        kinds = self._column(at, 0)
        sections = np.flatnonzero(kinds == _SECTION)
        if len(sections):  # behind it the byte order may differ
            stop = int(at[sections[0]])
            at, kinds = at[: sections[0]], kinds[: sections[0]]
        sizes = self._column(at, 4)
        damage = None
        unlike = np.flatnonzero(self._column(at + sizes - 4, 0) != sizes)
        if len(unlike):
            first = int(unlike[0])
            damage = DamageError(window.base + int(at[first]), "a block's two lengths differ")
            at, kinds, sizes = at[:first], kinds[:first], sizes[:first]
        for row in np.flatnonzero((kinds == _INTERFACE) | (kinds == _STATISTICS)).tolist():
            self._describe(int(kinds[row]), int(at[row]), int(sizes[row]))
        packet = (kinds == _ENHANCED) | (kinds == _OBSOLETE) | (kinds == _SIMPLE)
        if not packet.all():
            at, kinds, sizes = at[packet], kinds[packet], sizes[packet]
        block, bad = self._packets(at, kinds, sizes)
        if bad >= 0:
            damage = DamageError(window.base + int(at[bad]), self._what_is_wrong(int(at[bad]), int(kinds[bad])))
        if len(block):
            yield block
        if damage:
            raise damage
        window.start = stop

    def _packets(self, at: NDArray[np.int64], kinds: NDArray[np.int64], sizes: NDArray[np.int64]) -> tuple[Block, int]:
        """The packet blocks as one block, cut at the first that cannot be, and the row of that one or -1."""
        word = self._order + "u4"
        heads = rows_at(self._window.data, at, _HEAD)
        interface = field(heads, 8, word)
        ticks = (field(heads, 12, word) << 32) | field(heads, 16, word)
        caplen, origlen = field(heads, 20, word), field(heads, 24, word)
        data_at = np.full(len(at), 28, dtype=np.int64)
        room = sizes - 32
        if len(kinds) and (kinds != _ENHANCED).any():
            obsolete, simple = kinds == _OBSOLETE, kinds == _SIMPLE
            interface[obsolete] = field(heads, 8, self._order + "u2")[obsolete]
            wire = interface[simple]  # a simple packet has its length there, no time, and interface 0
            snaplen = self.interfaces[0].snaplen if self.interfaces else 0
            room[simple] = sizes[simple] - 16
            caplen[simple] = np.minimum(np.minimum(wire, snaplen or LARGEST_RECORD), room[simple])
            origlen[simple] = wire
            interface[simple] = 0
            data_at[simple] = 12
        wrong = (interface >= len(self.interfaces)) | (caplen > room) | (caplen > LARGEST_RECORD)
        bad = int(wrong.argmax()) if wrong.any() else -1
        good = slice(0, bad if bad >= 0 else len(at))
        ts_ns = np.full(len(at), NO_TIME, dtype=np.int64)
        link = np.zeros(len(at), dtype=np.uint16)
        for number in np.flatnonzero(np.bincount(interface[good])).tolist():
            rows = interface == number
            link[rows] = self.interfaces[number].link
            timed = rows & (kinds != _SIMPLE)
            ts_ns[timed] = self.interfaces[number].ns(ticks[timed].view(np.uint64))
        block = Block(
            self._window.data,
            (at + data_at)[good],
            caplen[good],
            origlen[good],
            ts_ns[good],
            link[good],
            interface[good].astype(np.uint16),
        )
        return block, bad

    def _what_is_wrong(self, at: int, kind: int) -> str:
        if kind == _SIMPLE:
            return "a simple packet block comes before any interface description"
        (number,) = self._words(at + 8, 1)
        number = number if kind == _ENHANCED else number & 0xFFFF
        if number >= len(self.interfaces):
            return f"a packet names interface {number}, but {len(self.interfaces)} are described"
        return f"a packet claims {self._words(at + 20, 1)[0]} captured bytes, more than its block holds"

    def _section(self) -> None:
        """Read a section header: the byte order of what follows. Interfaces start anew."""
        window = self._window
        magic = window.data[window.start + 8 : window.start + 12].tobytes()
        if magic not in _ORDERS:
            raise DamageError(window.offset, f"a section header with the byte-order magic {magic.hex()}")
        self._order = _ORDERS[magic]
        (total,) = self._words(window.start + 4, 1)
        if total < 28 or total % 4:
            raise DamageError(window.offset, f"a section header of {total} bytes: less than 28 or no multiple of 4")
        self.interfaces = []
        where = window.offset
        if not window.skip(total):
            raise DamageError(where, f"the file ends inside a section header of {total} bytes")

    def _describe(self, kind: int, at: int, size: int) -> None:
        body = self._window.data[at + 8 : at + size - 4].tobytes()
        if kind == _STATISTICS:
            if len(body) >= 12:
                number = struct.unpack_from(self._order + "I", body)[0]
                dropped = self._options(body[12:]).get(5, b"")  # isb_ifdrop
                if number < len(self.interfaces) and len(dropped) == 8:
                    interface = self.interfaces[number]
                    count = struct.unpack(self._order + "Q", dropped)[0]
                    self.dropped += count - interface.dropped  # the counter runs on: only the last counts
                    interface.dropped = count
            return
        if len(body) < 8:
            raise DamageError(self._window.base + at, "an interface description without link type and snap length")
        link, _, snaplen = struct.unpack_from(self._order + "HHI", body)
        interface = Interface(link, snaplen)
        options = self._options(body[8:])
        interface.name = options.get(2, b"").decode("utf-8", "replace")
        if len(options.get(9, b"")) == 1:
            interface.resolution = options[9][0]
        if len(options.get(14, b"")) == 8:
            (interface.offset_s,) = struct.unpack(self._order + "q", options[14])
        self.interfaces.append(interface)

    def _options(self, body: bytes) -> dict[int, bytes]:
        """Options by code, the first of each; one that reaches beyond the block ends the list."""
        found: dict[int, bytes] = {}
        at = 0
        while at + 4 <= len(body):
            code, length = struct.unpack_from(self._order + "HH", body, at)
            if code == 0 or at + 4 + length > len(body):
                break
            found.setdefault(code, body[at + 4 : at + 4 + length])
            at += 4 + (length + 3) // 4 * 4
        return found

    def _have(self, count: int) -> bool:
        window = self._window
        return window.end - window.start >= count or (window.refill() and window.end - window.start >= count)

    def _words(self, at: int, count: int) -> tuple[int, ...]:
        return struct.unpack_from(f"{self._order}{count}I", self._window.data.data, at)

    def _column(self, at: NDArray[np.int64], skip: int) -> NDArray[np.int64]:
        return field(rows_at(self._window.data, at + skip, 4), 0, self._order + "u4")

    def _guess(self) -> Guess:
        """Guess block starts by the enhanced packet's type, aligned to 4 from here, whose two lengths agree."""
        data, first, end = self._window.data, self._window.start, self._window.end

        def plausible(at: NDArray[np.int64]) -> NDArray[np.bool_]:
            good: NDArray[np.bool_] = ((at - first) % 4 == 0) & (at + 8 <= end)
            total = self._column(np.where(good, at, first), 4)
            good &= (total >= 32) & (total <= _LARGEST) & (at + total <= end)
            good &= self._column(np.where(good, at + total - 4, first), 0) == total
            return good

        pattern = struct.pack(self._order + "I", _ENHANCED)
        return lambda low, high: find_starts(data, pattern, 0, plausible, (low, np.minimum(high, end)))
