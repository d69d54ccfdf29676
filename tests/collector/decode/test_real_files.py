"""The real market-data files against scapy's own dissection of the same bytes, field by field."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scapy.layers.inet import UDP
from scapy.utils import rdpcap

from collector.decode import cme, iex, itch, registry
from collector.decode.blocks import BlockDecoder
from collector.decode.layout import layout
from collector.decode.protocol import Protocol
from collector.packet.block import rows_at

DATA = os.environ.get("TAILSIGHT_REAL_DATA", "")
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not DATA, reason="set TAILSIGHT_REAL_DATA to the folder with the real market-data captures"),
]
FILES = {
    "nasdaq-itch50-moldudp64": itch.PROTOCOL,
    "cme-mdp3-incremental-refresh-book": cme.PROTOCOL,
    "cme-mdp3-trade-summary": cme.PROTOCOL,
    "iex-deep-plus-all-message-types": iex.PROTOCOL,
}


def payloads(name: str) -> list[bytes]:
    return [bytes(p[UDP].payload) for p in rdpcap(str(Path(DATA) / "marketdata" / f"{name}.pcap"))]


def placed(parts: list[bytes]) -> tuple[np.ndarray[Any, Any], ...]:
    lengths = np.array([len(p) for p in parts], dtype=np.int64)
    return np.frombuffer(b"".join(parts), np.uint8), np.cumsum(lengths) - lengths, lengths


def plain(value: Any) -> Any:
    return value.tobytes() if isinstance(value, np.void) else value.item()


def compare(packet: Any, cls: Any, data: np.ndarray[Any, Any], at: int) -> int:
    """Every fixed field of a class, as numpy reads it, against the dissected packet; how many there were."""
    derived = layout(cls)
    rows = rows_at(data, np.array([at]), derived.size)
    compared = 0
    for name, field in derived.fields.items():
        if field.kind != "raw":
            assert plain(field.read(rows)[0]) == packet.getfieldval(name), (cls, name)
            compared += 1
    return compared


@pytest.mark.parametrize("name", FILES)
def test_every_field_agrees_with_scapy(name: str) -> None:
    protocol = FILES[name]
    parts = payloads(name)
    data, starts, lengths = placed(parts)
    got = BlockDecoder(protocol).decode(data, starts, lengths)
    assert (got.faults, got.unknown, got.malformed, got.sample_errors) == ({}, 0, 0, 0)
    dissected = [protocol.packet(p) for p in parts]
    kinds: Counter[str] = Counter()
    fields = message = 0
    for row, packet in enumerate(dissected):
        fields += compare(packet, protocol.packet, data, int(starts[row]))
        assert got.datagrams.sequence[row] == packet.sequence
        assert not packet.payload, "scapy left bytes"
        for one in packet.messages:
            header = int(got.message_at[message]) - layout(type(one)).size
            fields += compare(one, type(one), data, header)
            cls = type(one.body)
            assert cls in protocol.bodies.values()
            assert len(bytes(one.body)) == got.message_len[message]
            at = int(got.message_at[message])
            fields += compare(one.body, cls, data, at)
            listed = layout(cls).items
            for i, element in enumerate(getattr(one.body, listed.name) if listed else ()):
                size = layout(type(element)).size
                fields += compare(element, type(element), data, at + layout(cls).size + i * size)
            kinds[cls.__name__] += 1
            message += 1
    assert message == len(got.message_at)
    assert fields > 30
    assert Counter({k.partition(" ")[2]: n for k, n in got.by_kind().items()}) == kinds


@pytest.mark.parametrize("name", FILES)
def test_instruments_are_those_that_scapy_finds(name: str) -> None:
    protocol = FILES[name]
    parts = payloads(name)
    decoder = BlockDecoder(protocol)
    got = decoder.decode(*placed(parts))
    expected: list[str] = []
    names: dict[str, str] = {}  # where a message has both number and symbol
    for part in parts:
        for one in protocol.packet(part).messages:
            if protocol.symbol and hasattr(one.body, protocol.symbol):
                names[str(one.body.locate)] = getattr(one.body, protocol.symbol).decode().strip()
            holders = [one.body] if hasattr(one.body, protocol.instrument) else getattr(one.body, "entries", [])
            for holder in holders:
                value = getattr(holder, protocol.instrument, None)
                if value is not None:
                    expected.append(value.decode().strip() if isinstance(value, bytes) else str(value))
    assert bool(names) == bool(protocol.symbol)
    assert [decoder.describe(int(i)) for i in got.instrument] == [names.get(text, text) for text in expected]


def test_the_nasdaq_file_has_its_numbers() -> None:
    got = BlockDecoder(itch.PROTOCOL).decode(*placed(payloads("nasdaq-itch50-moldudp64")))
    assert list(zip(got.datagrams.sequence.tolist(), got.datagrams.count.tolist(), strict=True)) == [
        (14764496, 1),
        (19009117, 38),
    ]
    assert set(got.sessions.values()) == {"000010059B"}
    assert got.sequence.tolist() == [14764496, *range(19009117, 19009155)]
    assert got.time_ns is not None
    assert got.time_ns[0] == 34200007495351  # 09:30:00.007 in New York


@pytest.mark.parametrize(
    ("name", "number", "sent_ns", "messages"),
    [
        ("cme-mdp3-incremental-refresh-book", 1028095, 1536760535685381248, 2),
        ("cme-mdp3-trade-summary", 884140, 1536760535682568739, 5),
    ],
)
def test_the_cme_files_have_their_numbers(name: str, number: int, sent_ns: int, messages: int) -> None:
    got = BlockDecoder(cme.PROTOCOL).decode(*placed(payloads(name)))
    assert got.time_ns is not None
    assert (got.sequence.tolist(), got.time_ns.tolist()) == ([number], [sent_ns])
    assert (got.count.tolist(), got.version) == ([messages], 9)


def test_the_iex_file_has_its_numbers() -> None:
    got = BlockDecoder(iex.PROTOCOL).decode(*placed(payloads("iex-deep-plus-all-message-types")))
    text = "59330/1 46872/66 47218/35 1/67 1/67 47164/3 47213/1 1/67 1/67 47151/1 1/67 47194/4 47150/1"
    headers = zip(got.datagrams.sequence.tolist(), got.datagrams.count.tolist(), strict=True)
    assert " ".join(f"{s}/{n}" for s, n in headers) == text
    assert set(got.sessions.values()) == {"1/1310523392"}


def other_session(protocol: Protocol, parts: list[bytes]) -> np.ndarray[Any, Any]:
    return BlockDecoder(protocol).decode(*placed(parts)).key


def test_keys_differ_by_session_and_number_and_nothing_else() -> None:
    parts = payloads("nasdaq-itch50-moldudp64")
    key = other_session(itch.PROTOCOL, parts)
    assert len(np.unique(key)) == 39
    assert not np.intersect1d(key, other_session(itch.PROTOCOL, [b"000010059C" + p[10:] for p in parts])).size
    assert (key == other_session(itch.PROTOCOL, [p[:-1] + b"\0" for p in parts])).all()


@pytest.mark.parametrize("name", FILES)
def test_the_protocol_is_recognised(name: str) -> None:
    assert registry.guess(*placed(payloads(name))) == FILES[name].name
