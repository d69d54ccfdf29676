"""The short way says what the long way says, or nothing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether

from collector.packet.headers import parse
from collector.packet.live.tpacket import read_block
from collector.packet.uniform import uniform_udp
from tests.collector.packet.live.blocks import Frame, ring_block

ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
BYTE = st.integers(0, 255)
PLAIN = bytes(ETHER / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=2) / bytes(20))
ODD = {
    "tcp": ETHER / IP(src="10.0.0.1", dst="10.0.0.2") / TCP(),
    "ipv6": ETHER / IPv6(src="fd00::1", dst="fd00::2") / UDP() / bytes(20),
    "vlan": ETHER / Dot1Q(vlan=3) / IP(src="10.0.0.1", dst="10.0.0.2") / UDP() / bytes(20),
    "options": ETHER / IP(src="10.0.0.1", dst="10.0.0.2", options=b"\x01" * 4) / UDP() / bytes(20),
    "fragment": ETHER / IP(src="10.0.0.1", dst="10.0.0.2", frag=2) / UDP() / bytes(20),
    "first fragment": ETHER / IP(src="10.0.0.1", dst="10.0.0.2", flags="MF") / UDP() / bytes(20),
    "udp length": ETHER / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(len=900) / bytes(20),
    "udp length 0": ETHER / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(len=0) / bytes(20),
    "ip length": ETHER / IP(src="10.0.0.1", dst="10.0.0.2", len=900) / UDP() / bytes(20),
    "short": b"\x00" * 20,
}


def same(frames: list[bytes]) -> bool:
    """Whether the short way was taken; fails where it says something else."""
    live = read_block(ring_block([Frame(f) for f in frames]), 0, 1 << 20, 0)
    short, long = uniform_udp(live.block), parse(live.block)
    if short is None:
        return False
    for column in dataclasses.fields(long):
        if column.name == "tcp":
            assert len(short.tcp.index) == len(long.tcp.index) == 0
            continue
        ours, theirs = getattr(short, column.name), getattr(long, column.name)
        assert ours.dtype == theirs.dtype, column.name
        assert np.array_equal(ours, theirs), column.name
    return True


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(BYTE, st.integers(0, 65_535), st.integers(1, 255), BYTE, st.integers(0, 60)),
        min_size=64,
        max_size=80,
    )
)  # fmt: skip
def test_plain_udp_takes_the_short_way(packets: list[tuple[int, int, int, int, int]]) -> None:
    frames = []
    for host, port, ttl, tos, size in packets:
        frame = bytearray(PLAIN[:42] + bytes(size))
        frame[15], frame[22], frame[29] = tos, ttl, host
        frame[34:36] = port.to_bytes(2, "big")
        frame[16:18], frame[38:40] = (28 + size).to_bytes(2, "big"), (8 + size).to_bytes(2, "big")
        frames.append(bytes(frame))
    assert same(frames)


@pytest.mark.parametrize("odd", ODD)
def test_anything_else_takes_the_long_way(odd: str) -> None:
    assert same([PLAIN] * 70)
    assert not same([PLAIN] * 69 + [bytes(ODD[odd])])


@given(st.integers(0, 41), st.integers(0, 255))
def test_any_changed_byte_is_read_alike_or_left(at: int, value: int) -> None:
    frame = bytearray(PLAIN)
    frame[at] = value
    same([PLAIN] * 69 + [bytes(frame)])
