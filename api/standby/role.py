"""Who is active, as a pure function of what the two servers say of themselves.

The epoch is the fence: every take-over raises it, it is on disk before the new one acts, and of two active servers that
hear each other the one with the lower epoch steps back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["candidate", "standby", "active"]


@dataclass(frozen=True, slots=True)
class Said:
    """What a server says of itself."""

    name: str
    role: Role
    epoch: int

    @property
    def rank(self) -> tuple[int, str]:
        """The larger one stays active; of equal epochs the name that comes first in the alphabet."""
        return self.epoch, "".join(chr(0x10FFFF - ord(c)) for c in self.name)


def decide(me: Said, peer: Said | None, *, silent: bool) -> Said:
    """What this server is from now on.

    `peer` is what the other one said last, None when it was never heard. `silent`: nothing was heard of it for a whole
    lease. A server that has just begun is a candidate and waits that long, too.
    """
    if silent or peer is None:
        if not silent or me.role == "active":
            return me
        return _taken(me, peer)
    if peer.role == "active":
        if me.role == "active" and me.rank > peer.rank:
            return me
        return Said(me.name, "standby", me.epoch)
    if me.role == "active":
        return me
    # Nobody is active: whoever was so last knows most.
    return _taken(me, peer) if me.rank > peer.rank else Said(me.name, "standby", me.epoch)


def _taken(me: Said, peer: Said | None) -> Said:
    return Said(me.name, "active", max(me.epoch, peer.epoch if peer else 0) + 1)
