"""Nasdaq TotalView-ITCH 5.0 over MoldUDP64 1.00.

Sources: "Nasdaq TotalView-ITCH 5.0" and "MoldUDP64 Protocol Specification V 1.00", nasdaqtrader.com. Integers are
big-endian; a time is ns since midnight in New York; a price has 4 decimals (8 in the decline levels).
"""

from __future__ import annotations

from scapy.fields import (
    BitField,
    FieldLenField,
    IntField,
    LongField,
    PacketLenField,
    PacketListField,
    ShortField,
    StrFixedLenField,
)
from scapy.packet import Packet, Raw

from collector.decode.protocol import HaltRule, Message, Protocol, by_kind


def _char(name: str) -> StrFixedLenField:
    return StrFixedLenField(name, b" ", 1)


def _stock() -> StrFixedLenField:
    return StrFixedLenField("stock", b"        ", 8)


def _body(title: str, kind: bytes, *fields: object) -> type[Packet]:
    """A message: type, stock locate, tracking number and time are common to all."""
    common = [
        StrFixedLenField("type", kind, 1),
        ShortField("locate", 0),
        ShortField("tracking", 0),
        BitField("timestamp", 0, 48),
    ]
    return type(title.replace(" ", ""), (Packet,), {"name": title, "fields_desc": [*common, *fields]})


_ORDER = (LongField("reference", 0), _char("side"), IntField("shares", 0), _stock(), IntField("price", 0))

BODIES: dict[bytes | int, type[Packet]] = {
    b"S": _body("System Event", b"S", _char("event")),
    b"R": _body(
        "Stock Directory", b"R", _stock(), _char("category"), _char("status"), IntField("round_lot", 0),
        _char("round_lots_only"), _char("classification"), StrFixedLenField("subtype", b"  ", 2), _char("authenticity"),
        _char("short_sale"), _char("ipo"), _char("luld_tier"), _char("etp"), IntField("etp_leverage", 0),
        _char("inverse"),
    ),
    b"H": _body(
        "Stock Trading Action", b"H", _stock(), _char("state"), _char("reserved"), StrFixedLenField("reason", b"", 4)
    ),
    b"Y": _body("Reg SHO Restriction", b"Y", _stock(), _char("action")),
    b"L": _body(
        "Market Participant Position", b"L", StrFixedLenField("mpid", b"", 4), _stock(), _char("primary"),
        _char("mode"), _char("state"),
    ),
    b"V": _body(
        "MWCB Decline Level", b"V", LongField("level_1", 0), LongField("level_2", 0), LongField("level_3", 0)
    ),
    b"W": _body("MWCB Status", b"W", _char("breached")),
    b"K": _body(
        "IPO Quoting Period", b"K", _stock(), IntField("release", 0), _char("qualifier"), IntField("price", 0)
    ),
    b"J": _body(
        "LULD Auction Collar", b"J", _stock(), IntField("reference", 0), IntField("upper", 0), IntField("lower", 0),
        IntField("extension", 0),
    ),
    b"h": _body("Operational Halt", b"h", _stock(), _char("market"), _char("action")),
    b"A": _body("Add Order", b"A", *_ORDER),
    b"F": _body("Add Order MPID", b"F", *_ORDER, StrFixedLenField("attribution", b"", 4)),
    b"E": _body("Order Executed", b"E", LongField("reference", 0), IntField("shares", 0), LongField("match", 0)),
    b"C": _body(
        "Order Executed With Price", b"C", LongField("reference", 0), IntField("shares", 0), LongField("match", 0),
        _char("printable"), IntField("price", 0),
    ),
    b"X": _body("Order Cancel", b"X", LongField("reference", 0), IntField("shares", 0)),
    b"D": _body("Order Delete", b"D", LongField("reference", 0)),
    b"U": _body(
        "Order Replace", b"U", LongField("reference", 0), LongField("new_reference", 0), IntField("shares", 0),
        IntField("price", 0),
    ),
    b"P": _body("Trade", b"P", *_ORDER, LongField("match", 0)),
    b"Q": _body(
        "Cross Trade", b"Q", LongField("shares", 0), _stock(), IntField("price", 0), LongField("match", 0),
        _char("cross"),
    ),
    b"B": _body("Broken Trade", b"B", LongField("match", 0)),
    b"I": _body(
        "NOII", b"I", LongField("paired", 0), LongField("imbalance", 0), _char("direction"), _stock(),
        IntField("far", 0), IntField("near", 0), IntField("reference", 0), _char("cross"), _char("variation"),
    ),
    b"N": _body("RPII", b"N", _stock(), _char("interest")),
    b"O": _body(
        "Direct Listing", b"O", _stock(), _char("eligible"), IntField("minimum", 0), IntField("maximum", 0),
        IntField("near", 0), LongField("near_time", 0), IntField("lower_collar", 0), IntField("upper_collar", 0),
    ),
}  # fmt: skip


class MoldBlock(Message):
    """A message in a MoldUDP64 datagram, with its length."""

    name = "MoldUDP64 message block"
    fields_desc = [  # noqa: RUF012 - scapy declares it so
        FieldLenField("length", None, length_of="body", fmt="!H"),
        PacketLenField("body", Raw(), by_kind(BODIES, 1), length_from=lambda p: p.length),
    ]


class Mold(Packet):  # type: ignore[misc, unused-ignore]
    """A MoldUDP64 datagram of ITCH messages."""

    name = "MoldUDP64"
    fields_desc = [  # noqa: RUF012 - scapy declares it so
        StrFixedLenField("session", b"          ", 10),
        LongField("sequence", 1),
        FieldLenField("count", None, count_of="messages", fmt="!H"),
        PacketListField("messages", [], MoldBlock, count_from=lambda p: 0 if p.count == 0xFFFF else p.count),
    ]


PROTOCOL = Protocol(
    name="itch",
    packet=Mold,
    sequence="sequence",
    session=("session",),
    end_count=0xFFFF,
    time="timestamp",
    time_zone="America/New_York",
    kind="type",
    bodies=BODIES,
    instrument="locate",
    symbol="stock",
    halts=(
        # H halted, P paused, Q quoted only until the opening auction, T traded.
        HaltRule(b"H", "state", halted=tuple(b"HPQ"), trading=tuple(b"T")),
        HaltRule(b"h", "action", halted=tuple(b"H"), trading=tuple(b"T")),  # of this market alone
    ),
)
