"""The bytes of TCP directions, put in order: what was sent again is dropped, what is missing is waited for.

A segment that is ahead waits; when more than `WAITING` bytes of a direction do, what is missing was not captured, and
the bytes go on behind the hole. The time of a byte is that of the packet that brought it and let it be read.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

WAITING = 64 << 10
HELD = 128 << 10


@dataclass(slots=True)
class Direction:
    """One direction of one connection.

    Attributes:
        data: bytes that nobody has taken.
        holes: places where bytes are missing.
        retransmitted: bytes that came again.
    """

    data: bytearray = field(default_factory=bytearray)
    holes: int = 0
    retransmitted: int = 0
    _next: int | None = None
    _ends: list[int] = field(default_factory=list)  # where each piece of data ends
    _times: list[int] = field(default_factory=list)
    _ahead: dict[int, tuple[bytes, int]] = field(default_factory=dict)
    _waiting: int = 0

    def syn(self, seq: int) -> None:
        """A new connection: its bytes start behind this number."""
        self._next = (seq + 1) & 0xFFFFFFFF
        self.data.clear()
        self._forget()
        self._ahead.clear()
        self._waiting = 0

    def segment(self, seq: int, payload: bytes, time_ns: int) -> None:
        """Take a segment as it was captured."""
        if self._next is None:
            self._next = seq
        if not self._take(seq, payload, time_ns):
            if seq not in self._ahead:
                self._ahead[seq] = payload, time_ns
                self._waiting += len(payload)
            while self._waiting > WAITING:
                self._skip()
            return
        self._settle(time_ns)

    def flush(self) -> None:
        """Nothing more will come: what waits goes on behind its holes."""
        while self._ahead:
            self._skip()

    def take(self, count: int) -> None:
        """The first `count` bytes have been used. What is then still held beyond `HELD` bytes is given up."""
        count = max(count, len(self.data) - HELD)
        del self.data[:count]
        keep = bisect_left(self._ends, count + 1)
        self._ends = [end - count for end in self._ends[keep:]]
        self._times = self._times[keep:]

    def time_of(self, end: int) -> int:
        """When the byte before `end` could be read."""
        return self._times[min(bisect_left(self._ends, end), len(self._times) - 1)]

    def _take(self, seq: int, payload: bytes, time_ns: int) -> bool:
        """Append what is new of a segment; False if it is ahead."""
        expected = self._next or 0
        offset = ((seq - expected + 0x80000000) & 0xFFFFFFFF) - 0x80000000
        if offset > 0:
            return False
        new = payload[-offset:] if offset else payload
        self.retransmitted += len(payload) - len(new)
        if new:
            self.data += new
            self._ends.append(len(self.data))
            self._times.append(time_ns)
            self._next = (expected + len(new)) & 0xFFFFFFFF
        return True

    def _settle(self, time_ns: int) -> None:
        """Append what waited for this segment."""
        while self._ahead:
            seq = self._nearest()
            payload, _ = self._ahead[seq]
            if not self._take(seq, payload, time_ns):
                return
            del self._ahead[seq]
            self._waiting -= len(payload)

    def _skip(self) -> None:
        seq = self._nearest()
        payload, at = self._ahead.pop(seq)
        self._waiting -= len(payload)
        if self._take(seq, b"", at):
            self._take(seq, payload, at)
        else:
            self.holes += 1
            self._next = seq
            self._take(seq, payload, at)
        self._settle(at)

    def _nearest(self) -> int:
        expected = self._next or 0
        return min(self._ahead, key=lambda seq: (seq - expected + 0x80000000) & 0xFFFFFFFF)

    def _forget(self) -> None:
        self._ends.clear()
        self._times.clear()
