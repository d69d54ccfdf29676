"""CME MDP 3.0: SBE messages in numbered packets.

Sources: the packet and message headers and `templates_FixBinary.xml` (schema 1, version 9), cmegroup.com. It is
little-endian. One number per packet and channel, the same on both lines; it starts over every week. A message is a root
block and repeating groups; the first group has a fixed place, later ones follow it and are dissected by scapy.
"""

from __future__ import annotations

from scapy.fields import (
    ByteField,
    FieldLenField,
    LEIntField,
    LELongField,
    LEShortField,
    LESignedIntField,
    LESignedLongField,
    PacketLenField,
    PacketListField,
    StrFixedLenField,
)
from scapy.packet import Packet, Raw

from collector.decode.protocol import HaltRule, Message, Protocol


def _entry(title: str, *fields: object) -> type[Message]:
    return type(title, (Message,), {"name": title, "fields_desc": list(fields)})


def _pad(count: int) -> StrFixedLenField:
    return StrFixedLenField("padding", b"", count)


def _group(name: str, cls: type[Packet]) -> list[object]:
    """Block length and number in group (groupSize), then the entries."""
    count = f"{name}_count"
    return [
        LEShortField(f"{name}_length", 0),
        FieldLenField(count, None, count_of=name, fmt="B"),
        PacketListField(name, [], cls, count_from=lambda p: getattr(p, count)),
    ]


def _group8(name: str, cls: type[Packet]) -> list[object]:
    """The same, padded to 8 bytes (groupSize8Byte)."""
    first, counter, items = _group(name, cls)
    return [first, StrFixedLenField(f"{name}_padding", b"", 5), counter, items]


def _body(title: str, *fields: object) -> type[Packet]:
    """A message: time of the transaction and event flags are common to all."""
    common = [LELongField("transact_time", 0), ByteField("match_event", 0)]
    return type(title, (Packet,), {"name": title, "fields_desc": [*common, *fields]})


_BOOK = _entry(
    "BookEntry", LESignedLongField("price", 0), LESignedIntField("size", 0), LESignedIntField("security", 0),
    LEIntField("report_sequence", 0), LESignedIntField("orders", 0), ByteField("level", 0), ByteField("action", 0),
    StrFixedLenField("entry_type", b"0", 1), _pad(5),
)  # fmt: skip
_BOOK_ORDER = _entry(
    "BookOrder", LELongField("order", 0), LELongField("priority", 0), LESignedIntField("display_size", 0),
    ByteField("reference", 0), ByteField("order_action", 0), _pad(2),
)  # fmt: skip
_ORDER_BOOK = _entry(
    "OrderBookEntry", LELongField("order", 0), LELongField("priority", 0), LESignedLongField("price", 0),
    LESignedIntField("display_size", 0), LESignedIntField("security", 0), ByteField("action", 0),
    StrFixedLenField("entry_type", b"0", 1), _pad(6),
)  # fmt: skip
_TRADE = _entry(
    "TradeEntry", LESignedLongField("price", 0), LESignedIntField("size", 0), LESignedIntField("security", 0),
    LEIntField("report_sequence", 0), LESignedIntField("orders", 0), ByteField("aggressor", 0), ByteField("action", 0),
    LEIntField("trade_entry", 0), _pad(2),
)  # fmt: skip
_TRADE_ORDER = _entry("TradeOrder", LELongField("order", 0), LESignedIntField("last_quantity", 0), _pad(4))
_VOLUME = _entry(
    "VolumeEntry", LESignedIntField("size", 0), LESignedIntField("security", 0), LEIntField("report_sequence", 0),
    ByteField("action", 0), _pad(3),
)  # fmt: skip
_STATISTIC = _entry(
    "StatisticEntry", LESignedLongField("price", 0), LESignedIntField("security", 0),
    LEIntField("report_sequence", 0), ByteField("open_close", 0), ByteField("action", 0),
    StrFixedLenField("entry_type", b"0", 1), LESignedIntField("size", 0), _pad(1),
)  # fmt: skip
_NO_SECURITY = 0x7FFF_FFFF  # Int32NULL: the status is of the whole group
_RESET = _entry("ResetEntry", LEShortField("application", 0))

_STATUS = type(
    "SecurityStatus", (Packet,),
    {
        "name": "SecurityStatus",
        "fields_desc": [
            LELongField("transact_time", 0), StrFixedLenField("group", b"", 6), StrFixedLenField("asset", b"", 6),
            LESignedIntField("status_security", _NO_SECURITY), LEShortField("trade_date", 0),
            ByteField("match_event", 0), ByteField("trading_status", 17), ByteField("halt_reason", 0),
            ByteField("trading_event", 0),
        ],
    },
)  # fmt: skip

BODIES: dict[bytes | int, type[Packet]] = {
    4: _body("ChannelReset", *_group("entries", _RESET)),
    12: type("AdminHeartbeat", (Packet,), {"name": "AdminHeartbeat", "fields_desc": []}),
    30: _STATUS,
    32: _body("MDIncrementalRefreshBook32", _pad(2), *_group("entries", _BOOK), *_group8("orders", _BOOK_ORDER)),
    37: _body("MDIncrementalRefreshVolume", _pad(2), *_group("entries", _VOLUME)),
    46: _body("MDIncrementalRefreshBook", _pad(2), *_group("entries", _BOOK), *_group8("orders", _BOOK_ORDER)),
    47: _body("MDIncrementalRefreshOrderBook", _pad(2), *_group("entries", _ORDER_BOOK)),
    48: _body(
        "MDIncrementalRefreshTradeSummary", _pad(2), *_group("entries", _TRADE), *_group8("orders", _TRADE_ORDER)
    ),
    51: _body("MDIncrementalRefreshSessionStatistics", _pad(2), *_group("entries", _STATISTIC)),
}


def _dissect(data: bytes, _parent: Packet | None = None) -> Packet:
    return BODIES.get(getattr(_parent, "template", -1), Raw)(data)


class SbeMessage(Message):
    """An SBE message with its size, which counts itself."""

    name = "MDP 3.0 message"
    fields_desc = [  # noqa: RUF012 - scapy declares it so
        FieldLenField("size", None, length_of="body", fmt="<H", adjust=lambda _, x: x + 10),
        LEShortField("block_length", 0),
        LEShortField("template", 0),
        LEShortField("schema", 1),
        LEShortField("version", 9),
        PacketLenField("body", Raw(), _dissect, length_from=lambda p: max(0, p.size - 10)),
    ]


class Mdp3(Packet):  # type: ignore[misc, unused-ignore]
    """An MDP 3.0 packet."""

    name = "CME MDP 3.0"
    fields_desc = [  # noqa: RUF012 - scapy declares it so
        LEIntField("sequence", 1),
        LELongField("sending_time", 0),
        PacketListField("messages", [], SbeMessage),
    ]


PROTOCOL = Protocol(
    name="cme",
    packet=Mdp3,
    sequence="sequence",
    unit="datagram",
    time="sending_time",
    kind="template",
    bodies=BODIES,
    instrument="security",
    halts=(
        # SecurityTradingStatus: 2 halt, 4 close, 15 new price indication, 18 not available, 21 pre-open, 26 post-close;
        # 17 ready to trade. A status of a whole group names no instrument: which are in it is not on this channel.
        HaltRule(
            30,
            "trading_status",
            halted=(2, 4, 15, 18, 21, 26),
            trading=(17,),
            instrument="status_security",
            nobody=_NO_SECURITY,
        ),
    ),
    version="version",
)
