# ruff: noqa: RUF012 - scapy declares fields_desc so
"""Layouts are derived from scapy classes, agree with scapy, and are refused where they cannot be followed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy import fields as f
from scapy.packet import Packet

from collector.decode import demo, itch
from collector.decode.layout import LayoutError, layout
from collector.decode.protocol import Message, Protocol, derive

NUMBERS = [
    f.ByteField, f.SignedByteField, f.ShortField, f.SignedShortField, f.LEShortField, f.LESignedShortField,
    f.ThreeBytesField, f.X3BytesField, f.LEThreeBytesField, f.IntField, f.SignedIntField, f.LEIntField,
    f.LESignedIntField, f.LongField, f.SignedLongField, f.LELongField, f.LESignedLongField, f.XLongField,
    f.IEEEFloatField, f.IEEEDoubleField,
]  # fmt: skip


@given(st.lists(st.sampled_from([*NUMBERS, "bits", "text"]), min_size=1, max_size=12), st.binary(min_size=120))
def test_any_fixed_class_is_read_as_scapy_reads_it(kinds: list[Any], data: bytes) -> None:
    described: list[Any] = []
    for i, kind in enumerate(kinds):
        if kind == "bits":
            described += [f.BitField(f"a{i}", 0, 3), f.BitField(f"b{i}", 0, 10), f.BitField(f"c{i}", 0, 3)]
        elif kind == "text":
            described.append(f.StrFixedLenField(f"a{i}", b"", 5))
        else:
            described.append(kind(f"a{i}", 0))
    cls = type("Any", (Packet,), {"name": "any", "fields_desc": described})
    derived = layout(cls)
    assert derived.fixed
    assert list(derived.fields) == [d.name for d in described]
    packet = cls(data)
    assert derived.size == len(data) - len(packet.payload)
    values = derived.read(np.frombuffer(data, np.uint8).reshape(1, -1))
    for name, value in values.items():
        got = value[0].tobytes() if value.dtype.kind == "V" else value[0].item()
        wanted = packet.getfieldval(name)
        assert got == wanted or (got != got and wanted != wanted), name


def test_what_has_no_fixed_place_ends_the_layout() -> None:
    class Loose(Packet):
        fields_desc = [
            f.ByteField("a", 0),
            f.ConditionalField(f.ByteField("b", 0), lambda p: p.a > 3),
            f.IntField("c", 0),
        ]

    derived = layout(Loose)
    assert (list(derived.fields), derived.size, derived.variable) == (["a"], 1, ("b", "c"))


def test_a_field_that_scapy_turns_into_text_keeps_its_place() -> None:
    class Addressed(Packet):
        fields_desc = [f.IPField("a", "0.0.0.0"), f.ShortField("b", 0)]  # noqa: S104 - a default value

    derived = layout(Addressed)
    assert derived.fields["a"].kind == "raw"
    assert derived.fields["b"].at == 4


def test_a_field_with_a_decoder_of_its_own_is_not_read_wrongly() -> None:
    class Turned(f.ShortField):
        def m2i(self, pkt: Any, x: Any) -> int:  # noqa: ARG002 - scapy's signature
            return int(x) + 1

    class Odd(Packet):
        fields_desc = [Turned("a", 0)]

    assert layout(Odd).fields["a"].kind == "raw"


def test_a_length_by_a_function_alone_is_refused_with_what_to_declare() -> None:
    class Blind(Message):
        fields_desc = [f.ShortField("n", 0), f.PacketLenField("body", None, itch.Mold, length_from=lambda p: p.n)]

    with pytest.raises(LayoutError, match="FieldLenField"):
        layout(Blind)


@pytest.mark.parametrize(
    ("adjust", "scale", "offset"), [(lambda _, x: x + 10, 1, 10), (lambda _, x: x // 4, 4, 0), (lambda _, x: x, 1, 0)]
)
def test_lengths_that_count_otherwise_are_followed(adjust: Any, scale: int, offset: int) -> None:
    class Measured(Message):
        fields_desc = [
            f.FieldLenField("n", None, length_of="body", adjust=adjust),
            f.PacketLenField("body", None, itch.Mold, length_from=lambda p: p.n),
        ]

    body = layout(Measured).body
    assert body is not None
    assert (body.scale, body.offset) == (scale, offset)


def test_an_absent_field_is_named_with_what_there_is() -> None:
    with pytest.raises(LayoutError, match=r"no field 'number'.*session, sequence, count"):
        derive(Protocol("x", demo.Datagram, sequence="number"))
