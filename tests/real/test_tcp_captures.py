"""Real captures against the answers of tshark, live and as published."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest

from collector.packet.importer import analyse
from tests.collector.packet.tshark import fields, ns

pytestmark = pytest.mark.real

ANALYSIS = {
    "retransmissions": "tcp.analysis.retransmission",
    "spurious_retransmissions": "tcp.analysis.spurious_retransmission",
    "out_of_order": "tcp.analysis.out_of_order",
    "duplicate_acks": "tcp.analysis.duplicate_ack",
    "lost_segments": "tcp.analysis.lost_segment",
    "zero_windows": "tcp.analysis.zero_window",
}
FILES = [
    "echo-connections.pcap.gz",
    "http-1000-requests-one-dropped-response.pcap.gz",
    "ssh-dups.pcap",
    "reassembly.pcap",
]


@pytest.mark.parametrize("name", FILES)
def test_the_analysis_agrees_with_tshark(real_data: Path, name: str) -> None:
    file = real_data / "tcp" / name
    rows = fields(file, "tcp.stream", "tcp.analysis.ack_rtt", "tcp.analysis.initial_rtt", *ANALYSIS.values())
    report = analyse([file])
    assert report.packets == len(rows)
    assert report.tcp_conversations == len({row[0] for row in rows})
    rtt = sorted(ns(row[1]) for row in rows if row[1])
    assert report.rtt.samples == len(rtt)
    assert (report.rtt.min_ns, report.rtt.max_ns) == (rtt[0], rtt[-1])
    assert report.rtt.p50_ns == rtt[math.ceil(0.5 * len(rtt)) - 1]
    assert report.rtt.p99_ns == rtt[math.ceil(0.99 * len(rtt)) - 1]
    handshakes = {row[0]: ns(row[2]) for row in rows if row[2]}
    assert report.handshake.samples == len(handshakes)
    assert report.handshake.max_ns == max(handshakes.values())
    for column, figure in enumerate(ANALYSIS, start=3):
        assert getattr(report, figure) == sum(1 for row in rows if len(row) > column and row[column]), figure
    assert not report.damaged


def test_the_published_answers(real_data: Path) -> None:
    reports = {name: analyse([real_data / "tcp" / name]) for name in FILES}
    echo, http, ssh, holes = (reports[name] for name in FILES)
    assert (echo.packets, echo.rtt.samples, echo.retransmissions) == (82_582, 54_000, 241)
    assert (echo.rtt.p50_ns, echo.rtt.p99_ns, echo.rtt.max_ns) == (62_000, 40_226_000, 3_112_266_000)
    assert (http.packets, http.rtt.samples, http.lost_segments) == (4_102, 2_161, 1)
    assert (http.rtt.p50_ns, http.rtt.max_ns) == (12_000, 795_000)
    assert http.rtt.p99_ns == pytest.approx(619_000, rel=0.02)
    assert (ssh.packets, ssh.rtt.samples, ssh.rtt.p50_ns) == (377, 56, 165_000)
    assert (ssh.retransmissions, ssh.fast_retransmissions, ssh.duplicate_acks) == (166, 92, 114)
    assert (holes.packets, holes.rtt.samples, holes.retransmissions, holes.lost_segments) == (117, 35, 20, 8)


def test_a_fast_retransmission_needs_duplicate_acks(real_data: Path) -> None:
    # tshark calls three repeated FINs fast although no duplicate ACK was sent: docs/pcap.md, "fast retransmission".
    rows = fields(real_data / "tcp" / "reassembly.pcap", "tcp.analysis.fast_retransmission", "tcp.flags.fin")
    assert [row[1] for row in rows if row[0]] == ["1", "1", "1"]
    assert analyse([real_data / "tcp" / "reassembly.pcap"]).fast_retransmissions == 0


def test_lengths_that_lie_are_counted_and_the_packets_still_analysed(real_data: Path) -> None:
    rows = fields(real_data / "tcp" / "reassembly.pcap", "ip.len", "frame.len")
    lies = sum(int(row[0]) > int(row[1]) - 14 for row in rows)
    report = analyse([real_data / "tcp" / "reassembly.pcap"])
    assert report.malformed == {"ip_total_length": lies}
    assert report.tcp_packets == report.packets


def test_market_data_is_udp_in_file_order(real_data: Path) -> None:
    file = real_data / "marketdata" / "iex-deep-plus-all-message-types.pcap"
    times = [ns(row[0]) for row in fields(file, "frame.time_epoch")]
    report = analyse([file])
    assert (report.packets, report.flows_by_protocol) == (13, {17: 1})
    assert report.backwards == sum(b < a for a, b in pairwise(times))
    assert (report.first_ns, report.last_ns) == (min(times), max(times))
