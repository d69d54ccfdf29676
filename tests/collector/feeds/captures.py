"""Captures of feeds, written for tests."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from tests.collector.decode.test_blocks import quotes
from tests.collector.packet import writing
from tests.collector.packet.writing import START


def datagram(port: int, payload: bytes, target: str = "10.0.0.1") -> bytes:
    return bytes(Ether(dst="02:00:00:00:00:01") / IP(src="10.0.0.9", dst=target) / UDP(sport=9, dport=port) / payload)


def write(file: Path, packets: Iterable[tuple[int, bytes]]) -> Path:
    file.write_bytes(writing.pcap(packets))
    return file


def two_lines(file: Path) -> Path:
    """Port 7001 loses 3 and 4, port 7002 loses 4 and says something else under 5; port 7003 is nobody's protocol."""
    packets = [(START, datagram(7003, b"hello"))]
    for number in range(1, 11):
        payload = quotes(number, 1)
        if number not in (3, 4):
            packets.append((START + number * 1000, datagram(7001, payload)))
        if number != 4:
            other = payload[:-1] + b"!" if number == 5 else payload
            packets.append((START + number * 1000 + 30, datagram(7002, other)))
    return write(file, packets)
