"""A protocol: scapy classes, and which of their fields says what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scapy.packet import Packet, Raw

from collector.decode.layout import Layout, LayoutError, layout

Ids = Callable[[list[bytes], NDArray[np.int64], NDArray[np.int64]], NDArray[np.uint64]]


class Message(Packet):  # type: ignore[misc, unused-ignore]
    """Base of the elements of a list: bytes behind an element belong to the next."""

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes]:
        """Leave what follows to the list."""
        return b"", s


@dataclass(frozen=True, slots=True)
class HaltRule:
    """A message that says whether an instrument is traded.

    Attributes:
        kind: its type.
        field: of its body, a number or one character, with the state.
        halted: values from which on nothing is expected of the instrument.
        trading: values from which on it is traded as usual. Other values change nothing.
        instrument: field with the instrument; "" = that of the protocol.
        nobody: value of `instrument` that names none.
    """

    kind: bytes | int
    field: str
    halted: tuple[int, ...]
    trading: tuple[int, ...]
    instrument: str = ""
    nobody: int | None = None


@dataclass(frozen=True, slots=True)
class Protocol:
    """What a datagram of a protocol is, and the names of the fields that matter.

    Attributes:
        name: what it is called in configuration and reports.
        packet: the class of a whole datagram: fixed fields, then `PacketListField` of messages.
        sequence: field of `packet` with the number of the first message, or of the datagram.
        session: fields of `packet` that name the session; numbers start over with each.
        unit: what is numbered and lost.
        count: field of `packet` with how many numbers it takes; "" = the one that counts the list of messages.
        end_count: value of `count` that ends the session.
        time: field of `packet` with the send time, epoch ns; or of the messages, when `time_zone` is given.
        time_zone: zone in which `time` counts ns from midnight.
        kind: field with the type of a message: of the message class, or the first of every body.
        bodies: body class by type.
        instrument: field with the instrument: of a body, or of the elements of its first list.
        symbol: field with the text of the instrument, in some of the bodies that have its number.
        halts: messages that say whether an instrument is traded, each a reason of its own.
        version: field of the message class with the version of the schema.
        expect: values that fields of `packet` must have for it to be this protocol at all.
        space: key space of the keys.
        ids: makes integer identifiers from (session bytes, session of each unit, number of each unit); by default the
            identifier is the session's bytes, then the number in 8 bytes, little-endian.
    """

    name: str
    packet: type[Packet]
    sequence: str
    session: tuple[str, ...] = ()
    unit: Literal["message", "datagram"] = "message"
    count: str = ""
    end_count: int | None = None
    time: str = ""
    time_zone: str = ""
    kind: str = ""
    bodies: Mapping[bytes | int, type[Packet]] = field(default_factory=dict)
    instrument: str = ""
    symbol: str = ""
    halts: tuple[HaltRule, ...] = ()
    version: str = ""
    expect: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    space: str = "feed"
    ids: Ids | None = None


@dataclass(frozen=True, slots=True)
class Derived:
    """The layouts of a protocol: of the datagram, of a message, of each body by type."""

    packet: Layout
    message: Layout | None
    bodies: Mapping[bytes | int, Layout]


def derive(protocol: Protocol) -> Derived:
    """Derive all layouts. Raises LayoutError when a field that matters is absent or has no fixed place."""
    packet = layout(protocol.packet)
    named = [protocol.sequence, *protocol.session, protocol.count, *protocol.expect]
    if not protocol.time_zone:
        named.append(protocol.time)
    for name in named:
        if name and name not in packet.fields:
            raise LayoutError(
                f"protocol {protocol.name}: {protocol.packet.__name__} has no field {name!r} at a fixed place; it has "
                f"{', '.join(packet.fields)}"
            )
    message = None
    if packet.items is not None:
        if not (isinstance(packet.items.cls, type) and issubclass(packet.items.cls, Packet)):
            raise LayoutError(f"protocol {protocol.name}: {packet.items.name} must list one class")
        message = layout(packet.items.cls)
        if not message.size:
            raise LayoutError(f"protocol {protocol.name}: {message.cls.__name__} must start with a fixed field")
        if message.items is not None or message.variable or (message.body and not message.body.field):
            raise LayoutError(
                f"protocol {protocol.name}: {message.cls.__name__} must be fixed fields and at most one body whose "
                "length is a FieldLenField, so that the next message can be found"
            )
    elif packet.body is not None or packet.variable:
        raise LayoutError(f"protocol {protocol.name}: what follows the fixed fields must be a PacketListField")
    if protocol.unit == "message" and not (protocol.count or (packet.items and packet.items.field)):
        raise LayoutError(f"protocol {protocol.name}: messages are numbered, so a field must count them")
    bodies = {kind: layout(cls) for kind, cls in protocol.bodies.items()}
    return Derived(packet, message, bodies)


def by_kind(bodies: Mapping[Any, type[Packet]], size: int) -> Callable[..., Packet]:
    """For `PacketLenField`: dissects a body by its first `size` bytes, as the class that `bodies` has for them."""

    def dissect(data: bytes, _parent: Packet | None = None) -> Packet:
        return bodies.get(data[:size], Raw)(data)

    return dissect
