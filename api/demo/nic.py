"""What a lost receive queue does to the packets of a flow that is on it. Pure: it says what gets through, and when.

A datagram on the queue is lost. A stream loses nothing: its sender sends the packet again every 200 ms until it gets
through, and all that follow it wait behind it, as on a lossy link (`link_model`). A stream that gets nothing through
for `GIVES_UP_NS` is ended by its sender, so that what waits is bounded.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

from api.demo.faults import Fault
from api.demo.link_model import RETRANSMISSION_NS
from api.demo.rss import FLOWS

GIVES_UP_NS = 10_000_000_000
_ORDER = tuple(FLOWS)
_APART = 1_000  # from the links' own seeds

T = TypeVar("T")


def striking(faults: Iterable[Fault], flow: str) -> list[Fault]:
    """The faults that lose the receive queue that a flow is on, at any time."""
    on = FLOWS[flow]
    return [f for f in faults if f.kind == "lost_nic_queue" and f.at == on.host and f.queue == on.queue]


class Queue:
    """A flow's receive queue: it takes packets, or loses them. The same seed loses the same packets."""

    def __init__(self, flow: str, seed: int) -> None:
        self._random = random.Random(seed + _APART + _ORDER.index(flow))  # noqa: S311 - the same seed, the same packets
        self._until_ns = 0
        self.lost = 0

    def takes(self, faults: Sequence[Fault], now_ns: int) -> bool:
        """Whether a packet gets through that arrives at `now_ns` (the faults' clock); `faults` are `striking` ones."""
        lost = any(fault.active(now_ns) and self._random.random() < fault.size for fault in faults)
        self.lost += lost
        return not lost

    def stream_takes_ns(self, faults: Sequence[Fault], at_ns: int) -> int | None:
        """When a stream's packet gets through that first arrives at `at_ns`, None when its sender gives up.

        For a clock on which what the faults will do is known. Packets are asked for in their order.
        """
        if at_ns < self._until_ns:
            return self._until_ns  # one before it waits
        for again_ns in range(at_ns, at_ns + GIVES_UP_NS + 1, RETRANSMISSION_NS):
            if self.takes(faults, again_ns):
                self._until_ns = again_ns
                return again_ns
        return None


class Stream(Generic[T]):
    """A stream's packets before a receive queue, for a clock on which nobody knows when the fault will end."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._held: list[T] = []
        self._since_ns = 0
        self.due_ns: int | None = None  # when to ask `again`, on the clock of `now_ns`

    def take(self, packet: T, faults: Sequence[Fault], now_ns: int, fault_now_ns: int) -> bool:
        """Whether a packet that arrives goes on at once; if not it is kept.

        `fault_now_ns` is the same moment on the faults' clock.
        """
        if self._held:
            self._held.append(packet)
            return False
        if self._queue.takes(faults, fault_now_ns):
            return True
        self._held.append(packet)
        self._since_ns, self.due_ns = now_ns, now_ns + RETRANSMISSION_NS
        return False

    def again(self, faults: Sequence[Fault], now_ns: int, fault_now_ns: int) -> list[T] | None:
        """Send the first packet that waits once more: what goes on now, in order. None: the sender gives up."""
        if self._held and not self._queue.takes(faults, fault_now_ns):
            if now_ns - self._since_ns >= GIVES_UP_NS:
                self.drop()
                return None
            self.due_ns = now_ns + RETRANSMISSION_NS
            return []
        through = self._held
        self.drop()
        return through

    def drop(self) -> None:
        """The connection has ended: nothing waits any more."""
        self._held, self.due_ns = [], None
