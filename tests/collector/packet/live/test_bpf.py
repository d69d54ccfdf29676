"""Filters: our expressions pass what tcpdump's pass, programs are checked, and the kernel takes both."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.utils import wrpcap

from collector.packet.block import LinkType
from collector.packet.live import bpf
from collector.packet.live.bpf import FilterError, Instruction
from collector.packet.live.bpf_expression import compile_filter
from collector.packet.live.ring import PacketRing
from tests.collector.packet.live.netns import as_root
from tests.needs import program

ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
FRAMES = [
    bytes(ETHER / layers)
    for layers in [
        *(IP(src=s, dst=d) / t(sport=a, dport=b) / bytes(n)
          for s, d, a, b, n in (("10.0.0.1", "10.0.0.2", 5_555, 80, 0), ("10.0.1.9", "10.0.0.1", 53, 5_556, 400),
                                ("192.168.7.1", "10.0.0.2", 1, 65_535, 1_200))
          for t in (UDP, TCP)),
        IP(src="10.0.0.1", dst="10.0.0.2", options=b"\x01" * 8) / UDP(sport=5_555, dport=9) / b"x",
        IP(src="10.0.0.1", dst="10.0.0.2", frag=4) / UDP(sport=5_555, dport=9) / b"x",
        IP(src="10.0.0.1", dst="10.0.0.2") / ICMP(),
        IP(src="10.0.0.1", dst="10.0.0.2", proto=132) / (b"\x15\xb3\x00\x50" + bytes(20)),
        *(IPv6(src="fd00::1", dst="fd00:0:0:1::2") / t(sport=5_555, dport=80) / bytes(5) for t in (UDP, TCP)),
        ARP(psrc="10.0.0.1", pdst="10.0.0.7"),
        b"\xff" * 40,
    ]
]  # fmt: skip
EXPRESSIONS = [
    "ip", "ip6", "arp", "tcp", "udp", "icmp", "not ip", "udp port 5555", "tcp port 5555", "port 5555",
    "src port 5555", "dst port 80", "udp src port 53", "tcp dst portrange 5550-5560", "portrange 50-5600",
    "host 10.0.0.1", "src host 10.0.0.1", "dst host 10.0.0.2", "net 10.0.0.0/24", "src net 10.0.0.0/16",
    "host fd00::1", "net fd00:0:0:1::/64", "dst net fd00::/16", "greater 500", "less 60",
    "udp and (port 5555 or port 53) and not host 10.0.1.9", "not (tcp or udp)", "ip and not port 80 or arp",
    "udp && !port 53 || icmp", "net 0.0.0.0/0",
]  # fmt: skip


def passes(instructions: list[Instruction], frame: bytes) -> int:
    """What the kernel's interpreter would return, by <linux/filter.h>."""
    a = x = at = 0

    def load(offset: int, size: int) -> int:
        if offset >= 0xFFFFF000:
            return 0  # ancillary data: no VLAN tag was taken off
        if offset + size > len(frame):
            raise IndexError
        return int.from_bytes(frame[offset : offset + size], "big")

    try:
        while True:
            code, jt, jf, k = instructions[at]
            at += 1
            if code == bpf.RET_K:
                return k
            if code == bpf.JA:
                at += k
            elif code in (bpf.JEQ_K, bpf.JGT_K, bpf.JGE_K, bpf.JSET_K):
                true = {bpf.JEQ_K: a == k, bpf.JGT_K: a > k, bpf.JGE_K: a >= k, bpf.JSET_K: bool(a & k)}[code]
                at += jt if true else jf
            elif code == bpf.LDX_MSH:
                x = 4 * (load(k, 1) & 15)
            elif code == bpf.LD_LEN:
                a = len(frame)
            elif code == bpf.AND_K:
                a &= k
            elif code == bpf.LD_H_IND:
                a = load(x + k, 2)
            else:
                a = load(k, {bpf.LD_W_ABS: 4, bpf.LD_H_ABS: 2, bpf.LD_B_ABS: 1}[code])
    except IndexError:
        return 0


def numbers_tcpdump_passes(tcpdump: str, file: Path, expression: str) -> list[int]:
    """Which frames it passes: each is longer on the wire than the one before, so its length names it."""
    out = subprocess.run(
        [tcpdump, "-n", "-r", str(file), "-w", "-", expression], capture_output=True, check=True
    ).stdout
    found, at = [], 24
    while at < len(out):
        size = int.from_bytes(out[at + 8 : at + 12], "little")
        found.append(FRAMES.index(out[at + 16 : at + 16 + size]))
        at += 16 + size
    return found


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_passes_what_tcpdump_passes(expression: str, tmp_path: Path) -> None:
    tcpdump = program("tcpdump", "tcpdump")
    assert len(set(FRAMES)) == len(FRAMES)
    wrpcap(str(tmp_path / "all.pcap"), [Ether(f) for f in FRAMES])
    compiled = compile_filter(expression, 96)
    mine = [n for n, frame in enumerate(FRAMES) if passes(compiled, frame)]
    assert mine == numbers_tcpdump_passes(tcpdump, tmp_path / "all.pcap", expression)
    assert {passes(compiled, FRAMES[n]) for n in mine} <= {96}


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_the_text_of_tcpdump_is_taken_with_our_snap_length(expression: str) -> None:
    tcpdump = program("tcpdump", "tcpdump")
    text = subprocess.run(
        [tcpdump, "-y", "EN10MB", "-ddd", expression], capture_output=True, text=True, check=True
    ).stdout
    theirs = bpf.with_snap(bpf.from_text(text), 77)
    assert {i.k for i in theirs if i.code == bpf.RET_K} <= {0, 77}
    bpf.check(theirs)


def test_a_long_expression_jumps_far() -> None:
    ports = list(range(7_000, 7_060))
    compiled = compile_filter(" or ".join(f"udp port {p}" for p in ports), 128)
    for port, wanted in ((7_000, 128), (7_059, 128), (7_060, 0)):
        frame = bytes(ETHER / IP(src="1.1.1.1", dst="2.2.2.2") / UDP(sport=port, dport=9))
        assert passes(compiled, frame) == wanted


def test_raw_ip_starts_with_the_ip_header() -> None:
    compiled = compile_filter("udp port 9 and host 2.2.2.2", 64, LinkType.RAW)
    assert passes(compiled, bytes(IP(src="1.1.1.1", dst="2.2.2.2") / UDP(sport=1, dport=9)))
    assert not passes(compiled, bytes(IP(src="1.1.1.1", dst="2.2.2.2") / UDP(sport=1, dport=8)))


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "empty"),
        ("udp prot 5", "prot"),
        ("port", "want a number after 'port'"),
        ("port http", "names of services are not looked up"),
        ("port 70000", "not a number up to 65535"),
        ("host example.com", "names are not looked up"),
        ("net 10.0.0.1/8", "has host bits set"),
        ("(udp", "not closed"),
        ("udp udp", "did not expect 'udp'"),
        ("ip[6] = 3", "cannot read"),
        ("ether proto 5", "tcpdump -ddd"),
        ("portrange 9-3", "ends before"),
        ("not " * 60 + "ip", "nested"),
        ("ip or " * 400 + "ip", "words"),
    ],
)
def test_what_is_wrong_is_named(expression: str, message: str) -> None:
    with pytest.raises(FilterError) as caught:
        compile_filter(expression, 96)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "number of its instructions"),
        ("hello", "numbers only"),
        ("2\n6 0 0 1", "says 2 instructions, 1 follow"),
        ("1\n6 0 0", "instruction 0"),
        ("1\n255 0 0 1", "no opcode 0xff"),
        ("2\n21 5 0 1\n6 0 0 1", "jumps 5 ahead"),
        ("2\n5 0 0 7\n6 0 0 1", "jumps 7 ahead"),
        ("1\n40 0 0 12", "must return"),
        ("2\n52 0 0 0\n6 0 0 1", "divides by 0"),
        ("2\n96 0 0 16\n6 0 0 1", "16 words"),
    ],
)
def test_a_wrong_program_is_named(text: str, message: str) -> None:
    with pytest.raises(FilterError) as caught:
        bpf.from_text(text)
    assert message in str(caught.value)


def test_a_computed_length_cannot_be_bounded() -> None:
    with pytest.raises(FilterError, match="snap length"):
        bpf.with_snap(bpf.from_text("2\n0 0 0 60000\n22 0 0 0"), 96)


@given(st.text(max_size=60))
def test_any_text_compiles_or_is_refused(text: str) -> None:
    for compiler in (lambda t: compile_filter(t, 96), bpf.from_text):
        try:
            compiler(text)
        except FilterError:
            continue


@given(st.lists(st.tuples(st.integers(0, 300), *[st.integers(0, 255)] * 2, st.integers(0, 2**32 - 1)), max_size=20))
def test_any_program_is_checked_without_a_crash(lines: list[tuple[int, int, int, int]]) -> None:
    instructions = [Instruction(*line) for line in lines]
    try:
        bpf.check(instructions)
    except FilterError:
        return
    assert instructions[-1].code in (bpf.RET_K, bpf.RET_A)


@pytest.mark.parametrize("expression", [*EXPRESSIONS, "vlan", "vlan 7 and udp"])
def test_the_kernel_takes_what_we_compile(expression: str) -> None:
    as_root()
    ring: Any = PacketRing("lo", mib=2, program=compile_filter(expression, 96))
    ring.close()


def test_what_the_kernel_refuses_is_an_error() -> None:
    as_root()
    # Our check passes it; the kernel also wants memory to be written before it is read.
    with pytest.raises(OSError, match="Invalid argument"):
        PacketRing("lo", mib=2, program=bpf.from_text("2\n96 0 0 3\n22 0 0 0"))
