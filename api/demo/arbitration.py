"""A/B arbitration: two lines carry the same numbered messages; what one loses the other may bring. Pure.

The first copy of a number counts. A number that is missing is waited for as long as `patience_ns`; then it is given up
and what came after it goes on, in order.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from api.demo.market_data import Datagram

Numbered = tuple[int, bytes]


@dataclass(slots=True)
class Arbiter:
    """Follows one session over any number of lines."""

    patience_ns: int = 3_000_000
    session: bytes = b""
    expected: int = 0  # the next number to go on
    missed: int = 0
    repeated: int = 0
    _known: int = 0  # numbers below this exist: somebody spoke of them
    _held: dict[int, bytes] = field(default_factory=dict)
    _gap_since_ns: int | None = None

    def receive(self, datagram: Datagram, now_ns: int) -> list[Numbered]:
        """The (sequence, message) pairs that can go on now, in order."""
        if not self._follows(datagram):
            return []
        for number, message in enumerate(datagram.messages, datagram.sequence):
            if number < self.expected or number in self._held:
                self.repeated += 1
            else:
                self._held[number] = message
        self._known = max(self._known, datagram.sequence + len(datagram.messages))
        return self._release(now_ns)

    def knows(self, session: bytes, number: int) -> bool:
        """Whether a copy of it has come or it was given up: another one will not go on."""
        if session != self.session:
            return bool(self.session) and int(session, 36) < int(self.session, 36)
        return number < self.expected or number in self._held

    def due_ns(self) -> int | None:
        """When a missing number will have been waited for long enough, None when none is missing."""
        return None if self._gap_since_ns is None else self._gap_since_ns + self.patience_ns

    def expire(self, now_ns: int) -> list[Numbered]:
        """Give up what has been missing for too long; what can go on then."""
        due = self.due_ns()
        if due is None or now_ns < due:
            return []
        resume = min(self._held, default=self._known)
        self.missed += resume - self.expected
        self.expected = resume
        self._gap_since_ns = None
        return self._release(now_ns)

    def _follows(self, datagram: Datagram) -> bool:
        """Whether the datagram is of the present session; a later session takes over at its first number heard."""
        if datagram.session == self.session:
            return True
        if self.session and int(datagram.session, 36) < int(self.session, 36):
            return False  # a straggler of the session before
        self.session, self.expected, self._known = datagram.session, datagram.sequence, datagram.sequence
        self._held.clear()
        self._gap_since_ns = None
        return True

    def _release(self, now_ns: int) -> list[Numbered]:
        before = self.expected
        ready = []
        while self.expected in self._held:
            ready.append((self.expected, self._held.pop(self.expected)))
            self.expected += 1
        if self.expected >= self._known:
            self._gap_since_ns = None
        elif self._gap_since_ns is None or self.expected != before:
            self._gap_since_ns = now_ns
        return ready
