"""The demo's feed: quotes, listings and trading actions over MoldUDP64.

The keys are those that the demo's programs stamp: the session is its start in ms, base 36.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scapy.fields import (
    FieldLenField,
    IntField,
    LongField,
    PacketLenField,
    PacketListField,
    ShortField,
    SignedLongField,
    StrFixedLenField,
)
from scapy.packet import Packet, Raw

from collector.decode.protocol import HaltRule, Message, Protocol, by_kind


class Quote(Packet):  # type: ignore[misc, unused-ignore]
    """The best prices of an instrument."""

    name = "Quote"
    fields_desc = [  # noqa: RUF012 - scapy declares it so
        StrFixedLenField("type", b"Q", 1),
        ShortField("instrument", 0),
        SignedLongField("intended_ns", 0),
        IntField("bid", 0),
        IntField("bid_size", 0),
        IntField("ask", 0),
        IntField("ask_size", 0),
    ]


class Listing(Packet):  # type: ignore[misc, unused-ignore]
    """Reference data of an instrument; it is no update of its prices."""

    name = "Listing"
    fields_desc = [  # noqa: RUF012 - scapy declares it so
        StrFixedLenField("type", b"D", 1),
        ShortField("listed", 0),
        IntField("lot", 0),
        IntField("edition", 0),
    ]


class TradingAction(Packet):  # type: ignore[misc, unused-ignore]
    """An instrument is halted (H), or traded (T); it is no update of its prices."""

    name = "TradingAction"
    fields_desc = [  # noqa: RUF012 - scapy declares it so
        StrFixedLenField("type", b"H", 1),
        ShortField("concerned", 0),
        StrFixedLenField("state", b"T", 1),
        SignedLongField("since_ns", 0),
        StrFixedLenField("reason", b"", 4),
    ]


BODIES: dict[bytes | int, type[Packet]] = {b"Q": Quote, b"D": Listing, b"H": TradingAction}


class Block(Message):
    """A message with its length."""

    name = "message block"
    fields_desc = [  # noqa: RUF012 - scapy declares it so
        FieldLenField("length", None, length_of="body", fmt="!H"),
        PacketLenField("body", Raw(), by_kind(BODIES, 1), length_from=lambda p: p.length),
    ]


class Datagram(Packet):  # type: ignore[misc, unused-ignore]
    """A datagram of the demo's feed."""

    name = "demo feed"
    fields_desc = [  # noqa: RUF012 - scapy declares it so
        StrFixedLenField("session", b"          ", 10),
        LongField("sequence", 1),
        FieldLenField("count", None, count_of="messages", fmt="!H"),
        PacketListField("messages", [], Block, count_from=lambda p: 0 if p.count == 0xFFFF else p.count),
    ]


def _ids(sessions: list[bytes], which: NDArray[np.int64], sequence: NDArray[np.int64]) -> NDArray[np.uint64]:
    """32 bits of the session, 32 of the number, as the demo's programs make it."""
    high = np.array([_start(name) << 32 for name in sessions], dtype=np.uint64)
    return high[which] | (sequence.astype(np.uint64) & np.uint64(0xFFFF_FFFF))


def _start(name: bytes) -> int:
    try:
        return int(name, 36) & 0xFFFF_FFFF
    except ValueError:
        return 0


PROTOCOL = Protocol(
    name="demo",
    packet=Datagram,
    sequence="sequence",
    session=("session",),
    end_count=0xFFFF,
    kind="type",
    bodies=BODIES,
    instrument="instrument",
    halts=(HaltRule(b"H", "state", halted=tuple(b"H"), trading=tuple(b"T"), instrument="concerned"),),
    ids=_ids,
)
