"""IEX DEEP+ 1.0 over IEX-TP 1.25.

Sources: "IEX Transport Specification" and "IEX DEEP+ Specification", iextrading.com. Integers are little-endian; times
are ns since the epoch; a price has 4 decimals. IEX may lengthen a message: bytes behind the known fields are no error.
"""

from __future__ import annotations

from scapy.fields import (
    ByteField,
    FieldLenField,
    LEIntField,
    LELongField,
    LEShortField,
    LESignedLongField,
    PacketLenField,
    PacketListField,
    StrFixedLenField,
)
from scapy.packet import Packet, Raw

from collector.decode.protocol import HaltRule, Message, Protocol, by_kind


def _body(title: str, kind: bytes, flags: str, *fields: object) -> type[Packet]:
    """A message: type, a byte of flags or status, and the time are common to all."""
    common = [StrFixedLenField("type", kind, 1), ByteField(flags, 0), LESignedLongField("timestamp", 0)]
    return type(title.replace(" ", ""), (Packet,), {"name": title, "fields_desc": [*common, *fields]})


def _symbol() -> StrFixedLenField:
    return StrFixedLenField("symbol", b"        ", 8)


def _price(name: str = "price") -> LESignedLongField:
    return LESignedLongField(name, 0)


BODIES: dict[bytes | int, type[Packet]] = {
    b"S": _body("System Event", b"S", "event"),
    b"D": _body(
        "Security Directory", b"D", "flags", _symbol(), LEIntField("round_lot", 0), _price("adjusted_close"),
        ByteField("luld_tier", 0),
    ),
    b"H": _body("Trading Status", b"H", "status", _symbol(), StrFixedLenField("reason", b"    ", 4)),
    b"I": _body("Retail Liquidity Indicator", b"I", "indicator", _symbol()),
    b"O": _body("Operational Halt Status", b"O", "status", _symbol()),
    b"P": _body("Short Sale Price Test Status", b"P", "status", _symbol(), StrFixedLenField("detail", b" ", 1)),
    b"E": _body("Security Event", b"E", "event", _symbol()),
    b"a": _body("Add Order", b"a", "side", _symbol(), LELongField("order", 0), LEIntField("size", 0), _price()),
    b"M": _body("Order Modify", b"M", "flags", _symbol(), LELongField("order", 0), LEIntField("size", 0), _price()),
    b"R": _body("Order Delete", b"R", "reserved", _symbol(), LELongField("order", 0)),
    b"L": _body(
        "Order Executed", b"L", "conditions", _symbol(), LELongField("order", 0), LEIntField("size", 0), _price(),
        LELongField("trade", 0),
    ),
    b"T": _body("Trade", b"T", "conditions", _symbol(), LEIntField("size", 0), _price(), LELongField("trade", 0)),
    b"B": _body("Trade Break", b"B", "conditions", _symbol(), LEIntField("size", 0), _price(), LELongField("trade", 0)),
    b"C": _body("Clear Book", b"C", "reserved", _symbol()),
}  # fmt: skip


class Block(Message):
    """A message in an IEX-TP segment, with its length."""

    name = "IEX-TP message block"
    fields_desc = [  # noqa: RUF012 - scapy declares it so
        FieldLenField("length", None, length_of="body", fmt="<H"),
        PacketLenField("body", Raw(), by_kind(BODIES, 1), length_from=lambda p: p.length),
    ]


class IexTp(Packet):  # type: ignore[misc, unused-ignore]
    """An IEX-TP segment."""

    name = "IEX-TP"
    fields_desc = [  # noqa: RUF012 - scapy declares it so
        ByteField("version", 1),
        ByteField("reserved", 0),
        LEShortField("protocol", 0x8005),
        LEIntField("channel", 1),
        LEIntField("session", 0),
        LEShortField("payload_length", 0),
        FieldLenField("count", None, count_of="messages", fmt="<H"),
        LELongField("stream_offset", 0),
        LELongField("sequence", 1),
        LESignedLongField("send_time", 0),
        PacketListField("messages", [], Block, count_from=lambda p: p.count),
    ]


PROTOCOL = Protocol(
    name="iex",
    packet=IexTp,
    sequence="sequence",
    session=("channel", "session"),
    time="send_time",
    kind="type",
    bodies=BODIES,
    instrument="symbol",
    halts=(
        # H halted, P paused, O orders are taken before the auction, T traded.
        HaltRule(b"H", "status", halted=tuple(b"HPO"), trading=tuple(b"T")),
        HaltRule(b"O", "status", halted=tuple(b"O"), trading=tuple(b"N")),  # of this market alone
    ),
    expect={"version": (1,)},
)
