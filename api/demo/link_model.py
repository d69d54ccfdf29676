"""What a link does to packets: delay, loss and a rate, with what faults add. Pure: it says when a packet leaves.

On a UDP link a lost packet is gone. A TCP link loses no bytes, its packets are sent again: a loss there is one
retransmission timeout for the packet, and all that follow it wait behind it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from api.demo.faults import Fault
from api.demo.quantiles import value_at

RETRANSMISSION_NS = 200_000_000  # Linux's smallest retransmission timeout (TCP_RTO_MIN)


@dataclass(slots=True)
class LinkModel:
    """One direction of one link."""

    stream: bool  # TCP: keeps the order, loses nothing
    seed: int = 1
    delay_ns: int = 0
    _random: random.Random = field(init=False)
    _free_ns: int = 0  # when the wire has sent what it was given
    _last_ns: int = 0
    lost: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311 - the same seed loses the same packets

    def leaves_ns(self, size: int, now_ns: int, faults: Sequence[Fault] = (), fault_now_ns: int = 0) -> int | None:
        """When a packet of `size` bytes that comes at `now_ns` leaves, None when it is lost.

        `fault_now_ns` is the same moment on the faults' clock. A fault touches its `size` of the packets.
        """
        at = now_ns + self.delay_ns
        for fault in faults:
            if not fault.active(fault_now_ns):
                continue
            if fault.kind == "feed_gap" and fault.pulse_left_ns(fault_now_ns):
                self.lost += 1
                return None
            if fault.kind != "link" or self._random.random() >= fault.size:
                continue
            if fault.loss and self._random.random() < fault.loss:
                self.lost += 1
                if not self.stream:
                    return None
                at += RETRANSMISSION_NS
            if fault.rate_bps:
                self._free_ns = max(self._free_ns, now_ns) + round(size * 8e9 / fault.rate_bps)
                at = max(at, self._free_ns + self.delay_ns)
            at += fault.delay_ns
            if fault.delays:
                at += value_at(fault.delays, self._random.random())
        if self.stream:
            at = self._last_ns = max(at, self._last_ns)
        return at
